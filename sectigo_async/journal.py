"""The order journal: every order is written down before it is sent, and what became of it after.

It is what remains of an order when the process that sent it is gone, and what the look for it starts from
(`batches.reconcile`). It holds no secrets.
"""

import json
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from sectigo_async.credentials.state import make_private, state_directory
from sectigo_async.errors import CredentialStoreError, JournalError
from sectigo_async.models import Order, OrderKind, OrderState
from sectigo_async.threads import run_to_end

if TYPE_CHECKING:
    import sqlite3

__all__ = ["Journal", "MemoryJournal", "SqliteJournal"]

T = TypeVar("T")

_KEPT = 10_000
_FILE = "orders.sqlite3"
_PATIENCE = 5.0
_VERSION = 1
_SCHEMA = """
CREATE TABLE orders (
    order_id TEXT PRIMARY KEY,
    endpoint TEXT NOT NULL,
    username TEXT NOT NULL,
    kind TEXT NOT NULL,
    profile_id INTEGER NOT NULL,
    batch_name TEXT NOT NULL,
    unique_name INTEGER NOT NULL,
    size INTEGER NOT NULL,
    common_names TEXT NOT NULL,
    key_sha256 TEXT NOT NULL,
    sent_at REAL NOT NULL,
    after INTEGER NOT NULL,
    state TEXT NOT NULL,
    batch_id INTEGER
);
CREATE INDEX orders_of_a_login ON orders (endpoint, username, sent_at);
"""
_COLUMNS = (
    "order_id, kind, profile_id, batch_name, unique_name, size, common_names, key_sha256, sent_at, after, state, "
    "batch_id"
)
_LOGIN = "endpoint = ? AND username = ?"


class Journal(Protocol):
    """Where orders are written down. One journal holds those of one login at one endpoint."""

    async def highest(self) -> int:
        """Return the highest id of a batch that an order in here was placed as; 0 where there is none."""
        ...

    async def write(self, order: Order) -> None:
        """Write an order down, durably, in the place of what stood there of it.

        Raises:
            JournalError: it cannot be written.
        """
        ...

    async def orders(self) -> tuple[Order, ...]:
        """Return the orders, the one sent first first.

        Raises:
            JournalError: they cannot be read.
        """
        ...


class MemoryJournal:
    """A journal that ends with the process. It keeps every order of unknown outcome, and the last 10,000 others."""

    def __init__(self) -> None:
        self._orders: OrderedDict[str, Order] = OrderedDict()
        self._settled: OrderedDict[str, None] = OrderedDict()
        self._highest = 0

    async def highest(self) -> int:
        """Return the highest id of a batch that an order in here was placed as; 0 where there is none."""
        return self._highest

    async def write(self, order: Order) -> None:
        """Write an order down in the place of what stood there of it."""
        self._orders[order.order_id] = order
        self._highest = max(self._highest, order.batch_id or 0)
        if order.state is not OrderState.UNKNOWN:
            self._settled[order.order_id] = None
        if len(self._settled) > _KEPT:
            del self._orders[self._settled.popitem(last=False)[0]]

    async def orders(self) -> tuple[Order, ...]:
        """Return the orders, the one sent first first."""
        return tuple(self._orders.values())


