"""Questions to a person. They are asked on stderr, outside the event loop, and on a terminal alone."""

import getpass
import sys
from collections.abc import Callable

from sectigo_async.errors import SignInRequiredError
from sectigo_async_cli.output import visible


def is_interactive() -> bool:
    """Say whether a person is there to ask."""
    return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stderr))


def ask(question: str) -> str:
    """Return what a person answers, without blanks around it.

    Raises:
        SignInRequiredError: they end the input.
    """
    return _answer(lambda: _read_line(question)).strip()


def ask_secret(question: str) -> str:
    """Return what a person answers, which is not shown as it is typed.

    Raises:
        SignInRequiredError: they end the input.
    """
    return _answer(lambda: getpass.getpass(visible(question), stream=sys.stderr))


def confirm(question: str) -> bool:
    """Say whether a person agrees; nothing typed means yes, the end of the input no."""
    while True:
        try:
            answer = ask(f"{question} [Y/n] ").lower()
        except SignInRequiredError:
            return False
        if answer in {"", "y", "yes", "n", "no"}:
            return answer not in {"n", "no"}


def _read_line(question: str) -> str:
    sys.stderr.write(visible(question))
    sys.stderr.flush()
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line


def _answer(read: Callable[[], str]) -> str:
    try:
        return read()
    except EOFError:
        sys.stderr.write("\n")
    except UnicodeDecodeError:
        pass
    raise SignInRequiredError("there was no answer", hint="type one in UTF-8, or use the options of the command")
