"""One token for everybody: minted, kept fresh and renewed by one task of one process, however many wait for it."""

import asyncio
import copy
import logging
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from sectigo_async.auth.login import certificate_sign_in_url, read_refresh, read_sign_in
from sectigo_async.auth.token import AccessToken, SignIn, Tokens, read_claims
from sectigo_async.clock import Clock
from sectigo_async.config import Config
from sectigo_async.credentials import Credentials, SharedLogin, StoredToken
from sectigo_async.errors import (
    AuthenticationError,
    CallTimeoutError,
    ConfigurationError,
    ConnectFailedError,
    CredentialStoreError,
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
_SILENT_WAIT = 0.5
_LAST_WAIT = 5.0
_WITH_A_CERTIFICATE = 307
ACCESS_TOKEN = "SECTIGO_ACCESS_TOKEN"  # noqa: S105 - the name of a variable


class Sender(Protocol):
    """Sends one authentication request over a connection of its own; raises `NoReplyError`."""

    async def send(self, call: Call[Reply]) -> Reply:
        """Send `call` to the endpoint."""
        ...

    async def send_with_certificate(self, call: Call[Reply], url: str) -> Reply:
        """Send `call` to `url`, with the client certificate."""
        ...


class TokenManager:
    """Keeps an access token that is good for the next call.

    A token is renewed a little before its end, while it stays in use; if that fails it stays in use to its end.
    Tasks that need a token at the same time share one renewal, which outlives the cancellation of any of them;
    processes that share a login share it too, by a lock. A renewal takes the token of another process first, the
    refresh token next and the password last; a refused password is never sent again.

    Args:
        sender: sends authentication requests.
        credentials: who signs in, and with what.
        shared: what the processes of this login share.
        config: where signing in may go.
        clock: time.
    """

    def __init__(
        self, *, sender: Sender, credentials: Credentials, shared: SharedLogin, config: Config, clock: Clock
    ) -> None:
        self._sender = sender
        self._credentials = credentials
        self._shared = shared
        self._config = config
        self._clock = clock
        self._access: AccessToken | None = None
        self._refresh: Secret | None = None
        self._unsaved_for: Secret | None = None
        self._closed = False
        self._fresh_until = 0.0
        self._source = ""
        self._first_login = False
        self._is_shared = False
        self._renewal: asyncio.Task[SectigoError | None] | None = None
        self._refresh_token_at_stake = False
        self._refused: Secret | None = None
        if credentials.access_token is not None:
            self._access = AccessToken(credentials.access_token, float("inf"))
            self._fresh_until = float("inf")
            self._source = ACCESS_TOKEN

    async def token(self) -> AccessToken:
        """Return an access token, signing in or refreshing first where needed.

        Raises:
            AuthenticationError: no token can be had.
            NoReplyError: the service did not answer.
            ServiceError: the service answered with something else.
        """
        now = self._clock.monotonic()
        if self._access is None or now >= self._access.good_until:
            await self._wait_for(self._start_renewal())
        elif now >= self._fresh_until and (self._refresh is not None or self._shared.store is not None):
            # Still good: nobody waits for the next one.
            self._start_renewal()
        assert self._access is not None
        return self._access

    async def replace(self, failed: AccessToken) -> AccessToken:
        """Return another token than `failed`, which the service answered with 401.

        Where somebody else has replaced it already, nothing is sent.
        """
        if self._access is None or self._access.secret == failed.secret:
            self._access = AccessToken(failed.secret, good_until=0.0)
            self._fresh_until = 0.0
            await self._wait_for(self._start_renewal())
        assert self._access is not None
        return self._access

    async def sign_in(self, *, fresh: bool) -> SignIn:
        """Make sure that there is a token.

        Args:
            fresh: sign in with the password, whatever tokens there are.
        """
        if fresh:
            while self._renewal is not None:
                await asyncio.wait([self._renewal])
            await self._wait_for(self._start_renewal(fresh=True))
        else:
            await self.token()
        assert self._access is not None
        left = self._access.good_until - self._clock.monotonic()
        return SignIn(
            username=self._credentials.username,
            endpoint=self._config.endpoint,
            source=self._source,
            expires_in=None if left == float("inf") else left,
            first_login=self._first_login,
            shared=self._is_shared,
            store=None if self._shared.store is None else self._shared.store.name,
        )

    async def aclose(self) -> None:
        """Stop a renewal under way.

        One that has a stored refresh token in the air is given a little time: the service may have taken the old
        one back, and the new one is in the reply.
        """
        self._closed = True
        renewal = self._renewal
        if renewal is None:
            return
        if self._refresh_token_at_stake:
            await asyncio.wait([renewal], timeout=_SILENT_WAIT)
            if not renewal.done():
                _log.warning("waiting up to %g s for a refresh under way, or the login may be lost", _LAST_WAIT)
                await asyncio.wait([renewal], timeout=_LAST_WAIT)
        renewal.cancel()
        await asyncio.wait([renewal])

    def _start_renewal(self, *, fresh: bool = False) -> "asyncio.Task[SectigoError | None]":
        if self._closed:
            raise ConfigurationError("this client is closed", hint="make a new one")
        if self._renewal is None or self._renewal.done():
            self._renewal = asyncio.get_running_loop().create_task(self._obtain(fresh=fresh))
            self._renewal.add_done_callback(self._renewal_done)
        return self._renewal

    async def _wait_for(self, renewal: "asyncio.Task[SectigoError | None]") -> None:
        """Wait for the one renewal; raise an error of this waiter's own."""
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

    async def _obtain(self, *, fresh: bool) -> SectigoError | None:
        """Get a new token, or return what prevents it where the old one is no longer good."""
        self._fresh_until += _PAUSE_AFTER_FAILURE  # Whatever comes of this, the next try is not at once.
        try:
            # A good token needs no lock; whoever waited for the lock looks again.
            if fresh or not await self._adopt_shared():
                async with self._shared.locked():
                    if fresh:
                        await self._signed_in(fresh=True)
                    elif not await self._adopt_shared():
                        await self._mint()
        except SectigoError as error:
            now = self._clock.monotonic()
            if fresh or self._access is None or now >= self._access.good_until:
                return error
            _log.warning("the token could not be refreshed, the old one stays in use while it is good: %s", error)
            self._fresh_until = now + _PAUSE_AFTER_FAILURE
        return None

    async def _adopt_shared(self) -> bool:
        """Take over a token that another process has got; say whether there was one."""
        shared = await self._shared.access_token()
        if shared is None or (self._access is not None and shared.token == self._access.secret):
            return False
        left = shared.left(self._clock)
        own = 0.0 if self._access is None else self._access.good_until - self._clock.monotonic()
        if left is not None and left <= max(own, 0.0):
            return False
        self._use(shared.token, left, shared.lifetime, minted=False)
        _log.debug("the access token of another process is used", extra={"expires_in_s": _rounded(left)})
        self._source, self._is_shared = "shared token", True
        if self._shared.store is not None and self._unsaved_for is None:
            self._refresh = None  # Whoever got that token may have replaced it; the store tells.
        return True

    async def _mint(self) -> None:
        """Get new tokens from the service: by the refresh token, or else by the password."""
        obstacle: SectigoError | None = None
        try:
            if await self._refreshed():
                return
        except ConnectFailedError:
            raise  # Where nothing can be sent, a password cannot help.
        except (ServiceError, NoReplyError, AuthenticationError) as error:
            # The refresh call is known to fail at times (api.md 3); there may be a password.
            obstacle = error
        await self._signed_in(obstacle)

    async def _refreshed(self) -> bool:
        """Refresh; say whether the service took the refresh token, if there is one."""
        store = self._shared.store
        refresh = await self._refresh_token()
        if refresh is None:
            return False
        with self._at_stake():
            tokens = read_refresh(await self._send_refresh(refresh), refresh)
            if tokens is not None:
                source = f"refresh token ({store.name})" if store else "refresh token"
                await self._adopt(tokens, source, spent=refresh)
                return True
        if self._refresh == refresh:
            self._refresh = None
        try:
            await self._shared.forget_refresh_token(refresh)
        except CredentialStoreError as error:
            _log.warning("a refresh token that the service refused is still kept: %s", error)
        return False

    async def _refresh_token(self) -> Secret | None:
        """Return the newest refresh token: what the store holds, unless it could not be given a newer one."""
        if self._shared.store is None:
            return self._refresh
        try:
            kept = await self._shared.refresh_token()
        except CredentialStoreError as error:
            if self._refresh is None:
                raise
            _log.warning("the stored refresh token cannot be read, the one at hand is used: %s", error)
            return self._refresh
        # Where the store holds nothing any more, somebody has signed out: the one at hand counts no longer.
        return self._refresh if self._unsaved_for is not None and kept == self._unsaved_for else kept

    async def _send_refresh(self, refresh: Secret) -> Reply:
        try:
            return await self._sender.send(calls.refresh(refresh))
        except NoReplyError as error:
            if isinstance(error, ConnectFailedError | CallTimeoutError):
                raise
        # Cut off. If it ran, and the service takes a second use amiss, the password comes next: as it would if the
        # next call asked again.
        return await self._sender.send(calls.refresh(refresh))

    @contextmanager
    def _at_stake(self) -> Iterator[None]:
        self._refresh_token_at_stake = self._shared.store is not None
        try:
            yield
        finally:
            self._refresh_token_at_stake = False

    async def _signed_in(self, obstacle: SectigoError | None = None, *, fresh: bool = False) -> None:
        """Sign in with the password; raise `obstacle`, which prevented the refresh, where there is none."""
        username = self._credentials.username
        if username is None:
            raise obstacle or self._sign_in_required()
        if isinstance(obstacle, CredentialStoreError) and not self._credentials.has_own_password:
            # What cannot be asked for a token cannot be asked for a password.
            raise type(obstacle)(f"not signed in: no password for {username!r}, and {obstacle}", hint=obstacle.hint)
        found = await self._credentials.find_password(self._shared)
        if found is None:
            raise obstacle or self._sign_in_required()
        if found.secret == self._refused or await self._shared.was_refused(found.secret):
            raise InvalidCredentialsError(
                f"the service has refused this password of {username!r} before, so it was not sent again",
                hint="accounts lock; if it is right by now, run `sectigo-async auth` on a terminal, else "
                "`sectigo-async login`",
            )
        call = calls.sign_in(username, found.secret)
        reply = await self._sender.send(call)
        if reply.status == _WITH_A_CERTIFICATE:
            url = certificate_sign_in_url(reply, self._config, username)
            reply = await self._sender.send_with_certificate(call, url)
        try:
            tokens = read_sign_in(reply, username)
        except InvalidCredentialsError:
            self._refused = found.secret
            await self._shared.note_refusal(found.secret)
            raise
        self._refused = None
        await self._shared.clear_refusal()
        await self._adopt(tokens, f"password ({found.source})", must_keep=fresh)

    def _sign_in_required(self) -> SignInRequiredError:
        username = self._credentials.username
        if self._access is not None and self._source == ACCESS_TOKEN:
            problem = f"the service no longer accepts {ACCESS_TOKEN}"
        elif username is None and self._shared.store is not None:
            problem = f"the service no longer accepts the token in {self._shared.store.name}"
        elif username is None:
            problem = "not signed in: no user name"
        elif self._access is not None:
            problem = f"the service no longer accepts the login of {username!r}, and there is no password to renew it"
        else:
            problem = f"not signed in: no password for {username!r}"
        return SignInRequiredError(
            problem, hint="sign in with `sectigo-async login`, or set SECTIGO_USERNAME and SECTIGO_PASSWORD"
        )

    async def _adopt(
        self, tokens: Tokens, source: str, *, spent: Secret | None = None, must_keep: bool = False
    ) -> None:
        """Use new tokens from here on, and let other processes do so.

        Args:
            tokens: what the service gave.
            source: what they were given for.
            spent: the refresh token that they were given for.
            must_keep: whether it is an error that the refresh token cannot be kept.
        """
        claims = read_claims(tokens.access)
        if claims.first_login:
            _log.warning(
                "the service marks this as the first login of the account: if calls are refused, sign in to the "
                "portal once and set a new password"
            )
        stored = StoredToken.received(tokens.access, claims.lifetime, self._clock)
        self._use(tokens.access, claims.lifetime, claims.lifetime, minted=True)
        _log.info(
            "new access token by %s%s",
            source,
            "" if claims.lifetime is None else f", good for {claims.lifetime:.0f} s",
            extra={"source": source, "expires_in_s": _rounded(claims.lifetime)},
        )
        self._refresh, self._source, self._first_login = tokens.refresh, source, claims.first_login
        still_kept, self._unsaved_for = self._unsaved_for or spent, None
        if tokens.refresh is not None:
            try:
                await self._shared.save_refresh_token(tokens.refresh, read_claims(tokens.refresh).lifetime)
            except CredentialStoreError as error:
                if must_keep:
                    raise
                self._unsaved_for = still_kept
                _log.warning("the new refresh token cannot be kept, so the next program must sign in: %s", error)
        self._is_shared = await self._shared.share_access_token(stored)

    def _use(self, token: Secret, left: float | None, lifetime: float | None, *, minted: bool) -> None:
        now = self._clock.monotonic()
        if left is None or lifetime is None:
            self._access = AccessToken(token, good_until=float("inf"), minted=minted)
            self._fresh_until = float("inf")
            return
        # Jitter keeps processes that started together from refreshing together.
        margin = min(_LONGEST_MARGIN, _MARGIN * lifetime) * random.uniform(0.8, 1.0)  # noqa: S311
        self._access = AccessToken(token, good_until=now + left, minted=minted)
        self._fresh_until = now + left - margin


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)
