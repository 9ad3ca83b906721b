"""Which chunks of a fleet's ledger get a job, and that the jobs of others are left alone."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from procrastinate import App

from sectigo_async.fleet import read_fleet
from sectigo_async.fleet.queue import Terms, hand_out, make_app, reclaim
from sectigo_async.fleet.share import halt, leave_alone
from sectigo_async.issuance import DeviceState, Options, Outcome
from tests.fleet.helpers import Fleet, device, end, named, order

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(120)]

CAREFUL = Options()
IN_TWOS = Options(batch_size=2)
MOST = 200

S = DeviceState


@pytest.fixture
def fleet(database: str, tmp_path: Path) -> Fleet:
    return Fleet(database, tmp_path)


async def nothing(_: object) -> None: ...


async def look(fleet: Fleet, options: Options) -> None:
    app = make_app(fleet.database, nothing, nothing, 1)
    async with app.open_async(), fleet.database.session() as connection:
        await hand_out(app, connection, Terms(options=options))


async def due(fleet: Fleet, options: Options) -> list[int]:
    """Return the chunks that get a job where none has one."""
    execute(fleet, "DELETE FROM procrastinate_jobs WHERE queue_name = 'sectigo-async'")
    await look(fleet, options)
    return await jobs(fleet)


async def jobs(fleet: Fleet) -> list[int]:
    query = "SELECT (args ->> 'chunk')::int FROM procrastinate_jobs WHERE queue_name = 'sectigo-async' ORDER BY 1"
    return [row[0] for row in await fleet.rows(query)]


def execute(fleet: Fleet, *statements: str) -> None:
    with psycopg.connect(fleet.url) as connection:
        for statement in statements:
            connection.execute(statement.encode())


async def finish(fleet: Fleet, chunk: int, keys: Sequence[str], outcome: DeviceState) -> None:
    async with fleet.chunks(chunk) as (worker,):
        await worker.intend(order(chunk), keys)
        await worker.write(order(chunk).placed(100 + chunk))
        await worker.finish({key: Outcome(state=outcome) for key in keys})
        await end(worker, chunk)


async def test_little_is_ordered_until_something_has_succeeded(fleet: Fleet) -> None:
    devices = named(60)
    await fleet.put_in(*devices, options=CAREFUL)

    assert await due(fleet, CAREFUL) == [1]
    assert await due(fleet, Options(pilot=False)) == [1, 2]
    assert await due(fleet, Options(batch_size=500)) == [1, 2]
    await finish(fleet, 1, [one.key for one in devices[:25]], S.DONE)
    await fleet.put_in(*devices, *[device(f"more{number}") for number in range(600)])
    assert await due(fleet, CAREFUL) == [2, 3, 4, 5]


async def test_where_the_first_chunk_fails_the_next_is_alone(fleet: Fleet) -> None:
    devices = named(1000)
    await fleet.put_in(*devices, options=CAREFUL)

    await finish(fleet, 1, [one.key for one in devices[:25]], S.FAILED)

    assert await due(fleet, CAREFUL) == [2]


async def test_a_chunk_has_one_job_whoever_looks(fleet: Fleet) -> None:
    await fleet.put_in(*named(6), options=IN_TWOS)

    for _ in range(3):
        await look(fleet, IN_TWOS)

    assert await jobs(fleet) == [1, 2, 3]


async def test_what_is_closed_halted_or_to_be_left_alone_gets_no_job(fleet: Fleet) -> None:
    await fleet.put_in(*named(6), options=IN_TWOS)
    async with fleet.chunks(1, 2) as (one, two):
        await end(one, 1)
        await two.work(lambda connection: leave_alone(connection, 2, timedelta(hours=1)))
        assert await due(fleet, IN_TWOS) == [3]
        await two.work(lambda connection: leave_alone(connection, 2, timedelta()))
        assert await due(fleet, IN_TWOS) == [2, 3]
        await one.work(lambda connection: halt(connection, "no licences"))
    assert await due(fleet, IN_TWOS) == []

    await fleet.put_in(*named(6), options=IN_TWOS)

    assert await due(fleet, IN_TWOS) == [1, 2, 3]


async def test_the_last_to_be_ordered_waits_until_it_can_prove_what_became_of_an_order(fleet: Fleet) -> None:
    """Sent after the settle time, it shows that an order of unknown outcome was not placed."""
    devices = named(6)
    await fleet.put_in(*devices, options=IN_TWOS)
    async with fleet.chunks(1) as (worker,):
        await worker.intend(order(1, sent_at=datetime.now(UTC)), ["gw0000", "gw0001"])
    assert await due(fleet, IN_TWOS) == [1, 2, 3]
    await finish(fleet, 3, ["gw0004", "gw0005"], S.DONE)

    assert await due(fleet, IN_TWOS) == [1]
    assert await due(fleet, Options(batch_size=2, resubmit=True)) == [1, 2]
    assert await due(fleet, Options(batch_size=2, settle=0)) == [1, 2]
    async with fleet.chunks(1) as (worker,):
        await worker.write(order(1).placed(77))
    assert await due(fleet, IN_TWOS) == [1, 2]


MANY_OF_OTHERS = """
INSERT INTO procrastinate_jobs (queue_name, task_name, args, status)
SELECT 'mail', 'send', '{}', 'succeeded' FROM generate_series(1, 300)
"""
ONE_IN_EACH_QUEUE_FOR_EACH_WORKER = """
INSERT INTO procrastinate_jobs (queue_name, task_name, args, status, queueing_lock, worker_id)
SELECT queue, task, '{}', 'doing', queue || worker.id, worker.id FROM procrastinate_workers worker,
(VALUES ('mail', 'send'), ('sectigo-async', 'sectigo_async.issue_chunk')) AS queues (queue, task)
"""


async def test_not_all_of_a_long_list_gets_jobs_at_once_and_the_jobs_of_others_do_not_count(fleet: Fleet) -> None:
    await fleet.put_in(*named(2 * MOST + 20), options=IN_TWOS)
    execute(fleet, MANY_OF_OTHERS)

    assert await due(fleet, IN_TWOS) == list(range(1, MOST + 1))


async def test_the_jobs_of_others_are_not_taken_for_those_of_a_worker_that_is_gone(fleet: Fleet) -> None:
    await fleet.put_in(*named(6), options=IN_TWOS)
    execute(
        fleet,
        "DELETE FROM procrastinate_jobs",
        "INSERT INTO procrastinate_workers (last_heartbeat) VALUES (now() - interval '1 hour'), (now())",
        ONE_IN_EACH_QUEUE_FOR_EACH_WORKER,
    )
    assert (await read_fleet(fleet.database)).standing.under_way == 2

    app: App = make_app(fleet.database, nothing, nothing, 1)
    async with app.open_async():
        await reclaim(app, silence=30)

    left = await fleet.rows("SELECT queue_name FROM procrastinate_jobs WHERE status = 'doing' ORDER BY 1")
    assert [name for (name,) in left] == ["mail", "mail", "sectigo-async"]
