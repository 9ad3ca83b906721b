"""The ledger of a run on one machine: an SQLite file that belongs to one process at a time."""

import asyncio
import json
import os
import re
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import attrs

from sectigo_async.clock import Clock, SystemClock
from sectigo_async.credentials.state import make_private
from sectigo_async.errors import CredentialStoreError, LedgerDamagedError, LedgerError, LedgerInUseError
from sectigo_async.files import sync_directory
from sectigo_async.issuance.devices import Device
from sectigo_async.issuance.group_commit import GroupCommit
from sectigo_async.issuance.ledger import OPEN, DeviceState, Entry, Keys, Outcome, Run
from sectigo_async.models import Order, OrderState
from sectigo_async.threads import run_to_end

T = TypeVar("T")

DIRECTORY = ".sectigo-async"
"""Where the ledger lies, in the directory of a run."""

_FILE = "ledger.sqlite3"
_LOCK = "ledger.lock"
_VERSION = 1
_PATIENCE = 5.0
_SCHEMA = """
CREATE TABLE run (
    endpoint TEXT NOT NULL, username TEXT NOT NULL, profile_id INTEGER NOT NULL, keys TEXT NOT NULL,
    floor INTEGER NOT NULL
);
CREATE TABLE orders (
    order_id TEXT PRIMARY KEY, state TEXT NOT NULL, batch_id INTEGER, document TEXT NOT NULL, devices TEXT NOT NULL
);
CREATE TABLE devices (
    position INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, document TEXT NOT NULL, state TEXT NOT NULL,
    order_id TEXT REFERENCES orders, error TEXT NOT NULL DEFAULT '', warning TEXT NOT NULL DEFAULT '',
    serial_number TEXT NOT NULL DEFAULT '', not_after REAL, updated REAL NOT NULL
);
CREATE INDEX devices_by_state ON devices (state, position);
CREATE INDEX orders_by_batch ON orders (batch_id);
CREATE INDEX devices_by_order ON devices (order_id);
"""
_ENTRY = (
    "SELECT devices.document, devices.state, devices.order_id, orders.batch_id, error, warning, serial_number,"
    " not_after, updated, key FROM devices LEFT JOIN orders USING (order_id)"
)
_OUTCOME = ("state", "error", "warning", "serial_number", "not_after")
_CLEAR = "error = '', warning = '', serial_number = '', not_after = NULL"
_NETWORK = frozenset(
    {"9p", "afs", "ceph", "cifs", "coda", "davfs", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "ocfs2"}
    | {"smb2", "smb3", "smbfs", "virtiofs"}
    | {"fuse.ceph", "fuse.glusterfs", "fuse.rclone", "fuse.s3fs", "fuse.sshfs"}
)
_MOUNTS = Path("/proc/self/mountinfo")
_ESCAPED = re.compile(r"\\([0-7]{3})")
_REBUILD = "see that no other run is at work here, then make it anew: `sectigo-async ledger rebuild`"
_ROOM = "see that there is room, and that you may write there; then run the same command again"


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
        return (directory / DIRECTORY / _FILE).exists()

    @staticmethod
    async def set_aside(directory: Path) -> Path:
        """Move a ledger that is damaged out of the way, and return where it is kept now.

        Raises:
            LedgerInUseError: another process, or another task of this one, has it.
            LedgerError: it cannot be moved.
        """
        from filelock import FileLock

        place = directory / DIRECTORY
        lock = FileLock(place / _LOCK, mode=0o600, timeout=0, thread_local=False)
        try:
            await run_to_end(_take, place, lock)
            return await run_to_end(_set_aside, place)
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
        from filelock import FileLock

        place = directory / DIRECTORY
        path = place / _FILE
        clock = clock or SystemClock()
        lock = FileLock(place / _LOCK, mode=0o600, timeout=0, thread_local=False)
        try:
            await run_to_end(_take, place, lock)
            commits = GroupCommit(lambda: _connect(path, run, floor))
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
        others = [(device.key, _document(device)) for device in changed]

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
            query = f"DELETE FROM devices WHERE key = ? AND state = '{DeviceState.PLANNED.value}'"  # noqa: S608 - of constants
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
        with _errors(self._path):
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
    from filelock import FileLock, Timeout

    path = directory / DIRECTORY / _FILE
    if not path.is_file():
        raise LedgerError(f"there is no ledger in {directory}", hint="name the directory that `issue` had as --out")
    in_use = False
    with _errors(path):
        lock = FileLock(path.with_name(_LOCK), mode=0o600, timeout=0)
        try:
            lock.acquire()
            lock.release()
        except Timeout:
            in_use = True
        with closing(sqlite3.connect(path, timeout=_PATIENCE, isolation_level=None)) as database:
            database.execute("PRAGMA query_only = ON")
            if _check_version(database, path) == 0:
                raise LedgerError(f"nothing stands in the ledger {path} yet")
            database.execute("BEGIN")
            run, _ = _run(database)
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


def _take(place: Path, lock: Any) -> None:
    """Make the ledger's directory, and lock it."""
    from filelock import Timeout

    with _errors(place):
        make_private(place)
        if kind := _network_file_system(place):
            raise LedgerError(
                f"{place} lies on a network file system ({kind}), where a lock may not hold",
                hint="run it in a directory on a local disk, and copy the results",
            )
        try:
            lock.acquire()
        except Timeout:
            held = True
        else:
            held = False
    if held:
        raise LedgerInUseError(
            f"another run is at work in {place.parent}", hint="wait for it to end, or interrupt it with Ctrl-C"
        )


