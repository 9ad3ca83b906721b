"""Signing in and out at the command line, by one process and by many."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pexpect
import pytest

from sectigo_async.sandbox.errors import ServiceError

Run = Callable[..., "subprocess.CompletedProcess[str]"]
PROGRAM = str(Path(sys.executable).with_name("sectigo-async"))
STATE = Path("home/.local/state/sectigo-async")
FILE = ("login", "--password-stdin", "--credential-store", "file")


def document(result: "subprocess.CompletedProcess[str]") -> Any:
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def error(result: "subprocess.CompletedProcess[str]", code: int) -> str:
    assert result.returncode == code, (result.stdout, result.stderr)
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    return line


@pytest.fixture
def signed_in(bare: Run, live: Any) -> Run:
    """Sign in to a file, with the password kept, so that other commands need no settings."""
    document(bare("-e", live.url, "-u", "demo", *FILE, "--save-password", stdin="demo-password\n"))
    return bare


def test_a_login_serves_every_later_command(bare: Run, live: Any, tmp_path: Path) -> None:
    told = document(bare("-e", live.url, "-u", "demo", *FILE, stdin="demo-password\n"))
    assert told.pop("validUntil").endswith("Z")
    assert told == {
        "account": "default",
        "username": "demo",
        "endpoint": live.url,
        "environment": "testing",
        "credentialStore": "file",
        "passwordKept": False,
    }

    assert document(bare("licenses")) == {"ordered": 0, "issued": 0}
    assert live.sandbox.counts["logins"] == 1
    live.clock.advance(700)
    document(bare("licenses"))
    assert (live.sandbox.counts["logins"], live.sandbox.counts["refreshes"]) == (1, 1)
    assert all(path.stat().st_mode & 0o077 == 0 for path in (tmp_path / STATE).rglob("*"))
    kept = b"".join(path.read_bytes() for path in (tmp_path / STATE).rglob("*") if path.is_file())
    assert b"demo-password" not in kept


def test_where_there_is_no_keyring_nothing_can_be_left_in_it(signed_in: Run, live: Any, tmp_path: Path) -> None:
    for _ in range(2):
        result = signed_in("-e", live.url, "-u", "demo", "logout", SECTIGO_CREDENTIAL_STORE="keyring")
        assert (result.returncode, result.stderr) == (0, f"signed out demo at {live.url}\n")
    assert not list((tmp_path / STATE / "credentials").iterdir())


KEYRING = """
import json, pathlib
from keyring.backend import KeyringBackend

kept = pathlib.Path("kept.json")

class Good(KeyringBackend):
    priority = 1
    def _all(self):
        return json.loads(kept.read_text()) if kept.exists() else {}
    def get_password(self, service, username):
        return self._all().get(service)
    def set_password(self, service, username, password):
        kept.write_text(json.dumps(self._all() | {service: password}))
    def delete_password(self, service, username):
        kept.write_text(json.dumps({name: value for name, value in self._all().items() if name != service}))
"""


def test_a_login_that_moves_to_the_keyring_leaves_nothing_in_the_file(signed_in: Run, tmp_path: Path) -> None:
    (tmp_path / "backends.py").write_text(KEYRING)
    good = {"PYTHON_KEYRING_BACKEND": "backends.Good", "PYTHONPATH": str(tmp_path)}
    moved = signed_in("login", "--password-stdin", "--credential-store", "keyring", stdin="demo-password", **good)

    assert document(moved)["credentialStore"] == "keyring"
    assert not list((tmp_path / STATE / "credentials").iterdir())
    document(signed_in("licenses", **good))
    assert signed_in("logout", **good).returncode == 0
    assert json.loads((tmp_path / "kept.json").read_text()) == {}


def test_logging_out_forgets_everything(signed_in: Run, live: Any, tmp_path: Path) -> None:
    result = signed_in("logout")

    assert (result.returncode, result.stdout) == (0, "")
    assert result.stderr == f"signed out demo at {live.url}\n"
    assert [path.name for path in (tmp_path / STATE).rglob("*.json")] == ["accounts.json"]
    assert "no user name" in error(signed_in("licenses"), 4)
    assert "nobody is signed in" in error(signed_in("logout"), 4)


def test_without_a_password_kept_a_lost_refresh_token_needs_a_new_login(bare: Run, live: Any) -> None:
    document(bare("-e", live.url, "-u", "demo", *FILE, "--no-save-password", stdin="demo-password\n"))
    live.sandbox.reset_tokens()

    assert "sectigo-async login" in error(bare("licenses"), 4)


def test_a_service_that_forgets_every_token_is_not_noticed_by_the_next_command(signed_in: Run, live: Any) -> None:
    live.sandbox.reset_tokens()

    document(signed_in("licenses"))

    assert live.sandbox.counts["logins"] == 2


def at_once(tmp_path: Path, count: int, *arguments: str) -> None:
    """Start the same command many times; all must succeed."""
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path / "home")}
    processes = [
        subprocess.Popen([PROGRAM, *arguments], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(count)
    ]
    for process in processes:
        output, errors = process.communicate(timeout=50)
        assert process.returncode == 0, errors
        assert json.loads(output)


@pytest.mark.parametrize("how", ["ended", "lost"])
def test_eight_processes_refresh_once_among_them(signed_in: Run, live: Any, tmp_path: Path, how: str) -> None:
    """Where a refresh token is good once, a second use of it would sign out all."""
    del signed_in
    if how == "ended":
        live.clock.advance(700)  # The processes think that the token is good: the service says that it is not.
    else:
        next((tmp_path / STATE).glob("*.access-token.json")).unlink()

    at_once(tmp_path, 8, "licenses")

    assert (live.sandbox.counts["refreshes"], live.sandbox.counts["logins"]) == (1, 1)
    live.clock.advance(700)
    at_once(tmp_path, 2, "licenses")
    assert (live.sandbox.counts["refreshes"], live.sandbox.counts["logins"]) == (2, 1)


HOLDER = """
import asyncio
from sectigo_async import SystemClock
from sectigo_async.credentials import resolve

