"""One token for everybody: minted, kept fresh and renewed by one task, however many wait for it."""

import asyncio
import copy
import logging
import random
from collections.abc import Awaitable, Callable

from sectigo_async.auth.login import read_refresh, read_sign_in
from sectigo_async.auth.token import Tokens, read_claims
from sectigo_async.clock import Clock
from sectigo_async.credentials import Credentials, StoredToken, TokenStore
from sectigo_async.errors import (
    AuthenticationError,
    ConfigurationError,
    InvalidCredentialsError,
    NoReplyError,
    SectigoError,
    ServiceError,
    SignInRequiredError,
)
from sectigo_async.secrets import Secret
from sectigo_async.wire import calls
from sectigo_async.wire.calls import Call
from sectigo_async.wire.reply import Reply

_log = logging.getLogger("sectigo_async.auth")

_MARGIN = 0.2
_LONGEST_MARGIN = 60.0
_PAUSE_AFTER_FAILURE = 30.0

Send = Callable[[Call[Reply]], Awaitable[Reply]]
"""Sends one authentication request over a connection of its own; raises `NoReplyError`."""


class TokenManager:
    """Keeps an access token that is good for the next call.

    A token is renewed a little before its end, while it stays in use; if that fails it stays in use to its end.
    Tasks that need a token at the same time share one renewal, which outlives the cancellation of any of them. A
    renewal tries the refresh token first and the password next; a refused password is never sent again.

    Args:
        send: sends one authentication request.
        credentials: who signs in.
        clock: time.
        store: keeps the access token between processes, where wanted.
    """

    def __init__(
        self, *, send: Send, credentials: Credentials, clock: Clock, store: TokenStore | None = None
    ) -> None:
        self._send = send
        self._credentials = credentials
        self._clock = clock
        self._store = store
        self._store_read = store is None
        self._tokens: Tokens | None = None
        self._fresh_until = 0.0
        self._good_until = 0.0
        self._renewal: asyncio.Task[SectigoError | None] | None = None
        self._refusal: str | None = None

    async def token(self) -> Secret:
        """Return an access token, signing in or refreshing first where needed.

        Raises:
            AuthenticationError: no token can be had.
            NoReplyError: the service did not answer.
            ServiceError: the service answered with something else.
        """
        now = self._clock.monotonic()
        if self._tokens is None or now >= self._good_until:
            await self._renew()
        elif now >= self._fresh_until and self._tokens.refresh is not None:
            # Still good: nobody waits for the next one.
            self._start_renewal()
        assert self._tokens is not None
        return self._tokens.access

    async def replace(self, failed: Secret) -> Secret:
        """Return another token than `failed`, which the service answered with 401.

        Where somebody else has replaced it already, nothing is sent.
        """
        if self._tokens is None or self._tokens.access == failed:
            self._fresh_until = self._good_until = 0.0
            await self._renew()
        assert self._tokens is not None
        return self._tokens.access

    async def aclose(self) -> None:
        """Stop a renewal under way."""
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.wait([self._renewal])

    def _start_renewal(self) -> "asyncio.Task[SectigoError | None]":
        if self._renewal is None or self._renewal.done():
            self._renewal = asyncio.get_running_loop().create_task(self._obtain())
            self._renewal.add_done_callback(self._renewal_done)
        return self._renewal

    async def _renew(self) -> None:
        """Wait for the one renewal; raise an error of this waiter's own."""
        renewal = self._start_renewal()
        # Not awaited directly: neither may this task's cancellation end the renewal, nor the other way round.
        await asyncio.wait([renewal])
        if renewal.cancelled():
            raise ConfigurationError("this client is closed", hint="make a new one")
        error = renewal.result()
        if error is not None:
            raise copy.copy(error)

    def _renewal_done(self, renewal: "asyncio.Task[SectigoError | None]") -> None:
        if self._renewal is renewal:
            self._renewal = None
        if not renewal.cancelled():
            renewal.exception()  # Marks it as seen where nobody waited.

    async def _obtain(self) -> SectigoError | None:
        """Get a new token, or return what prevents it where the old one is no longer good."""
        if not self._store_read:
            self._store_read = True
            if await self._adopt_stored():
                return None
        self._fresh_until += _PAUSE_AFTER_FAILURE  # Whatever comes of this, the next try is not at once.
        try:
            tokens = await self._refreshed() or await self._signed_in()
        except SectigoError as error:
            now = self._clock.monotonic()
            if now >= self._good_until:
                return error
            _log.warning("the token could not be refreshed; the old one stays in use while it is good")
            self._fresh_until = now + _PAUSE_AFTER_FAILURE
            return None
        self._adopt(tokens)
        await self._keep(tokens)
        return None

    async def _refreshed(self) -> Tokens | None:
        refresh = self._tokens.refresh if self._tokens else None
        if refresh is None:
            return None
        try:
            return read_refresh(await self._send(calls.refresh(refresh)), refresh)
        except (ServiceError, NoReplyError, AuthenticationError):
            if self._credentials.password is None:
                raise
            return None  # The refresh call is known to fail at times (api.md 3); the password is at hand.

    async def _signed_in(self) -> Tokens:
        username, password = self._credentials.username, self._credentials.password
        if self._refusal is not None:
            raise InvalidCredentialsError(self._refusal, hint="start again with the right password")
        if not username or password is None:
            missing = "password" if username else "user name and password"
            raise SignInRequiredError(
                f"not signed in: no {missing}", hint="set SECTIGO_USERNAME and SECTIGO_PASSWORD"
            )
        reply = await self._send(calls.sign_in(username, password))
        try:
            return read_sign_in(reply, username)
        except InvalidCredentialsError as error:
            self._refusal = str(error)
            raise

    async def _adopt_stored(self) -> bool:
        assert self._store is not None
        try:
            stored = await self._store.load()
        except OSError as error:
            _log.warning("the stored token cannot be read: %s", error)
            return False
        if stored is None or (stored.expires_at is not None and stored.expires_at <= self._clock.time()):
            return False
        left = None if stored.expires_at is None else stored.expires_at - self._clock.time()
        self._set(Tokens(access=stored.access, refresh=None), left)
        return True

    async def _keep(self, tokens: Tokens) -> None:
        if self._store is None:
            return
        claims = read_claims(tokens.access)
        try:
            await self._store.save(StoredToken(access=tokens.access, expires_at=claims.expires_at))
        except OSError as error:
            _log.warning("the token cannot be stored: %s", error)

    def _adopt(self, tokens: Tokens) -> None:
        claims = read_claims(tokens.access)
        if claims.first_login:
            _log.warning("the service marks this as the first login: it may want the password changed")
        self._set(tokens, claims.lifetime)

    def _set(self, tokens: Tokens, lifetime: float | None) -> None:
        now = self._clock.monotonic()
        self._tokens = tokens
        if lifetime is None:
            self._fresh_until = self._good_until = float("inf")
            return
        # Jitter keeps processes that started together from refreshing together.
        margin = min(_LONGEST_MARGIN, _MARGIN * lifetime) * random.uniform(0.8, 1.0)  # noqa: S311
        self._good_until = now + lifetime
        self._fresh_until = now + lifetime - margin
