"""On a terminal: what is missing is asked for, checked, shown and confirmed, down to issued and verified files."""

import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sectigo_async.pki import Archive

Talk = Callable[..., Any]
DOWN = "\x1b[B"
CTRL_C, CTRL_D = "\x03", "\x04"


def test_create_from_nothing_to_verified_files(talk: Talk, live: Any, tmp_path: Path) -> None:
    (tmp_path / "root.pem").write_bytes(live.sandbox.ca_pem())
    dialogue = talk("create", "--out", "certs", SECTIGO_TRUST_ANCHORS="root.pem")
    dialogue.answer("Profile to order under:", f"{DOWN}{DOWN}\r")
    dialogue.answer("(gateway-7)", "gw/7\r")
    dialogue.answer("must be 1 to 64 letters, digits", "\x08\x08-7\r")
    dialogue.answer("DNS Names, optional", "a.example.com, b.example.com\r")
    dialogue.answer("PKCS#12 Password, empty to have one made:", "short\r")
    dialogue.answer("must have 8 to 64 characters", "er is not better\r")
    dialogue.answer("Once more:", "shorter is not batter\r")
    dialogue.answer("these were not the same", "")
    dialogue.answer("PKCS#12 Password", "shorter is not better\r")
    dialogue.answer("Once more:", "shorter is not better\r")
    dialogue.answer("Device Serial Number:", "\r")
    dialogue.answer("an answer is needed", "SN-0001\r")
    dialogue.answer("Device Type, optional:", "\r")
    dialogue.answer("It spends one licence of the 1,000 left.", "y")
    code, shown = dialogue.end()

    assert code == 0, shown
    assert "IoT Device (117)" in shown
    assert "a.example.com, b.example.com" in shown
    assert "shorter is not better" not in shown
    assert "gw-7 is in certs/gw-7, chain: verified" in shown
    made = {path.name for path in (tmp_path / "certs/gw-7").iterdir()}
    assert made == {"privkey.pem", "cert.pem", "chain.pem", "fullchain.pem", "bundle.p12"}
    (found,) = Archive.from_file(tmp_path / "certs/gw-7/bundle.p12").open(password="shorter is not better")
    assert found.key_match
    assert set(found.dns_names) == {"a.example.com", "b.example.com"}
    assert live.sandbox.stats()["orders"] == 1


def test_nothing_is_asked_where_nothing_is_missing(talk: Talk, tmp_path: Path) -> None:
    code, shown = talk("create", "-a", "42", "-d", "gw.example.com", "--show-password").end()

    assert code == 0, shown
    assert "?" not in shown
    kept = (tmp_path / "gw.example.com.p12.password").read_text().strip()
    assert f"PKCS#12 password: {kept}" in shown


def test_what_is_given_is_not_asked_for(talk: Talk, tmp_path: Path) -> None:
    dialogue = talk(
        "-P", "trisa end entity certificate", "create", "-d", "gw.example.com", "-c", "DE", "--san", "b.de"
    )
    dialogue.answer("PKCS#12 Password", "\r")
    dialogue.answer("Organization Name:", "Example\r")
    dialogue.answer("Locality Name:", "Berlin\r")
    dialogue.answer("State or Province Name:", "Berlin\r")
    dialogue.answer("It spends one licence", "y")
    code, shown = dialogue.end()

    assert code == 0, shown
    assert "Country Name" not in shown
    assert "made for you, kept in gw.example.com.p12.password" in shown
    assert (tmp_path / "gw.example.com.p12.password").exists()


@pytest.mark.parametrize(("keys", "code"), [("n", 1), ("\r", 1), (CTRL_C, 130), (CTRL_D, 2)])
def test_nothing_is_ordered_without_a_yes(talk: Talk, live: Any, tmp_path: Path, keys: str, code: int) -> None:
    dialogue = talk("create", "-d", "gw.example.com")
    dialogue.answer("Profile to order under:", "\r")
    dialogue.answer("Order this?", keys)

    status, shown = dialogue.end()

    assert status == code, shown
    assert ("nothing was ordered" in shown) == (code != 2)
    assert live.sandbox.stats()["orders"] == 0
    assert not list(tmp_path.glob("*.password"))
    assert "Traceback" not in shown


