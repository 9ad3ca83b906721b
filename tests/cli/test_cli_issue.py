"""Bulk runs at the command line: what is said, what is left behind, and what the same command does next."""

import csv
import grp
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Start = Callable[..., "subprocess.Popen[str]"]

HEADER = "common_name;organizationName;localityName;stateOrProvinceName;countryName"
QUICK = ("--settle", "1")


def write(path: Path, lines: list[str], *, header: str = HEADER, encoding: str = "utf-8-sig") -> None:
    """Write a list as a German Excel saves it."""
    path.write_bytes("".join(f"{line}\r\n" for line in [header, *lines]).encode(encoding))


def line(number: int, name: str = "gw{}.example.com", country: str = "DE") -> str:
    return f'{name.format(number)};"Müller & Söhne; Köln";Köln;Nordrhein-Westfalen;{country}'


@pytest.fixture
def signed_in(bare: Run) -> Callable[[str], Run]:
    """Give the command line signed in to a simulator."""
    login = {"SECTIGO_USERNAME": "demo", "SECTIGO_PASSWORD": "demo-password"}
    return lambda url: partial(bare, SECTIGO_ENDPOINT=url, **login)


@pytest.fixture
def bulk(serve: "Callable[..., AbstractContextManager[str]]", signed_in: Callable[[str], Run]) -> Iterator[Run]:
    """The command line signed in to a simulator with much to sell."""
    with serve("--balance", "2000", "--issue-delay", "0.2") as url:
        yield signed_in(url)


def licenses(run: Run) -> int:
    return int(json.loads(run("licenses").stdout)["ordered"])


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def test_a_list_saved_by_a_german_excel_of_which_12_lines_are_bad(bulk: Run, tmp_path: Path) -> None:
    bad = set(range(7, 500, 41)[:12])
    write(tmp_path / "d.csv", [line(one, country="Deutschland" if one in bad else "DE") for one in range(500)])

    refused = bulk("issue", "d.csv", "-p", "85", "--out", "c", *QUICK)

    assert refused.returncode == 2
    assert refused.stderr.count("countryName") == 12
    assert "line 9: gw7.example.com: countryName" in refused.stderr
    assert "12 of 500 lines cannot be ordered; nothing was ordered" in refused.stderr
    assert licenses(bulk) == 0

    most = bulk("issue", "d.csv", "-p", "85", "--out", "c", "--skip-invalid", *QUICK)
    assert (most.returncode, licenses(bulk)) == (0, 488), most.stderr
    write(tmp_path / "d.csv", [line(one) for one in range(500)])
    rest = bulk("issue", "d.csv", "-p", "85", "--out", "c", *QUICK)

    assert (rest.returncode, licenses(bulk)) == (0, 500), rest.stderr
    assert "12 to order, 488 done" in rest.stderr
    assert json.loads(rest.stdout)["done"] == 500
    assert {row["organizationName"] for row in rows(tmp_path / "c" / "results.csv")} == {"Müller & Söhne; Köln"}


def test_what_the_service_refuses_is_listed_and_ordered_again_once_it_is_mended(bulk: Run, tmp_path: Path) -> None:
    names = ["rejected.{}.example.com" if one % 10 == 3 else "gw{}.example.com" for one in range(40)]
    write(tmp_path / "d.csv", [line(one, name) for one, name in enumerate(names)])

    first = bulk("issue", "d.csv", "-p", "85", "--out", "c", *QUICK)

    assert first.returncode == 5, first.stderr
    assert "36 done, 4 failed" in first.stderr
    assert [row["state"] for row in rows(tmp_path / "c" / "errors.csv")] == ["failed"] * 4
    same = bulk("issue", "d.csv", "-p", "85", "--out", "c", *QUICK)
    assert (same.returncode, licenses(bulk)) == (5, 40)
    assert "4 failed before" in same.stderr

    # What failed, mended in the list of errors itself, is a list, too.
    errors = tmp_path / "c" / "errors.csv"
    mended = tmp_path / "mended.csv"
    mended.write_bytes(errors.read_bytes().replace(b"rejected.", b"accepted."))
    last = bulk("issue", "mended.csv", "-p", "85", "--out", "c", *QUICK)
    assert (last.returncode, licenses(bulk)) == (0, 44), "the former lines are not in the list any more"
    assert json.loads(last.stdout)["done"] == 40


