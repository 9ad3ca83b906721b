"""Keyrings that fail, each in its own way: a typed error that names the way out, in a process that ends."""

import asyncio
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import filelock
import pytest

from sectigo_async import KeyringStore, Secret
from sectigo_async.credentials import Item, Login
from sectigo_async.credentials.keyring_store import _check_length
from sectigo_async.errors import CredentialStoreError, KeyringTimeoutError, KeyringUnavailableError

OPS = Login("https://iot.sectigo.com", "ops")

BACKENDS = """
import sqlite3, time
from keyring.backend import KeyringBackend
from keyring.errors import InitError, KeyringLocked, PasswordSetError

class Good(KeyringBackend):
    priority = 1
    kept = {}
    def get_password(self, service, username):
        return self.kept.get((service, username))
    def set_password(self, service, username, password):
        self.kept[service, username] = password
    def delete_password(self, service, username):
        del self.kept[service, username]

Good = globals().get("Good") or PlaintextKeyring

class Hanging(Good):
    def get_password(self, service, username):
        time.sleep(3600)

class Locked(Good):
    def get_password(self, service, username):
        raise KeyringLocked("Failed to unlock the collection!")

class Dismissed(Good):
    def get_password(self, service, username):
        raise InitError("Failed to create the collection: Prompt dismissed..")

class Raw(Good):
    def get_password(self, service, username):
        raise sqlite3.OperationalError("org.freedesktop.DBus.Error.Spawn.ChildExited")

class Forgetful(Good):
    def set_password(self, service, username, password):
        pass

class Small(Good):
    def set_password(self, service, username, password):
        super().set_password(service, username, password[:100])

class Short(Good):
    def set_password(self, service, username, password):
        raise OSError(1783, "The stub received bad data: " + password)

class Foreign(Good):
    def set_password(self, service, username, password):
        raise PasswordSetError("Can't store password on keychain: (-25244, 'Unknown Error')")

class Sticky(Good):
    def delete_password(self, service, username):
        pass
"""

USE = """
import asyncio, sys
from sectigo_async import KeyringStore, Secret
from sectigo_async.credentials import Item, Login
from sectigo_async.errors import CredentialStoreError

async def main():
    store, login = KeyringStore(timeout=1), Login("https://iot.sectigo.com", "ops")
    try:
        await store.load(login, Item.PASSWORD)
        await store.save(login, Item.PASSWORD, Secret("canary-93b1" * 20))
        await store.erase(login, Item.PASSWORD)
    except CredentialStoreError as error:
        print(type(error).__name__, "|", error, "|", error.hint)
        assert error.__cause__ is None and error.__context__ is None
    else:
        print("fine")

asyncio.run(main())
"""


def use(tmp_path: Path, backend: str, *, path: Path | None = None, **extra: str) -> str:
    (tmp_path / "backends.py").write_text(BACKENDS)
    settings = {"PYTHONPATH": str(path or tmp_path), "HOME": str(tmp_path / "home")} | extra
    if backend:
        settings["PYTHON_KEYRING_BACKEND"] = backend
    started = time.monotonic()
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", USE],
        env={"PATH": os.environ["PATH"]} | settings,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert time.monotonic() - started < 6
    assert result.returncode == 0, result.stderr
    assert not result.stderr
    assert "canary" not in result.stdout
    return result.stdout.strip()


@pytest.mark.parametrize(
    ("backend", "kind", "words"),
    [
        ("backends.Hanging", "KeyringTimeoutError", ["did not answer within 1 s", "SECTIGO_KEYRING_TIMEOUT"]),
        ("backends.Locked", "KeyringLockedError", ["locked", "unlock it"]),
        ("backends.Dismissed", "KeyringLockedError", ["Prompt dismissed", "SECTIGO_PASSWORD_FILE"]),
        ("backends.Raw", "CredentialStoreError", ["OperationalError", "ChildExited", "SECTIGO_PASSWORD_FILE"]),
        ("backends.Forgetful", "CredentialStoreError", ["did not keep", "--credential-store file"]),
        ("backends.Small", "CredentialStoreError", ["did not keep", "--credential-store file"]),
        ("backends.Short", "CredentialStoreError", ["too long", "SECTIGO_CREDENTIAL_STORE=file"]),
        ("backends.Foreign", "CredentialStoreError", ["-25244", "Keychain Access"]),
        ("backends.Sticky", "CredentialStoreError", ["still holds", "delete it"]),
        ("backends.Missing", "KeyringUnavailableError", ["Missing", "PYTHON_KEYRING_BACKEND"]),
        ("nowhere.Keyring", "KeyringUnavailableError", ["nowhere", "PYTHON_KEYRING_BACKEND"]),
        ("keyring.backends.null.Keyring", "KeyringUnavailableError", ["null.Keyring is refused"]),
        ("keyring.backends.fail.Keyring", "KeyringUnavailableError", ["no usable keyring", "SECTIGO_PASSWORD_FILE"]),
        ("keyring.backends.chainer.ChainerBackend", "KeyringUnavailableError", ["no usable keyring"]),
        ("", "KeyringUnavailableError", ["no usable keyring (found: keyring.backends.fail.Keyring)"]),
    ],
)
def test_a_keyring_that_fails(tmp_path: Path, backend: str, kind: str, words: list[str]) -> None:
    said = use(tmp_path, backend)

    assert said.startswith(f"{kind} | ")
    assert all(word in said for word in words), said
    assert said.rpartition(" | ")[2]


