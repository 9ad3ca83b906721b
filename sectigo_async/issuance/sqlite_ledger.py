"""The ledger of a run on one machine: an SQLite file that belongs to one process at a time."""

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import attrs

from sectigo_async.clock import Clock, SystemClock
from sectigo_async.errors import LedgerError
from sectigo_async.issuance.devices import Device
from sectigo_async.issuance.group_commit import GroupCommit
from sectigo_async.issuance.ledger import OPEN, DeviceState, Entry, Outcome, Run
from sectigo_async.issuance.ledger_file import (
    DIRECTORY,
    FILE,
    PATIENCE,
    check_version,
    connect,
    is_in_use,
    ledger_errors,
    lock_of,
    run_of,
    set_aside,
    take,
)
from sectigo_async.models import Order, OrderState
from sectigo_async.threads import run_to_end

T = TypeVar("T")

_ENTRY = (
    "SELECT devices.document, devices.state, devices.order_id, orders.batch_id, error, warning, serial_number,"
    " not_after, updated, key FROM devices LEFT JOIN orders USING (order_id)"
)
_OUTCOME = ("state", "error", "warning", "serial_number", "not_after")
_CLEAR = "error = '', warning = '', serial_number = '', not_after = NULL"


class SqliteLedger:
    """A `Ledger` in the directory of a run, 0600. Make it with `open`."""

    def __init__(self, path: Path, run: Run, commits: GroupCommit, clock: Clock) -> None:
        self._path = path
        self._run = run
        self._commits = commits
        self._clock = clock

    @staticmethod
    def exists(directory: Path) -> bool:
        """Say whether there is a ledger in the directory of a run."""
        return (directory / DIRECTORY / FILE).exists()

    @staticmethod
    async def set_aside(directory: Path) -> Path:
        """Move a ledger that is damaged out of the way, and return where it is kept now.

        Raises:
            LedgerInUseError: another process, or another task of this one, has it.
            LedgerError: it cannot be moved.
        """
        place = directory / DIRECTORY
        lock = lock_of(place)
        try:
            await run_to_end(take, place, lock)
            return await run_to_end(set_aside, place)
        finally:
            await run_to_end(lock.release)

    @classmethod
    @asynccontextmanager
    async def open(
        cls, directory: Path, run: Run, *, floor: int = 0, clock: Clock | None = None
    ) -> AsyncIterator["SqliteLedger"]:
        """Take the ledger in `directory`, which is made where it is missing; nobody else gets it meanwhile.

        Args:
            directory: the directory of the run.
            run: what is to be issued; another than before is refused.
            floor: an id of a batch that is known to be older than any order of this run; 0 where none is.
            clock: time.

        Raises:
            LedgerInUseError: another process, or another task of this one, has it.
            LedgerError: it is of another run, damaged, of a newer version, on a network file system, or cannot be
                written.
        """
        place = directory / DIRECTORY
        path = place / FILE
        clock = clock or SystemClock()
        lock = lock_of(place)
        try:
            await run_to_end(take, place, lock)
            commits = GroupCommit(lambda: connect(path, run, floor))
            try:
                ledger = cls(path, run, commits, clock)
                await ledger._work(lambda _: None)
                yield ledger
            finally:
                await run_to_end(commits.close)
        finally:
            await run_to_end(lock.release)

    @property
    def run(self) -> Run:
        """What all its devices have in common."""
        return self._run

    async def highest(self) -> int:
        """Return the highest id of a batch that is known."""

        def work(database: sqlite3.Connection) -> int:
            found = database.execute("SELECT max((SELECT max(batch_id) FROM orders), floor), floor FROM run")
            highest, floor = found.fetchone()
            return int(floor if highest is None else highest)

        return await self._work(work)

    async def write(self, order: Order) -> None:
        """Write down an order, or what became of one; its devices change with it."""

        def work(database: sqlite3.Connection) -> None:
            row = database.execute("SELECT state, batch_id FROM orders WHERE order_id = ?", [order.order_id])
            known = row.fetchone()
            if known is None:
                _insert(database, order, ())
            elif known != (order.state.value, order.batch_id):
                if known[0] != OrderState.UNKNOWN.value:
                    raise LedgerError(f"{order.subject} is {known[0]}, and cannot become {order.state.value}")
                _settle(database, order, self._clock.time())

        await self._work(work)

    async def orders(self) -> tuple[Order, ...]:
        """Return the orders, the one sent first first."""

        def work(database: sqlite3.Connection) -> tuple[Order, ...]:
            return tuple(map(_order, database.execute("SELECT document, state, batch_id FROM orders ORDER BY rowid")))

        return await self._work(work)

    async def amend(self, *, new: Iterable[Device] = (), changed: Iterable[Device] = ()) -> None:
        """Add devices, and change some for which nothing is ordered; these are `PLANNED` from now on."""
        added = [_row(device, DeviceState.PLANNED) for device in new]
        others = [(device.key, device.to_json()) for device in changed]

        def work(database: sqlite3.Connection) -> None:
            now = self._clock.time()
            _add(database, added, now)
            for key, document in others:
                sets = f"document = ?, state = 'planned', order_id = NULL, updated = ?, {_CLEAR}"
                _change(database, [key], OPEN, sets, [document, now])

        await self._work(work)

    async def entries(self, states: Collection[DeviceState] | None = None) -> tuple[Entry, ...]:
        """Return the devices in these states, or all, in the order in which they were added."""
        wanted = [state.value for state in (DeviceState if states is None else states)]
        marks = ", ".join("?" * len(wanted))
        return await self._entries(f"WHERE devices.state IN ({marks})", wanted)

    async def of_batch(self, batch_id: int) -> tuple[Entry, ...]:
        """Return the devices that a batch was ordered for, as they stand."""
        return await self._entries("WHERE orders.batch_id = ?", [batch_id])

    async def _entries(self, where: str, values: Sequence[object]) -> tuple[Entry, ...]:
        query = f"{_ENTRY} {where} ORDER BY position"
        return await self._work(lambda database: tuple(map(_entry, database.execute(query, values))))

    async def counts(self) -> dict[DeviceState, int]:
        """Return how many devices are in each state."""
        query = "SELECT state, count(*) FROM devices GROUP BY state"
        found = await self._work(lambda database: dict(database.execute(query).fetchall()))
        return {state: found.get(state.value, 0) for state in DeviceState}

    async def intend(self, order: Order, keys: Collection[str]) -> None:
        """Write down an order that is about to be sent, and take its devices from `PLANNED` to `UNKNOWN`."""

        def work(database: sqlite3.Connection) -> None:
            _insert(database, order, tuple(keys))
            sets = f"state = '{DeviceState.UNKNOWN.value}', order_id = ?, updated = ?, {_CLEAR}"
            _change(database, keys, {DeviceState.PLANNED}, sets, [order.order_id, self._clock.time()])

        await self._work(work)

    async def adopt(
        self, order: Order, devices: Collection[Device], outcomes: Mapping[str, Outcome] | None = None
    ) -> None:
        """Write down an order that was sent without this ledger, and its devices; nothing is ordered for them yet."""
        state = DeviceState.UNKNOWN if order.state is OrderState.UNKNOWN else DeviceState.ORDERED
        known = outcomes or {}
        rows = [_row(device, state, order.order_id, known.get(device.key)) for device in devices]

        def work(database: sqlite3.Connection) -> None:
            _insert(database, order, tuple(device.key for device in devices))
            states = ", ".join(f"'{one.value}'" for one in OPEN)
            query = f"DELETE FROM devices WHERE key = ? AND state IN ({states})"  # noqa: S608 - of constants
            database.executemany(query, [[device.key] for device in devices])
            _add(database, rows, self._clock.time())

        await self._work(work)

    async def refuse(self, errors: Mapping[str, str]) -> None:
        """Take devices from `PLANNED` to `FAILED`, since the service refuses to issue for them."""

        def work(database: sqlite3.Connection) -> None:
            now = self._clock.time()
            sets = f"state = '{DeviceState.FAILED.value}', error = ?, updated = ?"
            for key, error in errors.items():
                _change(database, [key], {DeviceState.PLANNED}, sets, [error, now])

        await self._work(work)

    async def finish(self, outcomes: Mapping[str, Outcome]) -> None:
        """Take devices from `ORDERED`, or `VERIFY_FAILED`, to what became of them."""
        sets = ", ".join(f"{column} = ?" for column in (*_OUTCOME, "updated"))

        def work(database: sqlite3.Connection) -> None:
            now = self._clock.time()
            for key, outcome in outcomes.items():
                states = {DeviceState.ORDERED, DeviceState.VERIFY_FAILED}
                _change(database, [key], states, sets, [*_values(outcome), now])

        await self._work(work)

    async def retry(self, keys: Collection[str]) -> None:
        """Take devices from `FAILED` back to `PLANNED`."""
        sets = f"state = 'planned', order_id = NULL, updated = ?, {_CLEAR}"

        def work(database: sqlite3.Connection) -> None:
            _change(database, keys, {DeviceState.FAILED}, sets, [self._clock.time()])

        await self._work(work)

    async def devices_of_orders(self) -> dict[str, tuple[str, ...]]:
        """Return for which devices, by their keys, each order was, by its id."""
        query = "SELECT order_id, devices FROM orders ORDER BY rowid"

        def work(database: sqlite3.Connection) -> dict[str, tuple[str, ...]]:
            return {order_id: tuple(json.loads(keys)) for order_id, keys in database.execute(query)}

        return await self._work(work)

    async def _work(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with ledger_errors(self._path):
            return await self._commits.run(work)


@attrs.frozen(kw_only=True)
class LedgerCopy:
    """What stood in a ledger when it was read, by whoever does not work with it.

    Attributes:
        run: what all its devices have in common.
        entries: its devices.
        orders: its orders, the one sent first first.
        devices_of_orders: for which devices, by their keys, each order was, by its id.
        in_use: whether a run was at work with it.
    """

    run: Run
    entries: tuple[Entry, ...]
    orders: tuple[Order, ...]
    devices_of_orders: Mapping[str, tuple[str, ...]]
    in_use: bool


async def read_ledger(directory: Path) -> LedgerCopy:
    """Read the ledger in the directory of a run, which may be going on.

    Raises:
        LedgerError: there is none, or it cannot be read.
    """
    return await asyncio.to_thread(_read, directory)


def _read(directory: Path) -> LedgerCopy:
    path = directory / DIRECTORY / FILE
    if not path.is_file():
        raise LedgerError(f"there is no ledger in {directory}", hint="name the directory that `issue` had as --out")
    with ledger_errors(path):
        in_use = is_in_use(path.parent)
        with closing(sqlite3.connect(path, timeout=PATIENCE, isolation_level=None)) as database:
            database.execute("PRAGMA query_only = ON")
            if check_version(database, path) == 0:
                raise LedgerError(f"nothing stands in the ledger {path} yet")
            database.execute("BEGIN")
            run, _ = run_of(database)
            entries = tuple(map(_entry, database.execute(f"{_ENTRY} ORDER BY position")))
            query = "SELECT document, state, batch_id, order_id, devices FROM orders ORDER BY rowid"
            rows = database.execute(query).fetchall()
            return LedgerCopy(
                run=run,
                entries=entries,
                orders=tuple(_order(row[:3]) for row in rows),
                devices_of_orders={row[3]: tuple(json.loads(row[4])) for row in rows},
                in_use=in_use,
            )


def _insert(database: sqlite3.Connection, order: Order, keys: Sequence[str]) -> None:
    document = json.dumps(order.document())
    values = (order.order_id, order.state.value, order.batch_id, document, json.dumps(keys))
    try:
        database.execute("INSERT INTO orders VALUES (?, ?, ?, ?, ?)", values)
    except sqlite3.IntegrityError:
        raise LedgerError(f"{order.subject} is in the ledger already") from None


def _settle(database: sqlite3.Connection, order: Order, now: float) -> None:
    """Write down what became of an order whose outcome was unknown."""
    query = "SELECT 1 FROM orders WHERE batch_id = ? AND order_id <> ?"
    # Of an order of which only a device is left, others may be left, too.
    if order.size and database.execute(query, [order.batch_id, order.order_id]).fetchone():
        raise LedgerError(f"batch {order.batch_id} is that of another order already")
    database.execute(
        "UPDATE orders SET state = ?, batch_id = ? WHERE order_id = ?",
        [order.state.value, order.batch_id, order.order_id],
    )
    placed = order.state is OrderState.ORDERED
    sets = f"state = '{DeviceState.ORDERED.value}'" if placed else "state = 'planned', order_id = NULL"
    where = f"order_id = ? AND state = '{DeviceState.UNKNOWN.value}'"
    query = f"UPDATE devices SET {sets}, updated = ? WHERE {where}"  # noqa: S608 - of constants
    database.execute(query, [now, order.order_id])


def _change(
    database: sqlite3.Connection,
    keys: Collection[str],
    states: Collection[DeviceState],
    sets: str,
    values: Sequence[object],
) -> None:
    """Change devices that are in one of these states."""
    words = ", ".join(f"'{state.value}'" for state in states)
    query = f"UPDATE devices SET {sets} WHERE key = ? AND state IN ({words})"  # noqa: S608 - of constants
    for key in keys:
        if database.execute(query, [*values, key]).rowcount != 1:
            found = database.execute("SELECT state FROM devices WHERE key = ?", [key]).fetchone()
            raise LedgerError(f"device {key} is {found[0] if found else 'not in the ledger'}: nothing was changed")


def _add(database: sqlite3.Connection, rows: Iterable[Sequence[object]], now: float) -> None:
    """Add devices."""
    columns = ("key", "document", "order_id", *_OUTCOME, "updated")
    query = f"INSERT INTO devices ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"  # noqa: S608 - of constants
    try:
        database.executemany(query, [(*row, now) for row in rows])
    except sqlite3.IntegrityError:
        raise LedgerError("a device that is new is in the ledger already") from None


def _row(
    device: Device, state: DeviceState, order_id: str | None = None, outcome: Outcome | None = None
) -> tuple[object, ...]:
    return (device.key, device.to_json(), order_id, *_values(outcome or Outcome(state=state)))


def _values(outcome: Outcome) -> tuple[object, ...]:
    until = outcome.not_after.timestamp() if outcome.not_after else None
    return (outcome.state.value, outcome.error, outcome.warning, outcome.serial_number, until)


def _entry(row: Sequence[Any]) -> Entry:
    return Entry(
        device=Device.from_json(row[0]),
        state=DeviceState(row[1]),
        order_id=row[2] or "",
        batch_id=row[3],
        error=row[4],
        warning=row[5],
        serial_number=row[6],
        not_after=None if row[7] is None else datetime.fromtimestamp(row[7], UTC),
        updated=datetime.fromtimestamp(row[8], UTC),
    )


def _order(row: Sequence[Any]) -> Order:
    document, state, batch_id = row
    return Order.from_document(json.loads(document) | {"state": state, "batchId": batch_id})
