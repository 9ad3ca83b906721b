"""Stores: where the secrets of a login are kept between processes.

A store keeps texts, one for each login and `Item`; what they say is the business of `records`.
"""

import enum
import functools
import os
import stat
from pathlib import Path
from typing import Protocol

from sectigo_async.credentials.login import Login
from sectigo_async.credentials.state import make_private
from sectigo_async.errors import CredentialStoreError, FileError
from sectigo_async.files import write_private
from sectigo_async.secrets import Secret
from sectigo_async.threads import run_bounded, run_to_end

_LONGEST = 64 * 1024
_READ_LIMIT = 10.0
_OTHERS_MAY_READ = 0o077
OTHERS_MAY_WRITE = 0o022


class Item(enum.Enum):
    """What is kept of one login."""

    PASSWORD = "password"  # noqa: S105 - the name of an item
    REFRESH_TOKEN = "refresh-token"  # noqa: S105
    ACCESS_TOKEN = "access-token"  # noqa: S105
    REFUSAL = "refusal"


class CredentialStore(Protocol):
    """What a store does. `sectigo_async.testing.CredentialStoreContract` tests one of your own.

    A store that does not work raises `CredentialStoreError`, within a bounded time, and never shows a secret.
    What is kept is one text for each login (user name and endpoint) and `Item`, of any length and any characters.
    """

    @property
    def name(self) -> str:
        """What it is called where the source of a credential is told."""
        ...

    async def load(self, login: Login, item: Item) -> Secret | None:
        """Return what is kept, or `None`."""
        ...

    async def save(self, login: Login, item: Item, value: Secret) -> None:
        """Keep `value` in place of what was kept before; when this returns, it is durable."""
        ...

    async def erase(self, login: Login, item: Item) -> None:
        """Forget what is kept; nothing happens where there is nothing."""
        ...


class MemoryStore:
    """A store that ends with the process."""

    name = "memory"

    def __init__(self) -> None:
        self._kept: dict[tuple[Login, Item], Secret] = {}

    async def load(self, login: Login, item: Item) -> Secret | None:
        """Return what is kept, or `None`."""
        return self._kept.get((login, item))

    async def save(self, login: Login, item: Item, value: Secret) -> None:
        """Keep `value`."""
        self._kept[login, item] = value

    async def erase(self, login: Login, item: Item) -> None:
        """Forget what is kept."""
        self._kept.pop((login, item), None)


class FileStore:
    """A store in files, in clear text: 0600, in a 0700 directory of the current user.

    Args:
        directory: where the files lie; made if it is missing.
    """

    name = "file"

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def path(self, login: Login, item: Item) -> Path:
        """Return the file of one item; it need not exist."""
        return self._directory / f"{login.file_name}.{item.value}.json"

    async def load(self, login: Login, item: Item) -> Secret | None:
        """Return what is kept, or `None`; a file that others may read is refused."""
        path = self.path(login, item)
        text, problem = await run_to_end(read_file, path, forbidden=_OTHERS_MAY_READ)
        if problem:
            raise CredentialStoreError(problem, hint=f"make it yours alone (chmod 600 {path}), or sign in again")
        return text

    async def save(self, login: Login, item: Item, value: Secret) -> None:
        """Write the file, replacing it in one step."""
        if error := await run_to_end(_write, self.path(login, item), value, private=True):
            raise error

    async def erase(self, login: Login, item: Item) -> None:
        """Remove the file."""
        path = self.path(login, item)
        problem = ""
        try:
            await run_to_end(path.unlink, missing_ok=True)
        except OSError as error:
            problem = error.strerror or str(error)
        if problem:
            raise CredentialStoreError(f"cannot remove {path}: {problem}", hint="remove it by hand")


class RefreshTokenFile:
    """A file of the user's own with a bare refresh token; it is rewritten when the service gives a new one.

    Args:
        path: the file.
    """

    name = "SECTIGO_REFRESH_TOKEN_FILE"

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def identity(self) -> str:
        """What tells this file from others, however it is named."""
        return str(self._path.resolve())

    async def load(self, login: Login, item: Item) -> Secret | None:  # noqa: ARG002 - it belongs to one login
        """Return the token; of other items nothing is kept."""
        if item is not Item.REFRESH_TOKEN:
            return None
        return await read_secret_file(self._path)

    async def save(self, login: Login, item: Item, value: Secret) -> None:  # noqa: ARG002
        """Write the token to the file that the path leads to; other items are not kept."""
        if item is not Item.REFRESH_TOKEN:
            return
        if error := await run_to_end(_write, self._path, value, private=False):
            raise error

    async def erase(self, login: Login, item: Item) -> None:
        """Leave the file alone: it is the user's."""


async def read_secret_file(path: Path) -> Secret:
    """Return the secret that stands in a file; one newline at its end is dropped.

    Links are followed, as Kubernetes and systemd make them. A file that others may write to is refused.

    Raises:
        CredentialStoreError: it cannot be read, is empty, or others may write to it.
    """
    read = functools.partial(read_file, path, forbidden=OTHERS_MAY_WRITE, users=True)
    text: Secret | None = None
    try:
        text, problem = await run_bounded(read, _READ_LIMIT)
    except TimeoutError:  # A pipe into which nobody writes.
        problem = f"{path} gave nothing within {_READ_LIMIT:g} s"
    if text is not None and (secret := without_newline(text.reveal())):
        return secret
    problem = problem or (f"{path} is empty" if text is not None else f"cannot read {path}: there is no such file")
    raise CredentialStoreError(problem, hint="it must hold the secret alone, and only you may write to it")


def without_newline(text: str) -> Secret:
    """Return a secret that was written on one line: the newline at its end is dropped, one and no more."""
    return Secret(text.removesuffix("\r\n" if text.endswith("\r\n") else "\n"))


def read_file(path: Path, *, forbidden: int, users: bool = False) -> tuple[Secret | None, str]:
    """Return a file's text, `None` where there is no file, and what is wrong.

    Args:
        path: the file.
        forbidden: permissions that it must not have.
        users: whether it is a file that the user named: links are followed, and it may be a pipe or somebody
            else's.
    """
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0)
    if not users:
        flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)  # A pipe must not hold us up.
    try:
        with os.fdopen(os.open(path, flags), "rb") as file:
            status = os.fstat(file.fileno())
            if os.name == "posix" and status.st_mode & forbidden:
                return None, f"others may {'read' if forbidden == _OTHERS_MAY_READ else 'write to'} {path}"
            if not users and not stat.S_ISREG(status.st_mode):
                return None, f"{path} is not a file"
            if os.name == "posix" and not users and status.st_uid != os.geteuid():
                return None, f"{path} belongs to somebody else"
            content = file.read(_LONGEST + 1)
    except FileNotFoundError:
        return None, ""
    except OSError as error:
        return None, f"cannot read {path}: {error.strerror or error}"
    if len(content) > _LONGEST:
        return None, f"{path} is too long for a secret"
    try:
        return Secret(content.decode()), ""
    except ValueError:
        return None, f"{path} is not text in UTF-8"


def _write(path: Path, value: Secret, *, private: bool) -> CredentialStoreError | None:
    """Write a file; an error is returned, since the frames of a raised one would hold the secret."""
    try:
        if private:
            make_private(path.parent)
        else:
            path = path.resolve()
        write_private(path, value.reveal().encode(), overwrite=True)
    except (CredentialStoreError, FileError) as error:
        return CredentialStoreError(str(error), hint=error.hint)
    return None
