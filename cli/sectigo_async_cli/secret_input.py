"""Secrets that a command takes: from standard input, from a file, or from a person; never echoed."""

import sys
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
        return password_from_stdin()
    if file is None:
        return None
    try:
        return await read_secret_file(file)
    except CredentialStoreError as error:
        problem = str(error)
    raise FileError(problem, hint="put the password in it, on one line")


def password_from_stdin() -> Secret:
    """Return the password on standard input, without the end of its line.

    Raises:
        InvalidArgumentError: there is none.
    """
    try:
        text = "" if sys.stdin is None else sys.stdin.read(_LONGEST)
    except UnicodeDecodeError:
        text = ""
    if not (password := without_newline(text)):
        raise InvalidArgumentError("standard input holds no password", hint="write it there, and nothing else")
    return password
