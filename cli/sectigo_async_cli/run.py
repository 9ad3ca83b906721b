"""From a coroutine to an exit code: the one bridge between the command line and the event loop."""

import asyncio
import signal
import traceback
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

import typer

from sectigo_async import SectigoClient, SectigoError
from sectigo_async_cli import exit_codes
from sectigo_async_cli.context import Settings, settings
from sectigo_async_cli.output import give_up_stdout, say


def run_client(ctx: typer.Context, job: Callable[[SectigoClient], Awaitable[None]]) -> None:
    """Run `job` with a client made from the global options; end with its exit code."""
    chosen = settings(ctx)

    async def with_client() -> None:
        async with chosen.client() as client:
            await job(client)

    run(chosen, with_client)


def run(chosen: Settings, job: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run `job` in an event loop; turn errors and signals into one line and an exit code."""
    notes: list[str] = []

    async def watched() -> None:
        task = asyncio.current_task()
        assert task is not None
        with suppress(NotImplementedError):  # Windows
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        try:
            await job()
        except asyncio.CancelledError as cancelled:
            notes.extend(getattr(cancelled, "__notes__", []))
            raise

    try:
        asyncio.run(watched())
    except (KeyboardInterrupt, asyncio.CancelledError):
        say("interrupted" + "".join(f"; {note}" for note in notes))
        code = exit_codes.INTERRUPTED
    except SectigoError as error:
        code = report(error, debug=chosen.debug)
    except BrokenPipeError:
        # Whoever read the output had enough.
        give_up_stdout()
        code = exit_codes.DONE
    except OSError as error:
        give_up_stdout()
        say(f"error: cannot write the output: {error.strerror or error}")
        code = exit_codes.FAILED
    except typer.Exit:
        raise
    except Exception as error:  # noqa: BLE001 - the last line of defence against a traceback
        code = report_bug(error, debug=chosen.debug)
    else:
        return
    raise typer.Exit(code)


def report(error: SectigoError, *, debug: bool) -> int:
    """Say what failed and the way out, in one line; return the exit code."""
    if debug:
        traceback.print_exception(error)
    hint = f". {error.hint[0].upper()}{error.hint[1:]}." if error.hint else ""
    say(f"error: {error}{hint}")
    return exit_codes.exit_code(error)


def report_bug(error: BaseException, *, debug: bool) -> int:
    """Say that this should not have happened; return the exit code."""
    if debug:
        traceback.print_exception(error)
    way_out = "" if debug else ". Run it again with --debug before the command, and report what it prints."
    say(f"error: unexpected {type(error).__name__}: {error}{way_out}")
    return exit_codes.FAILED
