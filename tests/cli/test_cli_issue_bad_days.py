"""Bulk runs at the command line on bad days: exit codes, what is said, and what the same command does next."""

import csv
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest
from cryptography import x509

from sectigo_async.pki import generate_key, load_key
from sectigo_async.sandbox import Fault, FaultRule, SandboxConfig
from sectigo_async.sandbox.csr import SigningRequest
from sectigo_async.sandbox.issuing import issue_for_request

Start = Callable[..., "subprocess.Popen[str]"]
Listed = Callable[[int], None]
Serve = Callable[..., "AbstractContextManager[str]"]

PROGRAM = str(Path(sys.executable).with_name("sectigo-async"))
LOGIN = {"SECTIGO_USERNAME": "demo", "SECTIGO_PASSWORD": "demo-password"}
UPLOAD = "POST /api/v1/batches/upload"
DOWNLOAD = "GET /api/v1/batches/{id}/download"
ISSUE = ("issue", "d.csv", "-p", "42", "--out", "c", "--settle", "1")
BY_FIVES = (*ISSUE, "--batch-size", "5", "--max-open", "5")
GOES_ON = "nothing is lost: the same command goes on where this one stopped"


@pytest.fixture
def listed(tmp_path: Path) -> Listed:
    """Write a list of devices."""

    def write(count: int) -> None:
        names = [f"gw{number}.example.com\n" for number in range(count)]
        (tmp_path / "d.csv").write_text("".join(["common_name\n", *names]))

    return write


def until(condition: Callable[[], object], process: "subprocess.Popen[str]") -> None:
    """Wait until something has happened while a process runs."""
    end = time.monotonic() + 30
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.01)


def ended(process: "subprocess.Popen[str]", code: int) -> tuple[dict[str, Any], str]:
    """Return what a process printed and said, once it has ended with an exit code."""
    out, said = process.communicate(timeout=50)
    assert process.returncode == code, said
    assert "Traceback" not in said
    return json.loads(out) if out else {}, said


def check(stats: dict[str, Any], directory: Path, count: int, *, orders: int | None = None) -> None:
    """Check that each device was ordered once, and has its certificate, beside its key."""
    assert Counter(stats["orders_by_key"].values()) == {1: count}
    assert orders is None or stats["orders"] == orders
    for number in range(count):
        folder = directory / f"gw{number}.example.com"
        certificate = x509.load_pem_x509_certificate((folder / "cert.pem").read_bytes())
        assert certificate.public_key() == load_key((folder / "privkey.pem").read_bytes()).public_key()


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def slow(simulate: Callable[[SandboxConfig], Any]) -> Iterator[Any]:
    """A simulator that the test reaches into; what is ordered gets ready once the test lets a minute pass."""
    with simulate(SandboxConfig(issue_delay=60)) as running:
        yield running


