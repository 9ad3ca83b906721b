"""What really goes over a socket: was it sent, on which connection, and how much memory does it take."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import attrs
import pytest

from sectigo_async import Config, Secret, SectigoClient
from sectigo_async.errors import (
    CallTimeoutError,
    ConfigurationError,
    ConnectFailedError,
    NoReplyError,
    OutcomeUnknownError,
)
from sectigo_async.testing import FakeClock

Handler = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]

TOKENS = b'{"accessToken":"a.b.c","refreshToken":"a.b.c"}'


def http(body: bytes, status: str = "200 OK") -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status.encode(), len(body), body)


class Server:
    """A server that answers sign-ins, hands every other request to `handle`, and remembers what it saw."""

    def __init__(self, handle: Handler) -> None:
        self.handle = handle
        self.requests: list[tuple[int, str]] = []
        self.connections = 0
        self.open = 0

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        number = self.connections
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
                )
                await reader.readexactly(length)
                path = head.split(b" ")[1].decode()
                self.requests.append((number, path))
                if path == "/auth/pwd":
                    writer.write(http(TOKENS))
                else:
                    await self.handle(head, writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
            self.open -= 1


@asynccontextmanager
async def serving(
    handle: Handler, *, connections: int = 20, keep_alive: float = 5
) -> AsyncIterator[tuple[Server, SectigoClient]]:
    server = Server(handle)
    listener = await asyncio.start_server(server.connected, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    config = attrs.evolve(Config.create(f"http://127.0.0.1:{port}"), connections=connections, keep_alive=keep_alive)
    async with SectigoClient(username="ops", password="x", config=config, clock=FakeClock()) as client:
        yield server, client
    listener.close()
    while server.open:
        await asyncio.sleep(0.001)


async def order(client: SectigoClient) -> None:
    await client.batches.create(authority_id=1, name="gateway-7", params={"pkcs12Password": Secret("x")})


async def test_an_order_cut_after_it_was_sent_is_unknown_and_was_sent_once() -> None:
    async def cut(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with serving(cut) as (server, client):
        with pytest.raises(OutcomeUnknownError):
            await order(client)
        with pytest.raises(NoReplyError):
            await client.licenses.get()

    paths = [path for _, path in server.requests]
    assert paths.count("/api/v1/batches/createSingleCertBatch") == 1
    assert paths.count("/api/v1/devices") == client.config.attempts


async def test_an_order_cut_in_the_middle_of_its_reply_is_unknown() -> None:
    async def cut(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b'HTTP/1.1 201 Created\r\nContent-Length: 500\r\n\r\n{"batchId":24')
        await writer.drain()
        writer.close()

    async with serving(cut) as (_, client):
        with pytest.raises(OutcomeUnknownError):
            await order(client)


async def test_reads_share_a_connection_and_every_order_has_a_fresh_one() -> None:
    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(http(b'{"batchId":24}' if head.startswith(b"PUT") else b"{}"))

    async with serving(answer) as (server, client):
        for _ in range(3):
            await client.licenses.get()
        await order(client)
        await order(client)
        await client.licenses.get()

    by_path: dict[str, list[int]] = {}
    for connection, path in server.requests:
        by_path.setdefault(path, []).append(connection)
    assert len(set(by_path["/api/v1/devices"])) == 1
    orders = by_path["/api/v1/batches/createSingleCertBatch"]
    assert len(set(orders)) == 2
    assert not set(orders) & set(by_path["/api/v1/devices"] + by_path["/auth/pwd"])


@pytest.mark.parametrize(("keep_alive", "used"), [(0, 3), (60, 1)])
async def test_how_long_an_idle_connection_is_kept(keep_alive: float, used: int) -> None:
    async def answer(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(http(b"{}"))

    async with serving(answer, keep_alive=keep_alive) as (server, client):
        for _ in range(3):
            await client.licenses.get()
            await asyncio.sleep(0.01)

    assert len({connection for connection, path in server.requests if path == "/api/v1/devices"}) == used


async def test_nobody_there() -> None:
    listener = await asyncio.start_server(lambda _r, _w: None, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    listener.close()
    await listener.wait_closed()
    async with SectigoClient(
        username="ops", password="x", endpoint=f"http://127.0.0.1:{port}", clock=FakeClock()
    ) as client:
        with pytest.raises(ConnectFailedError, match="cannot connect") as caught:
            await order(client)

    assert "SECTIGO_ENDPOINT" in caught.value.hint


async def test_an_order_that_ran_out_of_time_after_it_was_sent_is_unknown() -> None:
    released = asyncio.Event()

    async def hang(_: bytes, writer: asyncio.StreamWriter) -> None:
        await released.wait()
        writer.close()

    async with serving(hang) as (_, client):
        await client.sign_in()
        with pytest.raises(OutcomeUnknownError):
            await client.batches.create(authority_id=1, name="n", params={}, timeout=0.1)
        released.set()


DOWNLOAD = """
import asyncio, resource, sys, tempfile
from sectigo_async import SectigoClient

