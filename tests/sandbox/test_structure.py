"""What makes it fast, as far as it can be counted: requests, locks, files, threads. No time is measured."""

import asyncio
import builtins
import os
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import httpx
import pytest

from sectigo_async import SectigoClient
from sectigo_async.issuance import (
    DeviceState,
    Issuance,
    Keys,
    Options,
    Run,
    SqliteLedger,
    folders,
    make_plan,
    read_devices,
    sink,
)
from sectigo_async.pki import Archive
from sectigo_async.sandbox import Sandbox, SandboxConfig, SandboxTransport
from sectigo_async.testing import FakeClock

DEVICES = 300


class Counting(httpx.AsyncBaseTransport):
    """Counts the requests to a sandbox."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.inner = SandboxTransport(sandbox)
        self.requests: Counter[str] = Counter()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests[request.method + request.url.path] += 1
        return await self.inner.handle_async_request(request)


@pytest.fixture
async def counted(clock: FakeClock) -> AsyncIterator[tuple[SectigoClient, Counting]]:
    config = SandboxConfig(balance=1000, issue_delay=3)
    transport = Counting(Sandbox(config, clock=clock))
    async with SectigoClient(
        username=config.username,
        password=config.password,
        endpoint="http://127.0.0.1",
        transport=transport,
        clock=clock,
    ) as client:
        yield client, transport


async def issue(client: SectigoClient, directory: Path, clock: FakeClock, keys: Keys, count: int) -> None:
    lines = "".join(f"gw{number}.example.com\n" for number in range(count))
    run = Run(endpoint=client.config.endpoint, username="demo", profile_id=42, keys=keys)
    async with SqliteLedger.open(directory, run, clock=clock) as ledger:
        plan = await make_plan(client, ledger, directory, read_devices(f"common_name\n{lines}".encode()))
        options = Options(batch_size=150)
        issuance = Issuance(client, ledger, directory, plan, options=options, clock=clock)
        async with aclosing(issuance.run()) as events:
            async for _ in events:
                pass
    assert issuance.counts[DeviceState.DONE] == count


async def test_a_bulk_run_takes_few_requests(
    counted: tuple[SectigoClient, Counting], clock: FakeClock, tmp_path: Path
) -> None:
    client, transport = counted

    await issue(client, tmp_path, clock, Keys.LOCAL, DEVICES)

    assert transport.requests.total() < 0.15 * DEVICES, "two batches, and what is asked once"
    asked = Counter(path.rpartition("/")[2] for path in transport.requests.elements() if "/batches/" in path)
    assert asked["upload"] == asked["download"] == 2


@pytest.mark.parametrize("keys", list(Keys))
async def test_keys_archives_and_files_are_never_on_the_thread_of_the_loop(
    counted: tuple[SectigoClient, Counting],
    clock: FakeClock,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    keys: Keys,
) -> None:
    client, _ = counted
    loop_thread, seen = threading.get_ident(), set[str]()

    def watch(owner: Any, name: str) -> None:
        real: Callable[..., object] = getattr(owner, name)

        def watched(*given: Any, **more: Any) -> object:
            seen.add(name)
            assert threading.get_ident() != loop_thread, f"{name} keeps the loop from its other tasks"
            return real(*given, **more)

        monkeypatch.setattr(owner, name, watched)

    for name in ("generate_key", "make_csr", "read_requests"):
        watch(folders, name)
    watch(sink, "write_all_private")
    watch(Archive, "open")
    watch(os, "fsync")

    await issue(client, tmp_path, clock, keys, 4)

    expected = {"open", "write_all_private", "fsync"}
    assert expected | ({"generate_key", "make_csr"} if keys is Keys.LOCAL else set()) <= seen


async def test_a_call_with_a_fresh_token_takes_no_lock_and_touches_no_file(
    counted: tuple[SectigoClient, Counting], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, transport = counted
    await client.licenses.get()
    before = transport.requests.total()

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("the token is fresh: there is nothing to wait for")

    for owner, name in ((asyncio.Lock, "acquire"), (threading.Thread, "start"), (builtins, "open"), (os, "open")):
        monkeypatch.setattr(owner, name, forbidden)
    async with asyncio.TaskGroup() as group:
        for _ in range(50):
            group.create_task(client.licenses.get())

    assert transport.requests.total() - before == 50, "and none of them was a sign-in"
