"""The command `shell`."""

import asyncio

import attrs
import typer

from sectigo_async import AuthenticationError, SectigoError
from sectigo_async_cli.context import Session, refuse_in_a_shell, settings
from sectigo_async_cli.options import register as add
from sectigo_async_cli.run import busy, report, run


def shell(ctx: typer.Context) -> None:
    """Type commands one after the other, over one sign-in, with completion and history. Ctrl-D leaves.

    Example: sectigo-async shell
    """
    from sectigo_async_cli.shell import read_and_run

    chosen = settings(ctx)
    refuse_in_a_shell(chosen)
    if not chosen.interactive:
        raise typer.BadParameter("a shell needs a terminal, and is not for scripts", param_hint="shell")
    with asyncio.Runner() as runner:
        session = Session(runner, chosen)
        inside = attrs.evolve(chosen, session=session)

        async def sign_in() -> None:
            client = await session.client()
            try:
                with busy(chosen, "signing in"):
                    await client.sign_in()
            except AuthenticationError:
                raise
            except SectigoError as error:
                report(error, chosen)  # What needs no service can be done all the same.

        try:
            run(inside, sign_in)
            read_and_run(inside, session, ctx.find_root().command)
        finally:
            runner.run(session.renew())


def register(app: typer.Typer) -> None:
    """Add this command to `app`."""
    add(app, shell)
