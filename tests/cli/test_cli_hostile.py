"""A service that means harm: its texts are shown and never obeyed, its patterns neither hang nor block."""

import csv
import io
import json
import re
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest

HOSTILE = "=cmd|' /C calc'!A0\x1b[2J\x1b]8;;http://evil\x07c\u202ed\u200be\x9bf[red]g[/red]"
SHOWN = r"=cmd|' /C calc'!A0\x1b[2J\x1b]8;;http://evil\x07c\u202ed\u200be\x9bf[red]g[/red]"
OBEYED = re.compile("[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f-\x9f\u200b\u202e]|\x1b\\[2J|\x1b\\]")
Service = Callable[[Mapping[str, tuple[int, object]]], Any]
Talk = Callable[..., Any]
AUTHORITIES = "GET /api/v1/authorities/allowed"
PARAMETERS = "GET /api/v1/profiles/42/parameters"
CREATE = "PUT /api/v1/batches/createSingleCertBatch"
FIND = "POST /api/v1/certificates/find"
BATCH = {"batchId": 24, "size": 1, "status": "CREATED", "batchName": HOSTILE, "profile": HOSTILE}


def authority(number: int, profile: int, name: str = HOSTILE) -> dict[str, object]:
    return {"id": number, "profileId": profile, "profileName": name, "enabled": True}


def parameter(name: str, pattern: str = "", **more: object) -> dict[str, object]:
    return {"name": name, "required": True, "validationPattern": pattern, **more}


@pytest.fixture
def hostile(service: Service) -> Any:
    return service(
        {
            AUTHORITIES: (200, [authority(1, 42)]),
            "GET /api/v1/authorities/1/balanceavailable": (200, 5),
            FIND: (
                200,
                {"totalCount": 1, "items": [{"commonName": HOSTILE, "serialNumber": "AF", "status": HOSTILE}]},
            ),
            CREATE: (201, BATCH),
            PARAMETERS: (
                200,
                [
                    parameter("commonName", "^(a|a?)+$|" + r"((x{1000}){1000}){1000}", title=HOSTILE),
                    parameter("note", r"\p{javaLetter}", title=HOSTILE, placeholder=HOSTILE, message=HOSTILE),
                    parameter("word", "^(a|aa)+$", title=HOSTILE, message=HOSTILE),
                ],
            ),
        }
    )


@pytest.mark.parametrize("format_", ["--table", "--json", "--csv"])
@pytest.mark.parametrize("command", [["authorities"], ["find", "-n", "x"]])
def test_in_a_pipe(call: Any, tmp_path: Any, hostile: Any, format_: str, command: list[str]) -> None:
    result = call(tmp_path, *command, format_, SECTIGO_ENDPOINT=hostile.url)

    assert result.returncode == 0, result.stderr
    assert not OBEYED.search(result.stdout)
    if format_ == "--json":
        document = json.loads(result.stdout)
        kept = document[0]["profileName"] if isinstance(document, list) else document["items"][0]["commonName"]
        assert kept == HOSTILE, "what it says is kept"
    elif format_ == "--csv":
        (row,) = csv.DictReader(io.StringIO(result.stdout))
        assert row["profileName" if command == ["authorities"] else "commonName"] == f"'{SHOWN}"
    else:
        assert SHOWN in result.stdout


@pytest.mark.parametrize("format_", ["--table", "--json", "--csv"])
@pytest.mark.parametrize("columns", [80, 200])
def test_on_a_terminal(talk: Talk, hostile: Any, format_: str, columns: int) -> None:
    dialogue = talk("find", "-n", "x", format_, columns=columns, SECTIGO_ENDPOINT=hostile.url)
    code, shown = dialogue.end()

    assert code == 0
    assert not OBEYED.search(shown.replace("\n", ""))


def test_in_the_wizard(talk: Talk, hostile: Any) -> None:
    started = time.monotonic()
    dialogue = talk("create", columns=200, SECTIGO_ENDPOINT=hostile.url)
    dialogue.answer("Profile to order under:", "\r")
    for keys in ("gw", "anything", "b"):
        dialogue.answer("[red]g[/red]:", f"{keys}\r")
    dialogue.answer("[red]g[/red]", "\x08a\r")
    dialogue.answer("Order this? It spends one licence of the 5 left.", "y")
    code, shown = dialogue.end()

    assert code == 0, shown
    assert not OBEYED.search(shown.replace("\n", "").replace("\x1b", ""))
    assert "\x1b]" not in shown
    assert "note: commonName is not checked" in shown
    assert "note: note is not checked" in shown
    assert hostile.seen.count(CREATE) == 1
    assert time.monotonic() - started < 30


def test_a_number_that_may_be_two_things_is_refused(call: Any, tmp_path: Any, service: Service) -> None:
    running = service({AUTHORITIES: (200, [authority(42, 7, "one"), authority(8, 42, "two")])})

    result = call(tmp_path, "create", "-a", "42", "-d", "x.example.com", SECTIGO_ENDPOINT=running.url)

    assert result.returncode == 2
    for words in ("42 is both", "'one'", "'two'", "name the first by its profile, 7", "by its authority, 8"):
        assert words in " ".join(result.stderr.split())
    assert CREATE not in running.seen


def test_a_name_that_several_profiles_have_is_refused(call: Any, tmp_path: Any, service: Service) -> None:
    running = service({AUTHORITIES: (200, [authority(1, 7, "same"), authority(2, 8, "Same")])})

    result = call(tmp_path, "-P", "same", "create", "-d", "x.example.com", SECTIGO_ENDPOINT=running.url)

    assert result.returncode == 2
    assert "7 ('same'), 8 ('Same')" in " ".join(result.stderr.split())


@pytest.mark.parametrize("status", [403, 500, 501])
def test_rules_that_cannot_be_had_do_not_stop_an_order(
    call: Any, tmp_path: Any, service: Service, status: int
) -> None:
    running = service(
        {AUTHORITIES: (200, []), PARAMETERS: (status, {"message": "no"}), CREATE: (201, {"batchId": 24, "size": 1})}
    )

    result = call(tmp_path, "create", "-a", "42", "-d", "x.example.com", SECTIGO_ENDPOINT=running.url)

    assert result.returncode == 0, result.stderr
    assert "the parameters are not checked before ordering" in result.stderr
    assert (tmp_path / "x.example.com.p12.password").exists()


def test_an_order_of_unknown_outcome_keeps_its_password_and_is_not_repeated(
    call: Any, tmp_path: Any, service: Service
) -> None:
    running = service(
        {AUTHORITIES: (200, []), PARAMETERS: (200, [parameter("commonName"), parameter("pkcs12Password")])}
        | {CREATE: (502, {"message": "bad gateway"})}
    )

    result = call(tmp_path, "create", "-a", "42", "-d", "x.example.com", SECTIGO_ENDPOINT=running.url)

    assert result.returncode == 6
    assert re.search(r"sectigo-async reconcile [0-9a-f]{8}`", result.stderr)
    assert "password is kept in x.example.com.p12.password" in result.stderr
    assert running.seen.count(CREATE) == 1
    assert (tmp_path / "x.example.com.p12.password").exists()
