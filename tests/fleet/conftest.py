from collections.abc import Iterator
from uuid import uuid4

import pytest
from psycopg import sql

from tests.conftest import find_tool
from tests.fleet.postgres import Postgres, places, running


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL of this test process."""
    initdb, server, pg_ctl = [find_tool(tool, "postgres", places()) for tool in ("initdb", "postgres", "pg_ctl")]
    with running(initdb, server, pg_ctl) as cluster:
        yield cluster


@pytest.fixture
def database(postgres: Postgres) -> Iterator[str]:
    """The URL of a new, empty database, for its owner."""
    name = f"test_{uuid4().hex}"
    # The test before may have failed while the server was stopped; so may this one.
    postgres.start()
    postgres.execute(sql.SQL("CREATE DATABASE {} OWNER owner").format(sql.Identifier(name)))
    yield postgres.url(name)
    postgres.start()
    postgres.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
