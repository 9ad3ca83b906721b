"""Files on this machine, without any network: csr, inspect, unpack, expiring."""

import asyncio
import os
import re
import stat
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer
from cryptography import x509

from sectigo_async.errors import FileError, PkiError, WrongPasswordError
from sectigo_async.files import file_errors
from sectigo_async.pki import (
    Archive,
    Item,
    KeyAlgorithm,
    PrivateKey,
    describe_key,
    generate_key,
    is_dns_name,
    key_pem,
    make_csr,
    read_items,
    safe_name,
    write_private,
)
from sectigo_async_cli import exit_codes
from sectigo_async_cli.context import settings
from sectigo_async_cli.options import register as add
from sectigo_async_cli.output import say
from sectigo_async_cli.prompts import ask, ask_secret, choose
from sectigo_async_cli.run import busy, run
from sectigo_async_cli.stdin import PasswordFile, PasswordStdin, check_one_way, given_password
from sectigo_async_cli.unpacking import COLUMNS, Unpacking, read_key

_MOST_NAMED = 3
_LARGEST_CERTIFICATE_FILE = 1024 * 1024
_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}
_LONGEST = timedelta(days=365 * 100)


def csr(
    ctx: typer.Context,
    *,
    domain: Annotated[
        str | None, typer.Option("--domain", "-d", help="Common name, and DNS name, of the request.")
    ] = None,
    san: Annotated[list[str] | None, typer.Option("--san", help="A further DNS name; may be repeated.")] = None,
    organization: Annotated[str | None, typer.Option(help="Organisation in the subject.")] = None,
    country: Annotated[str | None, typer.Option("--country", "-c", help="Country, two letters.")] = None,
    state: Annotated[str | None, typer.Option("--state", "-s", help="State or province.")] = None,
    locality: Annotated[str | None, typer.Option("--locality", "-l", help="City or locality.")] = None,
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
    with file_errors(file):
        is_there = file.exists()
    if is_there:
        use = "use it with --key, or " if option == "--key-out" else ""
        raise FileError(f"{file} is there already", hint=f"{use}name another with {option}")


def inspect(
    ctx: typer.Context,
    *,
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="A certificate, CSR, key, PKCS#12 or PKCS#7 file, or a ZIP of them."),
    ],
    password_stdin: PasswordStdin = False,
    password_file: PasswordFile = None,
) -> None:
    """Show what a file holds. No secret of it is shown.

    Example: sectigo-async inspect certs/24.zip
    """
    chosen = settings(ctx)
    check_one_way(password_stdin, password_file)

    async def job() -> None:
        archive = await asyncio.to_thread(Archive.from_file, file)
        password = await given_password(stdin=password_stdin, file=password_file)
        items: Sequence[Item] = await asyncio.to_thread(read_items, archive, password)
        if password is None and any(item.kind == "locked" for item in items):
            if chosen.interactive:
                items = await _ask_to_open(archive, items)
            else:
                chosen.output.note("note: what is locked is opened with --password-file or --password-stdin")
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
}


