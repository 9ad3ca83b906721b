"""Signing out, and what logins leave behind: nothing."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., "subprocess.CompletedProcess[str]"]
STATE = Path("home/.local/state/sectigo-async")
FILE = ("login", "--password-stdin", "--credential-store", "file", "--save-password")


def sign_in(run: Run, url: str, *before: str, **extra: str) -> None:
    result = run("-e", url, "-u", "demo", *before, *FILE, stdin="demo-password", **extra)
    assert result.returncode == 0, result.stderr


def secrets(tmp_path: Path) -> list[str]:
    """Return the files with secrets in the state directory."""
    return sorted(path.name for path in (tmp_path / STATE).rglob("*.json") if path.name != "accounts.json")


@pytest.mark.parametrize("variable", ["", "SECTIGO_TOKEN_CACHE", "SECTIGO_LOCK_DIR"])
def test_logging_out_leaves_nothing_whatever_the_settings(
    bare: Run, live: Any, tmp_path: Path, variable: str
) -> None:
    sign_in(bare, live.url)
    value = {"SECTIGO_TOKEN_CACHE": "0", "SECTIGO_LOCK_DIR": str(tmp_path / "locks")}.get(variable, "")
    assert len(secrets(tmp_path)) == 3

    result = bare("logout", **({variable: value} if variable else {}))

    assert (result.returncode, result.stdout) == (0, ""), result.stderr
    assert result.stderr == f"signed out demo at {live.url}\n"
    assert secrets(tmp_path) == []
    assert bare("-e", live.url, "-u", "demo", "licenses").returncode == 4


def test_an_account_that_becomes_another_login_leaves_nothing_of_the_old_one(
    bare: Run, live: Any, server: str, tmp_path: Path
) -> None:
    sign_in(bare, live.url)
    before = secrets(tmp_path)
    sign_in(bare, server)

    assert len(secrets(tmp_path)) == 3
    # Of the old one only the short-lived access token may be left, and is not.
    assert not set(before) & set(secrets(tmp_path))


def test_another_account_of_the_same_login_keeps_its_password_and_ends_with_it(
    bare: Run, live: Any, tmp_path: Path
) -> None:
    sign_in(bare, live.url)
    second = bare(
        *("-e", live.url, "-u", "demo", "--account", "b", "login", "--credential-store", "file", "--password-stdin"),
        stdin="demo-password",
    )
    assert json.loads(second.stdout)["passwordKept"] is True
    assert bare("--account", "b", "logout").returncode == 0

    assert secrets(tmp_path) == []
    assert json.loads((tmp_path / STATE / "accounts.json").read_text())["accounts"] == {}


@pytest.mark.parametrize(
    ("arguments", "extra", "words"),
    [
        (("--account", "typo"), {}, "no account 'typo'"),
        ((), {"SECTIGO_ACCOUNT": "typo"}, "no account 'typo'"),
        (("--account", "default", "-u", "bob"), {}, "and not 'bob'"),
    ],
)
def test_logging_out_of_what_there_is_not(
    bare: Run, live: Any, tmp_path: Path, *, arguments: tuple[str, ...], extra: dict[str, str], words: str
) -> None:
    sign_in(bare, live.url)

    result = bare(*arguments, "logout", **extra)

    assert result.returncode == 2
    assert words in result.stderr
    assert len(secrets(tmp_path)) == 3


@pytest.mark.parametrize("content", ["garbage", '{"version":1,"accounts":{"default":{"endpoint":5}}}', None])
def test_accounts_that_cannot_be_read_stop_only_those_who_need_them(
    bare: Run, live: Any, tmp_path: Path, content: str | None
) -> None:
    (tmp_path / STATE).mkdir(parents=True, mode=0o700)
    if content is None:
        os.mkfifo(tmp_path / STATE / "accounts.json", 0o600)
    else:
        (tmp_path / STATE / "accounts.json").write_text(content)
        (tmp_path / STATE / "accounts.json").chmod(0o600)
    settings = {"SECTIGO_ENDPOINT": live.url, "SECTIGO_USERNAME": "demo", "SECTIGO_PASSWORD": "demo-password"}

    told = bare("licenses")
    served = bare("licenses", **settings)

    assert told.returncode == 4
    assert "accounts.json" in told.stderr
    assert "move it away" in told.stderr.lower()
    assert served.returncode == 0
    assert "list of accounts is not used" in served.stderr


def test_a_pipe_in_the_place_of_a_token_holds_nobody_up(bare: Run, live: Any, tmp_path: Path) -> None:
    sign_in(bare, live.url)
    (token,) = (tmp_path / STATE).glob("*.access-token.json")
    token.unlink()
    os.mkfifo(token, 0o600)

    result = bare("licenses")

    assert result.returncode == 0
    assert "is not a file" in result.stderr


@pytest.mark.parametrize("token", ["canary-93b1\u00e9", "canary-93b1\n", "canary 93b1"])
def test_an_access_token_that_is_none_is_told_and_not_shown(bare: Run, live: Any, token: str) -> None:
    result = bare("-e", live.url, "licenses", SECTIGO_ACCESS_TOKEN=token)

    assert result.returncode == 2
    assert result.stderr.startswith("error: SECTIGO_ACCESS_TOKEN is not a token")
    assert "canary" not in result.stderr


def test_validate_finds_files_that_are_not_there(bare: Run) -> None:
    result = bare("validate", SECTIGO_CA_BUNDLE="/nowhere/ca.pem")

    assert result.returncode == 2
    assert "SECTIGO_CA_BUNDLE: /nowhere/ca.pem is not a file" in result.stderr
    assert json.loads(result.stdout)


def test_a_lock_directory_is_the_same_from_everywhere(bare: Run) -> None:
    result = bare("-u", "demo", "licenses", SECTIGO_LOCK_DIR="locks")

    assert result.returncode == 2
    assert "whole path" in result.stderr
