"""A PostgreSQL of the tests' own, which lives no longer than they do."""

import os
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import attrs
import psycopg
from psycopg import sql

Mode = Literal["fast", "immediate"]

APP_PASSWORD = "app-password-of-the-tests"  # noqa: S105

_SETTINGS = """
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = '{folder}'
fsync = on
shared_buffers = 16MB
password_encryption = 'scram-sha-256'
"""

# The first line that fits decides.
_WAYS_IN = """
local all all              trust
host  all app 127.0.0.1/32 scram-sha-256
host  all all 127.0.0.1/32 trust
"""

_ROLES = f"""
CREATE ROLE owner LOGIN
CREATE ROLE app LOGIN PASSWORD '{APP_PASSWORD}'
"""

# Its input ends with the process that holds the other end, however that one dies.
_CLEAR_AWAY = """
read -r _
"$1" -D "$2/data" -m fast -t 10 stop || "$1" -D "$2/data" -m immediate stop
rm -rf "$2"
"""


def places() -> str:
    """Return where PostgreSQL may be, as a PATH: Debian keeps its binaries off that."""
    versions = [folder for folder in Path("/usr/lib/postgresql").glob("*") if folder.name.isdecimal()]
    newest_first = sorted(versions, key=lambda folder: int(folder.name), reverse=True)
    return os.pathsep.join([*(str(folder / "bin") for folder in newest_first), os.environ["PATH"]])


@attrs.frozen
class Postgres:
    """A cluster with the roles `owner`, who owns databases, and `app`; both are no superusers.

    Attributes:
        pg_ctl: the program that starts and stops it.
        folder: where its data, its log and its Unix socket are.
        port: its port on 127.0.0.1, the same after a restart.
        account: as whom its processes run, in the words of subprocess.
    """

    pg_ctl: str
    folder: Path
    port: int
    account: dict[str, Any]

    def url(self, database: str) -> str:
        """Return the URL of a database over TCP, for its owner, without a password."""
        return f"postgresql://owner@127.0.0.1:{self.port}/{database}"

    def app_url(self, database: str) -> str:
        """Return the URL of a database over TCP, for the role `app` and its password."""
        return f"postgresql://app:{APP_PASSWORD}@127.0.0.1:{self.port}/{database}"

    def socket_url(self, database: str) -> str:
        """Return the URL of a database over the Unix socket, for its owner."""
        return f"postgresql://owner@/{database}?host={quote(str(self.folder), safe='')}&port={self.port}"

    def start(self) -> None:
        """Start the server where it does not run, and wait until it answers."""
        status = [self.pg_ctl, "-D", str(self.folder / "data"), "status"]
        if subprocess.run(status, cwd=self.folder, capture_output=True, check=False, **self.account).returncode:
            self._control("start", "-l", str(self.folder / "log"))

    def stop(self, mode: Mode = "fast") -> None:
        """Stop the server, in order (fast) or as a crash does (immediate); its sessions are cut either way."""
        self._control("stop", "-m", mode)

    def restart(self, mode: Mode = "fast") -> None:
        """Stop the server as `stop` does, start it, and wait until it answers."""
        self.stop(mode)
        self.start()

    def execute(self, statement: str | sql.Composed, *parameters: str) -> list[tuple[Any, ...]]:
        """Run a statement as the superuser, outside a transaction, and return what it answers."""
        with psycopg.connect(
            host=str(self.folder), port=self.port, user="postgres", dbname="postgres", autocommit=True
        ) as connection:
            cursor = connection.execute(statement, parameters or None)
            return cursor.fetchall() if cursor.description else []

    def kill_sessions(self, database: str) -> int:
        """End every session in a database, and return how many there were."""
        killed = self.execute(
            "SELECT pid, pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s", database
        )
        # One may have ended by itself just then.
        left = self.execute("SELECT pid FROM pg_stat_activity WHERE datname = %s", database)
        assert not {pid for pid, _ in killed} & {pid for (pid,) in left}
        return len(killed)

    def _control(self, *arguments: str) -> None:
        run([self.pg_ctl, "-D", str(self.folder / "data"), "-w", *arguments], self.folder, self.account)


@contextmanager
def running(initdb: str, postgres: str, pg_ctl: str) -> Iterator[Postgres]:
    """Run a new cluster; it and its folder are gone afterwards, even where this process is killed."""
    # Not in pytest's folder, which nobody but its owner may pass through.
    folder, account = Path(tempfile.mkdtemp(prefix="postgres-")), _account()
    if account:
        os.chown(folder, account["user"], account["group"])
    cluster = Postgres(pg_ctl, folder, _free_port(), account)
    with subprocess.Popen(
        ["/bin/sh", "-c", _CLEAR_AWAY, "sh", pg_ctl, folder],
        cwd="/",
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        **account,
    ):
        data = str(folder / "data")
        run(
            [initdb, "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"],
            folder,
            account,
        )
        with Path(data, "postgresql.conf").open("a") as settings:
            settings.write(_SETTINGS.format(port=cluster.port, folder=folder))
        Path(data, "pg_hba.conf").write_text(_WAYS_IN)
        run([postgres, "--single", "-D", data, "postgres"], folder, account, _ROLES)
        cluster.start()
        yield cluster


def run(command: Sequence[str], folder: Path, account: dict[str, Any], words: str = "") -> None:
    """Run one of PostgreSQL's programs, untouched by the variables of whoever runs the tests."""
    done = subprocess.run(
        command,
        cwd=folder,
        env={"PATH": os.environ["PATH"], "LC_ALL": "C", "TZ": "UTC"},
        input=words,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=60,
        start_new_session=True,
        **account,
    )
    if done.returncode:
        log = folder / "log"
        raise RuntimeError(f"{command}: {done.stdout}{log.read_text() if log.exists() else ''}")


def _account() -> dict[str, Any]:
    """Return as whom to run: PostgreSQL refuses root."""
    if os.geteuid() != 0:
        return {}
    import pwd

    accounts = {account.pw_name: account for account in pwd.getpwall()}
    account = accounts.get("postgres") or accounts["nobody"]
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


def _free_port() -> int:
    """Return a port outside the range that systems give to outgoing connections, so that a restart finds it free."""
    # Test processes that run at once begin at different ports.
    first = 20000 + os.getpid() % 10000
    for port in range(first, first + 100):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no free port")