def test_reports_are_read_back_unharmed(bulk: Run, tmp_path: Path) -> None:
    cells = "id,common_name,dns_names,serialNumber\n-1,gw.example.com,a.example.com b.example.com,SN-0001\n"
    (tmp_path / "d.csv").write_text(cells)
    assert bulk("issue", "d.csv", "-p", "117", "--keys", "server", "--out", "c").returncode == 0
    assert b"'-1" in (tmp_path / "c" / "results.csv").read_bytes()

    again = bulk("issue", "c/results.csv", "-p", "117", "--keys", "server", "--out", "c")

    assert (again.returncode, licenses(bulk)) == (0, 1), again.stderr
    assert "0 to order, 1 done" in again.stderr


def test_a_dry_run_writes_and_orders_nothing(bulk: Run, tmp_path: Path) -> None:
    write(tmp_path / "d.csv", [line(one) for one in range(3)])

    result = bulk("issue", "d.csv", "-p", "85", "--out", "c", "--dry-run")

    assert result.returncode == 0, result.stderr
    assert len(json.loads(result.stdout)["toOrder"]) == 3
    assert not (tmp_path / "c").exists()
    assert licenses(bulk) == 0


def test_more_than_can_be_paid_for_is_not_begun(
    serve: "Callable[..., AbstractContextManager[str]]", signed_in: Callable[[str], Run], tmp_path: Path
) -> None:
    write(tmp_path / "d.csv", [line(one) for one in range(6)])
    with serve("--balance", "5") as url:
        result = signed_in(url)("issue", "d.csv", "-p", "85", "--out", "c")

        assert result.returncode == 2
        assert "6 licences are needed, and 5 are left" in result.stderr
        assert licenses(signed_in(url)) == 0


WRONG: list[tuple[list[str], int, str]] = [
    (["d.csv", "-p", "85"], 2, "--out"),
    (["d.csv", "--out", "c"], 2, "--profile"),
    (["nothing.csv", "-p", "85", "--out", "c"], 1, "cannot read nothing.csv: No such file"),
    ([".", "-p", "85", "--out", "c"], 1, "is a directory"),
    (["d.csv", "-p", "85", "--out", "c", "--mode", "0644"], 2, "0600, or 0640"),
    (["d.csv", "-p", "85", "--out", "c", "--mode", "rw"], 2, "use 0600 or 0640"),
    (["d.csv", "-p", "85", "--out", "c", "--group", "nobody-of-us"], 2, "there is no group 'nobody-of-us'"),
    (["d.csv", "-p", "4711", "--out", "c"], 3, "Nothing was ordered"),
    (["d.csv", "-p", "85", "--out", "d.csv"], 1, "d.csv"),
    (["latin.csv", "-p", "85", "--out", "c"], 2, "--encoding cp1252"),
    (["book.xlsx", "-p", "85", "--out", "c"], 2, "CSV UTF-8"),
]


@pytest.mark.parametrize("case", WRONG, ids=lambda case: " ".join(case[0]))
def test_what_is_wrong_is_said_in_a_line(bulk: Run, tmp_path: Path, case: tuple[list[str], int, str]) -> None:
    arguments, code, said = case
    write(tmp_path / "d.csv", [line(1)])
    write(tmp_path / "latin.csv", [line(1)], encoding="cp1252")
    (tmp_path / "book.xlsx").write_bytes(b"PK\x03\x04[Content_Types].xml")

    result = bulk("issue", *arguments)

    assert result.returncode == code, result.stderr
    assert said in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr


def test_a_list_comes_from_standard_input_as_json_lines(bulk: Run, tmp_path: Path) -> None:
    device = {"common_name": "gw.example.com", "dns_names": ["gw.example.com", "www.example.com"]}

    result = bulk("issue", "-", "-p", "42", "--out", "c", stdin=json.dumps(device))

    assert result.returncode == 0, result.stderr
    record = json.loads((tmp_path / "c" / "gw.example.com" / "issue.json").read_text())
    assert record["dns_names"] == device["dns_names"]