async def main():
    async with SectigoClient(username="ops", password="x", endpoint=sys.argv[1]) as client:
        with tempfile.TemporaryDirectory() as directory:
            await client.batches.download_to(1, directory)
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            path = await client.batches.download_to(2, directory)
            after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            print(path.stat().st_size, after - before)

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kilobytes on Linux alone")
async def test_a_download_of_200_mb_adds_less_than_20_mb_to_the_process() -> None:
    size = 200 * 1024 * 1024
    start, end = b"PK\x03\x04", b"PK\x05\x06" + bytes(18)

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        left = (size if b"/2/" in head else 1024) - len(start) - len(end)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (left + len(start) + len(end), start))
        piece = bytes(256 * 1024)
        while left:
            writer.write(piece[:left])
            left -= min(left, len(piece))
            await writer.drain()
        writer.write(end)

    async with serving(answer) as (_, client):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", DOWNLOAD, client.config.endpoint, stdout=subprocess.PIPE
        )
        output, _ = await process.communicate()

    written, added = map(int, output.split())
    assert written == size
    assert added < 20 * 1024


async def test_an_order_that_only_waited_for_a_connection_was_not_sent() -> None:
    released = asyncio.Event()

    async def hang(_: bytes, writer: asyncio.StreamWriter) -> None:
        await released.wait()
        writer.write(http(b"{}"))

    async with serving(hang, connections=1) as (server, client):
        await client.sign_in()
        blocking = asyncio.create_task(client.licenses.get())
        await asyncio.sleep(0.05)
        with pytest.raises(CallTimeoutError):
            await client.batches.create(authority_id=1, name="n", params={}, timeout=0.1)
        queued = asyncio.create_task(order(client))
        await asyncio.sleep(0.05)
        queued.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await queued
        released.set()
        await blocking

    assert not hasattr(caught.value, "__notes__")
    assert [path for _, path in server.requests] == ["/auth/pwd", "/api/v1/devices"]


@pytest.mark.parametrize("steps", range(1, 30))
async def test_cancelled_at_any_moment_a_call_leaves_its_connection_usable(steps: int) -> None:
    async def answer(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(http(b"{}"))

    async with serving(answer, connections=1) as (_, client):
        await client.licenses.get()
        task = asyncio.create_task(client.licenses.get())
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])

        await client.licenses.get(timeout=5)


async def test_what_is_no_tls_is_a_typed_error_even_for_an_order() -> None:
    async def plain(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 no\r\n\r\n")
        writer.close()
        await writer.wait_closed()

    listener = await asyncio.start_server(plain, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    async with SectigoClient(
        username="ops", password="x", endpoint=f"https://127.0.0.1:{port}", clock=FakeClock()
    ) as client:
        with pytest.raises(ConnectFailedError):
            await order(client)
    listener.close()


async def test_a_closed_client_takes_no_more_calls() -> None:
    async def answer(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(http(b"{}"))

    async with serving(answer) as (_, client):
        await client.licenses.get()
        await client.aclose()
        with pytest.raises(ConfigurationError, match="closed"):
            await client.licenses.get()
