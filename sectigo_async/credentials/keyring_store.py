"""The keyring of the operating system as a store: bounded, serialised, and never one that shows its secrets.

Libraries of keyrings block, at times for ever, and fail in many ways (measured in reliability.md A2 and A3): so
every access runs in a thread of its own that is left behind when its time is up, one at a time in this process and
against others, and whatever is raised there becomes one of our errors, whose text names the way out.
"""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from sectigo_async.credentials.login import Login
from sectigo_async.credentials.state import make_private, state_directory
from sectigo_async.credentials.stores import Item
from sectigo_async.errors import (
    CredentialStoreError,
    KeyringLockedError,
    KeyringTimeoutError,
    KeyringUnavailableError,
)
from sectigo_async.secrets import Secret
from sectigo_async.text import one_line
from sectigo_async.threads import run_bounded

if TYPE_CHECKING:
    from filelock import FileLock
    from keyring.backend import KeyringBackend

T = TypeVar("T")

DEFAULT_TIMEOUT = 5.0
INTERACTIVE_TIMEOUT = 60.0

_SAFE = frozenset(
    f"keyring.backends.{name}" for name in ("SecretService", "libsecret", "kwallet", "macOS", "Windows")
)
_UNSAFE = ("keyrings.alt", "keyring.backends.null")
_LONGEST_ON_WINDOWS = 5 * 512
_HEADLESS = (
    "on a machine without a desktop set SECTIGO_PASSWORD_FILE, or sign in with `sectigo-async login "
    "--credential-store file`, which keeps the login in clear text in a file of mode 0600"
)
_MOST_COPIES = 8
_OF_ANOTHER_PROGRAM = "-25244"  # errSecInvalidOwnerEdit
_TOO_LONG = "1783"  # "The stub received bad data"

_one_at_a_time = threading.Lock()


class KeyringStore:
    """A store in the keyring of the operating system.

    Args:
        timeout: seconds for one access; a person may have to type the keyring's password meanwhile.
        lock: file that keeps processes from using the keyring at the same time; in the state directory by default.
    """

    name = "keyring"

    def __init__(self, *, timeout: float = DEFAULT_TIMEOUT, lock: Path | None = None) -> None:
        self._timeout = timeout
        self._lock = lock

    async def load(self, login: Login, item: Item) -> Secret | None:
        """Return what is kept, or `None`.

        Raises:
            KeyringUnavailableError: there is no keyring, or none that is safe.
            KeyringLockedError: it is locked.
            KeyringTimeoutError: it did not answer in time.
            CredentialStoreError: it failed otherwise.
        """

        def load(backend: "KeyringBackend") -> Secret | None:
            kept = backend.get_password(service(login, item), login.username)
            return None if kept is None else Secret(kept)

        return await self._access(load)

    async def save(self, login: Login, item: Item, value: Secret) -> None:
        """Keep `value`, and read it back. Raises as `load` does."""
        name = service(login, item)

        def save(backend: "KeyringBackend") -> None:
            _check_length(backend, value)
            backend.set_password(name, login.username, value.reveal())
            kept = backend.get_password(name, login.username)
            if kept is None or Secret(kept) != value:
                raise CredentialStoreError(
                    "the keyring did not keep what it was given", hint=f"another store may do: {_HEADLESS}"
                )

        await self._access(save, value)

    async def erase(self, login: Login, item: Item) -> None:
        """Forget what is kept, and see that it is gone. Raises as `load` does."""
        name = service(login, item)

        def erase(backend: "KeyringBackend") -> None:
            for _ in range(_MOST_COPIES):
                if backend.get_password(name, login.username) is None:
                    return
                backend.delete_password(name, login.username)
            raise CredentialStoreError(
                f"the keyring still holds {name!r} after it was deleted",
                hint="delete it in the keyring's own program",
            )

        await self._access(erase)

    async def _access(self, use: "Callable[[KeyringBackend], T]", value: Secret | None = None) -> T:
        access = _Access(self._lock or state_directory() / "keyring.lock", self._timeout)
        try:
            return await run_bounded(lambda: access.run(use), self._timeout)
        except TimeoutError:
            error: CredentialStoreError = KeyringTimeoutError(
                f"the keyring did not answer within {self._timeout:g} s"
                if access.begun
                else f"the keyring has been in use by another program or task for {self._timeout:g} s",
                hint="unlock it, or look at its D-Bus session; SECTIGO_KEYRING_TIMEOUT gives it more time, "
                "SECTIGO_PASSWORD_FILE does without it",
            )
        except Exception as problem:  # noqa: BLE001 - keyrings raise whatever they like
            error = _translated(problem, saving=value is not None)
        finally:
            access.give_up()
        # Raised here, where no frame of the keyring, with the secret in it, hangs on the error.
        raise error


