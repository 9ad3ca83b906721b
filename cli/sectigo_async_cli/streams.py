"""The two streams: a line of data to stdout, a line of talk to stderr, and who reads them.

Text of the service, of files and of file names may be hostile: it reaches a terminal as plain text alone, with all
that is not printable written out.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    import asyncio

    from rich.status import Status

_PATIENCE = 1.0


def visible(text: object) -> str:
    """Return foreign text with control, bidi and zero-width characters written out, fit for a terminal."""
    return "".join(
        char if char.isprintable() or char == "\n" else char.encode("unicode_escape").decode() for char in str(text)
    )


def say(text: str) -> None:
    """Write one line of talk to stderr."""
    # Talk that nobody can hear must not keep data from being written.
    with spinner.hushed(), suppress(OSError, ValueError, AttributeError):
        sys.stderr.write(flat(text) + "\n")
        sys.stderr.flush()


class OutputError(Exception):
    """Data cannot be written to stdout."""


def print_text(text: str) -> bool:
    """Write text to stdout as a line of data; say whether somebody reads it. Where nobody does, that is no error.

    Raises:
        OutputError: it cannot be written.
    """
    if sys.stdout is None:  # Closed by whoever started this program.
        raise OutputError("standard output is closed")
    problem = ""
    with spinner.hushed():
        try:
            sys.stdout.write(text + "\n")
            sys.stdout.flush()
        except BrokenPipeError:
            give_up_stdout()
            return False
        except OSError as error:
            give_up_stdout()
            problem = error.strerror or str(error)
    if problem:
        raise OutputError(problem)
    return True


def give_up_stdout() -> None:
    """Let what is still buffered go nowhere, or the interpreter would complain of it at its end."""
    with suppress(OSError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def output_errors() -> Iterator[None]:
    """End the process with a line where the block cannot write its output; that nobody reads it is no error."""
    try:
        yield
    except BrokenPipeError:
        give_up_stdout()
    except (OSError, OutputError) as error:
        give_up_stdout()
        say(f"error: cannot write the output: {getattr(error, 'strerror', None) or error}")
        sys.exit(1)


def is_terminal() -> bool:
    """Say whether data goes to a terminal."""
    return sys.stdout is not None and sys.stdout.isatty()


def is_live(stream: TextIO | None) -> bool:
    """Say whether a stream is a terminal on which lines can be written anew."""
    return stream is not None and stream.isatty() and os.environ.get("TERM", "").lower() not in {"dumb", "unknown"}


def flat(text: object) -> str:
    """Return foreign text as `visible` does, in one line."""
    return visible(" ".join(str(text).split("\n")))


class _Spinner:
    """Tells on a terminal what is being waited for, when it takes more than a second. There is one for all."""

    def __init__(self) -> None:
        self._text = ""
        self._timer: asyncio.TimerHandle | None = None
        self._shown: Status | None = None
        self._hushed = 0

    @contextmanager
    def turning(self, text: str) -> Iterator[None]:
        """Turn while the block waits, in an event loop."""
        before, self._text = self._text, text
        self._arm()
        try:
            yield
        finally:
            self._stop()
            self._text = before
            self._arm()

    @contextmanager
    def hushed(self) -> Iterator[None]:
        """Keep quiet while the block uses the terminal."""
        self._stop()
        self._hushed += 1
        try:
            yield
        finally:
            self._hushed -= 1
            self._arm()

    def _arm(self) -> None:
        if self._text and not self._hushed and self._timer is None and self._shown is None:
            import asyncio

            with suppress(RuntimeError):  # Outside an event loop nothing waits.
                self._timer = asyncio.get_running_loop().call_later(_PATIENCE, self._start)

    def _start(self) -> None:
        from rich.console import Console
        from rich.text import Text

        self._timer = None
        self._shown = Console(stderr=True).status(Text(visible(self._text)))
        self._shown.start()

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._shown is not None:
            self._shown.stop()
            self._shown = None


spinner = _Spinner()
