"""Whatever becomes of requests, every lease comes back, and no connection serves two at once."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sectigo_async.connections import FRESH, LeasedTransport

SIZE = 3


class Body(httpx.AsyncByteStream):
    """Three pieces, or fewer and an error; its closing may fail as well."""

    def __init__(self, fate: str) -> None:
        self.fate = fate

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for number in range(3):
            await asyncio.sleep(0)
            if self.fate == "cut" and number == 1:
                raise httpx.ReadError("cut")
            yield b"x"

    async def aclose(self) -> None:
        await asyncio.sleep(0)
        if self.fate == "broken":
            raise httpx.ReadError("cannot be closed")


class Connection(httpx.AsyncBaseTransport):
    """A connection that knows whether it is in use."""

    def __init__(self) -> None:
        self.busy = False
        self.closed = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        assert not self.busy, "two requests at once"
        assert not self.closed, "a connection that was closed is used again"
        self.busy = True
        try:
            await asyncio.sleep(0)
            if request.method == "REFUSED":
                raise httpx.ConnectError("refused")
            return httpx.Response(200, stream=Body(request.method.lower()))
        finally:
            self.busy = False

    async def aclose(self) -> None:
        self.closed = True


async def use(transport: LeasedTransport, fate: str, *, fresh: bool, pieces: int) -> None:
    """Send a request, read some of its reply, and close it."""
    request = httpx.Request(fate.upper(), "http://127.0.0.1/", extensions={FRESH: fresh})
    response = await transport.handle_async_request(request)
    try:
        read = 0
        async for _ in response.aiter_raw():
            read += 1
            if read == pieces:
                break
    finally:
        await response.aclose()
        await response.aclose()


USES = st.tuples(
    st.sampled_from(["whole", "cut", "broken", "refused"]),
    st.booleans(),
    st.integers(min_value=0, max_value=4),
    st.none() | st.integers(min_value=0, max_value=12),
)


@given(st.lists(USES, min_size=1, max_size=12))
def test_every_lease_comes_back(uses: list[tuple[str, bool, int, int | None]]) -> None:
    """Requests end well or badly, are read in part, and are cancelled after any number of steps."""
    made: list[Connection] = []

    def connect() -> Connection:
        made.append(Connection())
        return made[-1]

    async def run() -> None:
        transport = LeasedTransport(SIZE, connect)
        tasks = [asyncio.create_task(use(transport, fate, fresh=fresh, pieces=read)) for fate, fresh, read, _ in uses]
        for step in range(13):
            for task, (_, _, _, cancelled_at) in zip(tasks, uses, strict=True):
                if cancelled_at == step:
                    task.cancel()
            await asyncio.sleep(0)
            assert transport.leased <= SIZE
        await asyncio.wait(tasks, timeout=5)
        assert all(task.done() for task in tasks)
        for task in tasks:
            if not task.cancelled() and (error := task.exception()) is not None:
                assert isinstance(error, httpx.TransportError)

        assert transport.leased == 0
        idle = transport._idle
        assert len(set(idle)) == len(idle) <= SIZE
        assert {one for one in made if not one.closed} == set(idle), "what is not idle is closed"
        for _ in range(SIZE):
            await asyncio.wait_for(use(transport, "whole", fresh=False, pieces=4), 1)
        await transport.aclose()
        assert all(one.closed for one in made)

    asyncio.run(run())


@pytest.mark.parametrize("fate", ["whole", "cut", "broken", "refused"])
async def test_a_loop_that_ends_in_the_midst_of_a_request_leaves_nothing_leased(fate: str) -> None:
    transport = LeasedTransport(1, Connection)
    task = asyncio.create_task(use(transport, fate, fresh=False, pieces=4))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])

    assert transport.leased == 0
