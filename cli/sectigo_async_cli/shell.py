"""Reading command lines and running them: what `sectigo-async shell` does."""

import os
import re
import shlex
import sys
from collections.abc import AsyncGenerator, Iterable, Sequence
from typing import Any

import typer
from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.output import create_output

from sectigo_async import SectigoError
from sectigo_async.credentials import state_directory
from sectigo_async.errors import CredentialStoreError
from sectigo_async_cli import exit_codes
from sectigo_async_cli.context import Session, Settings
from sectigo_async_cli.run import run
from sectigo_async_cli.streams import flat, say

_LEAVE = frozenset({"exit", "quit"})
_P_IS_NO_PASSWORD = frozenset({"upload", "revoke", "profiles", "profile"})
_SECRET_WORDS = ("passw", "secret", "token")
_PROFILE_OPTIONS = frozenset({"--profile", "--authority"})


def read_and_run(chosen: Settings, session: Session, program: Any) -> None:
    """Read command lines and run them, until the input ends or SIGTERM comes.

    Args:
        chosen: the options that hold for all of them.
        session: what they share.
        program: the tree of commands.
    """
    prompt: PromptSession[str] = PromptSession(
        history=_history(),
        completer=CommandCompleter(program, session),
        complete_while_typing=False,
        output=create_output(stdout=sys.stderr),
    )
    say("Type a command, or help. Tab completes, Ctrl-D leaves.")
    while (line := _read(chosen, prompt)) is not None:
        try:
            words = shlex.split(line)
        except ValueError as error:
            say(f"error: {error}")
            continue
        if not words:
            continue
        if words[0] in _LEAVE:
            return
        _run_line(chosen, program, words)
        if session.terminated:
            raise typer.Exit(exit_codes.INTERRUPTED)


def _read(chosen: Settings, prompt: PromptSession[str]) -> str | None:
    """Return the next line; nothing where Ctrl-C discards it; `None` at the end of the input."""

    async def read() -> str | None:
        try:
            return await prompt.prompt_async("sectigo> ")
        except KeyboardInterrupt:
            return ""
        except EOFError:
            return None

    return run(chosen, read)


def _run_line(chosen: Settings, program: Any, words: Sequence[str]) -> None:
    if words[0] == "help":
        words = [*words[1:], "--help"]
    try:
        program(args=list(words), prog_name="sectigo-async", obj=chosen)
    except SystemExit as ended:
        if ended.code not in {None, exit_codes.DONE}:
            say(f"(exit code {ended.code})")


def _history() -> History:
    """Return what was typed, in a file of mode 0600 where there is a place for it."""
    try:
        path = state_directory() / "shell_history"
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY | getattr(os, "O_NOFOLLOW", 0), 0o600))
        path.chmod(0o600)
    except (OSError, CredentialStoreError) as error:
        say(f"warning: no history is kept: {error}")
        return InMemoryHistory()
    return _SecretFreeHistory(path)


def may_hold_a_secret(line: str) -> bool:
    """Say whether a line may hold a secret; rather yes than no."""
    try:
        words = shlex.split(line)
    except ValueError:
        return True
    if not words or any(text in line.lower() for text in _SECRET_WORDS):
        return bool(words)
    long = any(word.startswith(("--pa", "--param")) for word in words)
    short = any(re.match("-[^-]*p", word) for word in words)
    return long or (short and words[0] not in _P_IS_NO_PASSWORD)


class _SecretFreeHistory(FileHistory):
    """History without the lines that may hold a secret."""

    def append_string(self, string: str) -> None:
        """Remember a line, here and in the file, unless it may hold a secret."""
        if not may_hold_a_secret(string):
            super().append_string(string)

    def load_history_strings(self) -> Iterable[str]:
        """Return the lines of earlier shells; none where the file is damaged."""
        try:
            return list(super().load_history_strings())
        except OSError:
            return []


class CommandCompleter(Completer):
    """Completes commands, options, the profiles that the service knows, and the batches that commands told of.

    Args:
        program: the tree of commands.
        session: has the client that lists the profiles, asked once, when they are first needed; and the batches.
    """

    def __init__(self, program: Any, session: Session) -> None:
        self._program = program
        self._session = session
        self._profiles: list[tuple[str, str]] = []

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """Return what can be said without asking the service."""
        del complete_event
        before, word = _words(document.text_before_cursor)
        command, at_option = self._place(before)
        if command is None:
            return
        offered: list[tuple[str, str]] = []
        if word.startswith("-"):
            offered = [(option, one.help or "") for one in command.params for option in _options(one)]
        elif not at_option:
            offered = [(name, one.short_help or "") for name, one in _inner(command).items()]
            offered += [] if before else [("help", "Show the commands."), ("exit", "Leave.")]
        yield from _matching(offered, word)

    async def get_completions_async(
        self, document: Document, complete_event: CompleteEvent
    ) -> AsyncGenerator[Completion, None]:
        """Return that, and profiles."""
        for completion in self.get_completions(document, complete_event):
            yield completion
        before, word = _words(document.text_before_cursor)
        command, at_option = self._place(before)
        name = "" if command is None else command.name
        offered: Iterable[tuple[str, str]] = []
        if _PROFILE_OPTIONS & at_option or ("--id" in at_option and name in {"profiles", "profile"}):
            offered = await self._list_profiles()
        elif "--id" in at_option or (name == "wait" and not at_option):
            offered = [(str(number), batch_name) for number, batch_name in self._session.batches.items()]
        for completion in _matching(offered, word):
            yield completion

    def _place(self, before: Sequence[str]) -> tuple[Any, frozenset[str]]:
        """Return the command that the words lead into, and the names of the option whose value comes next."""
        command, waiting = self._program, frozenset[str]()
        for word in before:
            option = next((one for one in command.params if word in _options(one)), None)
            if waiting:
                waiting = frozenset()
            elif option is not None:
                waiting = frozenset() if getattr(option, "is_flag", False) else frozenset(_options(option))
            elif (inner := _inner(command)) and not word.startswith("-") and word != "help":
                command = inner.get(word)
                if command is None:
                    return None, frozenset()
        return command, waiting

    async def _list_profiles(self) -> list[tuple[str, str]]:
        client = self._session.open_client
        if not self._profiles and client is not None:  # One that has yet to be made may have to ask.
            try:
                listed = await client.authorities.list()
            except SectigoError:
                return []
            self._profiles = [(str(one.profile_id), one.profile_name) for one in listed if one.profile_id is not None]
        return self._profiles


def _inner(command: Any) -> dict[str, Any]:
    """Return the commands of a group; nothing of what is none."""
    return {name: one for name, one in getattr(command, "commands", {}).items() if not one.hidden}


def _options(parameter: Any) -> list[str]:
    return [name for name in (*parameter.opts, *parameter.secondary_opts) if name.startswith("-")]


def _matching(offered: Iterable[tuple[str, str]], word: str) -> Iterable[Completion]:
    for text, meaning in offered:
        if text.startswith(word):
            yield Completion(text, start_position=-len(word), display_meta=flat(meaning))


def _words(text: str) -> tuple[list[str], str]:
    """Return the whole words before the cursor, and the one that is being typed."""
    words = text.split()
    return (words, "") if not words or text[-1:].isspace() else (words[:-1], words[-1])
