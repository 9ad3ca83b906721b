"""The ledger at the command line: how a run stands, what was paid for twice, and a ledger that is made anew."""

import json
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest

Run = Callable[..., "subprocess.CompletedProcess[str]"]

ISSUE = ("issue", "d.csv", "-p", "42", "--out", "certs", "--settle", "1", "--batch-size", "2")
LEDGER = "certs/.sectigo-async/ledger.sqlite3"
UPLOAD = "POST /api/v1/batches/upload"


@attrs.frozen
class Service:
    """A simulator, and the command line signed in to it."""

    url: str
    run: Run

    def strike(self, *rules: dict[str, object]) -> None:
        assert httpx.put(f"{self.url}/_sandbox/faults", json=list(rules)).status_code == 200

    def ordered(self) -> int:
        return int(json.loads(self.run("licenses").stdout)["ordered"])


@pytest.fixture
def service(serve: "Callable[..., AbstractContextManager[str]]", bare: Run, tmp_path: Path) -> Iterator[Service]:
    (tmp_path / "d.csv").write_text("common_name\n" + "".join(f"gw{one}.example.com\n" for one in range(4)))
    with serve("--balance", "200", "--issue-delay", "0.1") as url:
        login = {"SECTIGO_USERNAME": "demo", "SECTIGO_PASSWORD": "demo-password"}
        yield Service(url, partial(bare, SECTIGO_ENDPOINT=url, **login))


def document(result: "subprocess.CompletedProcess[str]", code: int = 0) -> Any:
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr
    return json.loads(result.stdout)


def test_status_asks_no_service_and_check_tells_of_what_is_not_saved(service: Service, tmp_path: Path) -> None:
    service.strike({"route": "GET /api/v1/batches/{id}", "fault": "lag", "seconds": 600})
    assert service.run(*ISSUE, "--timeout", "0.5").returncode == 8

    (now,) = document(service.run("ledger", "status", "certs", "--check", SECTIGO_ENDPOINT="http://127.0.0.1:1"))
    late = service.run("ledger", "status", "certs", "--check", "--max-age", "0h")

    assert (now["ordered"], now["done"], now["inUse"], now["unknownOrders"]) == (4, 0, False, [])
    assert (now["username"], now["profileId"], now["keys"]) == ("demo", 42, "local")
    assert late.returncode == 5
    assert "certs: 4 devices are ordered, or may be, and not saved, the first since 20" in late.stderr
    service.strike()
    assert service.run(*ISSUE).returncode == 0
    (done,) = document(service.run("ledger", "status", "certs", "--check", "--max-age", "0h"))
    assert (done["done"], done["oldestOpen"]) == (4, None)
    assert (tmp_path / LEDGER).stat().st_mode & 0o777 == 0o600


def test_status_tells_of_renewals_too(service: Service) -> None:
    document(service.run(*ISSUE))
    assert service.run("renew", "certs", "--within", "3000d", "--max-orders", "1", "--settle", "1").returncode == 8

    first, renewal = document(service.run("ledger", "status", "certs"))

    assert (first["done"], renewal["done"]) == (4, 1)
    assert renewal["directory"] == "certs/.sectigo-async/renewal/42-local"
    assert document(service.run("ledger", "audit", "certs")) == []


def test_an_order_of_unknown_outcome_is_found_or_decided_on(service: Service) -> None:
    lost = {"route": UPLOAD, "fault": "lost-reply", "times": 1}
    words = ("reconcile", "--ledger", "certs")
    service.strike(lost, {"route": "GET /api/v1/batches/{id}", "fault": "lag", "seconds": 600})
    result = service.run(*ISSUE[:-1], "4")
    assert result.returncode == 6
    assert "decide with `sectigo-async reconcile --ledger certs`" in " ".join(result.stderr.split())
    service.strike()

    (found,) = document(service.run(*words))

    assert (found["state"], found["size"]) == ("ordered", 4)
    assert document(service.run(*words)) == []
    unheard = service.run(*words, "deadbeef")
    assert unheard.returncode == 2
    assert "there is no order 'deadbeef'" in unheard.stderr
    assert service.run(*ISSUE).returncode == 0
    assert service.ordered() == 4