@pytest.mark.parametrize("extra", [{"CI": "true"}, {}], ids=["CI", "--no-input"])
def test_nothing_is_asked_of_a_program(talk: Talk, extra: dict[str, str]) -> None:
    for command in ("create", "upload", "download", "revoke", "csr", "find", "wait", "shell"):
        code, shown = talk(*([] if extra else ["--no-input"]), command, **extra).end()
        assert code == 2, (command, shown)


def test_upload_asks_for_the_file_and_the_profile(talk: Talk) -> None:
    dialogue = talk("csr")
    dialogue.answer("Common name:", "gw.example.com\r")
    dialogue.answer("Further DNS names", "b.example.com\r")
    dialogue.answer("Organisation:", "\r")
    dialogue.answer("Country:", "Germany\r")
    dialogue.answer("two letters are needed", "\x08\x08\x08\x08\x08\x08\x08DE\r")
    dialogue.answer("Kind of key:", f"{DOWN}\r")
    code, shown = dialogue.end()
    assert code == 0, shown
    assert "EC P-384" in shown

    dialogue = talk("upload")
    dialogue.answer("File with the CSRs:", "x" * 300 + "\r")
    dialogue.answer("no file: File name too long", "\x15gw.example.com.csr\r")
    dialogue.answer("Profile to order under:", "\r")
    dialogue.answer("1 CSR, which spends 1 licence of the 1,000 left.", "y")
    code, shown = dialogue.end()
    assert code == 0, shown
    assert "ordered batch" in shown


def test_download_asks_for_the_password(talk: Talk, tmp_path: Path) -> None:
    talk("create", "-a", "42", "-d", "gw.example.com").end()
    password = (tmp_path / "gw.example.com.p12.password").read_text().strip()

    dialogue = talk("download", "--extract")
    dialogue.answer("Id of the batch:", "24\r")
    dialogue.answer("PKCS#12 password:", "wrong\r")
    dialogue.answer("PKCS#12 password:", f"{password}\r")
    code, shown = dialogue.end()

    assert code == 0, shown
    assert "is not opened by this password" in shown
    assert password not in shown
    assert (tmp_path / "gw.example.com/privkey.pem").exists()

    dialogue = talk("inspect", "24.zip")
    dialogue.answer("empty to leave locked what is locked:", f"{password}\r")
    code, shown = dialogue.end()
    assert code == 0, shown
    assert "RSA 2048" in shown


def test_revoke_shows_what_it_is_and_asks(talk: Talk) -> None:
    talk("create", "-a", "42", "-d", "gw.example.com", "--out", ".").end()

    dialogue = talk("revoke", "gw.example.com")
    dialogue.answer("ISSUED", "")
    dialogue.answer("Profile that issued it:", "\r")
    dialogue.answer("Reason:", f"{DOWN}\r")
    dialogue.answer("Revoke it (key compromise)? It cannot be undone.", "n")
    code, shown = dialogue.end()
    assert code == 1
    assert "nothing was revoked" in shown

    dialogue = talk("revoke", "-p", "42", "gw.example.com", "-r", "superseded")
    dialogue.answer("Revoke it (superseded)?", "y")
    assert dialogue.end()[0] == 0
    code, shown = talk("revoke", "-p", "42", "gw.example.com").end()
    assert code == 0
    assert "was revoked already" in shown


def test_find_and_wait_ask_for_what_they_need(talk: Talk) -> None:
    talk("create", "-a", "42", "-d", "gw.example.com").end()
    dialogue = talk("find")
    dialogue.answer("Common name:", "gw.example.com\r")
    assert "ISSUED" in dialogue.end()[1]
    dialogue = talk("wait")
    dialogue.answer("Id of the batch:", "x\r")
    dialogue.answer("an id is a number", "\x0824\r")
    code, shown = dialogue.end()
    assert code == 0
    assert "READY_FOR_DOWNLOAD" in shown


