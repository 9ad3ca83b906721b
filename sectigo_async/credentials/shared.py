"""What the processes of one login share: a lock, the access token, the refresh token and the password."""

import hashlib
import logging
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

from sectigo_async.clock import Clock
from sectigo_async.credentials.login import Login
from sectigo_async.credentials.records import StoredToken, decode, encode
from sectigo_async.credentials.state import locked
from sectigo_async.credentials.stores import CredentialStore, FileStore, Item, RefreshTokenFile
from sectigo_async.errors import CredentialStoreError
from sectigo_async.secrets import Secret
from sectigo_async.threads import run_to_end

_log = logging.getLogger("sectigo_async.credentials")

LOCK_WAIT = 60.0
_MOST_REFUSALS = 8


class SharedLogin:
    """One login's secrets as its processes share them. Where nothing is shared, every method does nothing.

    The access token lies in a file, because a keyring is slow and asks people; the refresh token and the password
    lie in the store. A store that fails raises; a file of the access token that fails is only told, since it saves
    no more than a sign-in.

    Args:
        login: who signs in where.
        store: keeps the refresh token and the password; `None` where they end with the process.
        directory: holds the lock and the access token; `None` where nothing is shared.
        cache: whether the access token is shared.
        clock: time.
    """

    def __init__(
        self,
        login: Login,
        *,
        store: CredentialStore | None,
        directory: Path | None,
        cache: bool,
        clock: Clock,
    ) -> None:
        self.login = login
        self.store = store
        self._lock = None if directory is None else directory / f"{login.file_name}.lock"
        self._files = None if directory is None else FileStore(directory)
        self._cache = cache
        self._clock = clock

    @property
    def cache_path(self) -> Path | None:
        """The file of the shared access token, where there is one; it need not exist."""
        return self._files.path(self.login, Item.ACCESS_TOKEN) if self._files and self._cache else None

    @asynccontextmanager
    async def locked(self) -> AsyncIterator[None]:
        """Keep other processes from signing in or refreshing meanwhile.

        Raises:
            CredentialStoreError: the lock cannot be had, so that a refresh token that is shared must not be used.
                Where there is none, the access token is just not shared.
        """
        async with AsyncExitStack() as stack:
            if self._lock is not None:
                try:
                    await stack.enter_async_context(locked(self._lock, wait=LOCK_WAIT))
                except CredentialStoreError as error:
                    if self.store is not None:
                        raise
                    _log.warning("the access token cannot be shared: %s", error)
                    self._lock = self._files = None
            yield

    async def access_token(self) -> StoredToken | None:
        """Return the shared access token, where there is one."""
        return StoredToken.read(await self._read_file(Item.ACCESS_TOKEN)) if self._cache else None

    async def share_access_token(self, token: StoredToken) -> bool:
        """Give the access token to the other processes; say whether that was possible."""
        return self._cache and await self._write_file(Item.ACCESS_TOKEN, encode(self.login, token.fields()))

    async def refresh_token(self) -> Secret | None:
        """Return the stored refresh token, where there is one."""
        if isinstance(self.store, RefreshTokenFile):
            return await self.store.load(self.login, Item.REFRESH_TOKEN)
        stored = await self.stored_refresh_token()
        return None if stored is None else stored.token

    async def stored_refresh_token(self) -> StoredToken | None:
        """Return the stored refresh token with its times, where they are stored with it."""
        if self.store is None:
            return None
        return StoredToken.read(decode(self.login, await self.store.load(self.login, Item.REFRESH_TOKEN)))

    async def save_refresh_token(self, token: Secret, lifetime: float | None) -> None:
        """Keep a refresh token in place of the one before. Nothing is written where it is kept already."""
        if self.store is None or token == await self.refresh_token():
            return
        if isinstance(self.store, RefreshTokenFile):
            text = token
        else:
            text = encode(self.login, StoredToken.received(token, lifetime, self._clock).fields())
        await self.store.save(self.login, Item.REFRESH_TOKEN, text)

    async def forget_refresh_token(self, refused: Secret) -> None:
        """Forget the stored refresh token, if it is still the one that was refused."""
        if self.store is not None and await self.refresh_token() == refused:
            await self.store.erase(self.login, Item.REFRESH_TOKEN)

    async def password(self) -> Secret | None:
        """Return the stored password, where there is one."""
        if self.store is None:
            return None
        text = decode(self.login, await self.store.load(self.login, Item.PASSWORD)).get("password")
        return Secret(text) if isinstance(text, str) and text else None

    async def save_password(self, password: Secret | None) -> None:
        """Keep the password; with `None`, forget it. Nothing is written where that is so already."""
        if self.store is None or password == await self.password():
            return
        if password is None:
            await self.store.erase(self.login, Item.PASSWORD)
        else:
            await self.store.save(self.login, Item.PASSWORD, encode(self.login, {"password": password.reveal()}))

    async def was_refused(self, password: Secret) -> bool:
        """Say whether the service has refused this password to any process since the last good sign-in."""
        salt, digests = await self._refusals()
        return bool(digests) and await run_to_end(_digest, password, salt) in digests

    async def note_refusal(self, password: Secret) -> None:
        """Tell every process that the service refuses this password: accounts lock (api.md 3)."""
        if self._files is not None:
            salt, digests = await self._refusals()
            digests = [*digests, await run_to_end(_digest, password, salt)][-_MOST_REFUSALS:]
            await self._write_file(Item.REFUSAL, encode(self.login, {"salt": salt, "digests": digests}))

    async def _refusals(self) -> tuple[str, list[str]]:
        """Return the salt and the digests of the passwords that were refused."""
        record = await self._read_file(Item.REFUSAL)
        salt, digests = record.get("salt"), record.get("digests")
        if isinstance(salt, str) and isinstance(digests, list):
            return salt, [digest for digest in digests if isinstance(digest, str)]
        return secrets.token_hex(16), []

    async def clear_refusal(self) -> None:
        """Forget which passwords were refused."""
        with suppress(CredentialStoreError):  # It is of use to nobody any more, and in nobody's way.
            await self._erase_files(Item.REFUSAL)

    async def erase(self) -> None:
        """Forget this login: the shared access token first, then what the store keeps.

        Raises:
            CredentialStoreError: something is still kept.
        """
        await self._erase_files(Item.ACCESS_TOKEN, Item.REFUSAL)
        if self.store is None:
            return
        for item in (Item.REFRESH_TOKEN, Item.PASSWORD):
            await self.store.erase(self.login, item)
            if await self.store.load(self.login, item) is not None:
                raise CredentialStoreError(
                    f"the {self.store.name} still holds the {item.value} of {self.login.username!r}",
                    hint="delete it by hand",
                )

    async def _read_file(self, item: Item) -> dict[str, object]:
        if self._files is None:
            return {}
        try:
            return decode(self.login, await self._files.load(self.login, item))
        except CredentialStoreError as error:
            _log.warning("the shared %s is not used: %s", item.value.replace("-", " "), error)
            return {}

    async def _write_file(self, item: Item, text: Secret) -> bool:
        if self._files is None:
            return False
        try:
            await self._files.save(self.login, item, text)
        except CredentialStoreError as error:
            _log.warning("the %s cannot be shared: %s", item.value.replace("-", " "), error)
            return False
        return True

    async def _erase_files(self, *items: Item) -> None:
        if self._files is not None:
            for item in items:
                await self._files.erase(self.login, item)


def _digest(password: Secret, salt: str) -> str:
    """Return what tells this password from others and does not tell the password."""
    return hashlib.scrypt(password.reveal().encode(), salt=salt.encode(), n=2**14, r=8, p=1).hex()
