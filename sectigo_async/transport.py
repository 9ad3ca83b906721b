"""The only sender.

One call, from outside in: the whole call's time-out, the retry loop, and in it the token, the lease, the sending,
the reading to the end, and what it means. A 401 is a branch of this loop: the reply is closed first, so that the
refresh never waits for a connection that the refused call still holds.
"""

import asyncio
import logging
import random
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, BinaryIO, TypeVar
from urllib.parse import urlsplit

import attrs

from sectigo_async.auth import SignIn, TokenManager
from sectigo_async.clock import Clock
from sectigo_async.config import DEFAULT, Config, Timeout
from sectigo_async.errors import (
    CallTimeoutError,
    ConfigurationError,
    ConnectFailedError,
    FileError,
    NoReplyError,
    OutcomeUnknownError,
    SectigoError,
    SignInRequiredError,
    UnexpectedReplyError,
)
from sectigo_async.exchange import Attempt, Exchanger, Failure, log_fields
from sectigo_async.secrets import Secret
from sectigo_async.threads import run_to_end
from sectigo_async.wire import calls
from sectigo_async.wire.calls import Call
from sectigo_async.wire.reply import Reply, error_for, http_date, retry_after
from sectigo_async.wire.retry import DID_NOT_RUN, retry_delay

T = TypeVar("T")

_log = logging.getLogger("sectigo_async.transport")

_UNAUTHORIZED = 401
_AUTH_LIMIT = 30.0


@attrs.frozen(kw_only=True)
class Probe:
    """What `SectigoClient.probe` found.

    Attributes:
        status: HTTP status of the endpoint's front page; any says that something answers.
        seconds: how long that took.
        tls_version: e.g. `TLSv1.3`; empty without TLS.
        clock_skew: seconds by which the service's clock is ahead of ours; `None` where it does not tell.
    """

    status: int
    seconds: float
    tls_version: str
    clock_skew: float | None