def test_requests_made_elsewhere_are_ordered_as_they_are(bulk: Run, tmp_path: Path) -> None:
    assert bulk("csr", "-d", "own.example.com").returncode == 0
    (tmp_path / "d.csv").write_text("common_name,csr\n,own.example.com.csr\ngw.example.com,\n")

    result = bulk("issue", "d.csv", "-p", "42", "--out", "c")

    assert result.returncode == 0, result.stderr
    assert not (tmp_path / "c" / "own.example.com" / "privkey.pem").exists()
    assert (tmp_path / "c" / "gw.example.com" / "privkey.pem").exists()
    record = json.loads((tmp_path / "c" / "own.example.com" / "issue.json").read_text())
    assert record["keys"] == "csr"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_orders_no_more_and_the_same_command_goes_on(
    serve: "Callable[..., AbstractContextManager[str]]", start: Start, tmp_path: Path, number: int
) -> None:
    write(tmp_path / "d.csv", [line(one) for one in range(60)])
    words = ("issue", "d.csv", "-p", "85", "--out", "c", "--batch-size", "5", "--max-open", "10", *QUICK)
    with serve("--issue-delay", "1") as url:
        settings = {"SECTIGO_ENDPOINT": url, "SECTIGO_USERNAME": "demo", "SECTIGO_PASSWORD": "demo-password"}
        process = start(*words, **settings)
        folder = tmp_path / "c"
        while process.poll() is None and not list(folder.glob("*/cert.pem")):
            time.sleep(0.02)
        process.send_signal(number)
        _, said = process.communicate(timeout=40)

        assert process.returncode == 130, said
        assert "the same command goes on" in said
        before = len(list(folder.glob("*/cert.pem")))
        assert 0 < before < 60
        again = start(*words, **settings)
        out, said = again.communicate(timeout=50)

        assert (again.returncode, json.loads(out)["done"]) == (0, 60), said


def test_a_second_run_in_the_same_place_is_refused(
    serve: "Callable[..., AbstractContextManager[str]]", start: Start, tmp_path: Path
) -> None:
    write(tmp_path / "d.csv", [line(one) for one in range(3)])
    words = ("issue", "d.csv", "-p", "85", "--out", "c")
    with serve("--issue-delay", "60") as url:
        settings = {"SECTIGO_ENDPOINT": url, "SECTIGO_USERNAME": "demo", "SECTIGO_PASSWORD": "demo-password"}
        first = start(*words, **settings)
        while first.poll() is None and not list((tmp_path / "c").glob("*/privkey.pem")):
            time.sleep(0.02)
        second = start(*words, **settings)
        _, said = second.communicate(timeout=20)
        first.kill()
        first.communicate(timeout=10)

        assert second.returncode == 1
        assert "another run is at work in c" in said
        third = start(*words, "--timeout", "0.1", **settings)
        out, said = third.communicate(timeout=20)
        assert third.returncode == 8, said
        assert json.loads(out)["ordered"] == 3


@pytest.mark.skipif(sys.platform == "win32", reason="groups are those of POSIX")
def test_a_group_may_read_what_it_is_given(bulk: Run, tmp_path: Path) -> None:
    import grp
    import os

    group = grp.getgrgid(os.getgid()).gr_name
    write(tmp_path / "d.csv", [line(1)])

    result = bulk("issue", "d.csv", "-p", "85", "--out", "c", "--mode", "0640", "--group", group)

    assert result.returncode == 0, result.stderr
    folder = tmp_path / "c" / "gw1.example.com"
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o640}
    assert folder.stat().st_mode & 0o777 == 0o750


def test_the_certificates_verify(
    bulk: Run, tmp_path: Path, openssl: Callable[..., "subprocess.CompletedProcess[str]"], server: str
) -> None:
    del server
    write(tmp_path / "d.csv", [line(one) for one in range(5)])
    assert bulk("issue", "d.csv", "-p", "85", "--out", "c").returncode == 0

    for folder in (tmp_path / "c").glob("gw*"):
        checked = openssl("verify", "-partial_chain", "-trusted", f"{folder}/chain.pem", f"{folder}/cert.pem")
        assert checked.returncode == 0, checked.stderr


def test_on_a_terminal_it_asks_before_it_spends_and_shows_how_it_goes(
    talk: Callable[..., Any], live: Any, tmp_path: Path
) -> None:
    write(tmp_path / "d.csv", [line(one) for one in range(3)])
    dialogue = talk("issue", "d.csv", "-p", "85", "--out", "c")
    dialogue.answer("It spends 3 licences of the 1,000 left", "n")
    code, shown = dialogue.end()
    assert (code, live.sandbox.ledger.ordered()) == (1, 0)
    assert "nothing was ordered" in shown

    dialogue = talk("issue", "d.csv", "-p", "85", "--out", "c")
    dialogue.answer("It spends 3 licences of the 1,000 left", "y")
    dialogue.child.expect_exact("of 3 devices after")
    live.clock.advance(60)
    code, shown = dialogue.end()
    assert (code, live.sandbox.ledger.ordered()) == (0, 3), shown
    shutil.rmtree(tmp_path / "c")


