"""The state of a sandbox in an SQLite file: all that is known of SQL and rows."""

import asyncio
import os
import sqlite3
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from sectigo_async.clock import Clock
from sectigo_async.sandbox import catalog
from sectigo_async.sandbox.errors import ServiceError
from sectigo_async.sandbox.records import Batch, Issued, Outcome, Refused, Revocation, Status
from sectigo_async.sandbox.store import Kept, Logins, StateError, Store

_Change = Callable[[sqlite3.Connection], object]

# Tells this file from any other database: "sias".
_APPLICATION: Final = 0x73696173
_VERSION: Final = 1
_OTHERS: Final = 0o077
# A predecessor that was killed a moment ago may still be on its way out.
_PATIENCE: Final = 1.0
_SCHEMA: Final = f"""
CREATE TABLE secrets (name TEXT PRIMARY KEY, value BLOB NOT NULL);
CREATE TABLE batches (
    batch_id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    authority_id INTEGER NOT NULL,
    created REAL NOT NULL,
    delay REAL NOT NULL
);
-- A certificate that was issued has a serial number, one that was refused a status and a reason.
CREATE TABLE outcomes (
    batch_id INTEGER NOT NULL,
    position INTEGER NOT NULL,
    common_name TEXT NOT NULL,
    key_sha256 TEXT NOT NULL,
    serial TEXT,
    status TEXT,
    reason TEXT,
    PRIMARY KEY (batch_id, position)
);
CREATE TABLE files (
    batch_id INTEGER NOT NULL,
    position INTEGER NOT NULL,
    suffix TEXT NOT NULL,
    content BLOB NOT NULL,
    PRIMARY KEY (batch_id, position, suffix)
);
CREATE TABLE revocations (serial TEXT PRIMARY KEY, reason INTEGER NOT NULL, at REAL NOT NULL);
CREATE TABLE tokens (digest BLOB NOT NULL, login TEXT NOT NULL, PRIMARY KEY (digest, login));
CREATE TABLE used_tokens (digest BLOB PRIMARY KEY);
CREATE TABLE ended_logins (login TEXT PRIMARY KEY);
CREATE TABLE counts (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
PRAGMA application_id = {_APPLICATION};
PRAGMA user_version = {_VERSION};
"""
_CRL_NUMBER: Final = "crl number"
_UPSERT_COUNT: Final = "INSERT OR REPLACE INTO counts VALUES (?, ?)"


