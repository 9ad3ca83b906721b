"""Bulk issuance on several machines: worker."""

import logging
from contextlib import aclosing
from pathlib import Path
from typing import Annotated

import typer

from sectigo_async import SectigoClient
from sectigo_async.files import make_directory
from sectigo_async.issuance import Plan
from sectigo_async_cli.context import settings
from sectigo_async_cli.fleets import LedgerUrl, database_of
from sectigo_async_cli.issuing import View
from sectigo_async_cli.options import register as add
from sectigo_async_cli.run import noting, run_client, stopping

_NOTE = "what this worker had is left to the others"


def worker(
    ctx: typer.Context,
    *,
    ledger: LedgerUrl = None,
    out: Annotated[
        Path, typer.Option(help="Where the folders of the devices are kept: what issue had, shared by all hosts.")
    ],
) -> None:
    """Work at the bulk run of a ledger in PostgreSQL, until Ctrl-C or SIGTERM. This spends licences.

    As many as wanted may work at one run, on any hosts that share --out. All of them together keep to the limits that
    issue was given. Each signs in for itself, as the user that issue had.

    Example: sectigo-async worker --ledger postgresql://ledger@db.example.com/sectigo --out /srv/certs
    """
    chosen = settings(ctx)
    database = database_of(chosen, ledger)
    if database is None:
        raise typer.BadParameter("name the database, or set SECTIGO_LEDGER", param_hint="--ledger")
    from sectigo_async.fleet import Worker

    if not chosen.debug:
        # What they have to say reaches people as events.
        for name in ("procrastinate", "psycopg"):
            logging.getLogger(name).addHandler(logging.NullHandler())
            logging.getLogger(name).propagate = False

    async def job(client: SectigoClient) -> None:
        make_directory(out)
        at_work = Worker(client, database, out)
        view = View(chosen, Plan())
        with noting(_NOTE), stopping(at_work.stop), view.shown():
            async with aclosing(at_work.run()) as events:
                async for event in events:
                    view.take(event)

    run_client(ctx, job)


def register(app: typer.Typer) -> None:
    """Add this command to `app`."""
    add(app, worker)
