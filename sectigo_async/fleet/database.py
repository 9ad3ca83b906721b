"""The database of a fleet: how it is reached, what it must promise, and its tables."""

import ipaddress
import os
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from urllib.parse import quote, urlencode

import attrs
import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from sectigo_async.errors import InvalidArgumentError, LedgerError
from sectigo_async.secrets import Secret

Connection = psycopg.AsyncConnection[tuple[Any, ...]]

VERSION = 1

_SCHEMES = ("postgresql://", "postgres://")
_HIDDEN = frozenset({"password", "sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key"})
# A host that is gone is noticed within half a minute; a statement that waits for another, a little later.
_PATIENCE = {
    "connect_timeout": "10",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "25000",
}
_WAITS = "SET lock_timeout = '30s'; SET statement_timeout = '5min'; SET timezone = 'UTC'"
_CLOCKS_DIFFER = 5.0
_DURABLE = frozenset({"on", "remote_apply"})
_TABLES = """
CREATE TABLE sectigo_run (
    single boolean PRIMARY KEY DEFAULT true CHECK (single), version integer NOT NULL,
    endpoint text NOT NULL, username text NOT NULL, profile_id bigint NOT NULL, keys text NOT NULL,
    floor bigint NOT NULL, sink text NOT NULL DEFAULT '', sink_place text NOT NULL DEFAULT '',
    options text NOT NULL DEFAULT '', halted text NOT NULL DEFAULT ''
);
CREATE TABLE sectigo_chunks (
    chunk bigint PRIMARY KEY, is_open boolean NOT NULL DEFAULT true, times_opened integer NOT NULL DEFAULT 1,
    not_before timestamptz NOT NULL DEFAULT now(), problem text NOT NULL DEFAULT ''
);
CREATE TABLE sectigo_orders (
    number bigint GENERATED ALWAYS AS IDENTITY UNIQUE, order_id text PRIMARY KEY,
    chunk bigint REFERENCES sectigo_chunks, state text NOT NULL, batch_id bigint, size bigint NOT NULL,
    sent_at timestamptz NOT NULL, document jsonb NOT NULL, devices text[] NOT NULL
);
CREATE TABLE sectigo_devices (
    position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, key text COLLATE "C" NOT NULL UNIQUE,
    document text NOT NULL, chunk bigint REFERENCES sectigo_chunks, is_listed boolean NOT NULL DEFAULT true,
    state text NOT NULL, order_id text REFERENCES sectigo_orders, error text NOT NULL DEFAULT '',
    warning text NOT NULL DEFAULT '', serial_number text NOT NULL DEFAULT '', not_after timestamptz,
    updated timestamptz NOT NULL
);
CREATE INDEX ON sectigo_orders (batch_id);
CREATE UNIQUE INDEX ON sectigo_orders (batch_id) WHERE size > 0;
CREATE INDEX ON sectigo_orders (chunk);
CREATE INDEX ON sectigo_orders (sent_at) WHERE state = 'unknown';
CREATE INDEX ON sectigo_devices (state, position);
CREATE INDEX ON sectigo_devices (chunk, position);
CREATE INDEX ON sectigo_devices (order_id);
"""

OWN_ADDRESS = "name the address of the database itself: a lock lives in a session, and a pooler changes it"


