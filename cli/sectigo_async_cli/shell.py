"""Reading command lines and running them: what `sectigo-async shell` does."""

import os
import shlex
import sys
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from typing import Any

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.output import create_output

from sectigo_async import SectigoClient, SectigoError
from sectigo_async.credentials import state_directory
from sectigo_async.errors import CredentialStoreError
from sectigo_async_cli import exit_codes
from sectigo_async_cli.context import Settings
from sectigo_async_cli.output import say, visible
from sectigo_async_cli.run import run

_NOT_HERE = frozenset({"shell", "serve", "demo"})
_LEAVE = frozenset({"exit", "quit"})
_P_IS_NO_PASSWORD = frozenset({"upload", "revoke", "profiles", "profile"})
_SECRET_WORDS = ("password", "secret", "token")
_PROFILE_OPTIONS = frozenset({"--profile", "--authority"})


def read_and_run(chosen: Settings, program: Any, client: SectigoClient) -> None:
    """Read command lines and run them, until the input ends.

    Args:
        chosen: the options that hold for all of them.
        program: the tree of commands.
        client: lists what can be completed.
    """
    prompt: PromptSession[str] = PromptSession(
        history=_history(),
        completer=CommandCompleter(program.commands, client),
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
    if next((word for word in words if not word.startswith("-")), "") in _NOT_HERE:
        say(f"error: not in the shell. Run it in another terminal: sectigo-async {shlex.join(words)}.")
        return
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
    if any(word in line.lower() for word in _SECRET_WORDS):
        return True
    words = line.split()
    # Where -p is no password: behind the name of such a command.
    harmless = next((index for index, word in enumerate(words) if word in _P_IS_NO_PASSWORD), len(words))
    return any(word.startswith("-") and not word.startswith("--") and "p" in word for word in words[:harmless])


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
    """Completes commands, options, and the ids that the service knows.

    Args:
        commands: the commands by name.
        client: lists the ids; asked once, when they are first needed.
    """

    def __init__(self, commands: Mapping[str, Any], client: SectigoClient) -> None:
        self._commands = {name: command for name, command in commands.items() if not command.hidden}
        self._client = client
        self._ids: list[tuple[str, str]] | None = None

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """Return what can be said without asking the service."""
        del complete_event
        before, word = _words(document.text_before_cursor)
        for text, meaning in self._known(before, word):
            if text.startswith(word):
                yield Completion(text, start_position=-len(word), display_meta=visible(meaning))

    async def get_completions_async(
        self, document: Document, complete_event: CompleteEvent
    ) -> AsyncGenerator[Completion, None]:
        """Return that, and ids."""
        for completion in self.get_completions(document, complete_event):
            yield completion
        before, word = _words(document.text_before_cursor)
        if self._wants_id(before):
            for text, meaning in await self._live_ids():
                if text.startswith(word):
                    yield Completion(text, start_position=-len(word), display_meta=visible(meaning))

    def _known(self, before: list[str], word: str) -> Iterable[tuple[str, str]]:
        if not before:
            names = {name: command.get_short_help_str(60) for name, command in self._commands.items()}
            return [*names.items(), ("help", "Show the commands."), ("exit", "Leave.")]
        command = self._commands.get(before[0])
        if command is None or not word.startswith("-"):
            return ()
        return [
            (option, one.help or "") for one in command.params for option in getattr(one, "opts", ()) if "-" in option
        ]

    def _wants_id(self, before: list[str]) -> bool:
        command = self._commands.get(before[0]) if before else None
        if command is None:
            return False
        taking = next((one for one in command.params if before[-1] in getattr(one, "opts", ())), None)
        options = set() if taking is None else set(taking.opts)
        return bool(_PROFILE_OPTIONS & options) or (before[0] in {"profiles", "profile"} and "--id" in options)

    async def _live_ids(self) -> list[tuple[str, str]]:
        if self._ids is None:
            try:
                listed = await self._client.authorities.list()
            except SectigoError:
                return []
            self._ids = [(str(one.profile_id), one.profile_name) for one in listed if one.profile_id is not None]
        return self._ids


def _words(text: str) -> tuple[list[str], str]:
    """Return the whole words before the cursor, and the one that is being typed."""
    words = text.split()
    return (words, "") if not words or text[-1:].isspace() else (words[:-1], words[-1])
