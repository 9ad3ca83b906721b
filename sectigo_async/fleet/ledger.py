"""The ledger of a run on several machines: PostgreSQL tables, of which each worker has a chunk at a time."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, LiteralString, TypeVar

import attrs
import psycopg

from sectigo_async.clock import Clock, SystemClock
from sectigo_async.errors import LedgerError, LedgerInUseError
from sectigo_async.fleet.database import VERSION, Connection, Database, has_tables, lock_class, make_tables
from sectigo_async.issuance.devices import Device
from sectigo_async.issuance.ledger import OPEN, DeviceState, Entry, Keys, Outcome, Run
from sectigo_async.models import Order, OrderState

T = TypeVar("T")

_LIST = 0
"""The lock of whoever puts a list into the ledger; those of chunks have the chunk's number, from 1."""

_TURN = 1.0
_PREPARING = 6_302_027
_ENTRY: LiteralString = (
    "SELECT document, devices.state, devices.order_id, orders.batch_id, error, warning, serial_number, not_after,"
    " updated FROM sectigo_devices devices LEFT JOIN"
    " (SELECT order_id, batch_id FROM sectigo_orders) orders USING (order_id)"
)
_CLEAR: LiteralString = "error = '', warning = '', serial_number = '', not_after = NULL"
_GIVEN: LiteralString = (
    "unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::timestamptz[])"
    " AS given (key, state, error, warning, serial_number, not_after)"
)


