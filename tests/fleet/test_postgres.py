import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from tests.fleet.postgres import Mode, Postgres

pytestmark = pytest.mark.postgres

ROOT = Path(__file__).parents[2]
WAYS_IN: list[tuple[Callable[[Postgres, str], str], str, str | None]] = [
    (Postgres.url, "owner", "127.0.0.1"),
    (Postgres.app_url, "app", "127.0.0.1"),
    (Postgres.socket_url, "owner", None),
]


@pytest.fixture
def name(database: str) -> str:
    return database.rpartition("/")[2]


@pytest.mark.parametrize(("way", "role", "address"), WAYS_IN)
def test_each_way_in_leads_to_a_durable_server_and_to_no_superuser(
    postgres: Postgres, name: str, way: Callable[[Postgres, str], str], role: str, address: str | None
) -> None:
    with psycopg.connect(way(postgres, name)) as connection:
        found = connection.execute(
            "SELECT current_database(), rolname, host(inet_server_addr()), rolsuper, current_setting('fsync')"
            " FROM pg_roles WHERE rolname = current_user"
        ).fetchone()
    assert found == (name, role, address, False, "on")


@pytest.mark.parametrize("password", ["", "wrong"])
def test_the_role_app_needs_its_password(postgres: Postgres, name: str, password: str) -> None:
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(postgres.app_url(name), password=password)


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_what_was_committed_outlives_a_restart_which_open_sessions_notice(
    postgres: Postgres, database: str, mode: Mode
) -> None:
    log = postgres.folder / "log"
    before = len(log.read_text())
    with psycopg.connect(database) as session:
        session.execute("CREATE TABLE kept (value int)")
        session.execute("INSERT INTO kept VALUES (1)")
        session.commit()
        session.execute("INSERT INTO kept VALUES (2)")
        postgres.restart(mode)
        with pytest.raises(psycopg.OperationalError):
            session.execute("SELECT 1")
    with psycopg.connect(database) as session:
        assert session.execute("SELECT value FROM kept").fetchall() == [(1,)]
    assert ("was not properly shut down" in log.read_text()[before:]) == (mode == "immediate")


def test_a_stopped_server_answers_nobody_until_it_is_started(postgres: Postgres, database: str) -> None:
    postgres.stop()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(database)
    postgres.start()
    psycopg.connect(database).close()


def test_killed_sessions_are_noticed_and_those_of_other_databases_go_on(
    postgres: Postgres, database: str, name: str
) -> None:
    with (
        psycopg.connect(database) as session,
        psycopg.connect(postgres.app_url(name)) as another,
        psycopg.connect(postgres.url("postgres")) as elsewhere,
    ):
        assert postgres.kill_sessions(name) == 2
        for killed in (session, another):
            with pytest.raises(psycopg.OperationalError):
                killed.execute("SELECT 1")
        assert elsewhere.execute("SELECT 1").fetchone() == (1,)
    psycopg.connect(database).close()


def test_a_killed_test_process_leaves_no_server_and_no_folder(postgres: Postgres) -> None:
    programs = Path(postgres.pg_ctl).parent
    script = (
        "import sys; from tests.fleet.postgres import running\n"
        "with running(*sys.argv[1:]) as cluster: print(cluster.folder, cluster.port, flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, *(str(programs / tool) for tool in ("initdb", "postgres", "pg_ctl"))],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        folder, port = process.stdout.readline().split()
        socket.create_connection(("127.0.0.1", int(port))).close()
        process.kill()
    end = time.monotonic() + 30
    while Path(folder).exists():
        assert time.monotonic() < end, "the folder is still there"
        time.sleep(0.05)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(port)))
