"""Ledgers in PostgreSQL at the command line: which one is meant, and what it takes."""

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sectigo_async import SectigoClient
from sectigo_async.errors import InvalidArgumentError
from sectigo_async.issuance import Ledger, Run
from sectigo_async_cli import exit_codes
from sectigo_async_cli.context import Settings
from sectigo_async_cli.issuing import floor_of, open_ledger
from sectigo_async_cli.streams import say

if TYPE_CHECKING:
    from sectigo_async.fleet import Database

VARIABLE = "SECTIGO_LEDGER"

LedgerUrl = Annotated[
    str | None,
    typer.Option(
        "--ledger",
        metavar="URL",
        help=f"PostgreSQL database with the ledger, for workers on several machines; or {VARIABLE}.",
    ),
]


def is_url(text: str) -> bool:
    """Say whether a text is meant as the URL of a database, and not as a directory."""
    return "://" in text


def database_of(chosen: Settings, url: str | None, param_hint: str = "--ledger") -> "Database | None":
    """Return the database that an argument, or the environment, names; `None` where neither does.

    Raises:
        typer.BadParameter: it is no URL of one; or an argument that holds a password, which others could see.
        typer.Exit: the extra is not installed.
    """
    text = url or chosen.environ.get(VARIABLE)
    if not text:
        return None
    need_fleet()
    from sectigo_async.fleet import Database

    try:
        database = Database.at(text)
    except InvalidArgumentError as error:
        raise typer.BadParameter(f"{error}; {error.hint}", param_hint=param_hint if url else VARIABLE) from None
    if url and database.has_password:
        raise typer.BadParameter(
            "a password in an argument shows in the list of processes; put it into the file that PGPASSFILE names,"
            f" or the whole URL into {VARIABLE}",
            param_hint=param_hint,
        )
    kept = chosen.environ.get(VARIABLE)
    if url and kept:
        # A line to be copied names the database without the password that the environment has.
        with suppress(InvalidArgumentError):
            if str(Database.at(kept)) == str(database):
                return Database.at(kept)
    return database


def need_fleet() -> None:
    """See that the extra is installed.

    Raises:
        typer.Exit: it is not.
    """
    try:
        import procrastinate
        import psycopg
    except ImportError:
        say("error: runs on several machines are an extra. Install it with: pip install 'sectigo-async[fleet]'")
        raise typer.Exit(exit_codes.FAILED) from None
    del procrastinate, psycopg


@asynccontextmanager
async def open_place(
    client: SectigoClient, place: "Path | Database", run: Run, *, only_look: bool = False
) -> AsyncIterator[Ledger]:
    """Take a ledger; for a mere look where there is none, one that leaves no trace."""
    if isinstance(place, Path):
        async with open_ledger(client, place, run, only_look=only_look) as ledger:
            yield ledger
        return
    from sectigo_async.fleet import PostgresLedger

    if only_look and not await PostgresLedger.exists(place):
        with tempfile.TemporaryDirectory() as directory:
            async with open_ledger(client, Path(directory), run, only_look=False) as ledger:
                yield ledger
        return
    async with PostgresLedger.open(place, run, floor=await floor_of(client)) as shared:
        yield shared


def place_of(chosen: Settings, text: str | None, param_hint: str) -> "Path | Database":
    """Return the ledger that is meant: in a directory, or in a database.

    Raises:
        typer.BadParameter: none is named, or with a password.
    """
    if text is not None and not is_url(text):
        return Path(text)
    database = database_of(chosen, text, param_hint)
    if database is None:
        raise typer.BadParameter(
            f"name the directory that issue had as --out, or set {VARIABLE}", param_hint=param_hint
        )
    return database