class Transport:
    """Sends calls with a token, again where that is safe, and raises one typed error where it is not.

    Args:
        exchanger: sends one request once.
        tokens: gives the access token.
        config: time-outs and attempts.
        clock: time between attempts.
    """

    def __init__(self, exchanger: Exchanger, tokens: TokenManager, config: Config, clock: Clock) -> None:
        self._exchanger = exchanger
        self._tokens = tokens
        self._config = config
        self._clock = clock
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    def limit(self, timeout: Timeout) -> float | None:
        """Return the seconds that a call's `timeout` stands for; `None` for no limit."""
        return self._config.timeout if timeout is DEFAULT else timeout

    async def send(
        self,
        call: Call[T],
        *,
        timeout: Timeout = DEFAULT,
        into: BinaryIO | None = None,
        attempt: Attempt | None = None,
    ) -> T:
        """Send `call` and return what it reads.

        Args:
            call: the request.
            timeout: seconds for all of it.
            into: where a successful reply's body is written, instead of being held in memory.
            attempt: told what is known of the sending, for callers who need to know after an interruption.

        Raises:
            AuthenticationError: no token can be had; the call was not sent.
            ServiceError: the service answered with an error.
            NoReplyError: no answer came, and repeating the call spends nothing twice.
            OutcomeUnknownError: an order or revocation may or may not have run.
            ConfigurationError: the client is closed, or belongs to another event loop.
        """
        self._check_use()
        limit = self.limit(timeout)
        watched = attempt if attempt is not None else Attempt()
        whole = asyncio.timeout(limit)
        try:
            async with whole:
                return await self._attempts(call, into, watched, limit)
        except TimeoutError:
            if not whole.expired():
                raise
        late = f"no answer within {round(limit or 0, 2):g} s"
        if watched.may_have_run and not call.repeatable:
            raise _unknown(call, late)
        raise CallTimeoutError(
            f"{call.method} {call.path}: {late}",
            method=call.method,
            path=call.path,
            hint="the service may be slow: raise timeout=, or try again later",
        )

    async def sign_in(self, *, fresh: bool) -> SignIn:
        """Make sure that there is a token; with `fresh`, a new one for the password."""
        self._check_use()
        return await self._tokens.sign_in(fresh=fresh)

    async def aclose(self) -> None:
        """Take no more calls."""
        self._closed = True
        await self._tokens.aclose()

    async def probe(self) -> Probe:
        """Ask the endpoint for its front page, without signing in."""
        self._check_use()
        call = calls.front_page()
        started = self._clock.monotonic()
        try:
            async with asyncio.timeout(self._config.connect_timeout + self._config.read_timeout):
                result = await self._exchanger.exchange(call, None, Attempt())
        except TimeoutError:
            result = Failure("the service did not answer in time", sent=True, timed_out=True)
        seconds = self._clock.monotonic() - started
        if isinstance(result, Failure):
            raise _no_reply(call, result)
        date = http_date(result)
        # A Date has whole seconds, and was written somewhere between the request and the reply.
        skew = None if date is None else date.timestamp() + 0.5 - (self._clock.time() - seconds / 2)
        return Probe(status=result.status, seconds=seconds, tls_version=result.tls_version, clock_skew=skew)

    def _check_use(self) -> None:
        loop = asyncio.get_running_loop()
        if self._closed:
            raise ConfigurationError("this client is closed", hint="make a new one")
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise ConfigurationError(
                "this client was first used in another event loop", hint="make one client for each event loop"
            )

    async def _attempts(self, call: Call[T], into: BinaryIO | None, attempt: Attempt, limit: float | None) -> T:
        replaced = False
        number = 1
        started = self._clock.monotonic()
        token = await self._tokens.token()
        while True:
            result = await self._exchanger.exchange(call, token.secret, attempt, into)
            if isinstance(result, Reply) and result.status in DID_NOT_RUN:
                attempt.end()
            if isinstance(result, Reply) and result.status == _UNAUTHORIZED:
                # Authentication comes before execution, so even an order may be sent again (api.md 3), once:
                # unless that token ended while the call waited for a connection, or came from another process.
                if replaced and token.minted and self._clock.monotonic() < token.good_until:
                    raise _refused(result, call)
                token = await self._tokens.replace(token)
                replaced = True
                continue
            if isinstance(result, Reply) and result.ok:
                return _read(call, result)
            left = None if limit is None else limit - (self._clock.monotonic() - started)
            delay = _delay(call, result, number, self._config.attempts, left)
            if delay is None:
                raise _error(call, result)
            _tell_retry(call, (*call.secrets, token.secret), result, attempt, delay)
            number += 1
            await self._clock.sleep(delay)
            self._check_use()
            if into is not None:
                await run_to_end(_rewind, into)
            token = await self._tokens.token()


class AuthSender:
    """What `TokenManager` sends with: no token, no repetition of what was sent, its own time-out.

    Args:
        exchanger: sends one request once, over connections that calls do not use.
        config: time-outs, and the client certificate.
        clock: time between attempts.
        at: makes an exchanger for another origin, which shows the client certificate.
    """

    def __init__(
        self,
        exchanger: Exchanger,
        config: Config,
        clock: Clock,
        at: Callable[[str], AbstractAsyncContextManager[Exchanger]],
    ) -> None:
        self._exchanger = exchanger
        self._config = config
        self._clock = clock
        self._at = at

    async def send(self, call: Call[Reply]) -> Reply:
        """Send `call` to the endpoint; again only while no connection can be made."""
        return await self._bounded(self._exchanger, call)

    async def send_with_certificate(self, call: Call[Reply], url: str) -> Reply:
        """Send `call` to `url`, with the client certificate."""
        target = urlsplit(url)
        origin = f"{target.scheme}://{target.netloc}"
        path = target.path + (f"?{target.query}" if target.query else "")
        async with self._at(origin) as exchanger:
            try:
                return await self._bounded(exchanger, attrs.evolve(call, path=path))
            except NoReplyError as error:
                error.hint = "check SECTIGO_CLIENT_CERT and SECTIGO_CLIENT_KEY, and SECTIGO_CA_BUNDLE"
                raise

    async def _bounded(self, exchanger: Exchanger, call: Call[Reply]) -> Reply:
        result: Reply | Failure
        try:
            async with asyncio.timeout(min(_AUTH_LIMIT, self._config.connect_timeout + self._config.read_timeout)):
                result = await self._attempts(exchanger, call)
        except TimeoutError:
            result = Failure("the service did not answer in time", sent=True, timed_out=True)
        if isinstance(result, Reply):
            return result
        raise _no_reply(call, result)

    async def _attempts(self, exchanger: Exchanger, call: Call[Reply]) -> Reply | Failure:
        number = 1
        attempt = Attempt()
        while True:
            result = await exchanger.exchange(call, None, attempt)
            if isinstance(result, Reply) or result.sent:
                return result
            delay = _delay(call, result, number, self._config.attempts, None)
            if delay is None:
                return result
            _tell_retry(call, call.secrets, result, attempt, delay)
            number += 1
            await self._clock.sleep(delay)


