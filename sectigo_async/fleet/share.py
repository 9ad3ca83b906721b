"""What the workers of a fleet share: where keys are kept, what a run is, and how much each of them may do."""

from datetime import datetime, timedelta

import attrs

from sectigo_async.client import SectigoClient
from sectigo_async.errors import FileError
from sectigo_async.fleet.database import Connection, Database
from sectigo_async.fleet.ledger import order_of, run_of, storable
from sectigo_async.fleet.marks import MARK, OTHER_SINK
from sectigo_async.fleet.queue import ISSUE, Terms
from sectigo_async.issuance.audit import Finding, audit_orders
from sectigo_async.issuance.ledger import DeviceState, Run
from sectigo_async.models import Order

SILENCE = timedelta(seconds=30)
"""How long a worker may be silent until it counts as gone."""


async def bind_sink(connection: Connection, mark: str, where: str) -> None:
    """Have the keys of the run kept in the sink with this mark, from now on.

    Raises:
        FileError: they are kept elsewhere.
    """
    await check_sink(connection, mark, where, may_move=True)
    await connection.execute("UPDATE sectigo_run SET sink = %s, sink_place = %s", [mark, storable(where)])


async def check_sink(connection: Connection, mark: str, where: str, *, may_move: bool = False) -> None:
    """See that the keys of the run are kept in a sink.

    Args:
        connection: a session.
        mark: that of the sink.
        where: where the sink is, for people.
        may_move: whether they may be kept there from now on, where nothing was ordered yet, and no worker is at it.

    Raises:
        FileError: they are kept elsewhere.
    """
    query = (
        "SELECT sink, sink_place FROM sectigo_run"
        " WHERE NOT %s OR (sink <> '' AND (EXISTS (SELECT FROM sectigo_orders) OR EXISTS"
        " (SELECT FROM procrastinate_jobs WHERE status = 'doing' AND task_name = %s)))"
    )
    row = await (await connection.execute(query, [may_move, ISSUE])).fetchone()
    if row is not None and row[0] != mark:
        raise FileError(
            f"the keys of this run are kept in {row[1]}, and {where} is another place, or has lost its mark",
            hint=f"{OTHER_SINK}; where it is the same, write {row[0]} to {where}/{MARK}",
        )


@attrs.frozen(kw_only=True)
class Standing:
    """How a run on several machines stands.

    Attributes:
        counts: how many devices are in each state.
        open_chunks: how many chunks something is to be done for.
        under_way: how many of these workers have just now.
        workers: how many workers are alive.
        halted: why no more is ordered, where that is so.
        problem: why nobody goes on with some chunk, where that is so.
    """

    counts: dict[DeviceState, int]
    open_chunks: int
    under_way: int
    workers: int
    halted: str
    problem: str


async def standing(connection: Connection, silence: timedelta) -> Standing:
    """Return how a run stands.

    Args:
        connection: a session.
        silence: how long a worker may be silent until it counts as gone.
    """
    query = "SELECT state, count(*) FROM sectigo_devices GROUP BY state"
    found: dict[str, int] = dict(await (await connection.execute(query)).fetchall())
    query = (
        "SELECT (SELECT count(*) FROM sectigo_chunks chunks WHERE is_open AND (halted = '' OR EXISTS"
        " (SELECT FROM sectigo_devices devices WHERE devices.chunk = chunks.chunk"
        " AND devices.state IN ('ordered', 'outcome unknown')))),"
        " (SELECT count(*) FROM procrastinate_jobs"
        " WHERE status = 'doing' AND task_name = %s),"
        " (SELECT count(*) FROM procrastinate_workers WHERE last_heartbeat > now() - %s), halted,"
        " coalesce((SELECT problem FROM sectigo_chunks WHERE problem <> '' ORDER BY chunk LIMIT 1), '')"
        " FROM sectigo_run"
    )
    row = await (await connection.execute(query, [ISSUE, silence])).fetchone()
    assert row is not None
    return Standing(
        counts={state: int(found.get(state.value, 0)) for state in DeviceState},
        open_chunks=row[0],
        under_way=row[1],
        workers=row[2],
        halted=row[3],
        problem=row[4],
    )


@attrs.frozen(kw_only=True)
class Outlook:
    """What a worker is to know of the run when it begins with a chunk.

    Attributes:
        terms: how the run goes about it.
        is_halted: whether no more is ordered.
        has_succeeded: whether some device is done.
        times_opened: how often this chunk was opened.
    """

    terms: Terms
    is_halted: bool
    has_succeeded: bool
    times_opened: int


async def outlook(connection: Connection, chunk: int) -> Outlook:
    """Return what a worker is to know of the run when it begins with a chunk."""
    query = (
        "SELECT options, halted <> '', EXISTS (SELECT FROM sectigo_devices WHERE state = 'done'),"
        " (SELECT times_opened FROM sectigo_chunks WHERE chunk = %(chunk)s) FROM sectigo_run"
    )
    row = await (await connection.execute(query, {"chunk": chunk})).fetchone()
    assert row is not None
    return Outlook(terms=Terms.from_document(row[0]), is_halted=row[1], has_succeeded=row[2], times_opened=row[3])


