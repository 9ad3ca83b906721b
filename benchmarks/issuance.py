"""How fast, and in how much memory, many devices get their certificates; beside what the sandbox alone can sign.

`.venv/bin/python -m benchmarks.issuance [--devices 10000] [--batch-size 500]`

The sandbox serves in a process of its own, as a user has it; it issues without delay. Both share the cores of this
machine. In one run:

- signing: CSRs that were made before the clock starts are uploaded, a batch at a time and two at once so that the
  sandbox never waits for its next; the clock stops when all are issued. Nothing is downloaded.
- issuance: the whole of a bulk run with keys made here, from the text of the list to `results.csv`: plan, keys,
  orders, waiting, downloads, checks against the sandbox's root, files, ledger. Everything is durable in a new
  directory, by default below the system's one for temporary files; name another with --directory, since how long a
  disk takes to be sure is its own affair.

Requests are counted by the server, all of them; flushes of single files, and the peak memory of everything that this
process does, are those of the client. (A batch is flushed with its whole file system, twice; that is not counted.) No
figure is estimated.
"""

import argparse
import asyncio
import multiprocessing
import os
import resource
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import attrs
from cryptography import x509

from benchmarks.figures import Figure
from sectigo_async import SectigoClient
from sectigo_async.issuance import (
    DeviceState,
    Issuance,
    Keys,
    Options,
    Run,
    SqliteLedger,
    make_plan,
    read_devices,
    write_reports,
)
from sectigo_async.pki import generate_key, make_csr
from sectigo_async.sandbox import Sandbox, SandboxConfig, SandboxServer
from sectigo_async.sandbox.ca import CertificateAuthority
from sectigo_async.wire import calls

TARGET = 0.5
"""The least that the rate of issuance is to be of the rate of signing."""
MOST_MEMORY = 200
"""The most memory in MB."""
MOST_REQUESTS = 0.05
"""The most requests for each device."""

_PROFILE = 42
_AT_ONCE = 2


@attrs.frozen
class Server:
    """The sandbox in its own process.

    Attributes:
        url: where it listens.
        root: its root certificate.
    """

    url: str
    root: x509.Certificate
    _pipe: Connection

    def requests(self) -> int:
        """Return how many requests it has had."""
        self._pipe.send("requests")
        return int(self._pipe.recv())


def _serve(pipe: Connection, balance: int, delay: float, signing: float) -> None:
    sign, turn = CertificateAuthority.issue, threading.Lock()

    def slow(*arguments: Any) -> x509.Certificate:
        with turn:
            time.sleep(signing)
        return sign(*arguments)

    if signing:
        CertificateAuthority.issue = slow  # type: ignore[assignment, method-assign]

    async def main() -> None:
        sandbox = Sandbox(SandboxConfig(balance=balance, issue_delay=delay))
        async with SandboxServer(sandbox) as server:
            pipe.send((server.url, sandbox.ca_pem()))
            while await asyncio.to_thread(pipe.recv):
                pipe.send(server._server.server_state.total_requests)  # noqa: SLF001 - the server's own count

    asyncio.run(main())


