"""What `create` and `upload` share around an order: what is left, the last question, the ways out, and its id."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import typer

from sectigo_async import Batch, SectigoClient, SectigoError
from sectigo_async.errors import BadRequestError, NotFoundError, OutcomeUnknownError
from sectigo_async_cli import exit_codes
from sectigo_async_cli.context import Settings
from sectigo_async_cli.output import Output
from sectigo_async_cli.prompts import confirm
from sectigo_async_cli.streams import OutputError, say
from sectigo_async_cli.targets import Target, balance


async def left_to_order(client: SectigoClient, target: Target) -> str:
    """Return how many licences are left, in words; nothing where that is not known."""
    count = None if target.authority is None else await balance(client, target.authority)
    return "" if count is None else f" of the {count:,} left"


async def agree(question: str) -> None:
    """Ask whether to order.

    Raises:
        typer.Exit: no.
    """
    if not await confirm(question, default=False):
        say("nothing was ordered")
        raise typer.Exit(exit_codes.FAILED)


@contextmanager
def ways_out(chosen: Settings, profile_id: int, *, password_file: Path | None = None) -> Iterator[None]:
    """Name the commands that help where an order fails or is interrupted.

    Args:
        chosen: the options.
        profile_id: the profile it is for.
        password_file: a password that was made for it; removed where nothing was ordered with it.
    """
    kept = "" if password_file is None else f"; its PKCS#12 password is kept in {password_file}"
    try:
        yield
    except OutcomeUnknownError as error:
        which = () if error.order is None else (error.order.order_id,)
        error.hint = f"do not order again; find out with {chosen.command('reconcile', *which)} whether it ran{kept}"
        raise
    except asyncio.CancelledError as cancelled:
        if hasattr(cancelled, "__notes__"):  # The order was on its way.
            cancelled.add_note(f"find out with {chosen.command('reconcile')} whether it ran{kept}")
        else:
            _remove(password_file)
            cancelled.add_note("nothing was ordered")
        raise
    except SectigoError as error:
        _remove(password_file)
        if isinstance(error, BadRequestError):
            rules = chosen.command("profiles", "-i", str(profile_id), "--params")
            error.hint = f"nothing was ordered; {rules} shows what it takes"
        elif isinstance(error, NotFoundError):
            error.hint = f"nothing was ordered; {chosen.command('authorities')} shows authorities and profiles"
        else:
            error.hint = f"nothing was ordered; {error.hint}" if error.hint else "nothing was ordered"
        raise


def _remove(file: Path | None) -> None:
    if file is not None:
        with suppress(OSError):
            file.unlink(missing_ok=True)


def tell(chosen: Settings, batch: Batch) -> None:
    """Say what was ordered: whatever becomes of the output, its id is told."""
    noun = "certificate" if batch.size == 1 else "certificates"
    chosen.remember(batch)
    say(f"ordered batch {batch.batch_id}: {batch.size} {noun}")


def show_order(output: Output, batch: Batch) -> None:
    """Show the document of an order.

    Raises:
        typer.Exit: it cannot be written; the order was placed all the same.
    """
    try:
        output.emit(batch.document())
    except OutputError as error:
        say(f"error: the order was placed, but the output cannot be written: {error}")
        raise typer.Exit(exit_codes.PARTLY_DONE) from None
