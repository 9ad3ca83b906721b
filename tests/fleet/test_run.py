"""Runs on PostgreSQL, with their workers in this process."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from sectigo_async.issuance import DeviceState, EventKind, Keys, Options
from tests.chaos.harness import Service
from tests.fleet.postgres import Postgres
from tests.fleet.site import Site

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(120)]


@pytest.fixture
def site(database: str, tmp_path: Path) -> Iterator[Site]:
    with Service() as service:
        yield Site(service, database, tmp_path / "out", tmp_path / "workers.log")


def names_of(count: int) -> list[str]:
    return [f"gw{number}.example.com" for number in range(count)]


@pytest.mark.parametrize("keys", Keys)
async def test_a_list_is_issued_for_by_two_workers(site: Site, keys: Keys) -> None:
    names = names_of(60)

    async with site.worker() as one, site.worker() as other:
        fleet = await site.put_in(names, keys=keys)

    assert +fleet.counts == Counter({DeviceState.DONE: len(names)})
    assert Counter(one.common_name for one in site.service.issued()) == Counter(names)
    assert not fleet.halted
    assert not fleet.parked
    assert {event.kind for event in (*one, *other)} >= {EventKind.ORDERED, EventKind.SAVED}


async def test_the_same_list_put_in_twice_at_once_is_one_run(site: Site) -> None:
    names = names_of(120)

    async with site.worker():
        fleets = await asyncio.gather(*(site.put_in(names, options=Options(batch_size=20)) for _ in range(3)))

    assert [fleet.counts[DeviceState.DONE] for fleet in fleets] == [len(names)] * 3
    assert site.service.orders == len(names) / 20
    assert Counter(one.common_name for one in site.service.issued()) == Counter(names)


async def test_workers_outlive_a_restart_of_the_database(site: Site, postgres: Postgres) -> None:
    """A worker that has lost its sessions comes back by itself, and nothing is ordered twice."""
    names = names_of(300)
    options = Options(batch_size=10, settle=2)
    with site.workers(2):
        running = asyncio.create_task(site.put_in(names, options=options))
        while site.service.orders < 5:
            await asyncio.sleep(0.05)
            assert not running.done()
        await asyncio.to_thread(postgres.restart, "immediate")
        # Who looks on is told that it is gone; the workers are not in need of them.
        await asyncio.wait([running])
        fleet = await site.put_in(names, options=options)

    assert +fleet.counts == Counter({DeviceState.DONE: len(names)}), site.log.read_text()[-3000:]
    assert site.service.orders == len(names) / 10
    assert Counter(one.common_name for one in site.service.issued()) == Counter(names)
