"""The only sender.

One call, from outside in: the whole call's time-out, the retry loop, and in it the token, the lease, the sending,
the reading to the end, and what it means. A 401 is a branch of this loop: the reply is closed first, so that the
refresh never waits for a connection that the refused call still holds.
"""

import asyncio
import logging
import random
import time
from collections.abc import Mapping
from typing import Any, BinaryIO, TypeVar

import attrs
import httpx

from sectigo_async.auth import Send, TokenManager
from sectigo_async.clock import Clock
from sectigo_async.config import DEFAULT, Config, Timeout
from sectigo_async.connections import FRESH
from sectigo_async.errors import (
    CallTimeoutError,
    ConfigurationError,
    ConnectFailedError,
    NoReplyError,
    OutcomeUnknownError,
    SectigoError,
    ServiceError,
    SignInRequiredError,
    UnexpectedReplyError,
)
from sectigo_async.secrets import Secret
from sectigo_async.wire.calls import Call
from sectigo_async.wire.reply import Reply, error_for, retry_after
from sectigo_async.wire.retry import retry_delay

T = TypeVar("T")

_log = logging.getLogger("sectigo_async.transport")

_ERROR_BODY_LIMIT = 64 * 1024
_WRITE_SIZE = 1024 * 1024


@attrs.frozen
class _Failure:
    """An exchange without a usable reply.

    Attributes:
        problem: what happened, in words.
        sent: whether the request may have reached the service.
        timed_out: whether it was a time-out.
    """

    problem: str
    sent: bool
    timed_out: bool = False


@attrs.define
class _Trace:
    """Notices whether the request itself went out; httpcore tells through the `trace` extension."""

    seen: bool = False
    sent: bool = False

    @property
    def may_be_sent(self) -> bool:
        """Whether the request may have reached the service: without a trace nobody can tell that it did not."""
        return self.sent or not self.seen

    async def __call__(self, event: str, info: Mapping[str, Any]) -> None:
        self.seen = True
        if event.endswith("send_request_headers.started"):
            # The CONNECT that opens a tunnel through a proxy is not the request.
            self.sent = self.sent or getattr(info.get("request"), "method", b"") != b"CONNECT"


class Exchanger:
    """Sends one request once and reads the reply to its end.

    Args:
        http: carries the requests.
        config: endpoint, time-outs and limits.
        user_agent: value of the header.
    """

    def __init__(self, http: httpx.AsyncBaseTransport, config: Config, user_agent: str) -> None:
        self._http = http
        self._config = config
        self._user_agent = user_agent

    async def exchange(
        self, call: Call[Any], token: Secret | None, trace: _Trace, into: BinaryIO | None = None
    ) -> "Reply | _Failure":
        """Send `call` and return the reply, or what went wrong.

        Failures are returned, not raised, so that no frame that holds the request hangs on an error.
        """
        started = time.perf_counter()
        try:
            response = await self._http.handle_async_request(self._request(call, token, trace))
            response.request = httpx.Request(call.method, self._config.endpoint + call.path)
            try:
                result: Reply | _Failure = await self._read(response, into)
            finally:
                await response.aclose()
        except httpx.TransportError as error:
            unsent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
            sent = trace.sent if trace.seen else not unsent
            timed_out = isinstance(error, httpx.TimeoutException)
            result = _Failure(_words(error, sent=sent), sent=sent, timed_out=timed_out)
        except httpx.DecodingError:
            result = _Failure("the reply cannot be decoded", sent=True)
        except asyncio.CancelledError as cancelled:
            if not call.repeatable and call.subject and trace.may_be_sent:
                cancelled.add_note(f"{call.subject} was sent, but its outcome is unknown: look before repeating it")
            raise
        outcome = result.status if isinstance(result, Reply) else result.problem
        _log.debug("%s %s: %s, %.0f ms", call.method, call.path, outcome, (time.perf_counter() - started) * 1e3)
        return result

    def _request(self, call: Call[Any], token: Secret | None, trace: _Trace) -> httpx.Request:
        config = self._config
        headers = {"Accept": call.accept, "Content-Type": call.content_type, "User-Agent": self._user_agent}
        if token is not None:
            headers["Authorization"] = f"Bearer {token.reveal()}"
        limits = httpx.Timeout(config.read_timeout, connect=config.connect_timeout)
        return httpx.Request(
            call.method,
            config.endpoint + call.path,
            headers=headers,
            content=call.body,
            # An order goes out on a fresh connection: one that the service closes just then would make
            # a routine order ambiguous.
            extensions={"timeout": limits.as_dict(), "trace": trace, FRESH: not call.repeatable},
        )

    async def _read(self, response: httpx.Response, into: BinaryIO | None) -> "Reply | _Failure":
        headers = {name.lower(): value for name, value in response.headers.items()}
        if into is not None and response.is_success:
            await _write(response, into)
            return Reply(status=response.status_code, headers=headers)
        limit = self._config.reply_limit if response.is_success else _ERROR_BODY_LIMIT
        body = bytearray()
        async for piece in response.aiter_bytes():
            body += piece
            if len(body) > limit:
                if response.is_success:
                    return _Failure(f"the reply is longer than {limit:,} bytes", sent=True)
                break
        return Reply(status=response.status_code, headers=headers, body=bytes(body))


async def _write(response: httpx.Response, into: BinaryIO) -> None:
    """Write a reply's body to `into` in large pieces, off the event loop."""
    buffer = bytearray()
    async for piece in response.aiter_raw():
        buffer += piece
        if len(buffer) >= _WRITE_SIZE:
            await asyncio.to_thread(into.write, buffer)
            buffer = bytearray()
    await asyncio.to_thread(into.write, buffer)