@attrs.frozen
class Database:
    """A PostgreSQL database, or one schema of it (`?options=-csearch_path%3Dsite_a`), by its URL.

    Attributes:
        url: the URL; it may hold a password.
    """

    url: Secret

    @classmethod
    def at(cls, url: str) -> "Database":
        """Return the database at a URL.

        Args:
            url: `postgresql://user@host:port/name`; what is left out comes from libpq's variables and PGPASSFILE. On
                another host than this one TLS is required, and its certificate verified, unless `sslmode` says
                otherwise.

        Raises:
            InvalidArgumentError: it is none.
        """
        problem = ""
        if not url.startswith(_SCHEMES):
            problem = "it does not begin with postgresql://"
        elif _is_ambiguous(url):
            problem = "what is special in it (@ as %40, / as %2F) must be encoded"
        else:
            try:
                conninfo_to_dict(url)
            except psycopg.Error:
                # What libpq says may quote a part of the password.
                problem = "libpq cannot read it"
        if problem:
            raise InvalidArgumentError(
                f"the URL of the ledger is none: {problem}", hint="give it as postgresql://user@host:5432/name"
            )
        return cls(Secret(url))

    @property
    def has_password(self) -> bool:
        """Whether the URL holds a password."""
        return any(name in self._parameters for name in _HIDDEN)

    def __str__(self) -> str:
        """The URL without its password."""
        said = {name: value for name, value in self._parameters.items() if name not in _HIDDEN}
        user = f"{quote(said.pop('user'), safe='')}@" if "user" in said else ""
        hosts = said.pop("host", "").split(",")
        ports = said.pop("port", "").split(",")
        if len(ports) == 1:
            ports *= len(hosts)
        places = ",".join(_place(host, port) for host, port in zip(hosts, ports, strict=False))
        name = quote(said.pop("dbname", ""), safe="")
        rest = f"?{urlencode(said, quote_via=quote)}" if said else ""
        return f"postgresql://{user}{places}/{name}{rest}"

    @property
    def conninfo(self) -> str:
        """What libpq connects by; it may hold a password."""
        said = self._parameters
        defaults: dict[str, str] = {"application_name": "sectigo-async", "target_session_attrs": "read-write"}
        if not _is_here(said) and "PGSSLMODE" not in os.environ:
            defaults["sslmode"] = "verify-full"
        if "PGAPPNAME" in os.environ:
            del defaults["application_name"]
        return make_conninfo("", **{**defaults, **_PATIENCE, **said, "client_encoding": "UTF8"})

    @property
    def _parameters(self) -> dict[str, str]:
        return {name: str(value) for name, value in conninfo_to_dict(self.url.reveal()).items()}

    @asynccontextmanager
    async def session(self, *, only_look: bool = False) -> AsyncIterator[Connection]:
        """Open a session of one's own, in which every commit is durable.

        Args:
            only_look: whether it does not matter what time it is here.

        Raises:
            LedgerError: the database is out of reach, or does not promise that; or its clock and ours differ.
        """
        connection = await self._connect()
        try:
            with self.errors():
                await connection.execute(_WAITS)
                await self._check(connection, only_look=only_look)
            yield connection
        finally:
            await connection.close()

    async def _connect(self) -> Connection:
        try:
            return await psycopg.AsyncConnection.connect(self.conninfo, autocommit=True)
        except (psycopg.Error, OSError) as error:
            trouble = self._trouble(error)
        # Here and not above: what psycopg raises holds the password.
        raise trouble

    async def _check(self, connection: Connection, *, only_look: bool) -> None:
        """See that what is committed in a session stays, and that the session is a real one."""
        query = (
            "SELECT pg_backend_pid(), current_setting('fsync'), current_setting('synchronous_commit'),"
            " current_setting('transaction_read_only'), current_setting('server_encoding'), current_schema(),"
            " extract(epoch FROM clock_timestamp())"
        )
        asked = time.time()
        row = await (await connection.execute(query)).fetchone()
        assert row is not None
        pid, fsync, synchronous, read_only, encoding, schema, now = row
        # Nothing is known of how long the answer was under way.
        off = max(asked - float(now), float(now) - time.time())
        if off > _CLOCKS_DIFFER and not only_look:
            raise LedgerError(
                f"the clocks of this host and of {self} differ by {off:,.0f} s",
                hint="set both right: by the time of one worker another tells whether an order can still run",
            )
        if pid != connection.info.backend_pid:
            raise LedgerError(f"a connection pooler stands before {self}", hint=OWN_ADDRESS)
        if fsync != "on":
            raise LedgerError(
                f"{self} runs with fsync={fsync}: what it commits may be gone after a loss of power",
                hint="set fsync=on, or use a database that does not lose what is paid for",
            )
        if read_only == "on":
            raise LedgerError(f"{self} is read-only", hint="name the server that is written to, and no standby of it")
        if encoding != "UTF8":
            raise LedgerError(
                f"{self} has the encoding {encoding}, which cannot hold every name",
                hint="use a database with the encoding UTF8",
            )
        if schema is None:
            raise LedgerError(
                f"there is no schema in {self} that tables would be made in",
                hint="make the one that search_path names: CREATE SCHEMA",
            )
        if synchronous not in _DURABLE:
            await connection.execute("SET synchronous_commit = on")
        # Nothing of another schema must be taken for this one's.
        query = "SELECT set_config('search_path', quote_ident(%s), false)"
        await connection.execute(query, [schema])

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turn what goes wrong with the database into a `LedgerError`."""
        try:
            yield
        except (psycopg.Error, OSError) as error:
            trouble = self._trouble(error)
        else:
            return
        raise trouble

    def _trouble(self, error: psycopg.Error | OSError) -> LedgerError:
        lacks_rights = isinstance(error, psycopg.errors.InsufficientPrivilege | psycopg.errors.UndefinedTable)
        return LedgerError(f"cannot use the ledger {self}: {_said(error)}", hint=_ROLE if lacks_rights else _AGAIN)


_ROLE = "whoever first orders makes the tables; docs/fleet.md says what rights are needed"
_AGAIN = "see that the database is up; then run the same command again"


def _said(error: psycopg.Error | OSError) -> str:
    lines = str(getattr(error, "strerror", None) or error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _is_ambiguous(url: str) -> bool:
    """Say whether a part of a password would be taken for a host, a port or a name."""
    before, at, after = url.partition("://")[2].partition("?")[0].partition("@")
    return bool(at) and ("/" in before or "@" in after)


def _place(host: str, port: str) -> str:
    written = f"[{quote(host, safe=':')}]" if ":" in host else quote(host, safe="")
    return f"{written}:{port}" if port else written


def _is_here(said: Mapping[str, str]) -> bool:
    """Say whether all hosts are this one, as far as is known."""
    if "service" in said or "PGSERVICE" in os.environ:
        return False
    variables = os.environ.get("PGHOSTADDR") or os.environ.get("PGHOST", "")
    hosts = said.get("hostaddr") or said.get("host") or variables
    return all(_is_local(host) for host in hosts.split(","))


def _is_local(host: str) -> bool:
    if host in {"", "localhost"} or host.startswith(("/", "@")):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def bound_waits(connection: Connection) -> None:
    """Let no statement of a session wait for ever."""
    await connection.execute(_WAITS)
    await connection.commit()


async def has_tables(connection: Connection) -> bool:
    """Say whether a run was put into the database.

    Raises:
        LedgerError: a newer version did.
    """
    query = "SELECT 1 FROM pg_tables WHERE schemaname = current_schema() AND tablename = 'sectigo_run'"
    if await (await connection.execute(query)).fetchone() is None:
        return False
    row = await (await connection.execute("SELECT version FROM sectigo_run")).fetchone()
    if row is not None and row[0] > VERSION:
        raise LedgerError("the ledger was made by a newer version of sectigo-async", hint="use that version")
    return row is not None


async def make_tables(connection: Connection) -> None:
    """Make the tables of the ledger and of the queue; inside a transaction."""
    from procrastinate.schema import SchemaManager

    await connection.execute(_TABLES.encode())
    query = "SELECT 1 FROM pg_tables WHERE schemaname = current_schema() AND tablename = 'procrastinate_jobs'"
    if await (await connection.execute(query)).fetchone() is None:
        await connection.execute(SchemaManager.get_schema().encode())


async def lock_class(connection: Connection) -> int:
    """Return the number under which the locks of this ledger are told from those of others in the database."""
    row = await (await connection.execute("SELECT 'sectigo_run'::regclass::oid::bigint")).fetchone()
    assert row is not None
    number = int(row[0])
    return number if number < 2**31 else number - 2**32
