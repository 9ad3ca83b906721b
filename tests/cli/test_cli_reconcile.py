"""What becomes of orders on a bad day: written down before they are sent, listed, looked for, decided."""

import json
import re
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Start = Callable[..., "subprocess.Popen[str]"]

CREATE = ("create", "-a", "117", "-d", "gateway-7", "--param", "serialNumber=SN-0007")
CREATE_ROUTE = "PUT /api/v1/batches/createSingleCertBatch"


@pytest.fixture
def url(serve: "Callable[..., AbstractContextManager[str]]") -> Iterator[str]:
    with serve("--issue-delay", "0") as address:
        yield address


def strike(url: str, *rules: dict[str, object]) -> None:
    assert httpx.put(f"{url}/_sandbox/faults", json=list(rules)).status_code == 200


def stats(url: str) -> Any:
    return httpx.get(f"{url}/_sandbox/stats").json()


def lost(url: str, run: Run, *arguments: str) -> str:
    """Place an order whose reply is lost; return its id."""
    strike(url, {"route": CREATE_ROUTE, "fault": "lost-reply", "times": 1})
    result = run(*arguments, SECTIGO_ENDPOINT=url)
    assert result.returncode == 6, result.stderr
    found = re.search(r"`sectigo-async reconcile ([0-9a-f]{8})`", result.stderr)
    assert found is not None, result.stderr
    return found[1]


def test_an_order_is_found_after_kill_9(url: str, run: Run, start: Start, tmp_path: Path) -> None:
    """The process is gone while the reply to its order is on its way."""
    strike(url, {"route": CREATE_ROUTE, "fault": "drip", "seconds": 1})
    settings = {"SECTIGO_ENDPOINT": url, "SECTIGO_USERNAME": "demo", "SECTIGO_PASSWORD": "demo-password"}
    process = start(*CREATE, HOME=str(tmp_path), **settings)
    while not stats(url)["orders"]:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=10)
    strike(url)

    listed = run("batches", SECTIGO_ENDPOINT=url)
    (order,) = json.loads(listed.stdout)
    assert (order["state"], order["batchId"], order["commonNames"]) == ("unknown", None, ["gateway-7"])
    assert "1 order of unknown outcome: find out with `sectigo-async reconcile`" in listed.stderr

    result = run("reconcile", SECTIGO_ENDPOINT=url)
    assert result.returncode == 0, result.stderr
    (found,) = json.loads(result.stdout)
    assert (found["state"], found["batchId"], found["orderId"]) == ("ordered", 24, order["orderId"])
    assert "sectigo-async download -i 24 --extract" in result.stderr
    assert json.loads(run("batches", "--unknown", SECTIGO_ENDPOINT=url).stdout) == []
    assert json.loads(run("batches", "-i", "24", SECTIGO_ENDPOINT=url).stdout)["batchName"] == order["batchName"]
    assert stats(url)["orders"] == 1
    (password,) = tmp_path.glob("*.p12.password")
    assert password.stat().st_mode & 0o777 == 0o600, "the key that was ordered can be opened"


def test_the_line_of_the_error_finds_the_order(url: str, run: Run) -> None:
    order = lost(url, run, *CREATE)

    result = run("reconcile", order, SECTIGO_ENDPOINT=url)

    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)[0]["state"] == "ordered"


def test_an_order_that_nobody_can_tell_of_is_for_a_person(url: str, run: Run) -> None:
    strike(url, {"route": CREATE_ROUTE, "fault": "error-before", "times": 1})
    assert run(*CREATE, SECTIGO_ENDPOINT=url).returncode == 6

    result = run("reconcile", SECTIGO_ENDPOINT=url)
    (found,) = json.loads(result.stdout)
    assert (result.returncode, found["state"]) == (6, "unknown")
    order = found["orderId"]
    assert f"sectigo-async reconcile {order} --not-ordered" in result.stderr
    assert "do not repeat it" in result.stderr

    assert run("reconcile", order, "--batch", "4711", SECTIGO_ENDPOINT=url).returncode == 3
    assert json.loads(run("reconcile", order, "--not-ordered", SECTIGO_ENDPOINT=url).stdout)[0]["state"] == (
        "not ordered"
    )
    again = run("reconcile", order, "--batch", "24", SECTIGO_ENDPOINT=url)
    assert (again.returncode, "is known: not ordered" in again.stderr) == (2, True)