def _delay(call: Call[Any], result: Reply | Failure, number: int, attempts: int, left: float | None) -> float | None:
    """Return the seconds to wait before attempt `number` is followed by another; `None` to stop."""
    reply = result if isinstance(result, Reply) else None
    return retry_delay(
        repeatable=call.repeatable,
        sent=reply is not None or (isinstance(result, Failure) and result.sent),
        status=result.status,
        retry_after=None if reply is None else retry_after(reply),
        attempt=number,
        attempts=attempts,
        left=left,
        jitter=random.random(),  # noqa: S311 - spreads retries, guards nothing
    )


def _tell_retry(
    call: Call[Any], secrets: tuple[Secret, ...], result: Reply | Failure, attempt: Attempt, delay: float
) -> None:
    """Log why a request is sent again, and when."""
    fields = log_fields(call, secrets, result, attempt.number) | {"delay_s": round(delay, 3)}
    _log.info(
        "%(method)s %(path)s: %(outcome)s at attempt %(attempt)d, sent again in %(delay_s).1f s",
        {**fields, "outcome": fields["problem"] or fields["status"]},
        extra=fields,
    )


def _rewind(file: BinaryIO) -> None:
    try:
        file.seek(0)
        file.truncate()
    except OSError as error:
        problem = f"cannot write {file.name}: {error.strerror or error}"
    else:
        return
    raise FileError(problem, hint="see that there is room, and that you may write there")


def _read(call: Call[T], reply: Reply) -> T:
    try:
        return call.read(reply)
    except UnexpectedReplyError as error:
        if call.repeatable:
            raise
        problem = str(error)
    raise _unknown(call, problem)


def _error(call: Call[Any], result: Reply | Failure) -> SectigoError:
    if isinstance(result, Reply):
        error = error_for(result, call.method, call.path)
        return error if call.repeatable or result.status in DID_NOT_RUN else _unknown(call, str(error))
    if result.sent and not call.repeatable:
        return _unknown(call, result.problem)
    if result.status is not None:
        return UnexpectedReplyError(
            f"{call.method} {call.path}: {result.problem}",
            status=result.status,
            method=call.method,
            path=call.path,
            hint="a proxy may have changed it; if it is right, raise the limit in Config",
        )
    return _no_reply(call, result)


def _no_reply(call: Call[Any], failure: Failure) -> NoReplyError:
    """Return the error for an exchange without a reply that spent nothing."""
    if failure.timed_out and failure.sent:
        return CallTimeoutError(
            f"{call.method} {call.path}: {failure.problem}",
            method=call.method,
            path=call.path,
            hint="the service may be slow; try again later",
        )
    kind = NoReplyError if failure.sent else ConnectFailedError
    hint = "check SECTIGO_ENDPOINT, the network and any proxy"
    if "certificate verify failed" in failure.problem:
        hint = "if its certificate is of an authority of your own, name that in SECTIGO_CA_BUNDLE"
    return kind(f"{call.method} {call.path}: {failure.problem}", method=call.method, path=call.path, hint=hint)


def _unknown(call: Call[Any], problem: str) -> OutcomeUnknownError:
    return OutcomeUnknownError(
        f"{call.subject} was sent, but its outcome is unknown: {problem}",
        subject=call.subject,
        hint="do not repeat it: first look whether it ran",
    )


def _refused(reply: Reply, call: Call[Any]) -> SignInRequiredError:
    return SignInRequiredError(
        f"the service refuses a token it just issued: {error_for(reply, call.method, call.path)}",
        hint="check the account's role, and that the clock of this machine is right",
    )