@pytest.mark.parametrize("stop", [CTRL_C, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
@pytest.mark.parametrize("command", ["create", "wait", "watch"])
def test_an_interruption_tells_how_to_go_on(talk: Talk, live: Any, command: str, stop: str | signal.Signals) -> None:
    live.sandbox.ledger._issue_delay = 600
    arguments = ["-a", "42", "-d", "gw.example.com"]
    if command != "create":
        talk("create", *arguments).end()
    shown_first = {"create": "ordered batch 24", "wait": "batch 24: ", "watch": "batchName"}[command]
    dialogue = talk(
        *{
            "create": ["create", *arguments, "--out", "."],
            "wait": ["wait", "24"],
            "watch": ["batches", "-i", "24", "--watch"],
        }[command]
    )
    dialogue.child.expect_exact(shown_first)
    time.sleep(0.2)
    if isinstance(stop, signal.Signals):
        dialogue.child.kill(stop)
    else:
        dialogue.child.sendintr()
    code, shown = dialogue.end()

    assert code == 130, shown
    assert "interrupted" in shown
    if command != "watch":
        assert "sectigo-async wait 24" in shown
    assert live.sandbox.stats()["orders"] == 1


def test_watching_shows_each_state(talk: Talk, live: Any) -> None:
    live.sandbox.ledger._issue_delay = 600
    talk("create", "-a", "42", "-d", "gw.example.com").end()

    dialogue = talk("batches", "-i", "24", "--watch")
    dialogue.answer("CREATED", "")
    live.clock.advance(1000)
    code, shown = dialogue.end()

    assert code == 0
    assert "READY_FOR_DOWNLOAD" in shown


@pytest.mark.parametrize(("key", "code"), [(CTRL_C, 130), (CTRL_D, 2)])
def test_a_choice_can_be_left(talk: Talk, key: str, code: int) -> None:
    dialogue = talk("create", "-d", "gw.example.com")
    dialogue.answer("Profile to order under:", key)

    status, shown = dialogue.end()

    assert status == code, shown
    assert ("nothing was ordered" in shown) == (key == CTRL_C)


def test_a_dumb_terminal_is_asked_nothing_and_loses_nothing(talk: Talk) -> None:
    code, shown = talk("create", TERM="dumb").end()
    assert code == 2
    assert "--domain" in shown
    talk("create", "-a", "42", "-d", "gw.example.com", "--wait", TERM="dumb").end()
    code, shown = talk("find", "-n", "gw.example.com", TERM="dumb", columns=100).end()
    assert code == 0
    assert re.search(r"\b[0-9A-F]{38,40}\b", shown)
    code, shown = talk("batches", "-i", "24", "--watch", TERM="dumb").end()
    assert "{" not in shown.split("processing")[0]
    code, shown = talk("wait", "24", TERM="dumb").end()
    assert "batch 24: READY_FOR_DOWNLOAD" in shown


def test_many_batches_are_one_line(talk: Talk, live: Any) -> None:
    live.sandbox.ledger._issue_delay = 600
    for number in range(3):
        talk("create", "-a", "42", "-d", f"gw{number}.example.com").end()
    dialogue = talk("wait", *map(str, range(24, 90)))
    dialogue.answer("of 66 batches done", "")
    dialogue.child.sendintr()

    assert dialogue.end()[0] == 130


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_nothing_is_cut_at_any_width(talk: Talk, columns: int) -> None:
    talk("create", "-a", "42", "-d", "gw.example.com", "--out", ".").end()
    for arguments in (
        ["authorities", "-b"],
        ["find", "-n", "gw.example.com"],
        ["wait", "24", "--quiet"],
        ["inspect", "gw.example.com/cert.pem"],
        ["expiring", ".", "--within", "9000d"],
        ["unpack", "24.zip", "-o", "new", "--password-file", "gw.example.com.p12.password"],
        ["doctor"],
    ):
        _, shown = talk(*arguments, columns=columns).end()
        assert "…" not in shown, arguments
        wide = [line for line in shown.splitlines() if len(line) > columns and not line.startswith(("note", "error"))]
        assert not wide, arguments
        if arguments[0] in {"find", "expiring", "unpack"}:
            assert re.search(r"[0-9A-F]{38,40}", "".join(shown.split())), arguments