def test_a_person_names_the_batch(url: str, run: Run) -> None:
    order = lost(url, run, *CREATE)
    result = run("reconcile", order, "--batch", "24", SECTIGO_ENDPOINT=url)
    assert (result.returncode, json.loads(result.stdout)[0]["batchId"]) == (0, 24)


def test_a_later_order_settles_it(url: str, run: Run) -> None:
    other = ("create", "-a", "117", "-d", "gateway-8", "--param", "serialNumber=SN-0008", "-p", "secrtpasswrd")
    assert run(*other, SECTIGO_ENDPOINT=url).returncode == 0
    strike(url, {"route": CREATE_ROUTE, "fault": "error-before", "times": 1})
    assert run(*CREATE, SECTIGO_ENDPOINT=url).returncode == 6
    assert run(*other, SECTIGO_ENDPOINT=url).returncode == 0

    assert run("reconcile", SECTIGO_ENDPOINT=url).returncode == 6, "the settle time is not over"
    result = run("reconcile", "--settle", "0", SECTIGO_ENDPOINT=url)

    assert (result.returncode, json.loads(result.stdout)[0]["state"]) == (0, "not ordered"), result.stderr


def test_an_upload_is_found_by_its_keys(url: str, run: Run) -> None:
    assert run("csr", "-d", "gw8.example.com").returncode == 0
    strike(url, {"route": "POST /api/v1/batches/upload", "fault": "lost-reply", "times": 1})
    assert run("upload", "-p", "42", "gw8.example.com.csr", SECTIGO_ENDPOINT=url).returncode == 6

    result = run("reconcile", SECTIGO_ENDPOINT=url)

    assert (result.returncode, json.loads(result.stdout)[0]["batchId"]) == (0, 24), result.stderr


def test_the_journal_is_listed_without_signing_in(url: str, run: Run) -> None:
    assert run(*CREATE, SECTIGO_ENDPOINT=url).returncode == 0
    logins = stats(url)["logins"]

    listed = run("batches", SECTIGO_ENDPOINT=url, SECTIGO_PASSWORD="")

    assert [order["batchId"] for order in json.loads(listed.stdout)] == [24]
    assert stats(url)["logins"] == logins
    assert json.loads(run("batches", SECTIGO_ENDPOINT=url, SECTIGO_USERNAME="other").stdout) == []


def test_a_refused_order_is_listed_as_not_ordered(url: str, run: Run) -> None:
    assert run(
        "create", "-a", "117", "-d", "gateway-7", "--param", "serialNumber=low", SECTIGO_ENDPOINT=url
    ).returncode
    strike(url, {"route": CREATE_ROUTE, "fault": "rate-limit", "retry_after": 0})
    assert run(*CREATE, SECTIGO_ENDPOINT=url).returncode == 1
    assert [order["state"] for order in json.loads(run("batches", SECTIGO_ENDPOINT=url).stdout)] == ["not ordered"]


def test_no_secret_is_in_the_journal(url: str, run: Run, tmp_path: Path) -> None:
    assert run(*CREATE, "-p", "canary-password-9", SECTIGO_ENDPOINT=url).returncode == 0
    (file,) = tmp_path.rglob("orders.sqlite3")
    assert file.stat().st_mode & 0o777 == 0o600
    assert b"canary" not in file.read_bytes()
    assert b"demo-password" not in file.read_bytes()


def test_without_a_journal_nothing_is_ordered(url: str, run: Run, tmp_path: Path) -> None:
    state = tmp_path / ".local" / "state" / "sectigo-async"
    state.mkdir(parents=True, mode=0o700)
    (state / "orders.sqlite3").write_bytes(b"this is no database, and long enough to see")

    result = run(*CREATE, SECTIGO_ENDPOINT=url)

    assert (result.returncode, stats(url)["orders"]) == (1, 0)
    assert "Nothing was ordered" in result.stderr
    assert "is damaged" in result.stderr
    assert "Traceback" not in result.stderr
    assert not list(tmp_path.glob("*.password")), "nothing is left of an order that was not sent"


def test_a_journal_that_is_busy_for_long_is_told(url: str, run: Run, tmp_path: Path) -> None:
    assert run(*CREATE, SECTIGO_ENDPOINT=url).returncode == 0
    (file,) = tmp_path.rglob("orders.sqlite3")
    holder = sqlite3.connect(file, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    result = run("batches", SECTIGO_ENDPOINT=url)
    holder.close()

    assert (result.returncode, "locked" in result.stderr) == (1, True), result.stderr
