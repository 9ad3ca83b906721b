"""The real thing: gnome-keyring behind the Secret Service of a session bus."""

import asyncio
import gc
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sectigo_async import CredentialStore, KeyringStore, Secret
from sectigo_async.credentials import Item, Login
from sectigo_async.errors import KeyringLockedError
from sectigo_async.testing import CredentialStoreContract

pytestmark = pytest.mark.keyring

PROGRAM = str(Path(sys.executable).with_name("sectigo-async"))
OPS = Login("https://iot.sectigo.com", "ops")
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def _in_this_process(secret_service: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    import keyring.core

    for name, value in secret_service.environment.items():
        monkeypatch.setenv(name, value)
    keyring.core.init_backend()
    yield
    monkeypatch.undo()
    keyring.core._keyring_backend = None
    with warnings.catch_warnings():
        # The library leaves sockets to the collector.
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.mark.usefixtures("_in_this_process")
class TestKeyringStore(CredentialStoreContract):
    def make_store(self) -> CredentialStore:
        return KeyringStore()


LOCK = "import secretstorage as s; c = s.dbus_init(); s.get_default_collection(c).lock(); c.close()"


@pytest.mark.usefixtures("_in_this_process")
async def test_a_locked_keyring_is_told() -> None:
    store = KeyringStore()
    await store.save(OPS, Item.PASSWORD, Secret("canary-93b1"))
    await asyncio.to_thread(subprocess.run, [sys.executable, "-c", LOCK], check=True)

    with pytest.raises(KeyringLockedError, match="locked") as caught:
        await store.load(OPS, Item.PASSWORD)

    assert "SECTIGO_PASSWORD_FILE" in caught.value.hint


@pytest.fixture
def run(secret_service: Any, tmp_path: Path) -> Run:
    def execute(*arguments: str, stdin: str = "", **extra: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [PROGRAM, *arguments],
            env={"PATH": os.environ["PATH"]} | secret_service.environment | extra,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
            cwd=tmp_path,
        )

    return execute


def document(result: "subprocess.CompletedProcess[str]") -> Any:
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def kept(secret_service: Any) -> list[str]:
    """Return the names of what the keyring holds, as another program sees them."""
    shown = subprocess.run(
        ["/usr/bin/env", "secret-tool", "search", "--all", "application", "Python keyring library"],
        env={"PATH": os.environ["PATH"]} | secret_service.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    lines = (shown.stdout + shown.stderr).splitlines()
    return sorted(line.partition(" = ")[2] for line in lines if line.startswith("attribute.service"))


def test_login_and_logout_with_the_keyring(run: Run, secret_service: Any, live: Any) -> None:
    told = document(
        run("-e", live.url, "-u", "demo", "login", "--password-stdin", "--save-password", stdin="demo-password")
    )
    assert (told["credentialStore"], told["passwordKept"]) == ("keyring", True)
    assert kept(secret_service) == [
        f"sectigo-async:v1:password:{live.url}#demo",
        f"sectigo-async:v1:refresh-token:{live.url}#demo",
    ]
    files = [path for path in Path(secret_service.environment["HOME"]).rglob("*") if path.is_file()]
    assert not any(b"demo-password" in path.read_bytes() for path in files)

    live.clock.advance(700)
    document(run("licenses"))
    assert (live.sandbox.counts["logins"], live.sandbox.counts["refreshes"]) == (1, 1)
    live.sandbox.reset_tokens()
    document(run("licenses"))
    assert live.sandbox.counts["logins"] == 2
    assert run("auth").stdout == "user authenticated and credentials cached\n"

    assert run("logout").returncode == 0
    assert kept(secret_service) == []
    assert run("licenses").returncode == 4


def test_logging_out_forgets_what_an_earlier_login_left_in_the_keyring(
    run: Run, secret_service: Any, live: Any
) -> None:
    login = ("-e", live.url, "-u", "demo", "login", "--password-stdin", "--save-password")
    document(run(*login, stdin="demo-password"))
    os.kill(secret_service.pid, signal.SIGSTOP)
    moved = run(*login, "--credential-store", "file", stdin="demo-password", SECTIGO_KEYRING_TIMEOUT="1")
    assert "is still there: the keyring did not answer within 1 s" in moved.stderr
    os.kill(secret_service.pid, signal.SIGCONT)

    assert run("logout").returncode == 0
    assert kept(secret_service) == []


def test_eight_processes_refresh_once_among_them(run: Run, secret_service: Any, live: Any) -> None:
    document(run("-e", live.url, "-u", "demo", "login", "--password-stdin", stdin="demo-password"))
    live.clock.advance(700)
    processes = [
        subprocess.Popen(
            [PROGRAM, "licenses"],
            env={"PATH": os.environ["PATH"]} | secret_service.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for _ in range(8)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=50)
        assert process.returncode == 0, errors

    assert (live.sandbox.counts["logins"], live.sandbox.counts["refreshes"]) == (1, 1)
    live.clock.advance(700)
    document(run("licenses"))


def test_a_command_ends_although_the_keyring_hangs(run: Run, secret_service: Any, live: Any) -> None:
    os.kill(secret_service.pid, signal.SIGSTOP)
    started = time.monotonic()

    result = run("-e", live.url, "-u", "demo", "licenses", SECTIGO_KEYRING_TIMEOUT="1")

    assert result.returncode == 4
    assert "did not answer within 1 s" in result.stderr
    assert time.monotonic() - started < 5
    document(run("-e", live.url, "-u", "demo", "licenses", SECTIGO_PASSWORD="demo-password"))
