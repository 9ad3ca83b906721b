"""The shell: the same commands over one sign-in, with a history that holds no secret."""

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sectigo_async_cli.shell import may_hold_a_secret

Talk = Callable[..., Any]
PROMPT = "sectigo>"
TAB, CTRL_C, CTRL_D, UP = "\t", "\x03", "\x04", "\x1b[A"


def history(tmp_path: Path) -> Path:
    (found,) = (tmp_path / "home").rglob("shell_history")
    return found


def test_commands_share_one_sign_in(talk: Talk, live: Any, tmp_path: Path) -> None:
    dialogue = talk("shell", SECTIGO_TOKEN_CACHE="0")
    dialogue.answer(PROMPT, "licenses\r")
    dialogue.answer("issued", "")
    dialogue.answer(PROMPT, "create -a 42 -d gw.example.com --out certs\r")
    dialogue.answer("gw.example.com is in certs/gw.example.com", "")
    dialogue.answer(PROMPT, "batches -i 24 -s --json\r")
    dialogue.answer("READY_FOR_DOWNLOAD", "")
    dialogue.answer(PROMPT, "batches -i 4711\r")
    dialogue.answer("(exit code 3)", "")
    dialogue.answer(PROMPT, "nonsense\r")
    dialogue.answer("No such command", "")
    dialogue.answer(PROMPT, "find -n 'unfinished\r")
    dialogue.answer("error: ", "")
    dialogue.answer(PROMPT, "help find\r")
    dialogue.answer("--common-name", "")
    dialogue.answer(PROMPT, "shell\r")
    dialogue.answer("not in the shell", "")
    dialogue.answer(PROMPT, CTRL_D)
    code, shown = dialogue.end()

    assert code == 0, shown
    assert "Traceback" not in shown
    assert live.sandbox.stats()["logins"] == 1
    assert (tmp_path / "certs/gw.example.com/privkey.pem").exists()


def test_history_holds_no_secret(talk: Talk, tmp_path: Path) -> None:
    dialogue = talk("shell")
    for line, outcome in (
        ("licenses", "issued"),
        ("create -a 42 -d gw.example.com -p secrtpasswrd", "batchName"),
        ("-u x -p other-secret licenses", "(exit code 4)"),
    ):
        dialogue.answer(PROMPT, f"{line}\r")
        dialogue.answer(outcome, "")
    dialogue.answer(PROMPT, CTRL_D)
    dialogue.end()

    kept = history(tmp_path).read_text()
    assert "+licenses" in kept
    assert "secrtpasswrd" not in kept
    assert "other-secret" not in kept
    assert history(tmp_path).stat().st_mode & 0o777 == 0o600
    dialogue = talk("shell")
    dialogue.answer(PROMPT, f"{UP}\r")
    dialogue.answer("issued", "")
    dialogue.answer(PROMPT, CTRL_D)
    assert dialogue.end()[0] == 0


@pytest.mark.parametrize(
    ("line", "secret"),
    [
        ("licenses", False),
        ("upload -p 42 gw.csr", False),
        ("revoke -p 42 -s 1F", False),
        ("create -a 42 -d gw.example.com", False),
        ("create -a 42 -d gw -pabc", True),
        ("create -a 42 -p abc", True),
        ("-p abc licenses", True),
        ("-P 42 -pabc upload x", True),
        ("-u demo -p abc licenses", True),
        ("craete -a 42 -p abc", True),
        ("create -d x '-pabc'", True),
        ("create --pass abc", True),
        ("create --param pin=1234", True),
        ("create -d 'unfinished", True),
        ("create --password=abc", True),
        ("create --param pkcs12Password=abc", True),
    ],
)
def test_what_may_hold_a_secret(line: str, secret: bool) -> None:
    assert may_hold_a_secret(line) is secret


def test_completion_of_commands_options_and_ids(talk: Talk) -> None:
    dialogue = talk("shell")
    dialogue.answer(PROMPT, f"lice{TAB}")
    # What was typed may be drawn before what is completed.
    dialogue.answer("nses", "\r")
    dialogue.answer("issued", "")
    dialogue.answer(PROMPT, f"find --comm{TAB}")
    dialogue.answer("on-name", " x\r")
    dialogue.answer("none found", "")
    dialogue.answer(PROMPT, f"profiles -i 11{TAB}")
    dialogue.answer("7", "\r")
    dialogue.answer("IoT Device", "")
    dialogue.answer(PROMPT, "create -a 42 -d gw.example.com\r")
    dialogue.answer("batchName", "")
    dialogue.answer(PROMPT, f"wait {TAB}")
    dialogue.answer("24", "\r")
    dialogue.answer("READY_FOR_DOWNLOAD", "")
    dialogue.answer(PROMPT, "exit\r")
    assert dialogue.end()[0] == 0


def test_ctrl_c_ends_a_command_and_not_the_shell(talk: Talk, live: Any) -> None:
    live.sandbox.ledger._issue_delay = 600
    dialogue = talk("shell")
    dialogue.answer(PROMPT, "half a line" + CTRL_C)
    dialogue.answer(PROMPT, "create -a 42 -d gw.example.com --wait\r")
    dialogue.child.expect_exact("ordered batch 24")
    time.sleep(0.2)
    dialogue.child.sendintr()
    dialogue.answer("go on with `sectigo-async wait 24`", "")
    dialogue.answer(PROMPT, "licenses\r")
    dialogue.answer("issued", "")
    dialogue.answer(PROMPT, CTRL_D)
    assert dialogue.end()[0] == 0


