"""One request, sent once, and its reply, read to the end."""

import asyncio
import functools
import logging
import time
from collections.abc import Mapping
from typing import Any, BinaryIO

import attrs
import httpx

from sectigo_async.config import Config
from sectigo_async.connections import FRESH, LEASED, QUEUED
from sectigo_async.errors import FileError
from sectigo_async.secrets import Secret
from sectigo_async.threads import run_to_end
from sectigo_async.wire.calls import BYTES, Call
from sectigo_async.wire.reply import Reply, quote

_log = logging.getLogger("sectigo_async.transport")

_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.InvalidURL)
_ERROR_BODY_LIMIT = 64 * 1024
# Not asked for, but proxies are known to add one. Several in a row, or one that packs tighter, may be a bomb.
_ENCODINGS = {"", "identity", "gzip", "x-gzip", "deflate"}
_WRITE_SIZE = 2 * 1024 * 1024


@attrs.frozen
class Failure:
    """An exchange without a usable reply.

    Attributes:
        problem: what happened, in words.
        sent: whether the request may have reached the service.
        timed_out: whether it was a time-out.
        status: the status of a reply that cannot be used.
    """

    problem: str
    sent: bool
    timed_out: bool = False
    status: int | None = None


@attrs.define
class Attempt:
    """What is known of the request under way, for whoever is interrupted.

    httpcore tells through the `trace` extension whether the request itself went out.

    Attributes:
        number: how many requests were sent for the call, the one under way included.
    """

    number: int = attrs.field(default=0, init=False)
    _under_way: bool = attrs.field(default=False, init=False)
    _queued: bool = attrs.field(default=False, init=False)
    _seen: bool = attrs.field(default=False, init=False)
    _sent: bool = attrs.field(default=False, init=False)

    @property
    def may_have_run(self) -> bool:
        """Whether the service may have acted on the request, or has."""
        # Without a trace nobody can tell that it was not sent.
        return self._under_way and self.was_sent(otherwise=True)

    def begin(self) -> None:
        """Note that a request is about to be sent."""
        self.number += 1
        self._under_way, self._queued, self._seen, self._sent = True, False, False, False

    def end(self) -> None:
        """Note that the service provably did not act on it."""
        self._under_way = False

    def was_sent(self, *, otherwise: bool) -> bool:
        """Say whether the request went out; `otherwise` is the answer where there was no trace."""
        if self._queued:
            return False
        return self._sent if self._seen else otherwise

    async def __call__(self, event: str, info: Mapping[str, Any]) -> None:
        """Take note of an event of the trace."""
        if event in {QUEUED, LEASED}:
            self._queued = event == QUEUED
            return
        self._seen = True
        if event.endswith("send_request_headers.started"):
            # The CONNECT that opens a tunnel through a proxy is not the request.
            self._sent = self._sent or getattr(info.get("request"), "method", b"") != b"CONNECT"


class Exchanger:
    """Sends one request once and reads the reply to its end.

    Args:
        http: carries the requests.
        config: endpoint, time-outs and limits.
        user_agent: value of the header.
        base: what the paths of the calls follow; the endpoint when not given.
    """

    def __init__(
        self, http: httpx.AsyncBaseTransport, config: Config, user_agent: str, *, base: str | None = None
    ) -> None:
        self._http = http
        self._config = config
        self._user_agent = user_agent
        self._base = config.endpoint if base is None else base

    async def exchange(
        self, call: Call[Any], token: Secret | None, attempt: Attempt, into: BinaryIO | None = None
    ) -> Reply | Failure:
        """Send `call` and return the reply, or what went wrong.

        Failures are returned, not raised, so that no frame that holds the request hangs on an error.

        Args:
            call: the request.
            token: access token; none for signing in.
            attempt: told whether the request went out.
            into: where the body of a successful reply is written, instead of being held in memory.

        Raises:
            FileError: `into` cannot be written.
        """
        started = time.perf_counter()
        secrets = call.secrets if token is None else (*call.secrets, token)
        attempt.begin()
        result: Reply | Failure = Failure("given up", sent=True)
        try:
            response = await self._http.handle_async_request(self._request(call, token, attempt))
            response.request = _bare_request(call.method, self._base + call.path)
            try:
                result = await self._read(response, call, secrets, into)
            finally:
                await response.aclose()
        # OSError: some errors of TLS pass through httpx as they are.
        except (httpx.TransportError, httpx.InvalidURL, OSError) as error:
            unsent = isinstance(error, _NOT_SENT)
            sent = attempt.was_sent(otherwise=not unsent)
            words = quote(_words(error, sent=sent), secrets)
            result = Failure(words, sent, isinstance(error, httpx.TimeoutException))
        except httpx.DecodingError:
            result = Failure("the reply cannot be decoded", sent=True)
        except asyncio.CancelledError as cancelled:
            if not call.repeatable and attempt.may_have_run:
                cancelled.add_note(f"{call.subject} was sent, but its outcome is unknown: look before repeating it")
            raise
        finally:
            if _log.isEnabledFor(logging.DEBUG):
                _tell(call, secrets, result, attempt.number, time.perf_counter() - started)
        if isinstance(result, Failure) and not result.sent:
            attempt.end()
        return result

    def _request(self, call: Call[Any], token: Secret | None, attempt: Attempt) -> httpx.Request:
        config = self._config
        headers = {
            "Accept": call.accept,
            "Accept-Encoding": "identity",
            "Content-Type": call.content_type,
            "User-Agent": self._user_agent,
        }
        if token is not None:
            headers["Authorization"] = f"Bearer {token.reveal()}"
        limits = httpx.Timeout(config.read_timeout, connect=config.connect_timeout)
        return httpx.Request(
            call.method,
            _url(self._base + call.path),
            headers=headers,
            content=call.body,
            # An order goes out on a fresh connection: one that the service closes just then would make
            # a routine order ambiguous.
            extensions={"timeout": limits.as_dict(), "trace": attempt, FRESH: not call.repeatable},
        )

    async def _read(
        self, response: httpx.Response, call: Call[Any], secrets: tuple[Secret, ...], into: BinaryIO | None
    ) -> Reply | Failure:
        headers = {name.lower(): value for name, value in response.headers.items()}
        encoding = headers.get("content-encoding", "").strip().lower()
        if encoding not in _ENCODINGS:
            return Failure("the reply comes in an encoding that was not asked for", True, status=response.status_code)
        if into is not None and response.is_success:
            await _write(response, into)
            return Reply(status=response.status_code, headers=headers, secrets=secrets)
        limit = _ERROR_BODY_LIMIT
        if response.is_success:
            limit = self._config.archive_limit if call.accept == BYTES else self._config.reply_limit
        body = bytearray()
        async for piece in response.aiter_bytes():
            body += piece
            if len(body) > limit:
                if response.is_success:
                    return Failure(f"the reply is longer than {limit:,} bytes", True, status=response.status_code)
                break
        return Reply(
            status=response.status_code,
            headers=headers,
            body=bytes(body),
            tls_version=_tls_version(response),
            secrets=secrets,
        )


