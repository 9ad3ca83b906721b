import os
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from psycopg import sql

from tests.conftest import find_tool
from tests.fleet.postgres import Postgres, running


def _places() -> str:
    """Return where PostgreSQL may be: Debian keeps its binaries off the PATH."""
    versions = [folder for folder in Path("/usr/lib/postgresql").glob("*") if folder.name.isdecimal()]
    newest_first = sorted(versions, key=lambda folder: int(folder.name), reverse=True)
    return os.pathsep.join([*(str(folder / "bin") for folder in newest_first), os.environ["PATH"]])


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL of this test process."""
    initdb, server, pg_ctl = [find_tool(tool, "postgres", _places()) for tool in ("initdb", "postgres", "pg_ctl")]
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
