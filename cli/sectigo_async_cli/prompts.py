"""Questions to a person, on stderr. Commands ask only where `Settings.interactive` says that somebody is there."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from sectigo_async.errors import InvalidArgumentError
from sectigo_async_cli.streams import flat, is_live, spinner

if TYPE_CHECKING:
    from prompt_toolkit.output import Output
    from questionary import Question

T = TypeVar("T")

Check = Callable[[str], str]
"""Says what is wrong with an answer; nothing where it will do."""


def is_terminal() -> bool:
    """Say whether stdin, stdout and stderr are terminals that can show a question, so that somebody may be there."""
    return all(is_live(stream) for stream in (sys.stdin, sys.stdout, sys.stderr))


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

    asked = questionary.text(
        flat(question),
        default=flat(default),
        instruction=f"({flat(hint)})" if hint else None,
        validate=_judge(None if check is None else lambda text: check(text.strip())),
        validate_while_typing=False,
        output=_stderr(),
    )
    return str(await _answer(asked)).strip()


async def ask_secret(question: str, *, check: Check | None = None) -> str:
    """Return what a person answers, which is not shown as it is typed. Raises as `ask` does."""
    import questionary

    asked = questionary.password(
        flat(question), validate=_judge(check), validate_while_typing=False, output=_stderr()
    )
    return str(await _answer(asked))


def _judge(check: Check | None) -> Callable[[str], bool | str]:
    def judge(text: str) -> bool | str:
        return True if check is None else flat(check(text)) or True

    return judge


async def choose(question: str, choices: Sequence[tuple[str, T]]) -> T:
    """Return which of some choices, given as text and value, a person takes. Raises as `ask` does."""
    import questionary
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent, merge_key_bindings

    offered = [questionary.Choice(flat(text), value=index) for index, (text, _) in enumerate(choices)]
    asked = questionary.select(flat(question), choices=offered, output=_stderr(), use_jk_keys=False)
    keys = KeyBindings()

    @keys.add("c-d")
    def end(event: KeyPressEvent) -> None:
        event.app.exit(exception=EOFError())

    @keys.add("<sigint>")
    def interrupt(event: KeyPressEvent) -> None:
        event.app.exit(exception=KeyboardInterrupt())

    assert asked.application.key_bindings is not None
    asked.application.key_bindings = merge_key_bindings([asked.application.key_bindings, keys])
    index = await _answer(asked)
    assert isinstance(index, int)
    return choices[index][1]


async def confirm(question: str, *, default: bool) -> bool:
    """Say whether a person agrees. Raises as `ask` does."""
    import questionary

    return bool(await _answer(questionary.confirm(flat(question), default=default, output=_stderr())))


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
