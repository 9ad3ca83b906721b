"""How each fault is done to a request and its reply."""

import random
from collections.abc import Awaitable, Callable
from typing import Final

import attrs
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.types import Receive, Scope, Send

from sectigo_async.clock import Clock
from sectigo_async.sandbox.faults import Fault, FaultRule, Faults
from sectigo_async.sandbox.http import ConnectionCut, ErrorReplies

_ARCHIVE: Final = "application/octet-stream"
_PAGE: Final = "<!DOCTYPE html><html><title>Please sign in</title><body>Please sign in to continue.</body></html>"


class _Cut(Response):
    """Sends the beginning of a reply, or nothing, and cuts the connection."""

    def __init__(self, reply: Response | None = None, *, part: float = 0) -> None:
        super().__init__()
        self._reply = reply
        self._part = b"" if reply is None else bytes(reply.body[: int(len(reply.body) * part)])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        abort: Callable[[], None] | None = scope.get("state", {}).get("abort")
        if abort is None:
            raise ConnectionCut(self._reply, self._part)
        if self._reply is not None:
            headers = self._reply.raw_headers
            await send({"type": "http.response.start", "status": self._reply.status_code, "headers": headers})
            if self._part:
                await send({"type": "http.response.body", "body": self._part, "more_body": True})
        abort()
        while (await receive())["type"] != "http.disconnect":
            pass


class _Drip(Response):
    """Sends a reply byte by byte."""

    def __init__(self, reply: Response, clock: Clock, seconds: float) -> None:
        super().__init__()
        self._reply = reply
        self._clock = clock
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        watched = Request(scope, receive)
        headers = self._reply.raw_headers
        await send({"type": "http.response.start", "status": self._reply.status_code, "headers": headers})
        for number in self._reply.body:
            await self._clock.sleep(self._seconds)
            if await watched.is_disconnected():
                return
            await send({"type": "http.response.body", "body": bytes([number]), "more_body": True})
        await send({"type": "http.response.body", "body": b""})


@attrs.frozen
class Mishap:
    """One request that a fault strikes.

    Attributes:
        rule: what strikes it.
        request: the request.
        run: runs it as if nothing were wrong.
        faults: keeps what runs late.
        clock: time.
        errors: makes error replies.
    """

    rule: FaultRule
    request: Request
    run: Callable[[], Awaitable[Response]]
    faults: Faults
    clock: Clock
    errors: ErrorReplies

    async def answer(self) -> Response:
        """Return the reply that the fault leaves."""
        if self.rule.fault is not Fault.LATE_COMMIT:
            return await _ACTS[self.rule.fault](self)
        # The whole request has to be here: the connection will not be.
        await self.request.body()
        self.faults.later(self.rule.seconds, self.run)
        return _Cut()

    def error(self, default: int) -> Response:
        """Return the error that the rule asks for."""
        reply = self.errors.reply(self.rule.status or default, "The service is having a bad day")
        if self.rule.retry_after is not None:
            reply.headers["retry-after"] = str(self.rule.retry_after)
        return reply

    @property
    def random(self) -> random.Random:
        """The generator that faults are rolled with."""
        return self.faults.random

    def see(self, *, ago: float, hides: bool) -> None:
        """Have batches seen as they were; with `hides`, the newer ones not at all."""
        self.request.state.ago = ago
        self.request.state.hides = hides


async def _latency(mishap: Mishap) -> Response:
    await mishap.clock.sleep(mishap.rule.seconds)
    return await mishap.run()


async def _rate_limit(mishap: Mishap) -> Response:
    return mishap.error(429)


async def _error_before(mishap: Mishap) -> Response:
    return mishap.error(503)


async def _error_after(mishap: Mishap) -> Response:
    await mishap.run()
    return mishap.error(503)


async def _cut_before(_: Mishap) -> Response:
    return _Cut()


async def _lost_reply(mishap: Mishap) -> Response:
    await mishap.run()
    return _Cut()


async def _cut_after_headers(mishap: Mishap) -> Response:
    return _Cut(await mishap.run())


async def _cut_mid_body(mishap: Mishap) -> Response:
    return _Cut(await mishap.run(), part=0.5)


async def _drip(mishap: Mishap) -> Response:
    return _Drip(await mishap.run(), mishap.clock, mishap.rule.seconds)


async def _wrong_type(mishap: Mishap) -> Response:
    reply = await mishap.run()
    reply.headers["content-type"] = "text/html;charset=UTF-8"
    return reply


async def _web_page(mishap: Mishap) -> Response:
    return HTMLResponse(_PAGE, mishap.rule.status or 200)


async def _truncated(mishap: Mishap) -> Response:
    reply = await mishap.run()
    return _with_body(reply, bytes(reply.body[: len(reply.body) // 2]))


async def _bit_flip(mishap: Mishap) -> Response:
    reply = await mishap.run()
    if reply.headers.get("content-type") != _ARCHIVE:
        return reply
    body = bytearray(reply.body)
    body[mishap.random.randrange(len(body))] ^= 1 << mishap.random.randrange(8)
    return _with_body(reply, bytes(body))


def _with_body(reply: Response, body: bytes) -> Response:
    headers = {name: value for name, value in reply.headers.items() if name != "content-length"}
    return Response(body, reply.status_code, headers)


async def _lag(mishap: Mishap) -> Response:
    mishap.see(ago=mishap.rule.seconds, hides=True)
    return await mishap.run()


async def _out_of_order(mishap: Mishap) -> Response:
    mishap.see(ago=mishap.random.uniform(0, mishap.rule.seconds), hides=False)
    return await mishap.run()


async def _clock_skew(mishap: Mishap) -> Response:
    mishap.request.state.clock_skew = mishap.rule.seconds
    return await mishap.run()


_ACTS: Final[dict[Fault, Callable[[Mishap], Awaitable[Response]]]] = {
    Fault.LATENCY: _latency,
    Fault.RATE_LIMIT: _rate_limit,
    Fault.ERROR_BEFORE: _error_before,
    Fault.ERROR_AFTER: _error_after,
    Fault.CUT_BEFORE: _cut_before,
    Fault.LOST_REPLY: _lost_reply,
    Fault.CUT_AFTER_HEADERS: _cut_after_headers,
    Fault.CUT_MID_BODY: _cut_mid_body,
    Fault.DRIP: _drip,
    Fault.WRONG_TYPE: _wrong_type,
    Fault.WEB_PAGE: _web_page,
    Fault.TRUNCATED: _truncated,
    Fault.BIT_FLIP: _bit_flip,
    Fault.LAG: _lag,
    Fault.OUT_OF_ORDER: _out_of_order,
    Fault.CLOCK_SKEW: _clock_skew,
}
