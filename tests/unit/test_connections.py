"""Leases: each connection serves one request at a time, and every one comes back."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from sectigo_async import Secret, SectigoClient
from sectigo_async.connections import FRESH, LeasedTransport, environment_proxy, shared_ssl_context
from sectigo_async.errors import ConfigurationError


class Body(httpx.AsyncByteStream):
    def __init__(self, pieces: int, *, broken: bool = False) -> None:
        self.pieces = pieces
        self.broken = broken

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for _ in range(self.pieces):
            await asyncio.sleep(0)
            yield b"x"
        if self.broken:
            raise httpx.ReadError("cut")


class Connection(httpx.AsyncBaseTransport):
    def __init__(self) -> None:
        self.busy = 0
        self.served = 0
        self.closed = False
        self.answer: Exception | Body | None = None
        self.hang = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:  # noqa: ARG002
        assert self.busy == 0, "two requests at once"
        assert not self.closed
        self.busy += 1
        try:
            self.served += 1
            await asyncio.sleep(3600 if self.hang else 0)
            if isinstance(self.answer, Exception):
                raise self.answer
            return httpx.Response(200, stream=self.answer or Body(3))
        finally:
            self.busy -= 1

    async def aclose(self) -> None:
        self.closed = True


class Pool:
    def __init__(self, size: int = 2) -> None:
        self.made: list[Connection] = []
        self.transport = LeasedTransport(size, self.make)

    def make(self) -> Connection:
        self.made.append(Connection())
        return self.made[-1]

    async def get(self, *, fresh: bool = False) -> httpx.Response:
        request = httpx.Request("GET", "http://127.0.0.1/", extensions={FRESH: fresh})
        return await self.transport.handle_async_request(request)


async def test_no_more_than_the_size_and_every_lease_comes_back() -> None:
    pool = Pool(size=3)
    most = 0

    async def use() -> None:
        nonlocal most
        response = await pool.get()
        most = max(most, pool.transport.leased)
        assert await response.aread() == b"xxx"
        await response.aclose()

    async with asyncio.TaskGroup() as group:
        for _ in range(50):
            group.create_task(use())

    assert most <= 3
    assert len(pool.made) <= 3
    assert pool.transport.leased == 0


async def test_a_second_close_gives_nothing_back_twice() -> None:
    pool = Pool()
    response = await pool.get()
    await response.aclose()
    await response.aclose()

    assert pool.transport.leased == 0
    assert len(pool.transport._idle) == 1


async def test_a_failed_request_costs_its_connection_but_not_its_place() -> None:
    pool = Pool(size=1)
    await (await pool.get()).aclose()
    pool.made[0].answer = httpx.ReadError("cut")

    with pytest.raises(httpx.ReadError):
        await pool.get()

    assert pool.made[0].closed
    assert pool.transport.leased == 0
    await (await pool.get()).aclose()
    assert len(pool.made) == 2


async def test_cancelled_while_sending_or_waiting_for_a_place() -> None:
    pool = Pool(size=1)
    await (await pool.get()).aclose()
    pool.made[0].hang = True
    sending = asyncio.create_task(pool.get())
    waiting = asyncio.create_task(pool.get())
    await asyncio.sleep(0.01)
    for task in (waiting, sending):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    assert pool.transport.leased == 0
    await asyncio.wait_for(pool.get(), 1)


async def test_closed_early_and_broken_bodies_give_their_place_back() -> None:
    pool = Pool(size=1)
    response = await pool.get()
    async for _ in response.aiter_raw():
        break
    await response.aclose()
    pool.made[0].answer = Body(1, broken=True)
    response = await pool.get()
    with pytest.raises(httpx.ReadError):
        await response.aread()
    await response.aclose()

    assert pool.transport.leased == 0


async def test_what_must_be_fresh_gets_a_connection_of_its_own() -> None:
    pool = Pool()
    await (await pool.get()).aclose()
    await (await pool.get(fresh=True)).aclose()
    await (await pool.get()).aclose()

    assert [(connection.served, connection.closed) for connection in pool.made] == [(2, False), (1, True)]


async def test_closing_closes_what_is_idle() -> None:
    pool = Pool()
    await (await pool.get()).aclose()

    await pool.transport.aclose()

    assert all(connection.closed for connection in pool.made)


def test_one_tls_context_for_the_process_that_checks_names() -> None:
    context = shared_ssl_context(None)

    assert context is shared_ssl_context(None)
    assert context.check_hostname


def test_proxies_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", "internal.example")

    assert environment_proxy("https://iot.sectigo.com") == Secret("http://proxy.example:3128")
    assert environment_proxy("https://ca.internal.example") is None
    assert environment_proxy("http://127.0.0.1:8831") is None
    assert environment_proxy("http://localhost:8831") is None


@pytest.mark.parametrize("proxy", ["proxy.example:3128", "http://proxy.example:3128", "https://proxy.example"])
def test_a_proxy_may_leave_its_scheme_out(proxy: str) -> None:
    SectigoClient(username="ops", password="x", proxy=proxy)


@pytest.mark.parametrize("proxy", ["socks5://proxy.example:1080", "http://", "user:s3cret@proxy.example:port"])
def test_a_proxy_that_is_none_is_told_without_its_password(proxy: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        SectigoClient(username="ops", password="x", proxy=proxy)

    assert "s3cret" not in str(caught.value)


def test_a_transport_brings_its_own_proxy_and_tls() -> None:
    with pytest.raises(ConfigurationError, match="transport"):
        SectigoClient(username="ops", transport=Connection(), proxy="http://proxy.example")


async def test_a_connection_that_cannot_be_made_costs_no_place() -> None:
    def fail() -> Connection:
        raise OSError(24, "too many open files")

    transport = LeasedTransport(1, fail)
    for _ in range(3):
        with pytest.raises(OSError, match="too many"):
            await asyncio.wait_for(transport.handle_async_request(httpx.Request("GET", "http://127.0.0.1/")), 1)

    assert transport.leased == 0


async def test_what_comes_back_after_closing_is_closed() -> None:
    pool = Pool()
    response = await pool.get()
    await pool.transport.aclose()
    await response.aclose()

    assert pool.made[0].closed