def test_a_keyring_that_the_user_names_is_used(tmp_path: Path) -> None:
    assert use(tmp_path, "backends.Good") == "fine"


def test_a_keyring_in_clear_text_is_refused_however_it_is_chosen(tmp_path: Path) -> None:
    package = tmp_path / "path" / "keyrings" / "alt"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "file.py").write_text(BACKENDS.replace("class Good", "class PlaintextKeyring", 1))
    config = tmp_path / "home" / ".config" / "python_keyring"
    config.mkdir(parents=True)
    (config / "keyringrc.cfg").write_text("[backend]\ndefault-keyring=keyrings.alt.file.PlaintextKeyring\n")

    for backend in ("keyrings.alt.file.PlaintextKeyring", ""):
        said = use(tmp_path, backend, path=tmp_path / "path")
        assert said.startswith("KeyringUnavailableError | the keyring keyrings.alt.file.PlaintextKeyring is refused")


def test_a_bus_that_accepts_and_never_answers_is_given_up(tmp_path: Path) -> None:
    import socket

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "bus"))
        listener.listen()
        said = use(tmp_path, "", DBUS_SESSION_BUS_ADDRESS=f"unix:path={tmp_path / 'bus'}")

    assert said.startswith(("KeyringUnavailableError | there is no usable keyring", "KeyringTimeoutError"))


def test_what_is_too_long_for_windows_is_told_before_it_is_written() -> None:
    windows = type("WinVaultKeyring", (), {"__module__": "keyring.backends.Windows"})()

    _check_length(windows, Secret("x" * 1280))
    with pytest.raises(CredentialStoreError, match="2562 bytes, at most 2560"):
        _check_length(windows, Secret("x" * 1281))


async def test_a_chain_of_unsafe_keyrings_is_refused_even_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    import keyring

    unsafe = type("PlaintextKeyring", (), {"__module__": "keyrings.alt.file"})()
    chain = type("Chain", (), {"__module__": "third.party", "backends": [unsafe]})()
    monkeypatch.setattr(keyring, "get_keyring", lambda: chain)
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "third.party.Chain")

    with pytest.raises(KeyringUnavailableError):
        await KeyringStore().load(OPS, Item.PASSWORD)


class Slow:
    """A keyring that answers when it is let; it tells how many were in it at once."""

    def __init__(self) -> None:
        self.busy = self.most = 0
        self.let = threading.Event()
        self.saved: list[str] = []

    def get_password(self, *_: str) -> str | None:
        self.busy += 1
        self.most = max(self.most, self.busy)
        self.let.wait(10)
        time.sleep(0.001)
        self.busy -= 1
        return None

    def set_password(self, *arguments: str) -> None:
        self.saved.append(arguments[-1])


Slow.__module__ = "keyring.backends.SecretService"


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Slow:
    import keyring

    backend = Slow()
    monkeypatch.setattr(keyring, "get_keyring", lambda: backend)
    return backend


async def test_one_that_hangs_keeps_no_other_process_out_and_nothing_is_done_afterwards(
    slow: Slow, tmp_path: Path
) -> None:
    store = KeyringStore(timeout=0.2, lock=tmp_path / "keyring.lock")
    with pytest.raises(KeyringTimeoutError, match=r"did not answer within 0\.2 s"):
        await store.load(OPS, Item.PASSWORD)
    with filelock.FileLock(tmp_path / "keyring.lock", timeout=0):
        pass
    with pytest.raises(KeyringTimeoutError, match="in use by another"):
        await store.save(OPS, Item.PASSWORD, Secret("stale"))
    slow.let.set()
    await KeyringStore(lock=tmp_path / "keyring.lock").load(OPS, Item.PASSWORD)

    assert not slow.saved


async def test_the_keyring_is_used_by_one_at_a_time(slow: Slow, tmp_path: Path) -> None:
    slow.let.set()
    store = KeyringStore(timeout=5, lock=tmp_path / "keyring.lock")
    await asyncio.gather(*(store.load(OPS, Item.PASSWORD) for _ in range(20)))
    assert slow.most == 1

    store = KeyringStore(timeout=0.1, lock=tmp_path / "keyring.lock")
    with (
        filelock.FileLock(tmp_path / "keyring.lock"),
        pytest.raises(KeyringTimeoutError, match="in use by another"),
    ):
        await store.load(OPS, Item.PASSWORD)


@pytest.mark.parametrize("chain", [True, False])
async def test_of_a_chain_the_first_safe_keyring_is_used(monkeypatch: pytest.MonkeyPatch, *, chain: bool) -> None:
    import keyring

    unsafe = type("PlaintextKeyring", (), {"__module__": "keyrings.alt.file"})()
    safe: Any = type(
        "Keyring", (), {"__module__": "keyring.backends.SecretService", "get_password": lambda *_: "kept"}
    )()
    found = SimpleNamespace(backends=[unsafe, safe]) if chain else safe
    monkeypatch.setattr(keyring, "get_keyring", lambda: found)

    assert await KeyringStore().load(OPS, Item.PASSWORD) == Secret("kept")