class _Access:
    """One access to the keyring, in a thread: alone in this process, and against others by a file.

    Args:
        lock: the file.
        timeout: seconds for all of it.
    """

    def __init__(self, lock: Path, timeout: float) -> None:
        self._path = lock
        self._deadline = time.monotonic() + timeout
        self._lock: FileLock | None = None
        self._given_up = False
        self.begun = False

    def run(self, use: "Callable[[KeyringBackend], T]") -> T:
        """Do it; called in the thread."""
        import filelock

        make_private(self._path.parent)
        if not _one_at_a_time.acquire(timeout=max(0.0, self._deadline - time.monotonic())):
            raise TimeoutError
        try:
            self._lock = filelock.FileLock(self._path, mode=0o600, thread_local=False)
            self._lock.acquire(timeout=max(0.0, self._deadline - time.monotonic()))  # Its time-out is a TimeoutError.
            try:
                if self._given_up:
                    raise TimeoutError
                self.begun = True
                return use(_choose())
            finally:
                self._lock.release()
        finally:
            _one_at_a_time.release()

    def give_up(self) -> None:
        """Begin nothing any more, and let other processes at the keyring, although the thread may hang in it."""
        self._given_up = True
        if self._lock is not None:
            self._lock.release()


def service(login: Login, item: Item) -> str:
    """Return the name under which a keyring keeps an item: one for each endpoint, user and item."""
    return f"sectigo-async:v1:{item.value}:{login.endpoint}#{login.username}"


def _choose() -> "KeyringBackend":
    """Return the first keyring that is known to be safe, or the one that the user names."""
    import keyring

    found = keyring.get_keyring()
    # The chainer tries one after the other, those in clear text too.
    candidates: list[KeyringBackend] = list(getattr(found, "backends", [found]))
    for candidate in candidates:
        if type(candidate).__module__ in _SAFE:
            return candidate
    name = _full_name(found)
    if name.startswith(_UNSAFE):
        raise KeyringUnavailableError(
            f"the keyring {name} is refused: it does not keep a secret secret", hint=_HEADLESS
        )
    named = os.environ.get("PYTHON_KEYRING_BACKEND") == name
    if named and candidates == [found] and not name.startswith("keyring.backends."):
        return found
    raise KeyringUnavailableError(f"there is no usable keyring (found: {name})", hint=_HEADLESS)


def _full_name(backend: "KeyringBackend") -> str:
    return f"{type(backend).__module__}.{type(backend).__qualname__}"


def _check_length(backend: "KeyringBackend", value: Secret) -> None:
    length = len(value.reveal().encode("utf-16-le"))
    if type(backend).__module__ == "keyring.backends.Windows" and length > _LONGEST_ON_WINDOWS:
        raise CredentialStoreError(
            f"the value is too long for the Windows Credential Manager ({length} bytes, at most "
            f"{_LONGEST_ON_WINDOWS})",
            hint="use SECTIGO_CREDENTIAL_STORE=file, or SECTIGO_PASSWORD_FILE",
        )


def _translated(problem: Exception, *, saving: bool) -> CredentialStoreError:
    """Return our error for whatever a keyring raised; what it says of a value that it was given is not told."""
    if isinstance(problem, CredentialStoreError):
        # Of what was raised in the thread, only the words are kept.
        return type(problem)(str(problem), hint=problem.hint)
    kinds = {kind.__name__ for kind in type(problem).__mro__}
    words = str(problem)
    if saving:
        words = ", ".join(code for code in (_OF_ANOTHER_PROGRAM, _TOO_LONG) if code in words)
    said = one_line(f"{type(problem).__name__}: {words}" if words else type(problem).__name__)
    if "NoKeyringError" in kinds:
        return KeyringUnavailableError(f"there is no usable keyring ({said})", hint=_HEADLESS)
    if {"KeyringLocked", "InitError"} & kinds:
        return KeyringLockedError(
            f"the keyring is locked and nobody unlocked it ({said})",
            hint=f"unlock it by signing in to the desktop; {_HEADLESS}",
        )
    if isinstance(problem, ImportError | AttributeError | RuntimeError):
        return KeyringUnavailableError(
            f"the keyring cannot be loaded ({said})", hint="check PYTHON_KEYRING_BACKEND and the keyring package"
        )
    if _OF_ANOTHER_PROGRAM in said:
        return CredentialStoreError(
            f"the keychain item belongs to another program ({said})",
            hint="open Keychain Access, delete the items that begin with sectigo-async:v1, and sign in again",
        )
    if _TOO_LONG in said:
        return CredentialStoreError(
            f"the value is too long for the Windows Credential Manager ({said})",
            hint="use SECTIGO_CREDENTIAL_STORE=file, or SECTIGO_PASSWORD_FILE",
        )
    return CredentialStoreError(f"the keyring failed ({said})", hint=f"try again; {_HEADLESS}")