def test_a_person_may_say_what_became_of_an_order_and_an_audit_finds_that_they_were_wrong(service: Service) -> None:
    lost = {"route": UPLOAD, "fault": "lost-reply", "times": 1}
    service.strike(lost, {"route": "GET /api/v1/batches/{id}", "fault": "lag", "seconds": 600})
    words = (*ISSUE[:-1], "4")
    assert service.run(*words).returncode == 6
    (status,) = document(service.run("ledger", "status", "certs"))
    (order,) = status["unknownOrders"]
    service.strike()

    (decided,) = document(service.run("reconcile", "--ledger", "certs", order, "--not-ordered"))
    assert (decided["orderId"], decided["state"]) == (order, "not ordered")
    document(service.run(*words))
    audit = service.run("ledger", "audit", "certs")

    (found,) = document(audit, 5)
    assert (found["paidTwice"], found["size"], len(found["devices"])) == (True, 4, 4)
    assert "beside batch" in found["reason"]
    assert "1 batches were ordered for devices that have another" in audit.stderr
    assert service.ordered() == 8


@pytest.mark.parametrize("keys", ["local", "server"])
def test_a_damaged_ledger_is_made_anew_and_the_same_command_goes_on(
    service: Service, tmp_path: Path, keys: str
) -> None:
    document(service.run(*ISSUE, "--keys", keys))
    with (tmp_path / LEDGER).open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(20_000))
    (tmp_path / "d.csv").write_text((tmp_path / "d.csv").read_text() + "new.example.com\n")
    refused = service.run(*ISSUE, "--keys", keys)
    assert refused.returncode == 1
    assert "is damaged" in refused.stderr
    assert "sectigo-async ledger rebuild" in refused.stderr
    assert "is damaged" in service.run("ledger", "status", "certs").stderr

    result = service.run("ledger", "rebuild", "certs", "d.csv", "-p", "42", "--keys", keys)

    made = document(result)
    assert (made["done"], made["untouched"]) == (4, 1)
    assert Path(tmp_path, *made["damaged"], "ledger.sqlite3").stat().st_size > 20_000
    assert "is kept in" in result.stderr
    assert document(service.run(*ISSUE, "--keys", keys))["done"] == 5
    assert service.ordered() == 5


def test_devices_that_may_be_ordered_are_looked_for_from_an_id_on(service: Service, tmp_path: Path) -> None:
    service.strike({"route": "GET /api/v1/batches/{id}", "fault": "lag", "seconds": 600})
    assert service.run(*ISSUE, "--timeout", "0.5").returncode == 8
    service.strike()
    shutil.rmtree(tmp_path / "certs" / ".sectigo-async")
    careful = service.run(*ISSUE)
    assert careful.returncode == 2
    assert "may have been paid for: `sectigo-async ledger rebuild` makes it known" in careful.stderr

    asked = service.run("ledger", "rebuild", "certs", "d.csv", "-p", "42")
    assert asked.returncode == 2
    assert "4 devices may have been ordered" in asked.stderr
    assert "--after ID" in asked.stderr
    made = document(service.run("ledger", "rebuild", "certs", "d.csv", "-p", "42", "--after", "0"))

    assert (made["ordered"], made["unknown"]) == (4, 0)
    assert document(service.run(*ISSUE))["done"] == 4
    assert service.ordered() == 4


def test_what_cannot_be_rebuilt_is_said(service: Service, tmp_path: Path) -> None:
    document(service.run(*ISSUE))
    shutil.rmtree(tmp_path / "certs" / ".sectigo-async")
    (tmp_path / "certs" / "gw1.example.com" / "issue.json").write_text("{}")
    words = ("ledger", "rebuild", "certs", "d.csv", "-p")

    result = service.run(*words, "42")
    other = service.run(*words, "85")

    assert result.returncode == other.returncode == 2
    assert "line 3: gw1.example.com: certs/gw1.example.com: " in result.stderr
    assert "mend these and run the same command again" in result.stderr
    assert "ordered with another profile: give what it was" in other.stderr


def test_a_ledger_is_for_who_ordered(service: Service, tmp_path: Path) -> None:
    document(service.run(*ISSUE))
    with closing(sqlite3.connect(tmp_path / LEDGER)) as database:
        database.execute("UPDATE run SET username = 'other'")
        database.commit()

    for words in (("ledger", "audit", "certs"), ("reconcile", "--ledger", "certs")):
        result = service.run(*words)
        assert result.returncode == 2
        assert "the ledger is of other at" in result.stderr


def test_where_there_is_no_ledger_it_is_said(service: Service) -> None:
    for words in (
        ("ledger", "status", "nowhere"),
        ("ledger", "audit", "nowhere"),
        ("reconcile", "--ledger", "nowhere"),
    ):
        result = service.run(*words)
        assert result.returncode == 1
        assert "there is no ledger in nowhere" in result.stderr
