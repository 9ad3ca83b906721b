"""Stores for an access token, so that one-shot commands need not sign in each time.

A record is bound to one endpoint and one user: switching either never finds the other's token. Only the access
token is kept here, which lives for minutes; correctness never rests on a record, since the service's 401 decides.
"""

import asyncio
import hashlib
import json
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import attrs

from sectigo_async.secrets import Secret

_VERSION = 1


@attrs.frozen(kw_only=True)
class StoredToken:
    """An access token as kept between processes.

    Attributes:
        access: the token.
        expires_at: wall-clock time of its end, in seconds since the epoch; `None` if it does not say.
    """

    access: Secret
    expires_at: float | None


class TokenStore(Protocol):
    """What a store does. A store that cannot read or write raises `OSError`."""

    async def load(self) -> StoredToken | None:
        """Return the record, or `None` where there is none that can be read."""
        ...

    async def save(self, token: StoredToken) -> None:
        """Keep `token` in place of what was kept before."""
        ...

    async def erase(self) -> None:
        """Forget the record; nothing happens where there is none."""
        ...


class MemoryTokenStore:
    """A store that ends with the process."""

    def __init__(self) -> None:
        self._token: StoredToken | None = None

    async def load(self) -> StoredToken | None:
        """Return the record, or `None`."""
        return self._token

    async def save(self, token: StoredToken) -> None:
        """Keep `token`."""
        self._token = token

    async def erase(self) -> None:
        """Forget the record."""
        self._token = None


class FileTokenStore:
    """A store in one 0600 file per endpoint and user, in a 0700 directory of the current user.

    Args:
        directory: where the files lie; made if it is missing.
        endpoint: the normalised endpoint of `Config`.
        username: who signs in.
    """

    def __init__(self, directory: Path, *, endpoint: str, username: str) -> None:
        self._endpoint = endpoint
        self._username = username
        name = hashlib.sha256(f"{endpoint}\n{username}".encode()).hexdigest()[:32]
        self.path = directory / f"{name}.json"

    async def load(self) -> StoredToken | None:
        """Return the record, or `None` where there is none for this endpoint and user."""
        return await asyncio.to_thread(self._load)

    async def save(self, token: StoredToken) -> None:
        """Write the record, replacing the file in one step."""
        await asyncio.to_thread(self._save, token)

    async def erase(self) -> None:
        """Remove the file."""
        await asyncio.to_thread(self.path.unlink, missing_ok=True)

    def _load(self) -> StoredToken | None:
        try:
            record = json.loads(self.path.read_bytes())
            owner = (record["version"], record["endpoint"], record["username"])
            if owner != (_VERSION, self._endpoint, self._username):
                return None
            expires = record["expires_at"]
            token = str(record["access_token"])
            if not token.isascii() or not token.isprintable():
                return None
            return StoredToken(
                access=Secret(token),
                expires_at=None if expires is None else float(expires),
            )
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def _save(self, token: StoredToken) -> None:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        record = {
            "version": _VERSION,
            "endpoint": self._endpoint,
            "username": self._username,
            "access_token": token.access.reveal(),
            "expires_at": token.expires_at,
        }
        # mkstemp makes the file 0600 from the start.
        handle, temporary = tempfile.mkstemp(dir=self.path.parent, prefix=".token-")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(record, file)
            Path(temporary).replace(self.path)
        except BaseException:
            with suppress(OSError):
                Path(temporary).unlink()
            raise
