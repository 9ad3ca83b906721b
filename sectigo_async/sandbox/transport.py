"""The sandbox for clients in the same process, with faults that cut connections."""

from collections.abc import AsyncIterator

import httpx

from sectigo_async.sandbox.app import create_app
from sectigo_async.sandbox.http import ConnectionCut
from sectigo_async.sandbox.state import Sandbox


class SandboxTransport(httpx.AsyncBaseTransport):
    """Carries the requests of an httpx client to a sandbox in this process, without a socket.

    Args:
        sandbox: what answers.
    """

    def __init__(self, sandbox: Sandbox) -> None:
        self._inner = httpx.ASGITransport(create_app(sandbox))

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Return the reply, or raise what a connection that is cut makes of it."""
        try:
            return await self._inner.handle_async_request(request)
        except ConnectionCut as error:
            cut = error
        if cut.reply is None:
            raise httpx.RemoteProtocolError("Server disconnected without sending a response.", request=request)
        return httpx.Response(cut.reply.status_code, headers=cut.reply.raw_headers, stream=_Broken(cut.body))


class _Broken(httpx.AsyncByteStream):
    def __init__(self, body: bytes) -> None:
        self._body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._body:
            yield self._body
        raise httpx.RemoteProtocolError("peer closed connection without sending complete message body")