@contextmanager
def sandbox_process(balance: int, *, delay: float = 0.0, signing: float = 0.0) -> Iterator[Server]:
    """Start a sandbox in another process.

    Args:
        balance: certificates that each authority has been bought for.
        delay: seconds from an order to its certificates.
        signing: seconds that it rests for each certificate, one after another, as a slow signer would.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, balance, delay, signing), daemon=True)
    process.start()
    try:
        url, root = ours.recv()
        yield Server(url, x509.load_pem_x509_certificate(root), ours)
    finally:
        ours.send("")
        process.join()


@asynccontextmanager
async def signed_in(server: Server) -> AsyncIterator[SectigoClient]:
    """Return a client that has signed in."""
    config = SandboxConfig()
    async with SectigoClient(username=config.username, password=config.password, endpoint=server.url) as client:
        await client.authorities.list()
        yield client


async def signing(server: Server, names: Sequence[str], batch_size: int) -> float:
    """Return the seconds that the sandbox takes to sign a CSR for each name."""
    requests = [make_csr(generate_key(), name) for name in names]
    starts = range(0, len(requests), batch_size)
    uploads = [calls.upload_batch(_PROFILE, b"".join(requests[at : at + batch_size]), "an upload") for at in starts]
    async with signed_in(server) as client:

        async def work() -> None:
            while uploads:
                call = uploads.pop()
                # Without the checks and the journal of `batches.upload`, which are the client's own work.
                reply = await client.request(
                    call.method, call.path, content=call.body, content_type=call.content_type, timeout=None
                )
                await client.batches.wait(call.read(reply).batch_id)

        started = time.perf_counter()
        await asyncio.gather(*(work() for _ in range(_AT_ONCE)))
        return time.perf_counter() - started


@attrs.define
class Phases:
    """How long what a run consists of took: wall seconds, and CPU seconds of this process."""

    wall: dict[str, float] = attrs.field(factory=dict)
    cpu: dict[str, float] = attrs.field(factory=dict)

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        """Measure a phase."""
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self.wall[name] = time.perf_counter() - wall
        self.cpu[name] = time.process_time() - cpu


async def issuance(server: Server, names: Sequence[str], options: Options, directory: Path) -> Phases:
    """Issue for each name, and return how long that took."""
    phases = Phases()
    data = "\n".join(["common_name", *names]).encode()
    run = Run(endpoint=server.url, username=SandboxConfig().username, profile_id=_PROFILE, keys=Keys.LOCAL)
    async with signed_in(server) as client, SqliteLedger.open(directory, run) as ledger:
        with phases.of("list and plan"):
            plan = await make_plan(client, ledger, directory, read_devices(data))
        with phases.of("run"):
            bulk = Issuance(client, ledger, directory, plan, options=options, trust=[server.root])
            async with aclosing(bulk.run()) as events:
                async for _ in events:
                    pass
        with phases.of("reports"):
            await asyncio.to_thread(write_reports, directory, await ledger.entries())
    if bulk.counts[DeviceState.DONE] != len(names):
        raise SystemExit(f"not all devices are done: {dict(bulk.counts)}")
    return phases


@contextmanager
def counted_flushes() -> Iterator[list[int]]:
    """Count the calls of `os.fsync` of this process, in the one element of a list."""
    real, lock, count = os.fsync, threading.Lock(), [0]

    def fsync(handle: int) -> None:
        with lock:
            count[0] += 1
        real(handle)

    os.fsync = fsync  # type: ignore[assignment]
    try:
        yield count
    finally:
        os.fsync = real


def figures(devices: int, batch_size: int, directory: Path | None) -> tuple[list[Figure], Phases]:
    """Measure; return the figures, and how long what took."""
    names = [f"gw{number}.example.com" for number in range(devices)]
    with sandbox_process(2 * devices) as server:
        alone = devices / asyncio.run(signing(server, names, batch_size))
        before = server.requests()
        with tempfile.TemporaryDirectory(dir=directory) as place, counted_flushes() as flushes:
            phases = asyncio.run(issuance(server, names, Options(batch_size=batch_size), Path(place)))
        requests = (server.requests() - before) / devices
    rate = devices / sum(phases.wall.values())
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    found = [
        Figure(
            name=f"bulk run of {devices:,} devices",
            target=f"at least {TARGET:g} times signing alone",
            measured=f"{rate / alone:.2f} times ({rate:,.0f} a second)",
            peer=f"{alone:,.0f} a second",
            passed=rate >= TARGET * alone,
        ),
        Figure(
            name="its requests for each device",
            target=f"under {MOST_REQUESTS:g}",
            measured=f"{requests:.4f}",
            peer="-",
            passed=requests < MOST_REQUESTS,
        ),
        Figure(
            name="its peak memory",
            target=f"under {MOST_MEMORY} MB",
            measured=f"{memory:,.0f} MB",
            peer="-",
            passed=memory < MOST_MEMORY,
        ),
        Figure(
            name="its flushes of single files",
            target="fewer than one for each device",
            measured=f"{flushes[0] / devices:.2f} a device",
            peer="-",
            passed=flushes[0] < devices,
        ),
    ]
    return found, phases


def main() -> None:
    """Measure, and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=10_000)
    parser.add_argument("--batch-size", type=int, default=500)
    parser.add_argument("--directory", type=Path, help="where the devices' folders are made, and removed again")
    asked = parser.parse_args()
    found, phases = figures(asked.devices, asked.batch_size, asked.directory)
    for figure in found:
        print(figure)
    for name, wall in phases.wall.items():
        print(f"  {name:<14}{wall:8.2f} s, {phases.cpu[name]:.2f} s of CPU")


if __name__ == "__main__":
    main()