def unpack(
    ctx: typer.Context,
    *,
    file: Annotated[
        Path, typer.Argument(metavar="ARCHIVE", help="An archive as downloaded, or a PKCS#12, PEM or PKCS#7 file.")
    ],
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
        unpacking = Unpacking(
            directory=out,
            password=await given_password(stdin=password_stdin, file=password_file),
            key_files=key or (),
            trust=trust,
            combined=combined,
            overwrite=force,
        )
        with busy(chosen, "unpacking"):
            unpacked = await unpacking.run(chosen, await asyncio.to_thread(Archive.from_file, file))
        chosen.output.emit(unpacked.documents, COLUMNS)
        unpacked.report(chosen)

    run(chosen, job)


def expiring(
    ctx: typer.Context,
    *,
    directories: Annotated[
        list[Path], typer.Argument(metavar="DIR...", help="Directories, searched to the bottom, or files.")
    ],
    within: Annotated[
        str, typer.Option("--within", help="How soon: hours, days or weeks, like 12h, 30d, 4w.")
    ] = "30d",
    check: Annotated[
        bool, typer.Option("--check", help="Exit with 1 if there are any, or if something could not be read.")
    ] = False,
) -> None:
    """List the certificates in some directories that expire soon, or have expired, the next one first.

    Example: sectigo-async expiring certs/ --within 30d --check
    """
    chosen = settings(ctx)
    limit = _duration(within)

    async def job() -> None:
        search = _Search(datetime.now(UTC) + limit)
        with busy(chosen, "reading certificates"):
            documents = await asyncio.to_thread(search.run, directories)
        columns = {
            "commonName": "Common name",
            "notAfter": "Expires",
            "serialNumber": "Serial number",
            "file": "File",
        }
        chosen.output.emit(documents, columns)
        if search.locked:
            chosen.output.note(f"note: {search.locked} locked files were not looked into")
        if search.unreadable:
            some = ", ".join(map(str, search.unreadable[:_MOST_NAMED]))
            say(f"warning: not looked into, since they cannot be read: {len(search.unreadable)}, among them {some}")
        if check and (documents or search.unreadable):
            raise typer.Exit(exit_codes.FAILED)

    run(chosen, job)


def _duration(text: str) -> timedelta:
    found = re.fullmatch(r"(\d{1,6})\s*([hdw])", text.strip().lower(), re.ASCII)
    length = _UNITS[found[2]] * int(found[1]) if found else None
    if length is None or length > _LONGEST:
        raise typer.BadParameter(f"{text!r} is no time like 12h, 30d or 4w", param_hint="--within")
    return length


class _Search:
    """Looks for certificates that expire.

    Args:
        before: those that expire up to then are found.

    Attributes:
        locked: how many files need a password.
        unreadable: what could not be read.
    """

    def __init__(self, before: datetime) -> None:
        self._before = before
        self.locked = 0
        self.unreadable: list[Path] = []

    def run(self, places: Sequence[Path]) -> list[dict[str, object]]:
        """Return a document for each certificate found, the one that expires next first.

        Raises:
            FileError: a place is not there.
        """
        found: dict[x509.Certificate, dict[str, object]] = {}
        for file in self._files(places):
            for item in self._items(file):
                self.locked += item.kind == "locked"
                if not isinstance(item.thing, x509.Certificate) or item.thing in found:
                    continue
                told = item.document()
                if not told["authority"] and item.thing.not_valid_after_utc <= self._before:
                    names = ("commonName", "serialNumber", "notAfter")
                    found[item.thing] = {name: told[name] for name in names} | {"file": str(file)}
        return sorted(found.values(), key=lambda document: str(document["notAfter"]))

    def _items(self, file: Path) -> Sequence[Item]:
        """Return what a file holds; nothing where it is of another kind, which directories are full of."""
        try:
            about = file.stat()
            if not stat.S_ISREG(about.st_mode) or about.st_size > _LARGEST_CERTIFICATE_FILE:
                return ()
            archive = Archive.from_file(file)
        except (FileError, OSError):
            self.unreadable.append(file)
            return ()
        try:
            return read_items(archive)
        except PkiError:
            return ()

    def _files(self, places: Sequence[Path]) -> Iterator[Path]:
        for place in places:
            if place.is_dir():
                for directory, _, names in os.walk(place, onerror=self._note):
                    yield from (Path(directory, name) for name in sorted(names))
            elif place.exists():
                yield place
            else:
                raise FileError(f"{place} is neither a directory nor a file", hint="name one that is there")

    def _note(self, error: OSError) -> None:
        self.unreadable.append(Path(error.filename))


def register(app: typer.Typer) -> None:
    """Add these commands to `app`."""
    for command in (csr, inspect, unpack, expiring):
        add(app, command)
