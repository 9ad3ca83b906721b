"""Questions to a person, on stderr. Commands ask only where `Settings.interactive` says that somebody is there."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from sectigo_async.errors import InvalidArgumentError
from sectigo_async_cli.output import spinner, visible

if TYPE_CHECKING:
    from prompt_toolkit.output import Output
    from questionary import Question

T = TypeVar("T")

Check = Callable[[str], str]
"""Says what is wrong with an answer; nothing where it will do."""


def is_terminal() -> bool:
    """Say whether stdin, stdout and stderr are terminals, so that somebody may be there to ask."""
    return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr))


async def ask(question: str, *, default: str = "", hint: str = "", check: Check | None = None) -> str:
    """Return what a person answers, without blanks around it.

    Args:
        question: what to ask.
        default: what the answer starts with.
        hint: an example, or what happens without an answer.
        check: says what is wrong with an answer.

    Raises:
        InvalidArgumentError: they end the input.
        CancelledError: they press Ctrl-C.
    """
    import questionary

    def judge(text: str) -> bool | str:
        return True if check is None else visible(check(text.strip())) or True

    asked = questionary.text(
        visible(question),
        default=default,
        instruction=f"({visible(hint)})" if hint else None,
        validate=judge,
        output=_stderr(),
    )
    return str(await _answer(asked)).strip()


async def ask_secret(question: str, *, check: Check | None = None) -> str:
    """Return what a person answers, which is not shown as it is typed. Raises as `ask` does."""
    import questionary

    def judge(text: str) -> bool | str:
        return True if check is None else visible(check(text)) or True

    return str(await _answer(questionary.password(visible(question), validate=judge, output=_stderr())))


async def choose(question: str, choices: Sequence[tuple[str, T]]) -> T:
    """Return which of some choices, given as text and value, a person takes. Raises as `ask` does."""
    import questionary

    offered = [questionary.Choice(visible(text), value=index) for index, (text, _) in enumerate(choices)]
    index = await _answer(questionary.select(visible(question), choices=offered, output=_stderr(), use_jk_keys=False))
    assert isinstance(index, int)
    return choices[index][1]


async def confirm(question: str, *, default: bool) -> bool:
    """Say whether a person agrees. Raises as `ask` does."""
    import questionary

    return bool(await _answer(questionary.confirm(visible(question), default=default, output=_stderr())))


def _stderr() -> "Output":
    from prompt_toolkit.output import create_output

    return create_output(stdout=sys.stderr)


async def _answer(question: "Question") -> object:
    asking: Awaitable[object] = question.unsafe_ask_async()
    try:
        with spinner.hushed():
            return await asking
    except KeyboardInterrupt:
        # Ctrl-C is a key while a question stands, and means what it always does.
        raise asyncio.CancelledError from None
    except EOFError:
        pass
    raise InvalidArgumentError("there was no answer", hint="use the options of the command")
