"""A key and a request for it, made on this machine: csr."""

import asyncio
import re
from pathlib import Path
from typing import Annotated

import typer

from sectigo_async.errors import FileError
from sectigo_async.files import exists
from sectigo_async.pki import (
    KeyAlgorithm,
    PrivateKey,
    describe_key,
    generate_key,
    is_dns_name,
    key_pem,
    make_csr,
    safe_name,
    write_private,
)
from sectigo_async_cli.context import settings
from sectigo_async_cli.options import Country, Locality, Organization, San, State
from sectigo_async_cli.options import register as add
from sectigo_async_cli.prompts import ask, choose
from sectigo_async_cli.run import busy, run
from sectigo_async_cli.unpacking import read_key


def csr(
    ctx: typer.Context,
    *,
    domain: Annotated[
        str | None, typer.Option("--domain", "-d", help="Common name, and DNS name, of the request.")
    ] = None,
    san: San = None,
    organization: Organization = None,
    country: Country = None,
    state: State = None,
    locality: Locality = None,
    algorithm: Annotated[
        KeyAlgorithm, typer.Option("--algorithm", case_sensitive=False, help="Kind of key to make.")
    ] = KeyAlgorithm.P256,
    key: Annotated[Path | None, typer.Option("--key", help="Use this private key instead of making one.")] = None,
    key_out: Annotated[Path | None, typer.Option(help="Where the key is written; DOMAIN.key when left out.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Where the request is written; DOMAIN.csr when left out.")
    ] = None,
) -> None:
    """Make a private key and a certificate signing request (CSR) for it. The key stays on this machine.

    Example: sectigo-async csr -d gw8.example.com --san www.gw8.example.com
    """
    chosen = settings(ctx)
    if key is not None and key_out is not None:
        raise typer.BadParameter("a key that is there already is not written", param_hint="--key-out")
    given = {
        "organizationName": organization,
        "localityName": locality,
        "stateOrProvinceName": state,
        "countryName": country,
    }

    async def job() -> None:
        name, sans, kind = domain or "", list(san or []), algorithm
        if not name:
            if not chosen.interactive:
                raise typer.BadParameter("missing: name the certificate with --domain", param_hint="--domain")
            name = await ask("Common name:", hint="gw8.example.com", check=lambda text: "" if text else "needed")
            sans += (await ask("Further DNS names, with blanks between:", hint="none")).replace(",", " ").split()
            given["organizationName"] = organization or await ask("Organisation:", hint="none")
            given["countryName"] = country or await ask(
                "Country:", hint="two letters, or none", check=_country_problem
            )
            if key is None:
                kind = await choose("Kind of key:", [(one.value, one) for one in KeyAlgorithm])
        subject = {part: text for part, text in given.items() if text}
        # A common name need not be a DNS name where there are others.
        names = list(dict.fromkeys([*([name] if is_dns_name(name) or not sans else []), *sans]))
        # What cannot stand in a request is refused before a key is written.
        make_csr(await asyncio.to_thread(generate_key), name, dns_names=names, subject=subject)
        key_file = key or key_out or Path(f"{safe_name(name)}.key")
        request_file = out or Path(f"{safe_name(name)}.csr")
        if key_file == request_file:
            raise typer.BadParameter("the key and the request need a file each", param_hint="--key-out, --out")
        await asyncio.to_thread(_refuse_existing, request_file, "--out")
        with busy(chosen, "making the key"):
            private = await asyncio.to_thread(read_key, key) if key is not None else await _make_key(kind, key_file)
        request = make_csr(private, name, dns_names=names, subject=subject)
        await asyncio.to_thread(write_private, request_file, request)
        chosen.output.emit(
            {
                "commonName": name,
                "dnsNames": names,
                "key": describe_key(private.public_key()),
                "keyFile": str(key_file),
                "csrFile": str(request_file),
            }
        )
        chosen.output.note(f"order it with {chosen.command('upload', '-p', 'PROFILE', str(request_file))}")

    run(chosen, job)


def _country_problem(text: str) -> str:
    return "" if not text or re.fullmatch("[A-Za-z]{2}", text) else "two letters are needed"


async def _make_key(algorithm: KeyAlgorithm, file: Path) -> PrivateKey:
    await asyncio.to_thread(_refuse_existing, file, "--key-out")
    private = await asyncio.to_thread(generate_key, algorithm)
    await asyncio.to_thread(write_private, file, key_pem(private))
    return private


def _refuse_existing(file: Path, option: str) -> None:
    if exists(file):
        use = "use it with --key, or " if option == "--key-out" else ""
        raise FileError(f"{file} is there already", hint=f"{use}name another with {option}")


def register(app: typer.Typer) -> None:
    """Add this command to `app`."""
    add(app, csr)