def _set_aside(place: Path) -> Path:
    """Move the files of a ledger to a directory of their own."""
    with _errors(place):
        kept = Path(tempfile.mkdtemp(prefix="damaged-", dir=place))
        # The ledger first: without what was written to the files beside it last, it may look sound, and be too old.
        for path in sorted(place.glob(f"{_FILE}*")):
            path.rename(kept / path.name)
        sync_directory(place)
        return kept


def _network_file_system(path: Path) -> str:
    """Return the kind of network file system that a directory lies on; nothing where it does not, as far as known."""
    try:
        lines = _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return ""
    where = path.resolve()
    best, kind = -1, ""
    for line in lines:
        before, _, after = line.partition(" - ")
        # Blanks are written as octal numbers, everything else as it is.
        point = Path(_ESCAPED.sub(lambda found: chr(int(found[1], 8)), before.split(" ")[4]))
        if where.is_relative_to(point) and len(point.parts) >= best:
            best, kind = len(point.parts), after.split(" ")[0]
    return kind if kind in _NETWORK else ""


def _connect(path: Path, run: Run, floor: int) -> sqlite3.Connection:
    with suppress(FileExistsError):
        # Before SQLite would make it, with the mode that the umask leaves.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o600))
    database = sqlite3.connect(path, timeout=_PATIENCE, isolation_level=None)
    try:
        database.execute("PRAGMA journal_mode = WAL")
        # An intent that is lost with the power would be an order that nobody knows of.
        database.execute("PRAGMA synchronous = FULL")
        database.execute("PRAGMA fullfsync = 1")
        _check_version(database, path)
        database.execute("BEGIN IMMEDIATE")
        _prepare(database, path, run, floor)
        database.execute("COMMIT")
    except BaseException:
        database.close()
        raise
    return database


def _check_version(database: sqlite3.Connection, path: Path) -> int:
    version = database.execute("PRAGMA user_version").fetchone()[0]
    if version > _VERSION:
        raise LedgerError(f"{path} was written by a newer version of sectigo-async", hint="use that version")
    problem = database.execute("PRAGMA quick_check(1)").fetchone()[0]
    if problem != "ok":
        raise LedgerDamagedError(f"the ledger {path} is damaged: {problem}", hint=_REBUILD)
    return int(version)


def _prepare(database: sqlite3.Connection, path: Path, run: Run, floor: int) -> None:
    if database.execute("PRAGMA user_version").fetchone()[0] == 0:
        for statement in filter(str.strip, _SCHEMA.split(";")):
            database.execute(statement)
        values = (run.endpoint, run.username, run.profile_id, run.keys.value, floor)
        database.execute("INSERT INTO run VALUES (?, ?, ?, ?, ?)", values)
        database.execute(f"PRAGMA user_version = {_VERSION}")
        return
    before, _ = _run(database)
    if before != run and not database.execute("SELECT 1 FROM orders UNION ALL SELECT 1 FROM devices").fetchone():
        database.execute(
            "UPDATE run SET endpoint = ?, username = ?, profile_id = ?, keys = ?",
            [run.endpoint, run.username, run.profile_id, run.keys.value],
        )
        return
    for name, field in (("endpoint", "endpoint"), ("user", "username"), ("profile", "profile_id"), ("keys", "keys")):
        was, now = getattr(before, field), getattr(run, field)
        if was != now:
            was, now = (value.value if isinstance(value, Keys) else value for value in (was, now))
            raise LedgerError(
                f"{path.parent.parent} holds a run of another {name}: {was}, not {now}",
                hint="give the same profile, keys and login as before: in another directory all is ordered anew",
            )


def _run(database: sqlite3.Connection) -> tuple[Run, int]:
    row = database.execute("SELECT endpoint, username, profile_id, keys, floor FROM run").fetchone()
    run = Run(endpoint=str(row[0]), username=str(row[1]), profile_id=int(row[2]), keys=Keys(row[3]))
    return run, int(row[4])


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
    return (device.key, _document(device), order_id, *_values(outcome or Outcome(state=state)))


def _values(outcome: Outcome) -> tuple[object, ...]:
    until = outcome.not_after.timestamp() if outcome.not_after else None
    return (outcome.state.value, outcome.error, outcome.warning, outcome.serial_number, until)


def _document(device: Device) -> str:
    return json.dumps(attrs.asdict(device))


def _entry(row: Sequence[Any]) -> Entry:
    document = json.loads(row[0])
    document["dns_names"] = tuple(document["dns_names"])
    return Entry(
        device=Device(**document),
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


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    try:
        yield
    except CredentialStoreError as error:
        trouble = LedgerError(f"cannot use the ledger: {error}", hint="it needs a directory of yours, mode 0700")
    except sqlite3.OperationalError as error:
        trouble = LedgerError(f"cannot use the ledger {path}: {error}", hint=_ROOM)
    except sqlite3.ProgrammingError as error:
        trouble = LedgerError(f"cannot use the ledger {path}: {error}", hint="it was closed")
    except (sqlite3.Error, ValueError, TypeError, KeyError, OverflowError) as error:
        trouble = LedgerDamagedError(f"the ledger {path} is damaged: {error}", hint=_REBUILD)
    except OSError as error:
        trouble = LedgerError(f"cannot use the ledger {path}: {error.strerror or error}", hint=_ROOM)
    else:
        return
    raise trouble