def _words(error: httpx.TransportError, *, sent: bool) -> str:
    """Return what happened without the error itself, whose request holds the password or token."""
    if isinstance(error, httpx.TimeoutException):
        return "the service did not answer in time" if sent else "no connection in time"
    detail = str(error).strip() or type(error).__name__
    return f"the connection broke: {detail}" if sent else f"cannot connect: {detail}"


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

    async def send(self, call: Call[T], *, timeout: Timeout = DEFAULT, into: BinaryIO | None = None) -> T:
        """Send `call` and return what it reads.

        Args:
            call: the request.
            timeout: seconds for all of it.
            into: where a successful reply's body is written, instead of being held in memory.

        Raises:
            AuthenticationError: no token can be had; the call was not sent.
            ServiceError: the service answered with an error.
            NoReplyError: no answer came, and repeating the call spends nothing twice.
            OutcomeUnknownError: an order or revocation may or may not have run.
            ConfigurationError: the client belongs to another event loop.
        """
        self._stay_on_one_loop()
        limit = self._config.timeout if timeout is DEFAULT else timeout
        under_way = _UnderWay()
        try:
            async with asyncio.timeout(limit):
                return await self._attempts(call, into, under_way)
        except TimeoutError:
            pass
        if under_way.trace is not None and under_way.trace.may_be_sent and not call.repeatable:
            raise _unknown(call, f"no answer within {limit:g} s")
        raise CallTimeoutError(
            f"{call.method} {call.path}: no answer within {limit:g} s",
            method=call.method,
            path=call.path,
            hint="the service may be slow: raise timeout=, or try again later",
        )

    def _stay_on_one_loop(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise ConfigurationError(
                "this client was first used in another event loop", hint="make one client for each event loop"
            )

    async def _attempts(self, call: Call[T], into: BinaryIO | None, under_way: "_UnderWay") -> T:
        replaced = False
        attempt = 1
        token = await self._tokens.token()
        while True:
            under_way.trace = _Trace()
            result = await self._exchanger.exchange(call, token, under_way.trace, into)
            under_way.trace = None
            if isinstance(result, Reply) and result.status == 401:  # noqa: PLR2004
                # Authentication comes before execution, so even an order may be sent again (api.md 3).
                if replaced:
                    raise _refused(result, call)
                token = await self._tokens.replace(token)
                replaced = True
                continue
            if isinstance(result, Reply) and result.ok:
                return _read(call, result)
            delay = self._delay(call, result, attempt)
            if delay is None:
                raise _error(call, result)
            attempt += 1
            await self._clock.sleep(delay)
            if into is not None:
                await asyncio.to_thread(_rewind, into)
            token = await self._tokens.token()

    def _delay(self, call: Call[Any], result: "Reply | _Failure", attempt: int) -> float | None:
        reply = result if isinstance(result, Reply) else None
        return retry_delay(
            repeatable=call.repeatable,
            sent=reply is not None or (isinstance(result, _Failure) and result.sent),
            status=None if reply is None else reply.status,
            retry_after=None if reply is None else retry_after(reply),
            attempt=attempt,
            attempts=self._config.attempts,
            jitter=random.random(),  # noqa: S311 - spreads retries, guards nothing
        )


@attrs.define
class _UnderWay:
    """The trace of the request under way, for when time runs out."""

    trace: _Trace | None = None


def _rewind(file: BinaryIO) -> None:
    file.seek(0)
    file.truncate()


def _read(call: Call[T], reply: Reply) -> T:
    try:
        return call.read(reply)
    except UnexpectedReplyError as error:
        if call.repeatable:
            raise
        problem = str(error)
    raise _unknown(call, problem)


def _error(call: Call[Any], result: "Reply | _Failure") -> SectigoError:
    if isinstance(result, Reply):
        error = error_for(result, call.method, call.path)
        may_have_run = result.status >= 500  # noqa: PLR2004
        return _unknown(call, str(error)) if may_have_run and not call.repeatable else error
    if result.sent and not call.repeatable:
        return _unknown(call, result.problem)
    return _no_reply(call, result)


def _no_reply(call: Call[Any], failure: _Failure) -> NoReplyError:
    """Return the error for an exchange without a reply that spent nothing."""
    if failure.timed_out and failure.sent:
        return CallTimeoutError(
            f"{call.method} {call.path}: {failure.problem}",
            method=call.method,
            path=call.path,
            hint="the service may be slow; try again later",
        )
    kind = NoReplyError if failure.sent else ConnectFailedError
    return kind(
        f"{call.method} {call.path}: {failure.problem}",
        method=call.method,
        path=call.path,
        hint="check SECTIGO_ENDPOINT, the network and any proxy",
    )


def _unknown(call: Call[Any], problem: str) -> OutcomeUnknownError:
    return OutcomeUnknownError(
        f"{call.subject} was sent, but its outcome is unknown: {problem}",
        subject=call.subject,
        hint="do not repeat it: first look in the portal, or search by common name, whether it ran",
    )


def _refused(reply: Reply, call: Call[Any]) -> SignInRequiredError:
    words: ServiceError = error_for(reply, call.method, call.path)
    return SignInRequiredError(
        f"the service refuses a token it just issued: {words}",
        hint="check the account's role, and that the clock of this machine is right",
    )


def auth_sender(exchanger: Exchanger, config: Config) -> Send:
    """Return what `TokenManager` sends with: one attempt, no token, its own time-out."""

    async def send(call: Call[Reply]) -> Reply:
        result: Reply | _Failure
        try:
            async with asyncio.timeout(config.connect_timeout + config.read_timeout):
                result = await exchanger.exchange(call, None, _Trace())
        except TimeoutError:
            result = _Failure("the service did not answer in time", sent=True, timed_out=True)
        if isinstance(result, Reply):
            return result
        raise _no_reply(call, result)

    return send
