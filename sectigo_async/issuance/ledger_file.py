"""The file of a ledger: where it lies, who has it, and whether it is sound. Blocking."""

import os
import re
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from sectigo_async.credentials.state import make_private
from sectigo_async.errors import CredentialStoreError, LedgerDamagedError, LedgerError, LedgerInUseError
from sectigo_async.files import sync_directory
from sectigo_async.issuance.ledger import Keys, Run

if TYPE_CHECKING:
    from filelock import FileLock

DIRECTORY = ".sectigo-async"
"""Where the ledger lies, in the directory of a run."""

FILE = "ledger.sqlite3"
_LOCK = "ledger.lock"
_VERSION = 1
PATIENCE = 5.0
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
_NETWORK = frozenset(
    {"9p", "afs", "ceph", "cifs", "coda", "davfs", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "ocfs2"}
    | {"smb2", "smb3", "smbfs", "virtiofs"}
    | {"fuse.ceph", "fuse.glusterfs", "fuse.rclone", "fuse.s3fs", "fuse.sshfs"}
)
_MOUNTS = Path("/proc/self/mountinfo")
_ESCAPED = re.compile(r"\\([0-7]{3})")
_REBUILD = "see that no other run is at work here, then make it anew: `sectigo-async ledger rebuild`"
_ROOM = "see that there is room, and that you may write there; then run the same command again"


def lock_of(place: Path) -> "FileLock":
    """Return the lock of the ledger in a directory; not taken yet."""
    from filelock import FileLock

    return FileLock(place / _LOCK, mode=0o600, timeout=0, thread_local=False)


def is_in_use(place: Path) -> bool:
    """Say whether somebody has the ledger in a directory."""
    from filelock import Timeout

    lock = lock_of(place)
    try:
        lock.acquire()
        lock.release()
    except Timeout:
        return True
    return False


def take(place: Path, lock: "FileLock") -> None:
    """Make the ledger's directory, and lock it."""
    from filelock import Timeout

    with ledger_errors(place):
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


def set_aside(place: Path) -> Path:
    """Move the files of a ledger to a directory of their own."""
    with ledger_errors(place):
        kept = Path(tempfile.mkdtemp(prefix="damaged-", dir=place))
        # The ledger first: without what was written to the files beside it last, it may look sound, and be too old.
        for path in sorted(place.glob(f"{FILE}*")):
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


def connect(path: Path, run: Run, floor: int) -> sqlite3.Connection:
    """Open a ledger, and make it where there is none.

    Raises:
        LedgerError: it is of another run, damaged, or of a newer version.
        sqlite3.Error: it cannot be used.
    """
    with suppress(FileExistsError):
        # Before SQLite would make it, with the mode that the umask leaves.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o600))
    database = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None)
    try:
        database.execute("PRAGMA journal_mode = WAL")
        # An intent that is lost with the power would be an order that nobody knows of.
        database.execute("PRAGMA synchronous = FULL")
        database.execute("PRAGMA fullfsync = 1")
        check_version(database, path)
        database.execute("BEGIN IMMEDIATE")
        _prepare(database, path, run, floor)
        database.execute("COMMIT")
    except BaseException:
        database.close()
        raise
    return database


def check_version(database: sqlite3.Connection, path: Path) -> int:
    """Return the version of the schema, 0 where nothing stands in the ledger yet; see that it is sound.

    Raises:
        LedgerError: it was written by a newer version.
        LedgerDamagedError: it is damaged.
    """
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
    before, _ = run_of(database)
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


def run_of(database: sqlite3.Connection) -> tuple[Run, int]:
    """Return what all devices of a ledger have in common, and a batch id that is older than any order of it."""
    row = database.execute("SELECT endpoint, username, profile_id, keys, floor FROM run").fetchone()
    run = Run(endpoint=str(row[0]), username=str(row[1]), profile_id=int(row[2]), keys=Keys(row[3]))
    return run, int(row[4])


@contextmanager
def ledger_errors(path: Path) -> Iterator[None]:
    """Turn what goes wrong with a ledger into a `LedgerError`."""
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
