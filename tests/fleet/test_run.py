"""Runs on PostgreSQL, with their workers in this process."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import attrs
import pytest

from sectigo_async import SectigoClient
from sectigo_async.fleet import Database, FleetRun, PostgresLedger, Worker
from sectigo_async.issuance import DeviceState, Event, Keys, Options, Run, make_plan, read_devices
from sectigo_async.sandbox import SandboxConfig
from tests.chaos.harness import Service

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(120)]

PROFILE = 117
HEARTBEAT = 1.0


@attrs.frozen
class Site:
    """A sandbox, a database, and a directory that all hosts share.

    Attributes:
        service: the sandbox.
        database: where the ledger is.
        directory: where keys are kept.
    """

    service: Service
    database: Database
    directory: Path

    def client(self) -> SectigoClient:
        settings = SandboxConfig()
        return SectigoClient(endpoint=self.service.url, username=settings.username, password=settings.password)

    async def put_in(
        self, names: Sequence[str], *, keys: Keys = Keys.LOCAL, options: Options | None = None
    ) -> FleetRun:
        """Put a list in, and look on until nothing more is done about it."""
        listed = read_devices(
            "\n".join(["common_name,serialNumber", *(f"{name},SN-1" for name in names)]).encode(), name="devices.csv"
        )
        run = Run(endpoint=self.service.url, username=SandboxConfig().username, profile_id=PROFILE, keys=keys)
        async with self.client() as client, PostgresLedger.open(self.database, run) as ledger:
            plan = await make_plan(client, ledger, self.directory, listed)
            fleet = FleetRun(self.database, ledger, self.directory, plan, options=options)
            async with aclosing(fleet.run()) as events:
                async for event in events:
                    print("ISSUE", event.kind, event.text, {s.value: n for s, n in event.counts.items() if n})
        return fleet

    @asynccontextmanager
    async def worker(self) -> AsyncIterator[list[Event]]:
        """Have a worker while the block runs."""
        seen: list[Event] = []
        async with self.client() as client:
            worker = Worker(client, self.database, self.directory, heartbeat=HEARTBEAT)

            async def work() -> None:
                async with aclosing(worker.run()) as events:
                    async for event in events:
                        print("WORKER", event.kind, event.text)
                        seen.append(event)

            task = asyncio.create_task(work())
            try:
                yield seen
            finally:
                worker.stop()
                await task


@pytest.fixture
def site(database: str, tmp_path: Path) -> "Site":
    with Service() as service:
        yield Site(service, Database.at(database), tmp_path)


@pytest.mark.parametrize("keys", Keys)
async def test_a_list_is_issued_for_by_two_workers(site: Site, keys: Keys) -> None:
    names = [f"gw{number}.example.com" for number in range(60)]

    async with site.worker(), site.worker():
        fleet = await site.put_in(names, keys=keys)

    assert fleet.counts[DeviceState.DONE] == len(names)
    assert sorted(one.common_name for one in site.service.issued()) == sorted(names)