class SqliteJournal:
    """A journal in a file, 0600 in a directory of the user's own, which any number of processes may share.

    Args:
        endpoint: the service that the orders go to; `Config.endpoint`.
        username: who signs in.
        path: the file; `orders.sqlite3` in the state directory of the current user when not given.
    """

    def __init__(self, *, endpoint: str, username: str, path: Path | None = None) -> None:
        self._given_path = path
        self._login = (endpoint, username)

    @property
    def _path(self) -> Path:
        return self._given_path or state_directory() / _FILE

    async def highest(self) -> int:
        """Return the highest id of a batch that an order in here was placed as; 0 where there is none.

        Raises:
            JournalError: the file cannot be read.
        """
        query = f"SELECT coalesce(max(batch_id), 0) FROM orders WHERE {_LOGIN}"  # noqa: S608 - of constants
        rows = await self._run(lambda database: database.execute(query, self._login).fetchall())
        return int(rows[0][0]) if rows else 0

    async def write(self, order: Order) -> None:
        """Write an order down, durably, in the place of what stood there of it.

        Raises:
            JournalError: the file cannot be written.
        """
        values = (
            order.order_id,
            order.kind.value,
            order.profile_id,
            order.batch_name,
            order.unique_name,
            order.size,
            json.dumps(order.common_names),
            json.dumps(sorted(order.key_sha256)),
            order.sent_at.timestamp(),
            order.after,
            order.state.value,
            order.batch_id,
            *self._login,
        )
        marks = ", ".join("?" * len(values))
        insert = f"INSERT INTO orders ({_COLUMNS}, endpoint, username) VALUES ({marks})"  # noqa: S608 - of constants
        # What was sent stays as it was written; what became of it is all that changes.
        query = f"{insert} ON CONFLICT (order_id) DO UPDATE SET state = excluded.state, batch_id = excluded.batch_id"
        await self._run(lambda database: database.execute(query, values), make=True)

    async def orders(self) -> tuple[Order, ...]:
        """Return the orders, the one sent first first.

        Raises:
            JournalError: the file cannot be read.
        """
        query = f"SELECT {_COLUMNS} FROM orders WHERE {_LOGIN} ORDER BY sent_at, rowid"  # noqa: S608 - of constants
        rows = await self._run(lambda database: database.execute(query, self._login).fetchall())
        try:
            return tuple(_order(row) for row in rows or ())
        except (ValueError, TypeError, OverflowError, OSError) as error:
            problem = f"{self._path} holds what is no order: {error}"
        raise JournalError(problem, hint=_MOVE)

    async def _run(self, work: "Callable[[sqlite3.Connection], T]", *, make: bool = False) -> T | None:
        """Do `work` in a transaction, in a thread; `None` where there is no file, unless it is to be made."""
        return await run_to_end(self._work, work, make=make)

    def _work(self, work: "Callable[[sqlite3.Connection], T]", *, make: bool) -> T | None:
        import sqlite3

        with self._errors():
            if make:
                make_private(self._path.parent)
                with suppress(FileExistsError):
                    # Before SQLite would make it, with the mode that the umask leaves.
                    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
                    os.close(os.open(self._path, flags, 0o600))
            elif not self._path.exists():
                return None
            with closing(sqlite3.connect(self._path, timeout=_PATIENCE, isolation_level=None)) as database:
                # EXTRA: what was committed outlasts a loss of power, the directory's entry included.
                database.execute("PRAGMA synchronous = EXTRA")
                # Immediate: two processes that both read first and then write would lock each other out.
                database.execute("BEGIN IMMEDIATE")
                try:
                    self._prepare(database)
                    result = work(database)
                except BaseException:
                    with suppress(sqlite3.Error):
                        database.execute("ROLLBACK")
                    raise
                database.execute("COMMIT")
                return result

    def _prepare(self, database: "sqlite3.Connection") -> None:
        version = database.execute("PRAGMA user_version").fetchone()[0]
        if version > _VERSION:
            raise JournalError(
                f"{self._path} was written by a newer version of sectigo-async", hint="use that version"
            )
        if version == 0:
            for statement in filter(str.strip, _SCHEMA.split(";")):
                database.execute(statement)
            database.execute(f"PRAGMA user_version = {_VERSION}")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        import sqlite3

        try:
            yield
        except CredentialStoreError as error:
            trouble = JournalError(f"cannot use the order journal: {error}", hint=_OWN)
        except sqlite3.OperationalError as error:
            trouble = JournalError(f"cannot use the order journal {self._path}: {error}", hint=_ROOM)
        except sqlite3.Error as error:
            trouble = JournalError(f"the order journal {self._path} is damaged: {error}", hint=_MOVE)
        except OSError as error:
            trouble = JournalError(
                f"cannot use the order journal {self._path}: {error.strerror or error}", hint=_ROOM
            )
        else:
            return
        raise trouble


_OWN = "every order is written down first: it needs a home directory of yours to stand in, mode 0700"
_ROOM = "see that there is room, and that you may write there"
_MOVE = "move it away, and look in the portal for what was ordered last"


def _order(row: Sequence[Any]) -> Order:
    """Return the order of a row; SQLite keeps what it is given, so each value is read anew."""
    names, keys = json.loads(row[6]), json.loads(row[7])
    return Order(
        order_id=str(row[0]),
        kind=OrderKind(row[1]),
        profile_id=int(row[2]),
        batch_name=str(row[3]),
        unique_name=bool(row[4]),
        size=int(row[5]),
        common_names=tuple(map(str, names)),
        key_sha256=frozenset(map(str, keys)),
        sent_at=datetime.fromtimestamp(float(row[8]), UTC),
        after=int(row[9]),
        state=OrderState(row[10]),
        batch_id=None if row[11] is None else int(row[11]),
    )
