"""Files that hold certificates, without any network: inspect, unpack."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from sectigo_async.errors import WrongPasswordError
from sectigo_async.pki import Archive, Item, read_items
from sectigo_async_cli.context import settings
from sectigo_async_cli.options import register as add
from sectigo_async_cli.prompts import ask_secret
from sectigo_async_cli.run import busy, run
from sectigo_async_cli.stdin import PasswordFile, PasswordStdin, check_one_way, given_password
from sectigo_async_cli.streams import say
from sectigo_async_cli.targets import file_target
from sectigo_async_cli.unpacking import COLUMNS, Unpacking


def inspect(
    ctx: typer.Context,
    *,
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", help="A certificate, CSR, key, PKCS#12 or PKCS#7 file, or a ZIP of them."),
    ] = None,
    password_stdin: PasswordStdin = False,
    password_file: PasswordFile = None,
) -> None:
    """Show what a file holds. No secret of it is shown.

    Example: sectigo-async inspect certs/24.zip
    """
    chosen = settings(ctx)
    check_one_way(password_stdin, password_file)

    async def job() -> None:
        path = await file_target(chosen, file, "File:", "FILE")
        archive = await asyncio.to_thread(Archive.from_file, path)
        password = await given_password(stdin=password_stdin, file=password_file)
        items: Sequence[Item] = await asyncio.to_thread(read_items, archive, password)
        if password is None and any(item.kind == "locked" for item in items):
            if chosen.interactive:
                items = await _ask_to_open(archive, items)
            else:
                chosen.output.note("note: what is locked is opened with --password-file or --password-stdin")
        old = next((item for item in items if item.protection is not None and item.protection.old), None)
        if old is not None:
            way = chosen.command("unpack", str(path), "--password-file", "FILE")
            chosen.output.note(f"note: {old.member!r} has old encryption; {way} writes a bundle.p12 with AES-256")
        documents = [item.document() for item in items]
        if len(documents) == 1:
            # One thing is shown with all that is known of it.
            chosen.output.emit(documents, {name: name for name in documents[0]})
        else:
            chosen.output.emit(documents, _INSPECTED)

    run(chosen, job)


async def _ask_to_open(archive: Archive, locked: Sequence[Item]) -> Sequence[Item]:
    """Return what a file holds with the password that a person types; as it is where they type none."""
    while password := await ask_secret("Password, empty to leave locked what is locked:"):
        try:
            return await asyncio.to_thread(read_items, archive, password)
        except WrongPasswordError as error:
            say(f"warning: {error}")
    return locked


_INSPECTED = {
    "file": "File",
    "kind": "Kind",
    "commonName": "Common name",
    "serialNumber": "Serial number",
    "notAfter": "Expires",
    "key": "Key",
    "protection": "Protection",
}


def unpack(
    ctx: typer.Context,
    *,
    file: Annotated[
        Path | None,
        typer.Argument(metavar="ARCHIVE", help="An archive as downloaded, or a PKCS#12, PEM or PKCS#7 file."),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Directory to write to, a folder per certificate.")
    ] = Path(),
    key: Annotated[list[Path] | None, typer.Option("--key", help="A private key of yours; may be repeated.")] = None,
    trust: Annotated[Path | None, typer.Option(help="PEM file with the roots that chains must lead to.")] = None,
    combined: Annotated[
        bool, typer.Option("--combined", help="Write combined.pem too: certificate, chain and key in one.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace files of other content; keys never.")] = False,
    password_stdin: PasswordStdin = False,
    password_file: PasswordFile = None,
) -> None:
    """Write the certificates and keys of an archive as the files that servers read, and check them.

    Each certificate gets a folder: privkey.pem, cert.pem, chain.pem, fullchain.pem, and bundle.p12 with today's
    encryption where there is a password.

    Example: sectigo-async unpack certs/24.zip -o certs/ --password-file gw7.example.com.p12.password
    """
    chosen = settings(ctx)
    check_one_way(password_stdin, password_file)

    async def job() -> None:
        path = await file_target(chosen, file, "Archive:", "ARCHIVE")
        unpacking = Unpacking(
            directory=out,
            password=await given_password(stdin=password_stdin, file=password_file),
            key_files=key or (),
            trust=trust,
            combined=combined,
            overwrite=force,
        )
        with busy(chosen, "unpacking"):
            unpacked = await unpacking.run(chosen, await asyncio.to_thread(Archive.from_file, path))
        chosen.output.emit(unpacked.documents, COLUMNS)
        unpacked.report(chosen)

    run(chosen, job)


def register(app: typer.Typer) -> None:
    """Add these commands to `app`."""
    add(app, inspect)
    add(app, unpack)