async def main():
    found = resolve()
    async with found.credentials.share(found.config.endpoint, SystemClock()).locked():
        print("held", flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


def test_a_killed_holder_of_the_lock_delays_nobody(signed_in: Run, live: Any, tmp_path: Path) -> None:
    live.clock.advance(700)
    refused, authorise = threading.Event(), live.sandbox.authorise

    def noticing(token: str) -> None:
        try:
            authorise(token)
        except ServiceError:
            refused.set()
            raise

    live.sandbox.authorise = noticing
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path / "home")}
    holder = subprocess.Popen([sys.executable, "-c", HOLDER], env=env, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    waiting = subprocess.Popen([PROGRAM, "licenses"], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert refused.wait(20)
    with pytest.raises(subprocess.TimeoutExpired):
        waiting.wait(0.3)  # Its token is refused, and the lock is not to be had.

    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    killed = time.monotonic()
    _, errors = waiting.communicate(timeout=20)

    assert waiting.returncode == 0, errors
    assert time.monotonic() - killed < 10, "far below the 60 s after which a lock is given up"
    assert live.sandbox.counts["refreshes"] == 1
    document(signed_in("licenses"))


def test_accounts_keep_several_logins_apart(bare: Run, live: Any, server: str) -> None:
    document(bare("-e", live.url, "-u", "demo", "--account", "lab", *FILE, stdin="demo-password"))
    document(bare("-e", server, "-u", "demo", *FILE, stdin="demo-password"))

    def endpoint(*arguments: str, **extra: str) -> str:
        settings = {entry["name"]: entry for entry in document(bare(*arguments, "validate", **extra))}
        return str(settings["SECTIGO_ENDPOINT"]["value"])

    assert endpoint() == server
    assert endpoint("--account", "lab") == live.url
    assert endpoint(SECTIGO_ACCOUNT="lab") == live.url
    assert endpoint("--account", "lab", SECTIGO_ENDPOINT=server, SECTIGO_USERNAME="eve") == live.url
    assert endpoint(SECTIGO_ENDPOINT=live.url) == live.url
    assert "there is no account 'moon'" in error(bare("--account", "moon", "licenses"), 2)
    assert "and not" in error(bare("licenses", SECTIGO_ACCOUNT="lab", SECTIGO_ENDPOINT=server), 2)
    document(bare("--account", "lab", "licenses"))
    assert bare("--account", "lab", "logout").returncode == 0
    assert "no account 'lab'" in error(bare("--account", "lab", "licenses"), 2)
    document(bare("licenses"))


def test_a_password_of_the_environment_does_not_follow_another_account(bare: Run, live: Any, server: str) -> None:
    document(bare("-e", live.url, "-u", "demo", "--account", "lab", *FILE, stdin="demo-password"))
    live.sandbox.reset_tokens()
    wrong = {"SECTIGO_ENDPOINT": server, "SECTIGO_USERNAME": "demo", "SECTIGO_PASSWORD": "of-the-other-service"}

    assert "no longer accepts" in error(bare("--account", "lab", "licenses", **wrong), 4)

    assert live.sandbox.counts["logins"] == 1


def test_the_stored_login_of_one_endpoint_is_not_sent_to_another(signed_in: Run, server: str) -> None:
    said = error(signed_in("-u", "demo", "licenses", SECTIGO_ENDPOINT=server), 4)

    assert "no password" in said


def test_validate_tells_where_each_value_comes_from_and_no_secret(signed_in: Run, live: Any, tmp_path: Path) -> None:
    (tmp_path / "lab.env").write_text("SECTIGO_PROFILE=42\nSECTIGO_PASSWORD=canary-93b1\nOTHER=canary\n")
    result = signed_in("--env-file", "lab.env", "-E", "testing", "validate", SECTIGO_KEYRING_TIMEOUT="7")

    found = {entry["name"]: (entry["value"], entry["source"]) for entry in document(result)}
    other = document(signed_in("-P", "7", "validate"))
    assert {"name": "SECTIGO_PROFILE", "value": "7", "source": "argument"} in other
    assert found["SECTIGO_ENDPOINT"] == (live.url, "account default")
    assert found["SECTIGO_ENVIRONMENT"] == ("testing", "argument")
    assert found["SECTIGO_KEYRING_TIMEOUT"] == ("7", "environment")
    assert found["SECTIGO_PROFILE"] == ("42", "file lab.env")
    assert found["SECTIGO_PASSWORD"] == ("**********", "file lab.env")
    assert "canary" not in result.stdout + result.stderr


def test_an_env_file_is_read_when_named_and_told_of_when_it_lies_there(bare: Run, live: Any, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(
        f"# the lab\nexport SECTIGO_USERNAME=demo\nSECTIGO_PASSWORD='demo-password'\nSECTIGO_ENDPOINT={live.url}\n"
    )

    assert "--env-file .env" in error(bare("licenses"), 4)
    document(bare("--env-file", ".env", "licenses"))
    assert live.sandbox.counts["logins"] == 1
    assert "cannot connect" in error(
        bare("--env-file", ".env", "licenses", SECTIGO_ENDPOINT="http://127.0.0.1:1"), 1
    ), "the environment itself counts more"
    assert "cannot read" in error(bare("--env-file", "nowhere", "licenses"), 2)


@pytest.mark.parametrize(
    ("arguments", "extra", "code", "words"),
    [
        (("login",), {}, 4, "no user name"),
        (("-u", "demo", "login"), {}, 4, "no usable keyring"),
        (("-u", "demo", "login", "--credential-store", "file"), {}, 4, "no password"),
        (("-u", "demo", "login", "--password-stdin"), {}, 2, "holds no password"),
        (("-u", "demo", "login", "--password-file", "nowhere"), {}, 4, "no such file"),
        (("-u", "demo", "login", "--credential-store", "cloud"), {}, 2, "keyring, file"),
        (("-u", "demo", "login", "--credential-store", "memory"), {}, 2, "memory"),
        (("licenses",), {"SECTIGO_CREDENTIAL_STORE": "cloud"}, 2, "SECTIGO_CREDENTIAL_STORE"),
        (("licenses",), {"SECTIGO_TOKEN_CACHE": "yes"}, 2, "SECTIGO_TOKEN_CACHE"),
        (("licenses",), {"SECTIGO_KEYRING_TIMEOUT": "soon"}, 2, "SECTIGO_KEYRING_TIMEOUT"),
        (("licenses",), {"SECTIGO_KEYRING_TIMEOUT": "nan"}, 2, "SECTIGO_KEYRING_TIMEOUT"),
        (("licenses",), {"SECTIGO_PASSWORD": "x", "SECTIGO_PASSWORD_FILE": "x"}, 2, "SECTIGO_PASSWORD_FILE"),
        (("licenses",), {"SECTIGO_CLIENT_KEY": "x"}, 2, "SECTIGO_CLIENT_CERT"),
        (("licenses",), {"SECTIGO_LOGIN_HOST": "https://a"}, 2, "SECTIGO_LOGIN_HOST"),
        (("licenses",), {"SECTIGO_PASSWORD_FILE": "nowhere", "SECTIGO_USERNAME": "demo"}, 4, "no such file"),
        (("licenses",), {"SECTIGO_ACCESS_TOKEN": "a.b.c"}, 4, "no longer accepts SECTIGO_ACCESS_TOKEN"),
        (("licenses",), {"SECTIGO_ACCOUNT": "moon"}, 2, "no account 'moon'"),
        (("-u", "de\nmo", "licenses"), {"SECTIGO_PASSWORD": "x"}, 2, "control characters"),
    ],
)
def test_what_cannot_work_is_told(
    bare: Run, server: str, *, arguments: tuple[str, ...], extra: dict[str, str], code: int, words: str
) -> None:
    assert words in error(bare(*arguments, **{"SECTIGO_ENDPOINT": server} | extra), code)


def test_a_ca_bundle_that_is_none_is_told(bare: Run, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("hello")
    told = bare("-e", "https://127.0.0.1:1", "licenses", SECTIGO_CA_BUNDLE="ca.pem", SECTIGO_ACCESS_TOKEN="a.b.c")

    assert "SECTIGO_CA_BUNDLE" in error(told, 2)


def test_files_supply_password_and_refresh_token(bare: Run, live: Any, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("demo-password\n")
    settings = {"SECTIGO_ENDPOINT": live.url, "SECTIGO_USERNAME": "demo"}
    document(bare("licenses", **settings, SECTIGO_PASSWORD_FILE="password"))
    assert live.sandbox.counts["logins"] == 1
    token = live.sandbox.sign_in("demo", "demo-password")["refreshToken"]
    (tmp_path / "token").write_text(token + "\n")
    settings = {"SECTIGO_ENDPOINT": live.url, "SECTIGO_REFRESH_TOKEN_FILE": "token"}
    assert bare("auth", **settings).returncode == 0
    assert bare("auth", "--debug", **settings).stdout.startswith("credentials are valid until")

    for _ in range(2):
        document(bare("licenses", **settings))
        live.clock.advance(700)
    document(bare("licenses", **settings, SECTIGO_TOKEN_CACHE="0"))

    assert (live.sandbox.counts["logins"], live.sandbox.counts["refreshes"]) == (2, 3)
    assert (tmp_path / "token").read_text() != token


def test_a_wrong_password_is_sent_once_whatever_runs(bare: Run, live: Any) -> None:
    settings = {"SECTIGO_ENDPOINT": live.url, "SECTIGO_USERNAME": "demo", "SECTIGO_PASSWORD": "wrong"}
    assert "refused the user name or password" in error(bare("licenses", **settings), 4)
    assert "was not sent again" in error(bare("licenses", **settings), 4)
    assert "sectigo-async auth" in error(bare("authorities", **settings), 4)

    assert "was not sent again" in error(bare("auth", **settings), 4), "where nobody is there to ask for it"
    document(bare("licenses", **settings | {"SECTIGO_PASSWORD": "demo-password"}))


def test_a_kept_password_that_was_refused_is_tried_when_a_person_asks(
    signed_in: Run, live: Any, tmp_path: Path
) -> None:
    live.sandbox.reset_tokens()
    sign_in = live.sandbox.sign_in

    def refuse(*_: str) -> Any:
        raise ServiceError(401, "Account is locked")

    live.sandbox.sign_in = refuse
    assert "refused the user name or password" in error(signed_in("licenses"), 4)
    live.sandbox.sign_in = sign_in
    assert "run `sectigo-async auth` on a terminal" in error(signed_in("auth"), 4)
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path / "home"), "TERM": "xterm"}
    assert pexpect.run(f"{PROGRAM} auth", env=env, withexitstatus=True, timeout=20)[1] == 0
    document(signed_in("licenses"))


def test_a_password_given_in_two_ways_is_a_usage_error(bare: Run, live: Any) -> None:
    result = bare("-e", live.url, "-u", "demo", "-p", "x", "login", "--password-file", "x")

    assert result.returncode == 2
    assert "in one way" in result.stderr


def test_the_state_directory_does_not_depend_on_the_session(signed_in: Run, live: Any, tmp_path: Path) -> None:
    for name in ("XDG_STATE_HOME", "XDG_RUNTIME_DIR", "XDG_CACHE_HOME"):
        document(signed_in("licenses", **{name: str(tmp_path / "session")}))

    assert live.sandbox.counts["logins"] == 1
    assert not (tmp_path / "session").exists()


def test_the_lock_directory_may_lie_elsewhere(signed_in: Run, live: Any, tmp_path: Path) -> None:
    document(signed_in("licenses", SECTIGO_LOCK_DIR=str(tmp_path / "locks")))
    assert {path.suffix for path in (tmp_path / "locks").iterdir()} == {".lock", ".json"}
    assert live.sandbox.counts["refreshes"] == 1

    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    live.clock.advance(700)
    assert "others may write" in error(signed_in("licenses", SECTIGO_LOCK_DIR=str(tmp_path / "open")), 4)
