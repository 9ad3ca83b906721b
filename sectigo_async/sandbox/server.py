"""The sandbox on a socket: uvicorn inside the running loop."""

import asyncio
import contextlib
import errno
import logging
import os
import socket
import ssl
import tempfile
from collections.abc import Generator
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from sectigo_async.sandbox.app import create_app
from sectigo_async.sandbox.state import Sandbox

_GRACE: Final = 1
_BACKLOG: Final = 128
_ROUNDS: Final = 10


# What these libraries say of hostile input and of a shutdown is for programs that set up logging, not for stderr.
for _name in ("uvicorn.error", "python_multipart"):
    logging.getLogger(_name).addHandler(logging.NullHandler())


class SandboxServer:
    """Serves a sandbox while its `async with` block runs.

    Args:
        sandbox: what to serve.
        host: name or address to listen on; IPv6 addresses without brackets.
        port: port to listen on; 0 picks a free one.
        ssl_certfile: PEM certificate chain, to serve HTTPS.
        ssl_keyfile: its PEM private key, unless the chain's file holds it.
        tls: serve HTTPS with a certificate of the sandbox's own CA.

    Raises:
        OSError: on entering, when the address cannot be listened on or the TLS files cannot be read.
    """

    def __init__(
        self,
        sandbox: Sandbox,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        ssl_certfile: Path | None = None,
        ssl_keyfile: Path | None = None,
        tls: bool = False,
    ) -> None:
        self._sandbox = sandbox
        self._tls = tls and ssl_certfile is None
        self._host = host
        self._port = port
        self._config = uvicorn.Config(
            create_app(sandbox),
            http=_Protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="warning",
            access_log=False,
            date_header=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=_GRACE,
            backlog=_BACKLOG,
            ssl_certfile=ssl_certfile,
            ssl_keyfile=ssl_keyfile,
            ssl_ca_certs=sandbox.config.client_ca,
            # Asked for, not demanded: who has none can still sign in where none is needed.
            ssl_cert_reqs=ssl.CERT_NONE if sandbox.config.client_ca is None else ssl.CERT_OPTIONAL,
        )
        self._server = _Server(self._config)
        self._task: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """The base URL, once the server listens."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{'https' if self._config.is_ssl else 'http'}://{host}:{self._port}"

    async def __aenter__(self) -> Self:
        self._load()
        listener = self._listen()
        self._port = listener.getsockname()[1]
        self._task = asyncio.create_task(self._server.serve(sockets=[listener]))
        try:
            while not self._server.started:
                await asyncio.sleep(0)
                if self._task.done():
                    await self._task
        except BaseException:
            self._task.cancel()
            listener.close()
            raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._task is not None
        self._server.end()
        try:
            await self._task
            # Requests that outlasted the grace have been cancelled; let them notice.
            if requests := self._server.server_state.tasks:
                await asyncio.wait(requests, timeout=_GRACE)
        finally:
            self._server.abort()

    async def serve_forever(self) -> None:
        """Wait until cancelled; the server itself stops when its block is left."""
        assert self._task is not None
        await asyncio.shield(self._task)

    def _load(self) -> None:
        if not self._tls:
            self._config.load()
            return
        # OpenSSL takes its key from a file; this one is gone before anybody can connect.
        with tempfile.TemporaryDirectory() as directory:  # Mode 0700.
            path = Path(directory) / "tls.pem"
            path.write_bytes(self._sandbox.tls_pem(self._host))
            self._config.ssl_certfile = path
            self._config.load()

    def _listen(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        try:
            return _bound(family, self._host, self._port)
        except (OSError, UnicodeError) as error:
            number = error.errno if isinstance(error, OSError) and not isinstance(error, socket.gaierror) else None
            reason = os.strerror(number) if number else "no such name or address"
            raise OSError(
                number or errno.EADDRNOTAVAIL, f"cannot listen on {self._host} port {self._port}: {reason}"
            ) from error


def _bound(family: socket.AddressFamily, host: str, port: int) -> socket.socket:
    # asyncio sets TCP_NODELAY, without which each reply waits for the peer's delayed acknowledgement, only on
    # sockets that name their protocol; `socket.create_server` makes one that does not.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


class _Protocol(H11Protocol):
    """Tells the application whether the peer has shown a client certificate, and how to cut the connection."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        tls = transport.get_extra_info("ssl_object")
        shown = tls is not None and bool(tls.getpeercert())
        self.app_state = {**self.app_state, "client_certificate": shown, "abort": transport.abort}


class _Server(uvicorn.Server):
    """Ends when it is told to, and not at the next tenth of a second: every test waits for it."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._end = asyncio.Event()

    def end(self) -> None:
        """Have the server finish what is under way, and end."""
        self.should_exit = True
        self._end.set()

    async def main_loop(self) -> None:
        """Wait for the end."""
        await self.on_tick(0)
        await self._end.wait()
        # Who stands at the door is let in first: the loop takes a few rounds for it.
        for _ in range(_ROUNDS):
            await asyncio.sleep(0)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Wait for those who are connected, where there are any; `abort` closes the listeners."""
        if self.server_state.connections or self.server_state.tasks:
            await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave signals alone: they belong to whoever runs the loop."""
        yield

    def abort(self) -> None:
        """Close what a graceful shutdown has left open."""
        for listener in self.servers:
            listener.close()
        for connection in list(self.server_state.connections):
            connection.transport.abort()