async def close(connection: Connection, chunk: int, times_opened: int, problem: str = "") -> None:
    """Note that nothing more is to be done for a chunk, unless somebody has opened it again since.

    Args:
        connection: a session.
        chunk: the chunk.
        times_opened: how often it had been opened when it was taken up.
        problem: why nobody goes on with it, although something is left to do.
    """
    query = "UPDATE sectigo_chunks SET is_open = false, problem = %s WHERE chunk = %s AND times_opened = %s"
    await connection.execute(query, [storable(problem), chunk, times_opened])


async def leave_alone(connection: Connection, chunk: int, pause: timedelta) -> None:
    """Have a chunk left alone for a while."""
    await connection.execute("UPDATE sectigo_chunks SET not_before = now() + %s WHERE chunk = %s", [pause, chunk])


async def look_again(connection: Connection, chunk: int, pause: timedelta) -> None:
    """Open, after a while, the other chunks that have an order of unknown outcome."""
    await connection.execute(
        "UPDATE sectigo_chunks chunks SET is_open = true, times_opened = times_opened + 1, not_before = now() + %s"
        " WHERE NOT is_open AND chunk <> %s"
        " AND EXISTS (SELECT FROM sectigo_orders orders WHERE orders.chunk = chunks.chunk AND state = 'unknown')",
        [pause, chunk],
    )


@attrs.frozen(kw_only=True)
class FleetStatus:
    """How a run on several machines stands, for whoever asks.

    Attributes:
        run: what all its devices have in common.
        standing: how many devices are in each state, and how many workers are at it.
        unknown_orders: the orders that nobody knows the outcome of, by their ids.
        oldest_open: when the oldest order was sent that may be paid for and is not saved (aware); `None` where there
            is none.
    """

    run: Run
    standing: Standing
    unknown_orders: tuple[str, ...]
    oldest_open: datetime | None


async def read_fleet(database: Database) -> FleetStatus:
    """Return how the run stands whose ledger is in a database, from anywhere; the run may be going on.

    Raises:
        LedgerError: there is none, or the database is out of reach.
    """
    async with database.session(only_look=True) as connection:
        with database.errors():
            run = await run_of(connection)
            stands = await standing(connection, SILENCE)
            query = "SELECT order_id FROM sectigo_orders WHERE state = 'unknown' ORDER BY number"
            unknown = tuple(row[0] for row in await (await connection.execute(query)).fetchall())
            query = (
                "SELECT min(sent_at) FROM sectigo_orders WHERE order_id IN"
                " (SELECT order_id FROM sectigo_devices WHERE state IN ('outcome unknown', 'ordered'))"
            )
            row = await (await connection.execute(query)).fetchone()
            oldest = None if row is None else row[0]
    return FleetStatus(run=run, standing=stands, unknown_orders=unknown, oldest_open=oldest)


async def audit_fleet(
    client: SectigoClient, database: Database, *, after: int | None = None, timeout: float | None = 3600.0
) -> tuple[Finding, ...]:
    """Look at each batch at the service, and return those that no device of a run owns, as `audit_ledger` does.

    Args:
        client: asks the service, as the user who ordered.
        database: where the ledger of the run is, which may be going on.
        after: the batch id after which to begin; by what is known of the orders when not given.
        timeout: seconds for the look at all ids; `None` for no limit.

    Raises:
        InvalidArgumentError: `after` is higher than a batch of the run.
        LedgerError: there is no ledger, or the database is out of reach.
        SectigoError: the service does not answer.
    """

    async def read() -> tuple[list[Order], dict[str, tuple[str, ...]]]:
        async with database.session() as connection:
            with database.errors():
                await run_of(connection)
                query = "SELECT document, state, batch_id, order_id, devices FROM sectigo_orders ORDER BY number"
                rows = await (await connection.execute(query)).fetchall()
        return [order_of(row[:3]) for row in rows], {row[3]: tuple(row[4]) for row in rows}

    return await audit_orders(client, read, after=after, timeout=timeout)


async def terms_of(connection: Connection) -> Terms | None:
    """Return how the run goes about it; `None` where no list was put in yet."""
    row = await (await connection.execute("SELECT options FROM sectigo_run")).fetchone()
    return Terms.from_document(row[0]) if row is not None and row[0] else None


async def halt(connection: Connection, reason: str) -> bool:
    """Have nothing more ordered until somebody puts a list in again; say whether this is the first reason."""
    query = "UPDATE sectigo_run SET halted = %s WHERE halted = ''"
    return (await connection.execute(query, [storable(reason)])).rowcount == 1
