"""Bulk runs at the command line on bad days: exit codes, what is said, and what the same command does next."""

import csv
import json
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from cryptography import x509

from sectigo_async.pki import generate_key, load_key
from sectigo_async.sandbox import Fault, FaultRule, SandboxConfig
from sectigo_async.sandbox.csr import SigningRequest
from sectigo_async.sandbox.issuing import issue_for_request

Start = Callable[..., "subprocess.Popen[str]"]
Listed = Callable[[int], None]

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

    assert (document["done"], document["verify_failed"]) == (2, 1)
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
