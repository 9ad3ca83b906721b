"""What may befall a fleet, short of a worker that is killed: nothing is ordered twice, lost, or stuck for it."""

import asyncio
import functools
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sectigo_async.clock import SystemClock
from sectigo_async.errors import FileError, LedgerError, LedgerInUseError
from sectigo_async.fleet import FleetRun, PostgresLedger, Worker
from sectigo_async.issuance import DeviceState, EventKind, Options, make_plan, read_devices
from sectigo_async.models import Order, OrderKind
from sectigo_async.sandbox.faults import Fault, FaultRule
from tests.chaos.harness import Service
from tests.fleet.postgres import Postgres
from tests.fleet.site import HEARTBEAT, Site

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(120)]

S = DeviceState


@pytest.fixture
def site(database: str, tmp_path: Path) -> Iterator[Site]:
    with Service() as service:
        yield Site(service, database, tmp_path / "out", tmp_path / "workers.log")


def names_of(count: int) -> list[str]:
    return [f"gw{number}.example.com" for number in range(count)]


async def test_a_host_with_another_time_does_not_work(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the time of one worker another tells whether what was sent can still run."""
    await _put_in_only(site, names_of(1))
    real = time.time
    for off in (3600.0, -3600.0):
        monkeypatch.setattr("sectigo_async.fleet.database.time.time", functools.partial(_shifted, real, off))
        async with site.worker() as seen:
            await _until(lambda seen=seen: any("differ by 3,6" in event.text for event in seen))  # type: ignore[misc]
            with pytest.raises(LedgerError, match="the clocks of this host and of"):
                async with PostgresLedger.open(site.database, site.run()):
                    pass
        monkeypatch.undo()

    assert site.service.orders == 0


async def test_nobody_decides_on_an_order_that_a_worker_has_in_hand(site: Site) -> None:
    """While its request may be under way the decision is refused; afterwards it is taken, and the chunk goes on."""
    await _put_in_only(site, ["a"])
    order = Order(
        kind=OrderKind.UPLOAD,
        profile_id=117,
        common_names=("a",),
        sent_at=datetime.now(UTC),
        key_sha256=frozenset({"0"}),
    )
    async with PostgresLedger.open_chunk(site.database, 1) as chunk:
        await chunk.intend(order, ["a"])
        async with PostgresLedger.open(site.database, site.run()) as whole:
            with pytest.raises(LedgerInUseError, match="a worker has the order of 1 certificate"):
                await whole.write(order.not_placed())

    async with PostgresLedger.open(site.database, site.run()) as whole:
        assert [entry.state for entry in await whole.entries()] == [S.UNKNOWN]
        await whole.write(order.not_placed())
        assert [entry.state for entry in await whole.entries()] == [S.PLANNED]
    async with site.worker():
        await _until(lambda: site.service.orders == 1)


async def test_where_the_directory_goes_away_in_the_middle_nothing_more_is_ordered(site: Site) -> None:
    """What is mounted may be gone: keys that are made in the mount point would be lost."""
    names = names_of(200)
    async with site.client() as client:
        worker = Worker(client, site.database, site.directory, heartbeat=HEARTBEAT)

        async def work() -> None:
            async with aclosing(worker.run()) as events:
                async for event in events:
                    if event.kind is EventKind.ORDERED and not gone.is_set():
                        site.directory.rename(site.directory.with_name("gone"))
                        site.directory.mkdir(mode=0o700)
                        gone.set()

        gone = asyncio.Event()
        working = asyncio.create_task(work())
        looking = asyncio.create_task(site.put_in(names, options=Options(batch_size=5, at_once=1)))
        await gone.wait()
        with pytest.raises(FileError, match=r"is not what it was|is gone"):
            await working
        looking.cancel()
        await asyncio.wait([looking])

    # What was under way at that moment had its keys in the place that is gone.
    kept = {path.parent.name for path in site.directory.with_name("gone").glob("*/privkey.pem")}
    assert {one.common_name for one in site.service.issued()} <= kept
    assert not list(site.directory.glob("gw*"))


async def test_a_worker_that_was_idle_for_long_copes_with_trouble_as_any_other(site: Site) -> None:
    """How long nobody has asked says nothing about the service."""
    clock = _Leaping()
    async with site.client() as client:
        worker = Worker(client, site.database, site.directory, heartbeat=HEARTBEAT, clock=clock)

        async def work() -> None:
            async with aclosing(worker.run()) as events:
                async for event in events:
                    seen.append(event)  # noqa: PERF401 - the test looks meanwhile

        seen: list[object] = []
        working = asyncio.create_task(work())
        await _put_in_only(site, ["first"])
        await _until(lambda: site.service.orders == 1)
        clock.leap(7200)
        trouble = FaultRule(route="POST /api/v1/batches/upload", fault=Fault.RATE_LIMIT, rate=1, times=2)
        fleet = await site.put_in(["first", "second"], faults=[trouble])
        worker.stop()
        await working

    assert fleet.halted == ""
    assert +fleet.counts == Counter({S.DONE: 2})


async def test_a_damaged_key_stops_its_chunk_and_no_other(site: Site) -> None:
    names = names_of(30)
    folder = site.directory / names[27]
    folder.mkdir(mode=0o700, parents=True)
    await _put_in_only(site, names, Options(batch_size=10))
    (folder / "privkey.pem").write_bytes(b"damaged")

    async with site.worker() as seen:
        fleet = await site.put_in(names, options=Options(batch_size=10))
        alone = site.service.orders
        await asyncio.sleep(2 * HEARTBEAT)

    assert +fleet.counts == Counter({S.DONE: 20, S.PLANNED: 10})
    assert str(folder / "privkey.pem") in fleet.halted
    assert sum("privkey.pem" in event.text for event in seen) == 1
    assert site.service.orders == alone == 2

    (folder / "privkey.pem").unlink()
    async with site.worker():
        mended = await site.put_in(names, options=Options(batch_size=10))
    assert +mended.counts == Counter({S.DONE: 30})
    assert mended.halted == ""


async def test_what_is_paid_for_is_fetched_although_no_more_is_ordered(database: str, tmp_path: Path) -> None:
    """The worker that ordered it is gone, and why no more is ordered does not matter."""
    names = names_of(30)
    with Service(delay=1) as service:
        site = Site(service, database, tmp_path / "out", tmp_path / "workers.log")
        await _put_in_only(site, names, Options(batch_size=10, at_once=1))
        async with site.client() as client:
            worker = Worker(client, site.database, site.directory, heartbeat=HEARTBEAT)
            async with aclosing(worker.run()) as events:
                async for event in events:
                    if event.kind is EventKind.ORDERED:
                        break
        orders = service.orders
        async with PostgresLedger.open(site.database, site.run()) as ledger:
            await ledger.work(lambda connection: connection.execute("UPDATE sectigo_run SET halted = 'so it is'"))
            assert (await ledger.counts())[S.ORDERED] > 0

        async with site.worker():
            await _until(lambda: len(list(site.directory.glob("*/cert.pem"))) == 10 * orders)
            await asyncio.sleep(2 * HEARTBEAT)

        assert service.orders == orders < 3


async def test_who_looks_on_outlives_a_restart_of_the_database(site: Site, postgres: Postgres) -> None:
    names = names_of(60)
    async with site.worker():
        looking = asyncio.create_task(site.put_in(names, options=Options(batch_size=10)))
        await _until(lambda: site.service.orders > 0)
        await asyncio.to_thread(postgres.restart)
        fleet = await looking

    assert +fleet.counts == Counter({S.DONE: 60})


async def test_all_workers_together_keep_to_the_limit_of_what_is_open(site: Site) -> None:
    """Nobody has more under way than a share, from the start."""
    names = names_of(60)
    most = 0
    with Service(delay=2.0) as slow:
        there = Site(slow, site.url, site.directory, site.log)
        with there.workers(3):
            looking = asyncio.create_task(there.put_in(names, options=Options(batch_size=2, most_open=24)))
            while not looking.done():
                await asyncio.sleep(0.2)
                async with PostgresLedger.open(there.database, there.run()) as ledger:
                    counts = await ledger.counts()
                most = max(most, counts[S.ORDERED] + counts[S.UNKNOWN])
            fleet = await looking

    assert +fleet.counts == Counter({S.DONE: 60})
    assert 0 < most <= 24


async def _put_in_only(site: Site, names: list[str], options: Options | None = None) -> None:
    """Put a list in, and look on no further."""
    lines = [f"{name},SN-{number:04}" for number, name in enumerate(names)]
    listed = read_devices("\n".join(["common_name,serialNumber", *lines]).encode())
    async with site.client() as client, PostgresLedger.open(site.database, site.run(), floor=1) as ledger:
        plan = await make_plan(client, ledger, site.directory, listed)
        fleet = FleetRun(site.database, ledger, site.directory, plan, options=options)
        async with aclosing(fleet.run()) as events:
            await anext(events)


def _shifted(now: Callable[[], float], seconds: float) -> float:
    return now() + seconds


async def _until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not true():
            await asyncio.sleep(0.05)


class _Leaping(SystemClock):
    """Time that a test can move on."""

    def __init__(self) -> None:
        self._ahead = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self._ahead

    def leap(self, seconds: float) -> None:
        self._ahead += seconds