def test_a_line_that_left_the_list_is_no_burden(bulk: Run, tmp_path: Path) -> None:
    write(tmp_path / "d.csv", [line(1, "rejected.{}.example.com"), line(2)])
    assert bulk("issue", "d.csv", "-p", "85", "--out", "c", *QUICK).returncode == 5
    write(tmp_path / "d.csv", [line(2)])

    result = bulk("issue", "d.csv", "-p", "85", "--out", "c", *QUICK)

    assert (result.returncode, json.loads(result.stdout)["done"]) == (0, 1), result.stderr
    assert "1 of an earlier list left out" in result.stderr
    assert not (tmp_path / "c" / "errors.csv").exists()


def test_a_device_may_have_the_name_of_a_report(bulk: Run, tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text(
        "id,common_name\nresults.csv,r.example.com\nresults.csv/,s.example.com\nerrors.csv,e.example.com\n"
    )

    result = bulk("issue", "d.csv", "-p", "42", "--out", "c")

    assert (result.returncode, json.loads(result.stdout)["done"]) == (0, 3), result.stderr
    assert len({row["folder"] for row in rows(tmp_path / "c" / "results.csv")}) == 3


def test_files_that_are_gone_since_are_told(bulk: Run, tmp_path: Path) -> None:
    write(tmp_path / "d.csv", [line(one) for one in range(3)])
    assert bulk("issue", "d.csv", "-p", "85", "--out", "c").returncode == 0
    shutil.rmtree(tmp_path / "c" / "gw0.example.com")
    (tmp_path / "c" / "gw1.example.com" / "privkey.pem").unlink()

    result = bulk("issue", "d.csv", "-p", "85", "--out", "c")

    assert (result.returncode, licenses(bulk)) == (5, 3)
    for number in range(2):
        assert f"gw{number}.example.com is done, but its key or its certificate is gone" in result.stderr


def test_reports_name_requests_so_that_they_are_found_from_anywhere(bulk: Run, tmp_path: Path) -> None:
    (tmp_path / "csrs").mkdir()
    for name in ("a", "b"):
        assert bulk("csr", "-d", f"{name}.example.com", "-o", f"csrs/{name}.csr").returncode == 0
    (tmp_path / "d.csv").write_text("common_name,csr\na.example.com,csrs/a.csr\nb.example.com,csrs/b.csr\n")
    assert bulk("issue", "d.csv", "-p", "42", "--out", "c").returncode == 0
    again = bulk("issue", "c/results.csv", "-p", "42", "--out", "c")
    assert (again.returncode, json.loads(again.stdout)["done"]) == (0, 2), again.stderr
    (tmp_path / "csrs" / "a.csr").unlink()

    last = bulk("issue", "d.csv", "-p", "42", "--out", "c")

    assert (last.returncode, licenses(bulk)) == (0, 2), last.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to another group")
def test_a_group_may_read_in_a_new_directory(bulk: Run, tmp_path: Path) -> None:
    write(tmp_path / "d.csv", [line(1)])

    result = bulk("issue", "d.csv", "-p", "85", "--out", "c", "--mode", "0640", "--group", "daemon")

    assert result.returncode == 0, result.stderr
    group = grp.getgrnam("daemon").gr_gid
    for path in (tmp_path / "c", tmp_path / "c" / "gw1.example.com"):
        assert (path.stat().st_gid, path.stat().st_mode & 0o777) == (group, 0o750)
    assert (tmp_path / "c" / ".sectigo-async").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("words", [("--settle", "nan"), ("--settle", "inf"), ("--timeout", "1e300")])
def test_seconds_are_seconds(bulk: Run, tmp_path: Path, words: tuple[str, str]) -> None:
    write(tmp_path / "d.csv", [line(1)])

    result = bulk("issue", "d.csv", "-p", "85", "--out", "c", *words)

    assert result.returncode == 2
    assert "Traceback" not in result.stderr


def test_a_pipe_is_no_request(bulk: Run, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csr")
    (tmp_path / "d.csv").write_text("common_name,csr\ngw.example.com,pipe.csr\n")

    result = bulk("issue", "d.csv", "-p", "42", "--out", "c", "--dry-run")

    assert result.returncode == 2
    assert "pipe.csr is not a file" in result.stderr
