"""On a terminal: what is missing is asked for, on stderr, and nothing that is typed in secret is shown."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pexpect
import pytest

Spawn = Callable[..., "pexpect.spawn[str]"]
PASSWORD = "demo-password"  # noqa: S105 - of a simulator


@pytest.fixture
def spawn(talk: Callable[..., Any], live: Any) -> Spawn:
    """Run a command on a terminal, with nothing to sign in with but what the test gives."""
    nobody = dict.fromkeys(("SECTIGO_ENDPOINT", "SECTIGO_USERNAME", "SECTIGO_PASSWORD"), "")

    def begin(*arguments: str, **extra: str) -> "pexpect.spawn[str]":
        child: pexpect.spawn[str] = talk("-e", live.url, *arguments, **nobody | extra).child
        return child

    return begin


def end(child: "pexpect.spawn[str]") -> tuple[int | None, str]:
    shown = child.read()
    child.close()
    return child.exitstatus, re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown).replace("\r", "")


def test_login_asks_for_what_is_missing_and_offers_to_keep_the_password(spawn: Spawn, live: Any) -> None:
    child = spawn("login", "--credential-store", "file")
    child.expect_exact(f"User name at {live.url}:")
    child.send("demo\r")
    child.expect_exact(f"Password of demo at {live.url}:")
    child.send(PASSWORD + "\r")
    child.expect_exact("Keep the password in the file too, so that signing in goes on by itself? ")
    child.send("\r")
    code, shown = end(child)

    assert code == 0
    assert "passwordKept" in shown
    assert "yes" in shown
    assert PASSWORD not in shown
    live.sandbox.reset_tokens()
    code, shown = end(spawn("licenses"))
    assert code == 0, shown
    assert live.sandbox.counts["logins"] == 2


def test_a_password_that_is_not_to_be_kept_is_forgotten(spawn: Spawn, live: Any) -> None:
    for answer in ("y", "n"):
        child = spawn("-u", "demo", "login", "--credential-store", "file")
        child.expect_exact("Password of demo")
        child.send(PASSWORD + "\r")
        child.expect_exact("(Y/n)")
        child.send("what?")
        child.send(answer)
        assert end(child)[0] == 0
    live.sandbox.reset_tokens()

    child = spawn("licenses")
    child.expect_exact("error: the service no longer accepts the login of 'demo'")
    assert end(child)[0] == 4


def test_any_command_asks_when_there_is_nothing_to_sign_in_with(spawn: Spawn, live: Any) -> None:
    child = spawn("licenses")
    child.expect_exact(f"User name at {live.url}:")
    child.send("demo\r")
    child.expect_exact(f"Password of demo at {live.url}:")
    child.send(PASSWORD + "\r")
    code, shown = end(child)

    assert code == 0, shown
    assert "ordered" in shown
    assert PASSWORD not in shown
    code, shown = end(spawn("-u", "demo", "licenses"))
    assert code == 0, shown
    assert live.sandbox.counts["logins"] == 1, "the access token is shared with the next command"


def test_who_is_signed_in_already_is_asked_for_no_password(spawn: Spawn, live: Any) -> None:
    assert end(spawn("-u", "demo", "licenses", SECTIGO_PASSWORD=PASSWORD))[0] == 0
    child = spawn("licenses")
    child.expect_exact("User name at")
    child.send("demo\r")
    code, shown = end(child)

    assert code == 0
    assert "Password" not in shown
    assert live.sandbox.counts["logins"] == 1


def test_who_gives_a_refresh_token_is_asked_for_nothing(spawn: Spawn, live: Any, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(live.sandbox.sign_in("demo", "demo-password")["refreshToken"])

    code, shown = end(spawn("licenses", SECTIGO_REFRESH_TOKEN_FILE="token"))

    assert code == 0, shown
    assert "User name" not in shown


def test_ctrl_c_at_the_last_question_tells_that_the_login_is_kept(spawn: Spawn) -> None:
    for key, code in (("\x03", 130), ("\x04", 0)):
        child = spawn("-u", "demo", "login", "--credential-store", "file")
        child.expect_exact("Password of demo")
        child.send(PASSWORD + "\r")
        child.expect_exact("(Y/n)")
        child.send(key)
        status, shown = end(child)
        assert status == code
        assert "signed in all the same" in shown or code == 0
    assert end(spawn("licenses"))[0] == 0


def test_auth_tells_who_where_by_what_and_how_long(spawn: Spawn, live: Any) -> None:
    code, shown = end(spawn("-u", "demo", "auth", SECTIGO_PASSWORD=PASSWORD))

    assert code == 0
    told = dict(re.split(r"\s{2,}", line.strip(), maxsplit=1) for line in shown.splitlines() if line.strip())
    assert told["username"] == "demo"
    assert told["endpoint"] == live.url
    assert told["environment"] == "testing"
    assert told["signed in by"] == "password (SECTIGO_PASSWORD)"
    assert "UTC" in told["token valid until"]


@pytest.mark.parametrize("prompt", ["User name", "Password of demo"])
def test_ctrl_c_and_ctrl_d_at_a_prompt(spawn: Spawn, live: Any, prompt: str) -> None:
    for key, code, words in (("\x03", 130, "interrupted"), ("\x04", 4, "there was no answer")):
        child = spawn(*(() if prompt == "User name" else ("-u", "demo")), "licenses")
        child.expect_exact(prompt)
        child.expect_exact(":")
        child.send(key)
        status, shown = end(child)

        assert status == code, shown
        assert words in shown
        assert "Traceback" not in shown
    assert live.sandbox.counts["logins"] == 0


def test_nothing_is_asked_where_there_is_no_terminal(bare: Any, live: Any) -> None:
    result = bare("-e", live.url, "licenses")

    assert result.returncode == 4
    assert "User name" not in result.stderr
