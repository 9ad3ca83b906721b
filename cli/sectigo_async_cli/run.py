"""From a coroutine to an exit code: the one bridge between the command line and the event loop."""

import asyncio
import os
import re
import signal
import time
import traceback
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

import typer

from sectigo_async import AuthenticationError, SectigoClient, SectigoError
from sectigo_async_cli import exit_codes
from sectigo_async_cli.context import Session, Settings, settings
from sectigo_async_cli.streams import OutputError, say, spinner

T = TypeVar("T")

_MEANT = 2.0
_MEANT_WHILE_STOPPING = 0.3
_LONGEST_DOTENV = 64 * 1024


def run_client(ctx: typer.Context, job: Callable[[SectigoClient], Awaitable[None]]) -> None:
    """Run `job` with a client made from the options; end with its exit code.

    Where there is nothing to sign in with, a person is asked first, on a terminal.
    """
    chosen = settings(ctx)
    session = chosen.session

    async def with_client() -> None:
        with busy(chosen, f"waiting for {urlsplit(chosen.resolve().config.endpoint).netloc}"):
            if session is not None and session.fits(chosen):
                await job(await session.client())
                return
            async with (await chosen.with_answers()).client() as client:
                await job(client)

    run(chosen, with_client)


def busy(chosen: Settings, text: str) -> AbstractContextManager[None]:
    """Tell a person what the block is at, where it takes more than a second."""
    if chosen.output.quiet or not chosen.talks_to_a_terminal:
        return nullcontext()
    return spinner.turning(text)


class _Signals:
    """What SIGINT and SIGTERM do: the first cancels the job, one that comes seconds later ends the process at once.

    Those right after the first are left out, so that the job can tell how things stand.
    """

    now: "_Signals | None" = None

    def __init__(self, session: Session | None) -> None:
        self._session = session
        self._cancel: Callable[[], object] | None = None
        self._first: float | None = None
        self._before: dict[int, Any] = {}
        self._meant = _MEANT

    def __enter__(self) -> Self:
        _Signals.now = self
        with suppress(ValueError):  # Not in the main thread.
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        _Signals.now = None
        # Outside a shell the process ends, and nothing that comes late may change how: the interpreter, on its way
        # out, gives signals back what they do by default, unless they are ignored.
        over = self._first is not None and self._session is None
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_IGN if over else handler)

    def cancels(self, loop: asyncio.AbstractEventLoop, task: "asyncio.Task[Any]") -> None:
        """Let signals cancel `task`, one that has come already included."""
        self._cancel = lambda: loop.call_soon_threadsafe(task.cancel)
        if self._first is not None:
            task.cancel()

    @contextmanager
    def calls(self, stop: Callable[[], None]) -> Iterator[None]:
        """Let the first signal in the block call `stop`, instead of cancelling the job."""
        before = self._cancel
        loop = asyncio.get_running_loop()

        def first() -> None:
            self._meant = _MEANT_WHILE_STOPPING
            loop.call_soon_threadsafe(stop)

        self._cancel = first
        try:
            yield
        finally:
            self._cancel = before

    def _on_signal(self, number: int, _frame: object) -> None:
        if self._session is not None and number == signal.SIGTERM:
            self._session.terminated = True
        now = time.monotonic()
        if self._first is None:
            self._first = now
            if self._cancel is not None:
                with suppress(RuntimeError):  # The loop is closed: all is over.
                    self._cancel()
        elif now - self._first > self._meant:
            os._exit(exit_codes.INTERRUPTED)


def run(chosen: Settings, job: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run `job` in an event loop; turn errors and signals into one line and an exit code."""
    notes: list[str] = []

    async def watched() -> T:
        task = asyncio.current_task()
        assert task is not None
        signals.cancels(asyncio.get_running_loop(), task)
        try:
            return await job()
        except asyncio.CancelledError as cancelled:
            notes.extend(getattr(cancelled, "__notes__", []))
            raise

    with _Signals(chosen.session) as signals, reported(chosen, notes):
        return asyncio.run(watched()) if chosen.session is None else chosen.session.runner.run(watched())


@contextmanager
def stopping(stop: Callable[[], None]) -> Iterator[None]:
    """Let the first Ctrl-C or SIGTERM in the block call `stop`; the next ends the process at once."""
    assert _Signals.now is not None
    with _Signals.now.calls(stop):
        yield


@contextmanager
def noting(note: str) -> Iterator[None]:
    """Tell whoever interrupts the block, or reads of an error in it, how things stand."""
    try:
        yield
    except asyncio.CancelledError as cancelled:
        cancelled.add_note(note)
        raise
    except SectigoError as error:
        if note not in f"{error} {error.hint}":
            error.hint = f"{note}; {error.hint}" if error.hint else note
        raise


@contextmanager
def reported(chosen: Settings, notes: Sequence[str] = ()) -> Iterator[None]:
    """Turn what the block raises into one line and an exit code."""
    try:
        yield
    except (KeyboardInterrupt, asyncio.CancelledError):
        say("interrupted" + "".join(f"; {note}" for note in notes))
        code = exit_codes.INTERRUPTED
    except SectigoError as error:
        code = report(error, chosen)
    except OutputError as error:
        say(f"error: cannot write the output: {error}")
        code = exit_codes.FAILED
    except (typer.Exit, typer.BadParameter):
        raise
    except Exception as error:  # noqa: BLE001 - the last line of defence against a traceback
        code = report_bug(error, debug=chosen.debug)
    else:
        return
    raise typer.Exit(code) from None


def report(error: SectigoError, chosen: Settings) -> int:
    """Say what failed and the way out, in one line; return the exit code."""
    if chosen.debug:
        traceback.print_exception(error)
    hint = f" {error.hint[0].upper()}{error.hint[1:].removesuffix('.')}." if error.hint else ""
    text = f"{error}." if hint and not str(error).endswith((".", "?")) else str(error)
    beside = ""
    if isinstance(error, AuthenticationError) and chosen.env_file is None and _dotenv_names_ours():
        beside = " The file .env here names SECTIGO_ variables; it is read only with --env-file .env."
    say(f"error: {text}{hint}{beside}")
    return exit_codes.exit_code(error)


def _dotenv_names_ours() -> bool:
    path = Path(".env")
    with suppress(OSError):
        if path.is_file():
            with path.open("rb") as file:
                return re.search(rb"^\s*(export\s+)?SECTIGO_", file.read(_LONGEST_DOTENV), re.MULTILINE) is not None
    return False


def report_bug(error: BaseException, *, debug: bool) -> int:
    """Say that this should not have happened; return the exit code."""
    if debug:
        traceback.print_exception(error)
    way_out = "" if debug else ". Run it again with --debug before the command, and report what it prints."
    say(f"error: unexpected {type(error).__name__}: {error}{way_out}")
    return exit_codes.FAILED
