"""Fetching what was issued: download."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from sectigo_async import Archive, SectigoClient
from sectigo_async_cli.context import settings
from sectigo_async_cli.options import BatchId
from sectigo_async_cli.options import register as add
from sectigo_async_cli.run import run_client
from sectigo_async_cli.stdin import PasswordFile, PasswordStdin, check_one_way, given_password
from sectigo_async_cli.targets import batch_target
from sectigo_async_cli.unpacking import COLUMNS, DOWNLOAD_LIMIT, Unpacking

_OPENSSL = (
    "after unzipping, unencrypt with your password using `openssl pkcs12 -in INFILE.p12 -out OUTFILE.crt -nodes`"
)


def download(
    ctx: typer.Context,
    *,
    batch_id: BatchId = None,
    outdir: Annotated[Path, typer.Option("--outdir", "-o", help="Directory to download to.")] = Path(),
    force: Annotated[bool, typer.Option("--force", help="Replace files of other content; keys never.")] = False,
    extract: Annotated[
        bool, typer.Option("--extract", "-x", help="Write each certificate and its key to a folder there, too.")
    ] = False,
    key: Annotated[
        list[Path] | None, typer.Option("--key", help="With --extract: a private key of yours; may be repeated.")
    ] = None,
    password_stdin: PasswordStdin = False,
    password_file: PasswordFile = None,
) -> None:
    """Download the archive of a batch that is ready.

    Example: sectigo-async download -i 24 -o certs/ --extract --password-file gw7.example.com.p12.password
    """
    chosen = settings(ctx)
    check_one_way(password_stdin, password_file)
    if not extract and (key or password_stdin or password_file):
        raise typer.BadParameter("a key or a password is of use with --extract alone", param_hint="--extract")

    async def job(client: SectigoClient) -> None:
        number = await batch_target(chosen, batch_id)
        password = await given_password(stdin=password_stdin, file=password_file)
        path = await client.batches.download_to(number, outdir, overwrite=force, timeout=DOWNLOAD_LIMIT)
        told: Mapping[str, object] = {"batchId": number, "file": str(path)}
        if not extract:
            chosen.output.emit(told, text=f"downloaded batch {number} to {path}\n{_OPENSSL}")
            return
        unpacking = Unpacking(directory=outdir, password=password, key_files=key or (), overwrite=force)
        unpacked = await unpacking.run(chosen, await asyncio.to_thread(Archive.from_file, path))
        folders = "\n".join(f"extracted {one['commonName']} to {one['directory']}" for one in unpacked.documents)
        chosen.output.emit(
            {**told, "certificates": unpacked.documents},
            COLUMNS,
            rows=unpacked.documents,
            text=f"downloaded batch {number} to {path}\n{folders}",
        )
        unpacked.report(chosen)

    run_client(ctx, job)


def register(app: typer.Typer) -> None:
    """Add this command to `app`."""
    add(app, download)
