"""In real time, over sockets: `make soak`. It takes minutes, and is no part of `make test`."""

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest

from sectigo_async import Config, SectigoClient, SectigoError
from sectigo_async.sandbox import Sandbox, SandboxConfig, SandboxServer

pytestmark = [pytest.mark.soak, pytest.mark.timeout(600)]

SERVE = """
import asyncio, sys
from sectigo_async.sandbox import Sandbox, SandboxConfig, SandboxServer

async def main():
    settings = SandboxConfig(access_ttl=float(sys.argv[1]), refresh_ttl=float(sys.argv[2]), rotate_refresh=True)
    async with SandboxServer(Sandbox(settings)) as server:
        print(server.url, flush=True)
        await server.serve_forever()

asyncio.run(main())
"""


@asynccontextmanager
async def serving(access_ttl: float, refresh_ttl: float) -> AsyncIterator[str]:
    """Serve a simulator from a process of its own, as a service is."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SERVE, str(access_ttl), str(refresh_ttl), stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    yield (await process.stdout.readline()).decode().strip()
    process.terminate()
    await process.wait()


async def stats(client: SectigoClient) -> dict[str, Any]:
    document = (await client.request("GET", "/_sandbox/stats")).json()
    assert isinstance(document, dict)
    return document


async def test_200_tasks_make_20_000_calls_while_tokens_keep_ending() -> None:
    async with (
        serving(3, 10) as url,
        SectigoClient(username="demo", password="demo-password", endpoint=url) as client,
    ):
        started = time.monotonic()

        async def work() -> None:
            for _ in range(100):
                await client.licenses.get()

        async with asyncio.TaskGroup() as tasks:
            for _ in range(200):
                tasks.create_task(work())
        took = time.monotonic() - started
        counted = await stats(client)

    print(f"\n20,000 calls in {took:.1f} s: {counted['refreshes']} refreshes, {counted['logins']} sign-ins")
    assert counted["logins"] <= 2
    assert counted["refreshes"] >= took / 3 - 2


class Service:
    """The machine's clock as the service sees it, which a test may set forward."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def time(self) -> float:
        return time.time() + self.ahead

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


@pytest.mark.parametrize("connections", [1, 20])
async def test_10_000_calls_on_an_ended_token_cause_one_refresh(connections: int) -> None:
    """The client does not know that it has ended: each call of the first wave is refused."""
    sandbox = Sandbox(SandboxConfig(), clock := Service())
    async with SandboxServer(sandbox) as server:
        config = attrs.evolve(Config.create(server.url), connections=connections, timeout=None)
        async with SectigoClient(username="demo", password="demo-password", config=config) as client:
            await client.licenses.get()
            clock.ahead = 700
            started = time.monotonic()
            await asyncio.gather(*(client.licenses.get() for _ in range(10_000)))

    print(f"\n10,000 calls over {connections} connections in {time.monotonic() - started:.1f} s")
    assert (sandbox.counts["logins"], sandbox.counts["refreshes"]) == (1, 1)


TROUBLE = [
    {"route": "*", "fault": fault, "rate": 0.02, "seconds": 0.01}
    for fault in (
        "latency",
        "rate-limit",
        "error-before",
        "error-after",
        "cut-before",
        "lost-reply",
        "cut-after-headers",
        "cut-mid-body",
        "late-commit",
        "drip",
        "web-page",
        "truncated",
        "bit-flip",
    )
]


def used(what: str) -> int:
    """Return how many files this process has open, or how many kB of memory it has."""
    if what == "files":
        return sum(1 for _ in Path("/proc/self/fd").iterdir())
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4


async def test_five_minutes_of_faults_leak_nothing() -> None:
    """Twenty tasks read, order, download and search while a quarter of all requests meets a fault."""
    async with (
        serving(30, 100) as url,
        SectigoClient(username="demo", password="demo-password", endpoint=url) as client,
    ):
        parameters = {"commonName": "gateway-1", "serialNumber": "SN-0001", "pkcs12Password": "secrtpasswrd"}
        batch = await client.batches.create(authority_id=117, params=parameters)
        await client.request("PUT", "/_sandbox/faults", json=TROUBLE)
        calls: list[Callable[[], Awaitable[object]]] = [
            client.licenses.get,
            client.authorities.list,
            lambda: client.batches.get(batch.batch_id),
            lambda: client.batches.download(batch.batch_id),
            lambda: client.certificates.find(common_name="gateway-1"),
            lambda: client.batches.create(authority_id=117, params=parameters),
        ]
        made = failed = 0
        end = time.monotonic() + 300

        async def work(number: int) -> None:
            nonlocal made, failed
            while time.monotonic() < end:
                made += 1
                try:
                    await calls[(made + number) % len(calls)]()
                except SectigoError:
                    failed += 1
                await asyncio.sleep(0.02)

        async with asyncio.TaskGroup() as tasks:
            for number in range(20):
                tasks.create_task(work(number))
            await asyncio.sleep(60)
            warm = used("files"), used("memory")
        places = client._owned[0]._places._value  # type: ignore[attr-defined]
        after = used("files"), used("memory")

    print(
        f"\n{made:,} calls, {failed:,} failed; files {warm[0]} -> {after[0]}, memory {warm[1]:,} -> {after[1]:,} kB"
    )
    assert places == Config.create(url).connections, "every lease was given back"
    assert after[0] <= warm[0] + 5
    assert after[1] <= warm[1] * 1.25
    assert len(asyncio.all_tasks()) == 1
