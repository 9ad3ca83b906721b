"""The one directory of this user where processes meet: locks, the shared access token, the list of accounts."""

import asyncio
import logging
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from sectigo_async.errors import CredentialStoreError
from sectigo_async.threads import run_to_end

_log = logging.getLogger("sectigo_async.credentials")

_APPLICATION = "sectigo-async"
_POLL = 0.05
_OTHERS_MAY_WRITE = 0o022


def state_directory() -> Path:
    """Return the state directory of the current user; it need not exist.

    On Linux always `~/.local/state/sectigo-async`: XDG_STATE_HOME and XDG_RUNTIME_DIR depend on the login
    session, and a cron job that found another lock than the shell would spend the shell's refresh token.

    Raises:
        CredentialStoreError: the user has no home directory.
    """
    if sys.platform in {"win32", "darwin"}:
        import platformdirs

        return platformdirs.user_state_path(_APPLICATION, appauthor=False)
    try:
        home = Path.home()
    except RuntimeError:
        problem = "this user has no home directory"
    else:
        return home / ".local" / "state" / _APPLICATION
    raise CredentialStoreError(problem, hint="set HOME to a directory of your own")


def make_private(directory: Path) -> None:
    """Make `directory`, 0700, where it is missing; refuse one that is not this user's alone to write to.

    Raises:
        CredentialStoreError: it cannot be made, is somebody else's, or others may write to it.
    """
    try:
        # Not parents=True: that gives the parents whatever mode the umask leaves.
        for missing in reversed([path for path in (directory, *directory.parents) if not path.exists()]):
            missing.mkdir(mode=0o700, exist_ok=True)
        status = directory.stat()
        if not directory.is_dir():
            problem = f"{directory} is not a directory"
        elif os.name == "posix" and status.st_uid != os.geteuid():
            problem = f"the directory {directory} belongs to somebody else"
        elif os.name == "posix" and status.st_mode & _OTHERS_MAY_WRITE:
            problem = f"others may write to the directory {directory}"
        else:
            return
    except OSError as error:
        problem = f"cannot use the directory {directory}: {error.strerror or error}"
    raise CredentialStoreError(
        problem, hint="it must be your own, mode 0700; SECTIGO_LOCK_DIR may name another one on a local disk"
    )


@asynccontextmanager
async def locked(path: Path, *, wait: float) -> AsyncIterator[None]:
    """Hold the lock at `path` against other processes, and against other tasks of this one.

    The operating system takes it from a process that dies.

    Args:
        path: the lock's file, made 0600 in a private directory.
        wait: seconds to wait for it.

    Raises:
        CredentialStoreError: it cannot be had.
    """
    import filelock

    await run_to_end(make_private, path.parent)
    loop = asyncio.get_running_loop()
    deadline = loop.time() + wait
    lock = filelock.FileLock(path, mode=0o600, thread_local=False)
    waits = False
    problem, hint = "", "look for a process of sectigo-async that hangs or is stopped"
    try:
        while not lock.is_locked and not problem:
            try:
                await run_to_end(lock.acquire, blocking=False)
            except filelock.Timeout:
                if not waits:
                    _log.debug("waiting for another process of this login, which signs in or refreshes")
                waits = True
                if loop.time() >= deadline:
                    problem = f"another process has kept the lock {path} for {wait:g} s"
                # Real time, not the injected clock: who holds it lives by real time.
                await asyncio.sleep(_POLL)
            except (OSError, NotImplementedError) as error:
                problem = f"cannot use the lock {path}: {getattr(error, 'strerror', None) or error}"
                hint = "it must be yours to write; SECTIGO_LOCK_DIR may name another directory, on a local disk"
        if lock.is_locked:
            yield
            return
    finally:
        lock.release()  # Nothing happens where it is not held.
    raise CredentialStoreError(problem, hint=hint)