def test_a_certificate_for_another_key_is_kept_and_listed(
    live: Any, start: Start, listed: Listed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def issued(ca: Any, profile: Any, request: SigningRequest, formats: Any) -> Any:
        if request.common_name == "gw1.example.com":
            request = attrs.evolve(request, public_key=generate_key().public_key())
        return issue_for_request(ca, profile, request, formats)

    monkeypatch.setattr("sectigo_async.sandbox.state.issue_for_request", issued)
    listed(3)

    document, said = ended(start(*ISSUE, SECTIGO_ENDPOINT=live.url, **LOGIN), 5)

    assert (document["done"], document["verifyFailed"]) == (2, 1)
    assert "2 done, 1 verify failed" in said
    (error,) = rows(tmp_path / "c" / "errors.csv")
    assert (error["common_name"], error["state"]) == ("gw1.example.com", "verify failed")
    assert error["error"] == "its certificate is for another key"
    assert (tmp_path / "c" / "gw1.example.com" / "cert.pem").exists()
    again, _ = ended(start(*ISSUE, "--retry-failed", SECTIGO_ENDPOINT=live.url, **LOGIN), 5)
    assert (again, live.sandbox.stats()["orders"]) == (document, 1)


def test_licences_that_run_out_are_told_and_the_same_command_goes_on_once_there_are_more(
    slow: Any, start: Start, listed: Listed, tmp_path: Path
) -> None:
    listed(20)
    first = start(*BY_FIVES, SECTIGO_ENDPOINT=slow.url, **LOGIN)
    until(lambda: slow.sandbox.stats()["orders"], first)
    slow.sandbox.ledger._balances[1] = 3
    slow.clock.advance(60)
    document, said = ended(first, 8)
    assert document["halted"] == "5 licences are needed for the next order, and 3 are left"
    assert f"15 planned, 5 done; {document['halted']}" in said
    assert GOES_ON in said

    _, said = ended(start(*BY_FIVES, SECTIGO_ENDPOINT=slow.url, **LOGIN), 2)
    assert "15 licences are needed, and 3 are left" in said
    slow.sandbox.ledger._balances[1] = 15
    slow.sandbox.ledger._issue_delay = 0
    document, _ = ended(start(*BY_FIVES, SECTIGO_ENDPOINT=slow.url, **LOGIN), 0)

    assert document["done"] == 20
    check(slow.sandbox.stats(), tmp_path / "c", 20, orders=4)


def test_an_archive_that_comes_damaged_is_told_and_fetched_by_the_next_run(
    live: Any, start: Start, listed: Listed, tmp_path: Path
) -> None:
    listed(1)
    live.sandbox.faults.replace([FaultRule(route=DOWNLOAD, fault=Fault.TRUNCATED)])

    document, said = ended(start(*ISSUE, "--timeout", "1", SECTIGO_ENDPOINT=live.url, **LOGIN), 8)

    assert (document["ordered"], document["done"]) == (1, 0)
    assert "what came is no ZIP archive" in said
    assert GOES_ON in said
    live.sandbox.faults.replace([])
    ended(start(*ISSUE, SECTIGO_ENDPOINT=live.url, **LOGIN), 0)
    check(live.sandbox.stats(), tmp_path / "c", 1, orders=1)


def test_a_login_that_ends_in_the_middle_stops_the_run_and_tells_how_to_go_on(
    slow: Any, start: Start, listed: Listed, tmp_path: Path
) -> None:
    listed(20)
    token = slow.sandbox.sign_in("demo", "demo-password")["accessToken"]
    with_token = {"SECTIGO_USERNAME": "demo", "SECTIGO_ACCESS_TOKEN": token}
    first = start(*BY_FIVES, SECTIGO_ENDPOINT=slow.url, **with_token)
    until(lambda: slow.sandbox.stats()["orders"], first)
    slow.sandbox.reset_tokens()
    _, said = ended(first, 4)
    assert "the service no longer accepts SECTIGO_ACCESS_TOKEN" in said
    assert GOES_ON in said.replace("Nothing", "nothing")
    assert "login" in said
    assert Counter(row["state"] for row in rows(tmp_path / "c" / "results.csv")) == {"ordered": 5, "planned": 15}

    slow.clock.advance(60)
    slow.sandbox.ledger._issue_delay = 0
    ended(start(*BY_FIVES, SECTIGO_ENDPOINT=slow.url, **LOGIN), 0)

    check(slow.sandbox.stats(), tmp_path / "c", 20, orders=4)


def test_a_batch_that_is_not_ready_is_pending_and_the_next_run_fetches_it(
    slow: Any, start: Start, listed: Listed, tmp_path: Path
) -> None:
    listed(3)

    document, said = ended(start(*ISSUE, "--timeout", "1", SECTIGO_ENDPOINT=slow.url, **LOGIN), 8)

    assert document["ordered"] == 3
    assert "3 ordered" in said
    assert GOES_ON in said
    slow.clock.advance(60)
    _, said = ended(start(*ISSUE, SECTIGO_ENDPOINT=slow.url, **LOGIN), 0)
    assert "0 to order, 3 ordered before" in said
    check(slow.sandbox.stats(), tmp_path / "c", 3, orders=1)


def stats_of(url: str) -> dict[str, Any]:
    with httpx.Client(trust_env=False) as client:
        return dict(client.get(f"{url}/_sandbox/stats").json())


@contextmanager
def dripping(serve: Serve, place: Path) -> Iterator[str]:
    """Serve a simulator of which the first order runs at once, and is answered after minutes."""
    rules = place / "faults.json"
    rules.write_text(json.dumps([{"route": UPLOAD, "fault": "drip", "seconds": 5, "times": 1}]))
    with serve("--issue-delay", "0", "--faults", str(rules)) as url:
        yield url


def twice(number: int) -> Callable[["subprocess.Popen[str]"], None]:
    def send(process: "subprocess.Popen[str]") -> None:
        process.send_signal(number)
        time.sleep(0.5)
        process.send_signal(number)

    return send


CUTS: dict[str, tuple[Callable[["subprocess.Popen[str]"], None], set[int]]] = {
    "Ctrl-C twice": (twice(signal.SIGINT), {130}),
    "the terminal is closed": (lambda process: process.send_signal(signal.SIGHUP), {-signal.SIGHUP, 130}),
    "kill -9": (lambda process: process.kill(), {-signal.SIGKILL}),
}


@pytest.mark.parametrize("cut", CUTS)
def test_an_order_cut_off_in_the_middle_is_found_by_the_same_command(
    serve: Serve, start: Start, listed: Listed, tmp_path: Path, cut: str
) -> None:
    end, codes = CUTS[cut]
    listed(10)
    with dripping(serve, tmp_path) as url:
        first = start(*BY_FIVES, SECTIGO_ENDPOINT=url, **LOGIN)
        until(lambda: stats_of(url)["orders"], first)
        end(first)
        began = time.monotonic()
        first.communicate(timeout=20)
        assert first.returncode in codes
        assert time.monotonic() - began < 5

        document, said = ended(start(*BY_FIVES, SECTIGO_ENDPOINT=url, **LOGIN), 0)

        assert document["done"] == 10, said
        check(stats_of(url), tmp_path / "c", 10, orders=2)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_once_it_fetches_what_is_ready_and_the_same_command_goes_on(
    slow: Any, start: Start, listed: Listed, tmp_path: Path, number: int
) -> None:
    listed(20)
    words = (*ISSUE, "--batch-size", "5", "--max-open", "10")
    first = start(*words, SECTIGO_ENDPOINT=slow.url, **LOGIN)
    until(lambda: slow.sandbox.stats()["orders"] == 2, first)
    # Ready, and not looked at since.
    slow.clock.advance(60)
    first.send_signal(number)

    document, said = ended(first, 130)

    assert document["halted"] == "interrupted"
    ordered = 5 * slow.sandbox.stats()["orders"]
    assert ordered < 20, "what was not ordered yet stays so"
    assert (document["done"], document["planned"]) == (ordered, 20 - ordered), said
    assert GOES_ON in said
    check(slow.sandbox.stats(), tmp_path / "c", ordered)
    slow.sandbox.ledger._issue_delay = 0
    ended(start(*words, SECTIGO_ENDPOINT=slow.url, **LOGIN), 0)
    check(slow.sandbox.stats(), tmp_path / "c", 20, orders=4)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def begin(home: Path, port: int, *options: str) -> "subprocess.Popen[str]":
    """Start a simulator that keeps its state."""
    words = ("serve", "-a", f"127.0.0.1:{port}", "--state", str(home / "state.db"), "--issue-delay", "0.5", *options)
    process = subprocess.Popen(
        [PROGRAM, *words],
        env={"PATH": os.environ["PATH"], "HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline()
    return process


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Start simulators, one after the other, that share one port and one state."""
    started: list[subprocess.Popen[str]] = []
    port = free_port()

    def start(*options: str) -> "subprocess.Popen[str]":
        started.append(begin(tmp_path, port, *options))
        return started[-1]

    start.url = f"http://127.0.0.1:{port}"  # type: ignore[attr-defined]
    yield start
    for process in started:
        process.kill()
        process.communicate(timeout=10)


def test_a_service_that_restarts_in_the_middle_ends_in_no_second_order(
    services: Any, start: Start, listed: Listed, tmp_path: Path
) -> None:
    listed(10)
    service = services()
    run = start(*BY_FIVES, SECTIGO_ENDPOINT=services.url, **LOGIN)
    until(lambda: stats_of(services.url)["orders"] == 2 and list((tmp_path / "c").glob("*/cert.pem")), run)
    service.kill()
    service.wait()
    time.sleep(1)
    assert run.poll() is None, run.communicate()
    services()

    document, said = ended(run, 0)

    assert document["done"] == 10, said
    check(stats_of(services.url), tmp_path / "c", 10, orders=2)


def test_a_service_that_is_out_of_reach_for_too_long_ends_the_run_and_the_same_command_goes_on(
    services: Any, start: Start, listed: Listed, tmp_path: Path
) -> None:
    listed(10)
    service = services()
    run = start(*BY_FIVES, "--timeout", "1", SECTIGO_ENDPOINT=services.url, **LOGIN)
    until(lambda: stats_of(services.url)["orders"], run)
    service.kill()
    service.wait()
    _, said = ended(run, 1)
    assert "cannot connect" in said or "connection" in said
    assert GOES_ON in said.replace("Nothing", "nothing")

    services()
    document, said = ended(start(*BY_FIVES, SECTIGO_ENDPOINT=services.url, **LOGIN), 0)

    assert document["done"] == 10, said
    check(stats_of(services.url), tmp_path / "c", 10, orders=2)


HEADER = "common_name;dns_names;organizationName;localityName;stateOrProvinceName;countryName"


def excel_line(number: int) -> str:
    name = f"gw{number}.example.com"
    return f'{name};{name} www.{name};"Müller & Söhne; Köln";Köln;Nordrhein-Westfalen;DE'


def spoiled() -> dict[int, tuple[str, str]]:
    """Return what people and spreadsheets do to lines, by line number: the line, and a word of what is said of it."""
    right = {number: excel_line(number - 2) for number in range(2, 502)}
    return {
        2: (right[2].replace(";DE", ";Deutschland"), "countryName"),
        41: (right[41].replace("gw39.example.com;", ";", 1), "no common name"),
        77: (right[77].replace("gw75.example.com;", "gw74.example.com;", 1), "line 76"),
        78: (right[78].replace("Köln;Nordrhein", "#NV;Nordrhein"), "#NV"),
        120: (right[120].replace("gw118.example.com;", "1,23E+12;", 1), "1,23E+12"),
        121: (right[121].replace("gw119.example.com;", "GW117.EXAMPLE.COM;", 1), "line 119"),
        200: (right[200] + ";too;much", "cell"),
        201: (right[201].replace("www.gw199", "ww w..gw199"), "name"),
        333: (right[333].replace(";DE", ";D"), "countryName"),
        400: (right[400].replace("www.gw398.example.com", "-.example.com"), "name"),
        499: (right[499].replace(";DE", ";"), "countryName"),
        501: (right[501].replace("Köln;Nordrhein", "#REF!;Nordrhein"), "#REF!"),
    }


def test_of_a_list_of_old_windows_all_bad_lines_are_named_and_once_mended_only_these_are_ordered(
    live: Any, start: Start, tmp_path: Path
) -> None:
    bad = spoiled()
    lines = {number: excel_line(number - 2) for number in range(2, 502)}
    words = ("issue", "d.csv", "-p", "85", "--out", "c", "--encoding", "cp1252")

    def write(content: dict[int, str]) -> None:
        text = "".join(f"{line}\r\n" for line in [HEADER, *content.values()])
        (tmp_path / "d.csv").write_bytes(text.encode("cp1252"))

    write(lines | {number: line for number, (line, _) in bad.items()})
    _, said = ended(start(*words, SECTIGO_ENDPOINT=live.url, **LOGIN), 2)
    named = {int(found[1]): found[0] for found in re.finditer(r"^line (\d+): .*$", said, re.MULTILINE)}
    assert set(named) == set(bad), said
    for number, (_, word) in bad.items():
        assert word in named[number], (number, named[number])
    assert "12 of 500 lines cannot be ordered; nothing was ordered" in said
    assert live.sandbox.ledger.ordered() == 0

    document, _ = ended(start(*words, "--skip-invalid", SECTIGO_ENDPOINT=live.url, **LOGIN), 0)
    assert (document["done"], live.sandbox.ledger.ordered()) == (488, 488)
    assert not (tmp_path / "c" / "errors.csv").exists(), "that is for what failed once it was ordered"

    write(lines)
    document, said = ended(start(*words, SECTIGO_ENDPOINT=live.url, **LOGIN), 0)
    assert "12 to order, 488 done" in said
    assert (document["done"], live.sandbox.ledger.ordered()) == (500, 500)
    check(live.sandbox.stats(), tmp_path / "c", 500)
    results = rows(tmp_path / "c" / "results.csv")
    assert {row["organizationName"] for row in results} == {"Müller & Söhne; Köln"}
    assert {row["state"] for row in results} == {"done"}


def begin_cramped(folder: Path, most: int, *words: str, url: str) -> "subprocess.Popen[str]":
    """Start a command that cannot write files of more than so many bytes, as on a disk that is full."""
    limit = f"import os, resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({most}, {most}))"
    return subprocess.Popen(
        [sys.executable, "-c", f"{limit}; os.execv(sys.argv[1], sys.argv[1:])", PROGRAM, *words],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder / "home"), "SECTIGO_ENDPOINT": url} | LOGIN,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("most", [40_000, 80_000])
def test_a_disk_that_is_full_ends_the_run_and_once_there_is_room_it_goes_on(
    live: Any, start: Start, listed: Listed, tmp_path: Path, most: int
) -> None:
    listed(10)
    words = (*ISSUE, "--batch-size", "5")

    _, said = ended(begin_cramped(tmp_path, most, *words, url=live.url), 1)
    assert "cannot use the ledger" in said
    assert "see that there is room" in said.lower()

    ended(start(*words, SECTIGO_ENDPOINT=live.url, **LOGIN), 0)
    check(live.sandbox.stats(), tmp_path / "c", 10, orders=2)


def test_a_ledger_that_is_damaged_is_refused_and_nothing_is_ordered(
    live: Any, start: Start, listed: Listed, tmp_path: Path
) -> None:
    listed(10)
    ended(start(*ISSUE, SECTIGO_ENDPOINT=live.url, **LOGIN), 0)
    ledger = tmp_path / "c" / ".sectigo-async" / "ledger.sqlite3"
    content = ledger.read_bytes()
    ledger.write_bytes(content[: len(content) // 2])
    listed(20)

    _, said = ended(start(*ISSUE, SECTIGO_ENDPOINT=live.url, **LOGIN), 1)

    assert "ledger.sqlite3 is damaged" in said
    assert "ledger rebuild" in said
    assert live.sandbox.ledger.ordered() == 10
    ledger.write_bytes(b"")
    _, said = ended(start(*ISSUE, SECTIGO_ENDPOINT=live.url, **LOGIN), 2)
    assert said.count("the ledger does not know") == 10
    assert live.sandbox.ledger.ordered() == 10