@functools.lru_cache(maxsize=256)
def _url(text: str) -> httpx.URL:
    """Return a URL; the same ones are asked for again and again, and to read one takes time."""
    return httpx.URL(text)


@functools.lru_cache(maxsize=256)
def _bare_request(method: str, url: str) -> httpx.Request:
    """Return what a response may know of its request, and errors with it: no token and no body."""
    return httpx.Request(method, _url(url))


def _tell(
    call: Call[Any], secrets: tuple[Secret, ...], result: Reply | Failure, attempt: int, seconds: float
) -> None:
    """Log one request and what came of it."""
    fields = log_fields(call, secrets, result, attempt) | {"duration_ms": round(seconds * 1e3, 1)}
    _log.debug(
        "%(method)s %(path)s: %(outcome)s, %(duration_ms).0f ms, attempt %(attempt)d",
        {**fields, "outcome": fields["problem"] or fields["status"]},
        extra=fields,
    )


def log_fields(
    call: Call[Any], secrets: tuple[Secret, ...], result: Reply | Failure, attempt: int
) -> dict[str, object]:
    """Return what a log may know of a request: no header field, no body, and no query, which may hold a ticket.

    Args:
        call: what was sent.
        secrets: what must not show in its path.
        result: what came of it.
        attempt: how many requests were sent for the call, this one included.
    """
    return {
        "method": call.method,
        "path": quote(call.path.partition("?")[0], secrets),
        "status": result.status,
        "problem": result.problem if isinstance(result, Failure) else None,
        "attempt": attempt,
    }


def _tls_version(response: httpx.Response) -> str:
    stream = response.extensions.get("network_stream")
    tls = None if stream is None else stream.get_extra_info("ssl_object")
    return "" if tls is None else str(tls.version())


async def _write(response: httpx.Response, into: BinaryIO) -> None:
    """Write a reply's body to `into` in large pieces, off the event loop."""
    buffer = bytearray()
    async for piece in response.aiter_bytes():
        buffer += piece
        if len(buffer) >= _WRITE_SIZE:
            await _write_piece(into, buffer)
            buffer = bytearray()
    await _write_piece(into, buffer)


async def _write_piece(into: BinaryIO, piece: bytearray) -> None:
    try:
        await run_to_end(into.write, piece)
    except OSError as error:
        problem = f"cannot write {into.name}: {error.strerror or error}"
    else:
        return
    raise FileError(problem, hint="see that there is room, and that you may write there")


def _words(error: Exception, *, sent: bool) -> str:
    """Return what happened without the error itself, whose request holds the password or token."""
    if isinstance(error, httpx.LocalProtocolError):
        return "the request could not be written"  # What is wrong with it may be a secret.
    if isinstance(error, httpx.TimeoutException):
        return "the service did not answer in time" if sent else "no connection in time"
    detail = str(error) or type(error).__name__
    return f"the connection broke: {detail}" if sent else f"cannot connect: {detail}"
