"""The command `shell`."""

import asyncio

import attrs
import typer

from sectigo_async import SectigoClient
from sectigo_async_cli.context import Settings, settings
from sectigo_async_cli.options import register as add
from sectigo_async_cli.run import Session, run


def shell(ctx: typer.Context) -> None:
    """Type commands one after the other, over one sign-in, with completion and history. Ctrl-D leaves.

    Example: sectigo-async shell
    """
    from sectigo_async_cli.shell import read_and_run

    chosen = settings(ctx)
    if not chosen.interactive:
        raise typer.BadParameter("a shell needs a terminal, and is not for scripts", param_hint="shell")
    ready = run(chosen, chosen.with_answers)
    with asyncio.Runner() as runner:
        client = runner.run(_open(ready))
        try:
            inside = attrs.evolve(ready, session=Session(runner, ready, client))
            read_and_run(inside, ctx.find_root().command, client)
        finally:
            runner.run(client.aclose())


async def _open(chosen: Settings) -> SectigoClient:
    return chosen.client()


def register(app: typer.Typer) -> None:
    """Add this command to `app`."""
    add(app, shell)