class SqliteStore(Store):
    """Keeps everything in a file that survives the end of the process, however that comes.

    What is put in waits in a queue; a thread of its own writes the queue in one transaction. What cannot be written
    stays in the queue for the next time. Nobody else can use the file meanwhile: the lock on it is the operating
    system's, and ends with the process.

    Args:
        path: the file, 0600; made where there is none.
        clock: turns the times in the file into those of this process.

    Raises:
        StateError: the file cannot be used.
    """

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._queue: list[_Change] = []
        self._counts: Counter[str] = Counter()
        with self._errors():
            _make_private(path)
            # Used by one thread at a time: first this one, then the store's own.
            self._database = sqlite3.connect(path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False)
        try:
            with self._errors():
                self._prepare()
                self._secrets: dict[str, bytes] = dict(self._rows("SELECT name, value FROM secrets"))
                self.kept: Kept = self._load(clock)
        except BaseException:
            self._database.close()
            raise
        self._counts.update(self.kept.counts)
        self._thread = ThreadPoolExecutor(1, "sandbox-state")

    def keep(self, name: str, make: Callable[[], bytes]) -> bytes:
        """Return the secret of this name: the one held, or a new one that `make` returns."""
        if name not in self._secrets:
            self.replace_secret(name, make())
        return self._secrets[name]

    def replace_secret(self, name: str, value: bytes) -> None:
        """Put another secret in the place of the one of this name."""
        self._secrets[name] = value
        self._put("INSERT OR REPLACE INTO secrets VALUES (?, ?)", name, value)

    def add_batch(self, batch: Batch) -> None:
        """Put in an order, with all that was issued for it."""
        self._queue.append(lambda database: _insert_batch(database, batch))

    def set_revocation(self, serial: int, revocation: Revocation | None, crl_number: int) -> None:
        """Put in a revocation, or take it out, and the number of the revocation list after that."""
        self._put("DELETE FROM revocations WHERE serial = ?", f"{serial:X}")
        if revocation is not None:
            # The order of the rows is that of the list.
            self._put("INSERT INTO revocations VALUES (?, ?, ?)", f"{serial:X}", revocation.reason, revocation.at)
        self._put(_UPSERT_COUNT, _CRL_NUMBER, crl_number)

    def add_token(self, digest: bytes, login: str) -> None:
        """Put in that a token belongs to a login."""
        self._put("INSERT OR IGNORE INTO tokens VALUES (?, ?)", digest, login)

    def use_token(self, digest: bytes) -> None:
        """Put in that a refresh token is used up."""
        self._put("INSERT OR IGNORE INTO used_tokens VALUES (?)", digest)

    def end_login(self, login: str) -> None:
        """Put in that a login has ended."""
        self._put("INSERT OR IGNORE INTO ended_logins VALUES (?)", login)

    def forget_logins(self) -> None:
        """Take every token and login out."""
        for table in ("tokens", "used_tokens", "ended_logins"):
            self._put(f"DELETE FROM {table}")  # noqa: S608 - of constants

    def write(self) -> None:
        """Make all that was put in so far durable; not while anybody awaits `flush`."""
        changes = self._queue[:]
        if not changes:
            return
        self._database.execute("BEGIN")
        try:
            for change in changes:
                change(self._database)
            self._database.execute("COMMIT")
        except BaseException:
            # Some errors have rolled it back already.
            with suppress(sqlite3.Error):
                self._database.execute("ROLLBACK")
            raise
        del self._queue[: len(changes)]

    async def flush(self, counts: Callable[[], Counter[str]]) -> None:
        """Return once all that was put in so far is durable, and what `counts` returns with it."""
        self._put_counts(counts())
        # What another request has put in and nobody has written yet is waited for, too: it can be seen already.
        if self._queue:
            await asyncio.get_running_loop().run_in_executor(self._thread, self.write)

    def close(self, counts: Callable[[], Counter[str]]) -> None:
        """Make all durable, and let go of the file."""
        self._thread.shutdown()
        try:
            self._put_counts(counts())
            self.write()
        finally:
            self._database.close()

    def _put(self, statement: str, *values: object) -> None:
        self._queue.append(lambda database: database.execute(statement, values))

    def _put_counts(self, counts: Counter[str]) -> None:
        for name, value in counts.items():
            if value != self._counts[name]:
                self._counts[name] = value
                self._put(_UPSERT_COUNT, name, value)

    def _prepare(self) -> None:
        self._database.execute("PRAGMA locking_mode = EXCLUSIVE")
        # A file of somebody else's must be left as it was: nothing is written before it is known for one of ours.
        self._database.execute("BEGIN EXCLUSIVE")
        (application,), (version,) = self._rows("PRAGMA application_id")[0], self._rows("PRAGMA user_version")[0]
        new = not self._rows("SELECT 1 FROM sqlite_master LIMIT 1")
        if application != _APPLICATION and not new:
            raise StateError(f"{self._path} is not the state of a sandbox")
        if version > _VERSION:
            raise StateError(f"{self._path} was written by a newer version of sectigo-async")
        for statement in _SCHEMA.split(";") if new else ():
            self._database.execute(statement)
        self._database.execute("COMMIT")
        self._database.execute("PRAGMA journal_mode = WAL")
        # The end of the process loses nothing then; that of the machine may lose the last moment.
        self._database.execute("PRAGMA synchronous = NORMAL")

    def _load(self, clock: Clock) -> Kept:
        counts = dict(self._rows("SELECT name, value FROM counts"))
        logins = Logins(
            used={digest for (digest,) in self._rows("SELECT digest FROM used_tokens")},
            ended={login for (login,) in self._rows("SELECT login FROM ended_logins")},
        )
        for digest, login in self._rows("SELECT digest, login FROM tokens"):
            logins.of.setdefault(digest, set()).add(login)
        return Kept(
            batches=self._load_batches(clock),
            revocations={
                int(serial, 16): Revocation(reason, at)
                for serial, reason, at in self._rows("SELECT serial, reason, at FROM revocations ORDER BY rowid")
            },
            crl_number=counts.pop(_CRL_NUMBER, 1),
            logins=logins,
            counts=counts,
        )

    def _load_batches(self, clock: Clock) -> tuple[Batch, ...]:
        files: dict[tuple[int, int], dict[str, bytes]] = {}
        query = "SELECT batch_id, position, suffix, content FROM files ORDER BY rowid"
        for batch_id, position, suffix, content in self._database.execute(query):
            files.setdefault((batch_id, position), {})[suffix] = content
        outcomes: dict[int, list[Outcome]] = {}
        for row in self._database.execute("SELECT * FROM outcomes ORDER BY batch_id, position"):
            outcomes.setdefault(row[0], []).append(_outcome(row, files.get(row[:2], {})))
        wall, monotonic = clock.time(), clock.monotonic()
        return tuple(
            Batch(
                batch_id=batch_id,
                name=name,
                authority=catalog.authority(authority_id),
                created=created,
                # Where the wall clock was set back, an order is of now, not of the future: it exists.
                placed=monotonic - max(0.0, wall - created),
                delay=delay,
                outcomes=tuple(outcomes[batch_id]),
            )
            for batch_id, name, authority_id, created, delay in self._rows("SELECT * FROM batches ORDER BY batch_id")
        )

    def _rows(self, query: str) -> list[Any]:
        return self._database.execute(query).fetchall()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            busy = getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY
            problem = f"{self._path} is in use by another sandbox" if busy else f"cannot use {self._path}: {error}"
        except sqlite3.DatabaseError as error:
            problem = f"{self._path} is not the state of a sandbox: {error}"
        except OSError as error:
            problem = f"cannot use {self._path}: {error.strerror or error}"
        except (ValueError, TypeError, LookupError, ServiceError):
            problem = f"{self._path} is damaged"
        else:
            return
        raise StateError(problem)


