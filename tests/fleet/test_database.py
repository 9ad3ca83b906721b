"""How the database of a fleet is reached, what it must promise, and that its password shows nowhere."""

import re
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

import attrs
import psycopg
import pytest
from psycopg import sql

from sectigo_async.errors import InvalidArgumentError, LedgerError
from sectigo_async.fleet import Database, PostgresLedger, read_fleet
from sectigo_async.issuance import DeviceState
from tests.chaos.harness import ROOT, Service
from tests.fleet.helpers import RUN, device, pooler, with_schema
from tests.fleet.postgres import Postgres
from tests.fleet.site import Site

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(120)]

CANARY = "canary-password"
PATIENCE = 20.0

Told = Callable[[BaseException], Iterable[str]]


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PGHOST", "PGHOSTADDR", "PGPORT", "PGUSER", "PGSSLMODE", "PGSERVICE", "PGPASSFILE", "PGPASSWORD"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "certs/",
        "mysql://ops@db/name",
        "postgresql:ops@db/name",
        f"host=db password={CANARY}",
        f"postgresql://ops:{CANARY}@db/name?no_such_parameter=1",
        f"postgresql://ops:{CANARY}%zz@db/name",
        f"postgresql://ops:%00{CANARY}@db/name",
        f"postgresql://ops:{CANARY}@[::1/name",
        f"postgresql://ops:{CANARY}@db/name?password",
        # What libpq takes for a host, a port or a name is a part of the password, where that is not encoded.
        f"postgresql://ops:half@{CANARY}@db/name",
        f"postgresql://ops:{CANARY}/half@db/name",
        f"postgresql://ops:5432/{CANARY}@db/name",
    ],
)
def test_what_is_no_url_is_refused_without_being_repeated(url: str, words_about: Told) -> None:
    with pytest.raises(InvalidArgumentError, match="the URL of the ledger is none") as caught:
        Database.at(url)

    assert "postgresql://user@host:5432/name" in caught.value.hint
    assert not [text for text in words_about(caught.value) if "canary" in text]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"postgresql://ops:{CANARY}@db.example.com:5432/name", "postgresql://ops@db.example.com:5432/name"),
        (f"postgres://ops:{CANARY}@db.example.com/name", "postgresql://ops@db.example.com/name"),
        (f"postgresql://ops@db/name?password={CANARY}&sslmode=require", "postgresql://ops@db/name?sslmode=require"),
        (f"postgresql://ops@db/name?sslpassword={CANARY}", "postgresql://ops@db/name"),
        (f"postgresql://ops@db/name?oauth_client_secret={CANARY}", "postgresql://ops@db/name"),
        (f"postgresql://ops:p%40ss%2F{CANARY}@db/name", "postgresql://ops@db/name"),
        (f"postgresql://ops:p?{CANARY}@db/name", "postgresql://ops@db/name"),
    ],
)
def test_a_password_shows_nowhere(url: str, shown: str) -> None:
    database = Database.at(url)

    assert database.has_password
    assert str(database) == shown
    assert "canary" not in f"{database!r} {[database]} {attrs.asdict(database)}"
    assert "canary" in database.conninfo


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://",
        "postgresql:///name",
        "postgresql://ops@/name",
        "postgresql://db.example.com",
        "postgresql://a%40b%3Ac@db/n%C3%A4me%2Fme",
        "postgresql://ops@[::1]:5432/name",
        "postgresql://ops@one:5432,[::1]:5433/name",
        "postgresql://ops@/name?host=%2Frun%2Fpostgresql&port=5433",
        "postgresql://ops@%2Frun%2Fpostgresql/name?options=-csearch_path%3Dsite_a%20-cjit%3Doff",
        "postgresql://ops@db/name?sslmode=verify-ca&sslrootcert=%2Fetc%2Fca.pem&passfile=%2Fhome%2Fops%2Fpass",
    ],
)
def test_what_is_shown_of_a_database_can_be_given_as_its_url(url: str) -> None:
    database = Database.at(url)

    assert not database.has_password
    assert Database.at(str(database)).conninfo == database.conninfo


HERE = ["", "localhost", "127.0.0.1", "[::1]", "%2Frun%2Fpostgresql", "127.0.0.1,localhost"]
ELSEWHERE = ["db.example.com", "192.0.2.1", "[2001:db8::1]", "localhost.example.com", "127.0.0.1,db.example.com"]
MODES: list[tuple[str, dict[str, str]]] = [("?sslmode=require", {}), ("", {"PGSSLMODE": "require"})]


@pytest.mark.parametrize("host", HERE)
def test_the_same_machine_is_reached_without_tls(host: str) -> None:
    assert "sslmode" not in Database.at(f"postgresql://ops@{host}/name").conninfo