def test_sigterm_ends_the_shell(talk: Talk) -> None:
    dialogue = talk("shell")
    dialogue.child.expect_exact(PROMPT)
    time.sleep(0.2)
    dialogue.child.kill(signal.SIGTERM)

    assert dialogue.end()[0] == 130


def test_the_shell_asks_for_the_login_once(talk: Talk, live: Any) -> None:
    dialogue = talk("shell", SECTIGO_PASSWORD="", SECTIGO_TOKEN_CACHE="0", SECTIGO_CREDENTIAL_STORE="memory")
    dialogue.answer("Password of demo at", "demo-password\r")
    for _ in range(2):
        dialogue.answer(PROMPT, "licenses\r")
        dialogue.answer("issued", "")
    dialogue.answer(PROMPT, CTRL_D)
    code, shown = dialogue.end()

    assert code == 0, shown
    assert "demo-password" not in shown
    assert live.sandbox.stats()["logins"] == 1


def test_another_login_is_another_client(talk: Talk, live: Any, tmp_path: Path) -> None:
    (tmp_path / "other.env").write_text(f"SECTIGO_ENDPOINT={live.url}/\nSECTIGO_PROFILE=42\n")
    dialogue = talk("shell")
    dialogue.answer(PROMPT, "--env-file other.env -u somebody auth\r")
    dialogue.answer("Password of somebody at", CTRL_C)
    dialogue.answer("(exit code 130)", "")
    dialogue.answer(PROMPT, "-u demo licenses --json\r")
    dialogue.answer('"issued"', "")
    dialogue.answer(PROMPT, "-u x shell\r")
    dialogue.answer("not in the shell", "")
    dialogue.answer(PROMPT, CTRL_D)
    assert dialogue.end()[0] == 0


def test_a_login_in_the_shell_counts_from_then_on(talk: Talk, serve: Any) -> None:
    with serve("-a", ":0") as other:
        dialogue = talk("shell", SECTIGO_PASSWORD="", SECTIGO_ENDPOINT="", SECTIGO_USERNAME="", columns=200)
        dialogue.answer("User name at https://iot.sectigo.com:", CTRL_D)
        assert dialogue.end()[0] == 4
        plain = {"SECTIGO_PASSWORD": "", "SECTIGO_ENDPOINT": "", "SECTIGO_USERNAME": ""}
        login = f"-u demo -e {other} login --credential-store file"
        dialogue = talk(*login.split(), **plain)
        dialogue.answer("Password of demo", "demo-password\r")
        dialogue.answer("(Y/n)", "y")
        dialogue.end()
        dialogue = talk("shell", columns=200, **plain)
        dialogue.answer(PROMPT, "auth --json\r")
        dialogue.answer(other, "")
        dialogue.answer(PROMPT, "logout\r")
        dialogue.answer("signed out demo", "")
        dialogue.answer(PROMPT, "licenses\r")
        dialogue.answer("User name at https://iot.sectigo.com:", CTRL_C)
        dialogue.answer("(exit code 130)", "")
        dialogue.answer(PROMPT, CTRL_D)
        assert dialogue.end()[0] == 0


def test_sigterm_ends_the_shell_from_within_a_command(talk: Talk, live: Any) -> None:
    live.sandbox.ledger._issue_delay = 600
    dialogue = talk("shell")
    dialogue.answer(PROMPT, "create -a 42 -d gw.example.com --wait\r")
    dialogue.child.expect_exact("ordered batch 24")
    time.sleep(0.2)
    dialogue.child.kill(signal.SIGTERM)
    code, shown = dialogue.end()

    assert code == 130
    assert "go on with `sectigo-async wait 24`" in shown


def test_a_wrong_password_does_not_open_the_shell(talk: Talk) -> None:
    code, shown = talk("shell", SECTIGO_PASSWORD="wrong").end()

    assert code == 4
    assert "refused" in shown


def test_completion_behind_global_options(talk: Talk) -> None:
    dialogue = talk("shell")
    dialogue.answer(PROMPT, f"--js{TAB}")
    dialogue.answer("--json", f" lice{TAB}")
    dialogue.answer("licenses", "\r")
    dialogue.answer('"issued"', "")
    dialogue.answer(PROMPT, f"help fin{TAB}")
    dialogue.answer("help find", "\r")
    dialogue.answer("--common-name", "")
    dialogue.answer(PROMPT, CTRL_D)
    assert dialogue.end()[0] == 0


def test_a_password_of_the_shell_is_for_no_other_login(talk: Talk, live: Any, service: Any) -> None:
    other = service({})
    dialogue = talk("-u", "demo", "-p", "demo-password", "shell", SECTIGO_PASSWORD="", SECTIGO_USERNAME="")
    dialogue.answer(PROMPT, f"-e {other.url} licenses\r")
    dialogue.answer("Password of demo at", CTRL_C)
    dialogue.answer("(exit code 130)", "")
    dialogue.answer(PROMPT, "licenses --json\r")
    dialogue.answer('"issued"', "")
    dialogue.answer(PROMPT, CTRL_D)

    assert dialogue.end()[0] == 0
    assert not other.seen
    assert live.sandbox.stats()["logins"] == 1