def _make_private(path: Path) -> None:
    """Make the file with its mode, before SQLite would with what the umask leaves; or check the one there is.

    It is not opened to be checked: to close it again would end this process's lock on it.
    """
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise StateError(f"{path} is not a file")
    if os.name == "posix" and status.st_mode & _OTHERS:
        raise StateError(f"others may read {path}, and it holds private keys: chmod 600 it")


def _insert_batch(database: sqlite3.Connection, batch: Batch) -> None:
    database.execute(
        "INSERT INTO batches VALUES (?, ?, ?, ?, ?)",
        (batch.batch_id, batch.name, batch.authority.authority_id, batch.created, batch.delay),
    )
    numbered = list(enumerate(batch.outcomes))
    database.executemany(
        "INSERT INTO outcomes VALUES (?, ?, ?, ?, ?, ?, ?)",
        ((batch.batch_id, position, *_outcome_columns(outcome)) for position, outcome in numbered),
    )
    database.executemany(
        "INSERT INTO files VALUES (?, ?, ?, ?)",
        (
            (batch.batch_id, position, suffix, content)
            for position, outcome in numbered
            if isinstance(outcome, Issued)
            for suffix, content in outcome.files.items()
        ),
    )


def _outcome_columns(outcome: Outcome) -> tuple[str | None, ...]:
    if isinstance(outcome, Issued):
        return outcome.common_name, outcome.key_sha256, f"{outcome.serial:X}", None, None
    return outcome.common_name, outcome.key_sha256, None, outcome.status.value, outcome.reason


def _outcome(row: Sequence[Any], files: dict[str, bytes]) -> Outcome:
    _, _, common_name, key_sha256, serial, status, reason = row
    if serial is None:
        return Refused(common_name=common_name, status=Status(status), reason=reason, key_sha256=key_sha256)
    return Issued(common_name=common_name, key_sha256=key_sha256, serial=int(serial, 16), files=files)
