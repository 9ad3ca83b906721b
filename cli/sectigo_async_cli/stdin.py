"""What a command reads from standard input, and the secrets that it takes from there or from a file."""

import asyncio
import os
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from sectigo_async import Secret
from sectigo_async.credentials import read_secret_file, without_newline
from sectigo_async.errors import CredentialStoreError, FileError, InvalidArgumentError

PasswordStdin = Annotated[bool, typer.Option("--password-stdin", help="Read the password from standard input.")]
PasswordFile = Annotated[Path | None, typer.Option("--password-file", help="Read the password from this file.")]

_LONGEST = 64 * 1024


def check_one_way(*given: object) -> None:
    """Raise an error if a password is given in more than one way.

    Raises:
        typer.BadParameter: it is.
    """
    if sum(way is not None and way is not False for way in given) > 1:
        raise typer.BadParameter("give the password in one way", param_hint="--password-stdin, --password-file")


async def given_password(*, stdin: bool, file: Path | None) -> Secret | None:
    """Return the password that standard input or a file holds; `None` where neither is named.

    Raises:
        InvalidArgumentError: standard input holds none.
        FileError: the file holds none.
    """
    if stdin:
        return await password_from_stdin()
    if file is None:
        return None
    try:
        return await read_secret_file(file)
    except CredentialStoreError as error:
        problem = str(error)
    raise FileError(problem, hint="put the password in it, on one line")


async def password_from_stdin() -> Secret:
    """Return the password on standard input, without the end of its line.

    Raises:
        InvalidArgumentError: there is none.
    """
    try:
        text = (await read_stdin(_LONGEST)).decode()
    except UnicodeDecodeError:
        text = ""
    if not (password := without_newline(text)):
        raise InvalidArgumentError("standard input holds no password", hint="write it there, and nothing else")
    return password


async def read_stdin(limit: int) -> bytes:
    """Return what standard input holds, up to its end or one byte more than `limit`; nothing where there is none.

    Raises:
        InvalidArgumentError: it is a terminal, which would show what is typed.
        FileError: it cannot be read.
    """
    if sys.stdin is None:
        return b""
    if sys.stdin.isatty():
        raise InvalidArgumentError("standard input is a terminal", hint="write to it from a file or a program")
    loop = asyncio.get_running_loop()
    done: asyncio.Future[bytes] = loop.create_future()

    def read() -> None:
        # Not through the buffer of `sys.stdin`, whose lock would keep the process from ending.
        data = bytearray()
        problem = ""
        try:
            while len(data) <= limit and (piece := os.read(0, limit + 1 - len(data))):
                data += piece
        except OSError as error:
            problem = error.strerror or str(error)
        with suppress(RuntimeError):  # Nobody waits any more, and the loop is closed.
            loop.call_soon_threadsafe(settle, bytes(data), problem)

    def settle(data: bytes, problem: str) -> None:
        if done.cancelled():
            return
        if problem:
            done.set_exception(FileError(f"cannot read standard input: {problem}", hint="name a file"))
        else:
            done.set_result(data)

    # A thread that is left behind: whoever writes may never end, and Ctrl-C has to.
    threading.Thread(target=read, daemon=True).start()
    return await done