class PostgresLedger:
    """A `Ledger` in PostgreSQL: all of it, or one chunk of its devices. Make it with `open` or `open_chunk`.

    Whoever has a chunk holds its lock in the very session that writes, so that nothing is written, and so nothing
    ordered, by one who has lost it.
    """

    def __init__(self, database: Database, connection: Connection, run: Run, clock: Clock, chunk: int | None) -> None:
        self._database = database
        self._connection = connection
        self._run = run
        self._clock = clock
        self._chunk = chunk
        self._is_released = False
        self._turn = asyncio.Lock()
        self._writing: set[asyncio.Task[Any]] = set()

    @staticmethod
    async def exists(database: Database) -> bool:
        """Say whether there is a ledger in a database.

        Raises:
            LedgerError: the database is out of reach.
        """
        async with database.session() as connection:
            with database.errors():
                return await has_tables(connection)

    @classmethod
    @asynccontextmanager
    async def open(
        cls, database: Database, run: Run, *, floor: int = 0, patience: float = 60.0, clock: Clock | None = None
    ) -> AsyncIterator["PostgresLedger"]:
        """Take the whole ledger, to put a list into it; it is made where it is missing. Workers go on meanwhile.

        Args:
            database: where it is.
            run: what is to be issued; another than before is refused.
            floor: an id of a batch that is known to be older than any order of this run; 0 where none is.
            patience: seconds to wait for another who has it.
            clock: time.

        Raises:
            LedgerInUseError: another has it for longer than that.
            LedgerError: the database is out of reach, or holds another run.
        """
        clock = clock or SystemClock()
        async with database.session() as connection:
            with database.errors():
                async with connection.transaction():
                    await connection.execute("SELECT pg_advisory_xact_lock(%s)", [_PREPARING])
                    await _prepare(connection, database, run, floor)
                number = await lock_class(connection)
                late = clock.monotonic() + patience
                while not await _try_lock(connection, number, _LIST):
                    if clock.monotonic() >= late:
                        raise LedgerInUseError(
                            f"somebody else is putting a list into the ledger {database}",
                            hint="run the same command again when they are done",
                        )
                    await clock.sleep(_TURN)
            ledger = cls(database, connection, run, clock, None)
            try:
                yield ledger
            finally:
                await ledger._finish_writing()

    @classmethod
    @asynccontextmanager
    async def open_chunk(
        cls, database: Database, chunk: int, *, clock: Clock | None = None
    ) -> AsyncIterator["PostgresLedger"]:
        """Take one chunk of the devices; nobody else gets it meanwhile.

        Args:
            database: where the ledger is.
            chunk: the number of the chunk (1 or more).
            clock: time.

        Raises:
            LedgerInUseError: another worker has it.
            LedgerError: the database is out of reach.
        """
        async with database.session() as connection:
            with database.errors():
                run = await run_of(connection)
                if not await _try_lock(connection, await lock_class(connection), chunk):
                    raise LedgerInUseError(f"another worker has chunk {chunk}", hint="it is taken up when that ends")
            ledger = cls(database, connection, run, clock or SystemClock(), chunk)
            try:
                yield ledger
            finally:
                await ledger._finish_writing()

    @property
    def run(self) -> Run:
        """What all its devices have in common."""
        return self._run

    async def release(self) -> None:
        """Let others put lists into the ledger; this one is only read from now on, in sessions for a moment."""
        with self._database.errors():
            # At once, and not when the server notices that the session is over.
            await self._connection.execute("SELECT pg_advisory_unlock_all()")
        self._is_released = True
        await self._connection.close()

    async def highest(self) -> int:
        """Return the highest id of a batch that is known."""
        query = "SELECT greatest(floor, (SELECT max(batch_id) FROM sectigo_orders)) FROM sectigo_run"
        (row,) = await self._rows(query, [])
        return int(row[0])

    async def write(self, order: Order) -> None:
        """Write an order down, or what became of it."""

        async def work(connection: Connection) -> None:
            query = "SELECT state, batch_id FROM sectigo_orders WHERE order_id = %s FOR UPDATE"
            known = await (await connection.execute(query, [order.order_id])).fetchone()
            if known is None:
                await self._insert(connection, order, ())
            elif known[0] == OrderState.UNKNOWN.value:
                if order.state is not OrderState.UNKNOWN:
                    await self._settle(connection, order)
            elif known != (order.state.value, order.batch_id):
                raise LedgerError(f"{order.subject} is known to be {known[0]} already")

        await self.work(work)

    async def orders(self) -> tuple[Order, ...]:
        """Return the orders, the one sent first first.

        Of other chunks only those that were placed after an order of unknown outcome of this one, without their
        keys: that is what tells what became of it.
        """
        if self._chunk is None:
            query: LiteralString = "SELECT document, state, batch_id FROM sectigo_orders ORDER BY number"
            return tuple(map(order_of, await self._rows(query, [])))
        query = (
            "SELECT CASE WHEN chunk = %s THEN document"
            " ELSE jsonb_set(document, '{keySha256}', '[]') END, state, batch_id FROM sectigo_orders"
            " WHERE chunk = %s OR batch_id > (SELECT min((document ->> 'after')::bigint) FROM sectigo_orders"
            " WHERE chunk = %s AND state = 'unknown') ORDER BY number"
        )
        return tuple(map(order_of, await self._rows(query, [self._chunk] * 3)))

    async def amend(self, *, new: Iterable[Device] = (), changed: Iterable[Device] = ()) -> None:
        """Add devices, and change some for which nothing is ordered; a worker that has one of these loses it."""
        renewed = {device.key: device.to_json() for device in changed}
        added = list(new)

        async def work(connection: Connection) -> None:
            query: LiteralString = (
                "UPDATE sectigo_devices devices SET document = given.document, state = 'planned', order_id = NULL,"
                f" chunk = %s, is_listed = true, updated = %s, {_CLEAR}"
                " FROM unnest(%s::text[], %s::text[]) AS given (key, document)"
            )
            values = [self._chunk, self._now(), list(renewed), list(renewed.values())]
            await self._change(connection, query, values, list(renewed), OPEN)
            await self._add(connection, [_row(device, DeviceState.PLANNED) for device in added])

        await self.work(work)

    async def entries(self, states: Collection[DeviceState] | None = None) -> tuple[Entry, ...]:
        """Return the devices in these states, or all, in the order in which they were added."""
        if states is None:
            return await self._entries("true", [])
        return await self._entries("devices.state = ANY(%s)", [[state.value for state in states]])

    async def of_batch(self, batch_id: int) -> tuple[Entry, ...]:
        """Return the devices that a batch was ordered for, as they stand."""
        where: LiteralString = "devices.order_id IN (SELECT order_id FROM sectigo_orders WHERE batch_id = %s)"
        return await self._entries(where, [batch_id])

    async def _entries(self, where: LiteralString, values: Sequence[object]) -> tuple[Entry, ...]:
        query: LiteralString = f"{_ENTRY} WHERE {where} AND (%s::bigint IS NULL OR chunk = %s)"
        if self._chunk is not None:
            query += " AND (is_listed OR devices.state NOT IN ('planned', 'failed'))"
        rows = await self._rows(query + " ORDER BY position", [*values, self._chunk, self._chunk])
        return tuple(map(_entry, rows))

    async def counts(self) -> dict[DeviceState, int]:
        """Return how many devices are in each state."""
        query: LiteralString = (
            "SELECT state, count(*) FROM sectigo_devices WHERE %s::bigint IS NULL OR chunk = %s GROUP BY state"
        )
        found = dict(await self._rows(query, [self._chunk, self._chunk]))
        return {state: int(found.get(state.value, 0)) for state in DeviceState}

    async def intend(self, order: Order, keys: Collection[str]) -> None:
        """Write down an order that is about to be sent, and take its devices from `PLANNED` to `UNKNOWN`."""

        async def work(connection: Connection) -> None:
            await self._insert(connection, order, tuple(keys))
            query: LiteralString = (
                "UPDATE sectigo_devices devices SET state = 'outcome unknown', order_id = %s, updated = %s,"
                f" {_CLEAR} FROM unnest(%s::text[]) AS given (key)"
            )
            values = [order.order_id, self._now(), list(keys)]
            await self._change(connection, query, values, list(keys), {DeviceState.PLANNED}, listed=True)

        await self.work(work)

    async def adopt(
        self, order: Order, devices: Collection[Device], outcomes: Mapping[str, Outcome] | None = None
    ) -> None:
        """Write down an order that was sent without this ledger, and its devices; nothing is ordered for them yet."""
        state = DeviceState.UNKNOWN if order.state is OrderState.UNKNOWN else DeviceState.ORDERED
        known = outcomes or {}
        rows = [_row(device, state, order.order_id, known.get(device.key)) for device in devices]

        async def work(connection: Connection) -> None:
            keys = [device.key for device in devices]
            await self._insert(connection, order, keys)
            query: LiteralString = "DELETE FROM sectigo_devices WHERE key = ANY(%s) AND state = ANY(%s)"
            await connection.execute(query, [keys, [one.value for one in OPEN]])
            await self._add(connection, rows)

        await self.work(work)

    async def refuse(self, errors: Mapping[str, str]) -> None:
        """Take devices from `PLANNED` to `FAILED`, since the service refuses to issue for them."""
        outcomes = {key: Outcome(state=DeviceState.FAILED, error=error) for key, error in errors.items()}
        await self._end(outcomes, {DeviceState.PLANNED})

    async def finish(self, outcomes: Mapping[str, Outcome]) -> None:
        """Take devices from `ORDERED`, or `VERIFY_FAILED`, to what became of them."""
        await self._end(outcomes, {DeviceState.ORDERED, DeviceState.VERIFY_FAILED})

    async def _end(self, outcomes: Mapping[str, Outcome], states: Collection[DeviceState]) -> None:
        query: LiteralString = (
            "UPDATE sectigo_devices devices SET state = given.state, error = given.error, warning = given.warning,"
            f" serial_number = given.serial_number, not_after = given.not_after, updated = %s FROM {_GIVEN}"
        )
        columns = [list(column) for column in zip(*map(_values, outcomes.values()), strict=True)] or [[]] * 5
        values = [self._now(), list(outcomes), *columns]
        await self.work(lambda connection: self._change(connection, query, values, list(outcomes), states))

    async def retry(self, keys: Collection[str]) -> None:
        """Take devices from `FAILED` back to `PLANNED`; a worker that has one of these loses it."""
        query: LiteralString = (
            "UPDATE sectigo_devices devices SET state = 'planned', order_id = NULL, chunk = %s, updated = %s,"
            f" {_CLEAR} FROM unnest(%s::text[]) AS given (key)"
        )
        values = [self._chunk, self._now(), list(keys)]
        states = {DeviceState.FAILED}
        await self.work(lambda connection: self._change(connection, query, values, list(keys), states))

    async def devices_of_orders(self) -> dict[str, tuple[str, ...]]:
        """Return for which devices, by their keys, each order was, by its id."""
        query: LiteralString = (
            "SELECT order_id, devices FROM sectigo_orders WHERE %s::bigint IS NULL OR chunk = %s ORDER BY number"
        )
        return {row[0]: tuple(row[1]) for row in await self._rows(query, [self._chunk, self._chunk])}

    async def work(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Return what `work` returns, once it is committed; whole or not at all. Cancelled, it is done all the same.

        Raises:
            LedgerError: the database is out of reach, or `work` says so.
        """
        task = asyncio.ensure_future(self._transaction(work))
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)
        return await asyncio.shield(task)

    async def _transaction(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        async with self._turn, self._session() as connection:
            with self._database.errors():
                async with connection.transaction():
                    return await work(connection)

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[Connection]:
        if not self._is_released:
            yield self._connection
            return
        async with self._database.session() as connection:
            yield connection

    async def _rows(self, query: LiteralString, values: Sequence[object]) -> list[tuple[Any, ...]]:
        async def work(connection: Connection) -> list[tuple[Any, ...]]:
            return await (await connection.execute(query, values)).fetchall()

        return await self.work(work)

    async def _finish_writing(self) -> None:
        if self._writing:
            await asyncio.wait(self._writing)

    async def _insert(self, connection: Connection, order: Order, keys: Sequence[str]) -> None:
        query = (
            "INSERT INTO sectigo_orders (order_id, chunk, state, batch_id, size, sent_at, document, devices)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s, %s)"
        )
        document = json.dumps(attrs.evolve(order, batch_name=storable(order.batch_name)).document())
        state = order.state.value
        values = (order.order_id, self._chunk, state, order.batch_id, order.size, order.sent_at, document, list(keys))
        try:
            await connection.execute(query, values)
        except psycopg.errors.UniqueViolation:
            taken = True
        else:
            taken = False
        if taken:
            raise LedgerError(f"{order.subject} is in the ledger already")

    async def _settle(self, connection: Connection, order: Order) -> None:
        """Write down what became of an order whose outcome was unknown."""
        if self._chunk is None:
            await self._take_over(connection, order)
        query = "SELECT 1 FROM sectigo_orders WHERE batch_id = %s AND order_id <> %s"
        # Of an order of which only a device is left, others may be left, too.
        found = await (await connection.execute(query, [order.batch_id, order.order_id])).fetchone()
        taken = found is not None and order.size > 0
        if not taken:
            query = "UPDATE sectigo_orders SET state = %s, batch_id = %s WHERE order_id = %s"
            try:
                await connection.execute(query, [order.state.value, order.batch_id, order.order_id])
            except psycopg.errors.UniqueViolation:
                taken = True
        if taken:
            raise LedgerError(f"batch {order.batch_id} is that of another order already")
        placed = order.state is OrderState.ORDERED
        sets: LiteralString = "state = 'ordered'" if placed else "state = 'planned', order_id = NULL"
        query = f"UPDATE sectigo_devices SET {sets}, updated = %s WHERE order_id = %s AND state = 'outcome unknown'"
        await connection.execute(query, [self._now(), order.order_id])

    async def _take_over(self, connection: Connection, order: Order) -> None:
        """See that no worker is at an order that somebody else decides on, and have one go on with it afterwards."""
        query = "SELECT chunk FROM sectigo_orders WHERE order_id = %s AND chunk IS NOT NULL"
        row = await (await connection.execute(query, [order.order_id])).fetchone()
        if row is None:
            return
        query = "SELECT pg_try_advisory_xact_lock(%s, %s)"
        locked = await (await connection.execute(query, [await lock_class(connection), row[0]])).fetchone()
        if locked is None or not locked[0]:
            raise LedgerInUseError(
                f"a worker has {order.subject} in hand just now", hint="decide once it has come to an end, or stopped"
            )
        query = "UPDATE sectigo_chunks SET is_open = true, times_opened = times_opened + 1 WHERE chunk = %s"
        await connection.execute(query, [row[0]])

    async def _change(
        self,
        connection: Connection,
        update: LiteralString,
        values: Sequence[object],
        keys: Sequence[str],
        states: Collection[DeviceState],
        *,
        listed: bool = False,
    ) -> None:
        """Change devices that are in one of these states, and in this chunk: all of them, or none."""
        if not keys:
            return
        query = update + (
            " WHERE devices.key = given.key AND devices.state = ANY(%s)"
            " AND (%s::bigint IS NULL OR devices.chunk = %s) AND (devices.is_listed OR NOT %s) RETURNING devices.key"
        )
        words = [state.value for state in states]
        cursor = await connection.execute(query, [*values, words, self._chunk, self._chunk, listed])
        changed = {row[0] for row in await cursor.fetchall()}
        if len(changed) == len(keys):
            return
        query = "SELECT key, state, chunk, is_listed FROM sectigo_devices WHERE key = ANY(%s)"
        rows = {row[0]: row[1:] for row in await (await connection.execute(query, [list(keys)])).fetchall()}
        raise LedgerError(
            f"{self._misfit(rows, [key for key in keys if key not in changed], words)}: nothing was changed"
        )

    def _misfit(self, rows: Mapping[str, Sequence[Any]], keys: Sequence[str], words: Collection[str]) -> str:
        for key in keys:
            state, chunk, is_listed = rows.get(key, ("not in the ledger", self._chunk, True))
            if self._chunk is not None and chunk != self._chunk:
                return f"device {key} was changed meanwhile, or is not in the list any more"
            if not is_listed:
                return f"device {key} is not in the list any more"
            if state not in words:
                return f"device {key} is {state}"
        return "a device was named twice, or has changed just now"

    async def _add(self, connection: Connection, rows: Iterable[Sequence[object]]) -> None:
        query = (
            "COPY sectigo_devices (key, document, order_id, state, error, warning, serial_number, not_after, chunk,"
            " updated) FROM STDIN"
        )
        now = self._now()
        try:
            async with connection.cursor() as cursor, cursor.copy(query) as copy:
                for row in rows:
                    await copy.write_row((*row, self._chunk, now))
        except psycopg.errors.UniqueViolation:
            taken = True
        else:
            taken = False
        if taken:
            raise LedgerError("a device that is new is in the ledger already")

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.time(), UTC)


async def _prepare(connection: Connection, database: Database, run: Run, floor: int) -> None:
    """Make the tables where there are none, and see that they are of this run."""
    if not await has_tables(connection):
        await make_tables(connection)
        query = (
            "INSERT INTO sectigo_run (version, endpoint, username, profile_id, keys, floor)"
            " VALUES (%s, %s, %s, %s, %s, %s)"
        )
        await connection.execute(query, [VERSION, run.endpoint, run.username, run.profile_id, run.keys.value, floor])
        return
    before = await run_of(connection)
    if before == run:
        return
    query = "SELECT EXISTS (SELECT FROM sectigo_orders UNION ALL SELECT FROM sectigo_devices)"
    row = await (await connection.execute(query)).fetchone()
    if row is not None and not row[0]:
        query = "UPDATE sectigo_run SET endpoint = %s, username = %s, profile_id = %s, keys = %s"
        await connection.execute(query, [run.endpoint, run.username, run.profile_id, run.keys.value])
        return
    raise LedgerError(
        f"the ledger {database} holds a run of {_in_words(before)}, not of {_in_words(run)}",
        hint="give the same profile, keys and login as before; another run has a schema, or a database, of its own",
    )


def _in_words(run: Run) -> str:
    return f"profile {run.profile_id} with keys {run.keys.value} by {run.username} at {run.endpoint}"


async def run_of(connection: Connection) -> Run:
    """Return what all devices of the ledger have in common.

    Raises:
        LedgerError: nothing stands in it yet.
    """
    row = None
    if await has_tables(connection):
        query = "SELECT endpoint, username, profile_id, keys FROM sectigo_run"
        row = await (await connection.execute(query)).fetchone()
    if row is None:
        raise LedgerError("nothing stands in the ledger yet", hint="put a list into it: `sectigo-async issue`")
    return Run(endpoint=row[0], username=row[1], profile_id=row[2], keys=Keys(row[3]))


async def _try_lock(connection: Connection, number: int, which: int) -> bool:
    row = await (await connection.execute("SELECT pg_try_advisory_lock(%s, %s)", [number, which])).fetchone()
    return row is not None and bool(row[0])


def _row(
    device: Device, state: DeviceState, order_id: str | None = None, outcome: Outcome | None = None
) -> tuple[object, ...]:
    return (device.key, device.to_json(), order_id, *_values(outcome or Outcome(state=state)))


def _values(outcome: Outcome) -> tuple[object, ...]:
    words = (storable(outcome.error), storable(outcome.warning), outcome.serial_number)
    return (outcome.state.value, *words, outcome.not_after)


def storable(text: str) -> str:
    """Return a text without what PostgreSQL cannot keep: the words of a server may hold anything."""
    return text.replace("\0", "\ufffd").encode(errors="replace").decode()


def _entry(row: Sequence[Any]) -> Entry:
    return Entry(
        device=Device.from_json(row[0]),
        state=DeviceState(row[1]),
        order_id=row[2] or "",
        batch_id=row[3],
        error=row[4],
        warning=row[5],
        serial_number=row[6],
        not_after=row[7],
        updated=row[8],
    )


def order_of(row: Sequence[Any]) -> Order:
    """Return the order of a row: its document, its state, and its batch."""
    document, state, batch_id = row
    return Order.from_document(document | {"state": state, "batchId": batch_id})
