"""A sandbox, a database, a directory that all hosts share, and workers in this process or in others."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from pathlib import Path

import attrs

from sectigo_async import SectigoClient
from sectigo_async.fleet import Database, FleetRun, PostgresLedger, Worker
from sectigo_async.issuance import Event, Keys, Options, Run, make_plan, read_devices
from sectigo_async.sandbox import FaultRule, SandboxConfig
from tests.chaos.harness import ROOT, Service

HEARTBEAT = 1.0
"""Seconds between a worker's signs of life."""

PROFILE = 117
LOGIN = SandboxConfig()


@attrs.frozen
class Site:
    """Where a run on several machines takes place.

    Attributes:
        service: the sandbox.
        url: the database.
        directory: where keys are kept.
        log: what workers in processes of their own say.
    """

    service: Service
    url: str
    directory: Path
    log: Path

    @property
    def database(self) -> Database:
        """Where the ledger is."""
        return Database.at(self.url)

    def client(self) -> SectigoClient:
        """Return a client that is to be opened."""
        return SectigoClient(endpoint=self.service.url, username=LOGIN.username, password=LOGIN.password)

    def run(self, keys: Keys = Keys.LOCAL) -> Run:
        """Return what the devices have in common."""
        return Run(endpoint=self.service.url, username=LOGIN.username, profile_id=PROFILE, keys=keys)

    async def put_in(
        self,
        names: Sequence[str],
        *,
        keys: Keys = Keys.LOCAL,
        options: Options | None = None,
        faults: Sequence[FaultRule] = (),
    ) -> FleetRun:
        """Put a list in, and look on until nothing more is done about it; the service has faults meanwhile."""
        text = "\n".join(
            ["common_name,serialNumber", *(f"{name},SN-{number:04}" for number, name in enumerate(names))]
        )
        listed = read_devices(text.encode(), name="devices.csv")
        async with self.client() as client, PostgresLedger.open(self.database, self.run(keys), floor=1) as ledger:
            plan = await make_plan(client, ledger, self.directory, listed)
            fleet = FleetRun(self.database, ledger, self.directory, plan, options=options)
            self.service.sandbox.faults.replace(faults)
            try:
                async with aclosing(fleet.run()) as events:
                    async for _ in events:
                        pass
            finally:
                self.service.sandbox.faults.replace(())
        return fleet

    @asynccontextmanager
    async def worker(self) -> AsyncIterator[list[Event]]:
        """Have a worker while the block runs; give what it tells."""
        seen: list[Event] = []
        async with self.client() as client:
            worker = Worker(client, self.database, self.directory, heartbeat=HEARTBEAT)

            async def work() -> None:
                async with aclosing(worker.run()) as events:
                    async for event in events:
                        seen.append(event)  # noqa: PERF401 - a test may look meanwhile

            task = asyncio.create_task(work())
            try:
                yield seen
            finally:
                worker.stop()
                await task

    def start_worker(self) -> "subprocess.Popen[bytes]":
        """Start a worker in a process of its own."""
        module = "tests.fleet.worker_process"
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", module, self.service.url, self.url, str(self.directory), str(HEARTBEAT)],
                cwd=ROOT,
                stdout=log,
                stderr=log,
            )

    @contextmanager
    def workers(self, count: int) -> "Iterator[list[subprocess.Popen[bytes]]]":
        """Have workers in processes of their own while the block runs, which may replace some."""
        processes = [self.start_worker() for _ in range(count)]
        try:
            yield processes
        finally:
            for process in processes:
                process.send_signal(signal.SIGCONT)
                process.kill()
                process.wait()