@pytest.mark.parametrize("host", ELSEWHERE)
def test_another_host_must_prove_who_it_is(host: str) -> None:
    assert "sslmode=verify-full" in Database.at(f"postgresql://ops@{host}/name").conninfo


@pytest.mark.parametrize(("words", "variables"), MODES)
@pytest.mark.parametrize("host", [HERE[1], ELSEWHERE[0]])
def test_whoever_names_an_sslmode_gets_it(
    host: str, words: str, variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    conninfo = Database.at(f"postgresql://ops@{host}/name{words}").conninfo

    assert "verify-full" not in conninfo
    assert ("sslmode=require" in conninfo) == bool(words)


@pytest.mark.parametrize(
    ("variables", "words", "is_here"),
    [
        ({"PGHOST": "db.example.com"}, "", False),
        ({"PGHOSTADDR": "192.0.2.1"}, "", False),
        ({"PGHOST": "localhost"}, "", True),
        ({"PGHOST": "db.example.com"}, "?host=localhost", True),
        ({}, "?hostaddr=192.0.2.1&host=localhost", False),
        ({}, "?hostaddr=127.0.0.1&host=db.example.com", True),
        # Who knows where that leads to.
        ({"PGSERVICE": "fleet"}, "", False),
        ({}, "?service=fleet", False),
    ],
)
def test_where_a_database_is_may_stand_elsewhere_than_in_its_url(
    variables: dict[str, str], words: str, is_here: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert ("sslmode=verify-full" in Database.at(f"postgresql:///{words}").conninfo) == (not is_here)


async def error_of(url: str) -> LedgerError:
    with pytest.raises(LedgerError) as caught:
        async with Database.at(url).session():
            pass
    return caught.value


async def setting(url: str, name: str) -> str:
    async with Database.at(url).session() as connection:
        row = await (await connection.execute("SELECT current_setting(%s)", [name])).fetchone()
    assert row is not None
    return str(row[0])


async def test_what_goes_wrong_is_told_without_the_password(
    postgres: Postgres, database: str, words_about: Told, locals_of: Told
) -> None:
    name = database.rpartition("/")[2]
    address = f"app:{CANARY}@127.0.0.1:{postgres.port}"
    for url, said in (
        (f"postgresql://{address}/{name}", "password authentication failed"),
        (f"postgresql://{address}/{name}?sslmode=require", "does not support SSL"),
        (f"postgresql://ops:{CANARY}@127.0.0.1:1/{name}", "refused"),
        (f"postgresql://ops:{CANARY}@127.0.0.1:{postgres.port}/nowhere", "does not exist"),
        (f"postgresql://ops:{CANARY}@%2Fnowhere/{name}", "No such file"),
        (f"postgresql://ops:{CANARY}@127.0.0.1:{postgres.port}/{name}?sslmode=x", "sslmode"),
    ):
        error = await error_of(url)
        assert said in str(error)
        assert "\n" not in str(error)
        assert not [text for text in (*words_about(error), *locals_of(error)) if "canary" in text]


async def test_a_server_that_does_not_answer_is_given_up() -> None:
    began = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        error = await error_of(f"postgresql://ops@127.0.0.1:{silent.getsockname()[1]}/name?connect_timeout=2")

    assert "timeout" in str(error)
    assert time.monotonic() - began < PATIENCE


@contextmanager
def without_fsync(postgres: Postgres) -> Iterator[None]:
    def become(value: str) -> None:
        postgres.execute("SELECT pg_reload_conf()")
        end = time.monotonic() + PATIENCE
        while postgres.execute("SHOW fsync") != [(value,)]:
            assert time.monotonic() < end, "the server does not take the setting"
            time.sleep(0.02)

    postgres.execute("ALTER SYSTEM SET fsync = off")
    try:
        become("off")
        yield
    finally:
        postgres.execute("ALTER SYSTEM RESET fsync")
        become("on")


async def test_a_server_that_may_lose_what_it_commits_is_refused(postgres: Postgres, database: str) -> None:
    with without_fsync(postgres):
        error = await error_of(database)

    assert "fsync=off" in str(error)
    assert "set fsync=on" in error.hint
    assert not await PostgresLedger.exists(Database.at(database))


@pytest.mark.parametrize(
    ("asked", "given"),
    [("off", "on"), ("local", "on"), ("remote_write", "on"), ("on", "on"), ("remote_apply", "remote_apply")],
)
async def test_every_commit_is_durable_whatever_was_set(database: str, asked: str, given: str) -> None:
    assert await setting(f"{database}?options=-csynchronous_commit%3D{asked}", "synchronous_commit") == given


async def test_a_connection_pooler_is_refused(postgres: Postgres, database: str) -> None:
    async with pooler(postgres.port) as port:
        error = await error_of(f"{database.replace(str(postgres.port), str(port))}?sslmode=disable")

    assert "a connection pooler stands before" in str(error)
    assert "address of the database itself" in error.hint


async def test_a_database_that_cannot_hold_every_name_is_refused(postgres: Postgres) -> None:
    name = sql.Identifier("latin")
    encoding = sql.SQL("CREATE DATABASE {} OWNER owner ENCODING 'LATIN1' TEMPLATE template0")
    postgres.execute(encoding.format(name))
    try:
        error = await error_of(postgres.url("latin"))
    finally:
        postgres.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))

    assert "has the encoding LATIN1" in str(error)


async def test_every_name_is_kept_whatever_encoding_the_terminal_has(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    async with PostgresLedger.open(Database.at(database), RUN) as ledger:
        await ledger.amend(new=[device("日本")])
        await ledger.refuse({"日本": "日本"})
        (entry,) = await ledger.entries()

    assert (entry.device.key, entry.error) == ("日本", "日本")


async def test_a_schema_that_is_not_there_is_not_replaced_by_another(database: str) -> None:
    async with PostgresLedger.open(Database.at(database), RUN):
        pass

    error = await error_of(with_schema(database, "nowhere"))

    assert "there is no schema" in str(error)
    assert "CREATE SCHEMA" in error.hint


async def test_tables_of_another_schema_on_the_path_are_not_ours(database: str) -> None:
    async with PostgresLedger.open(Database.at(database), RUN):
        pass
    make_schemas(database, "site_a")

    assert await PostgresLedger.exists(Database.at(with_schema(database, "site_a", "public"))) is False
    assert await PostgresLedger.exists(Database.at(with_schema(database, "nowhere", "public"))) is True


@pytest.mark.parametrize("words", ["", "?target_session_attrs=any"])
async def test_a_database_that_is_only_read_is_refused_before_anything_is_done(database: str, words: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        name = sql.Identifier(connection.info.dbname)
        connection.execute(sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = on").format(name))

    error = await error_of(database + words)

    assert "read-only" in str(error)


async def test_a_connection_that_is_lost_is_an_error_of_the_ledger(postgres: Postgres, database: str) -> None:
    place = Database.at(database)
    async with PostgresLedger.open(place, RUN) as ledger:
        postgres.kill_sessions(database.rpartition("/")[2])
        for _ in range(2):
            with pytest.raises(LedgerError, match="cannot use the ledger") as caught:
                await ledger.counts()
            assert "database is up" in caught.value.hint
    assert await PostgresLedger.exists(place)


async def test_a_run_of_a_newer_version_is_left_alone(database: str) -> None:
    place = Database.at(database)
    async with PostgresLedger.open(place, RUN):
        pass
    with psycopg.connect(database) as connection:
        connection.execute("UPDATE sectigo_run SET version = version + 1")

    for attempt in (PostgresLedger.open(place, RUN), PostgresLedger.open_chunk(place, 1)):
        with pytest.raises(LedgerError, match="newer version"):
            await attempt.__aenter__()
    with pytest.raises(LedgerError, match="newer version"):
        await read_fleet(place)


def make_schemas(database: str, *names: str) -> None:
    with psycopg.connect(database) as connection:
        for name in names:
            connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(name)))


GRANTS = """
REVOKE ALL ON SCHEMA site_a FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA site_a FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA site_a FROM PUBLIC;
GRANT USAGE ON SCHEMA site_a TO app;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA site_a TO app;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA site_a TO app;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA site_a TO app;
"""


async def test_a_role_without_rights_is_told_who_makes_the_tables(postgres: Postgres, database: str) -> None:
    place = Database.at(postgres.app_url(database.rpartition("/")[2]))
    with pytest.raises(LedgerError, match="permission denied for schema public") as caught:
        async with PostgresLedger.open(place, RUN):
            pass
    assert "whoever first orders makes the tables" in caught.value.hint
    async with PostgresLedger.open(Database.at(database), RUN):
        pass

    with pytest.raises(LedgerError, match="permission denied for table sectigo_run") as caught:
        await read_fleet(place)
    assert "what rights are needed" in caught.value.hint


async def test_a_worker_with_no_more_than_its_rights_issues_all(
    postgres: Postgres, database: str, tmp_path: Path
) -> None:
    make_schemas(database, "site_a")
    owners = with_schema(database, "site_a")
    workers = with_schema(postgres.app_url(database.rpartition("/")[2]), "site_a")
    with Service() as service:
        site = Site(service, owners, tmp_path, tmp_path / "log")
        theirs = attrs.evolve(site, url=workers)
        async with PostgresLedger.open(site.database, site.run()):
            pass
        with psycopg.connect(database) as connection:
            connection.execute(GRANTS)
        names = [f"gw{number}.example.com" for number in range(40)]
        async with theirs.worker():
            fleet = await site.put_in(names)
            # Also whoever puts a later list in.
            later = await theirs.put_in([*names, "late.example.com"])
        stands = (await read_fleet(theirs.database)).standing

    assert fleet.counts[DeviceState.DONE] == len(names)
    assert later.counts[DeviceState.DONE] == len(names) + 1
    assert stands.counts == later.counts


@pytest.fixture
def roles(postgres: Postgres, database: str) -> Iterator[None]:
    """The roles that docs/fleet.md makes, with the rights that it gives them."""
    (statements,) = re.findall(r"```sql\n(.*?)```", (ROOT / "docs" / "fleet.md").read_text(), re.DOTALL)
    name = database.rpartition("/")[2]
    with psycopg.connect(host=str(postgres.folder), port=postgres.port, user="postgres", dbname=name) as connection:
        connection.execute(statements)
        connection.commit()
        yield
        connection.execute("DROP OWNED BY sectigo_owner CASCADE")
        connection.execute("DROP OWNED BY sectigo_worker")
        connection.execute("DROP ROLE sectigo_owner, sectigo_worker")


@pytest.mark.usefixtures("roles")
async def test_the_roles_of_the_documentation_are_enough(database: str, tmp_path: Path) -> None:
    url = with_schema(database, "site_a")
    with Service() as service:
        owners = Site(service, url.replace("owner@", "sectigo_owner@"), tmp_path, tmp_path / "log")
        workers = attrs.evolve(owners, url=url.replace("owner@", "sectigo_worker@"))
        async with workers.worker():
            fleet = await owners.put_in(["gw1.example.com", "gw2.example.com"])

    assert fleet.counts[DeviceState.DONE] == 2


async def test_who_may_not_hand_out_jobs_leaves_that_to_the_workers(
    postgres: Postgres, database: str, tmp_path: Path
) -> None:
    with Service() as service:
        site = Site(service, database, tmp_path, tmp_path / "log")
        async with PostgresLedger.open(site.database, site.run()):
            pass
        with psycopg.connect(database) as connection:
            connection.execute(GRANTS.replace("site_a", "public"))
            connection.execute("REVOKE ALL ON procrastinate_jobs FROM app")
            connection.execute("GRANT SELECT ON procrastinate_jobs TO app")
        theirs = attrs.evolve(site, url=postgres.app_url(database.rpartition("/")[2]))
        async with site.worker():
            fleet = await theirs.put_in(["gw1.example.com"])

    assert fleet.counts[DeviceState.DONE] == 1


@pytest.fixture
def schemas(database: str) -> tuple[str, str]:
    """The URLs of two schemas of a database."""
    make_schemas(database, "site_a", "Site B")
    return with_schema(database, "site_a"), with_schema(database, "Site B")


async def test_the_schemas_of_a_database_hold_runs_of_their_own(database: str, schemas: tuple[str, str]) -> None:
    first, second = map(Database.at, schemas)
    other = attrs.evolve(RUN, profile_id=7)
    async with AsyncExitStack() as stack:
        ledger = await stack.enter_async_context(PostgresLedger.open(first, RUN))
        beside = await stack.enter_async_context(PostgresLedger.open(second, other, patience=0))
        await ledger.amend(new=[device("a"), device("b")])
        await beside.amend(new=[device("a")])

        assert len(await ledger.entries()) == 2
        assert len(await beside.entries()) == 1
        for place in (first, second):
            async with place.session() as connection:
                await connection.execute("INSERT INTO sectigo_chunks (chunk) VALUES (1)")
            await stack.enter_async_context(PostgresLedger.open_chunk(place, 1))
        assert [(await read_fleet(place)).run for place in (first, second)] == [RUN, other]
    assert await PostgresLedger.exists(Database.at(database)) is False


async def test_workers_of_one_schema_leave_the_other_alone(schemas: tuple[str, str], tmp_path: Path) -> None:
    with Service() as service:
        mine, theirs = [
            Site(service, url, tmp_path / name, tmp_path / "log")
            for url, name in zip(schemas, ("mine", "theirs"), strict=True)
        ]
        for site in (mine, theirs):
            site.directory.mkdir()
        async with PostgresLedger.open(theirs.database, theirs.run()) as ledger:
            await ledger.amend(new=[device("theirs.example.com", parameters={"serialNumber": "SN-0000"})])
        async with mine.worker():
            fleet = await mine.put_in(["mine.example.com"])
            stands = (await read_fleet(theirs.database)).standing
        issued = [one.common_name for one in service.issued()]
        async with theirs.worker():
            later = await theirs.put_in(["theirs.example.com"])

    assert issued == ["mine.example.com"]
    assert (stands.workers, stands.counts[DeviceState.PLANNED]) == (0, 1)
    assert fleet.counts[DeviceState.DONE] == later.counts[DeviceState.DONE] == 1
    assert not list(mine.directory.glob("theirs*"))
