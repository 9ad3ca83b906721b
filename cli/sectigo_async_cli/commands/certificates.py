"""Finding and revoking: find, revoke."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer
from cryptography import x509

from sectigo_async import RevocationReason, SectigoClient
from sectigo_async.errors import BadRequestError, FileError, InvalidArgumentError, NotFoundError, SectigoError
from sectigo_async.models import normalise_serial_number
from sectigo_async.pki import Archive, read_items
from sectigo_async_cli import exit_codes
from sectigo_async_cli.context import Settings, settings
from sectigo_async_cli.options import register as add
from sectigo_async_cli.output import record
from sectigo_async_cli.prompts import ask, choose, confirm
from sectigo_async_cli.run import noting, run_client
from sectigo_async_cli.streams import say, spinner
from sectigo_async_cli.targets import check_profile_is_named, profile_target

_COLUMNS = {
    "commonName": "Common name",
    "serialNumber": "Serial number",
    "status": "Status",
    "creationDate": "Issued",
    "deviceId": "Device",
}


def find(
    ctx: typer.Context,
    *,
    common_name: Annotated[
        str | None, typer.Option("--common-name", "-n", help="Common name of the certificate.")
    ] = None,
    serial_number: Annotated[
        str | None, typer.Option("--serial-number", "-s", help="Serial number, in hexadecimal digits.")
    ] = None,
) -> None:
    """Search for certificates by common name, serial number, or both.

    Example: sectigo-async find -n gw7.example.com
    """
    chosen = settings(ctx)

    async def job(client: SectigoClient) -> None:
        name = common_name
        if not name and not serial_number and chosen.interactive:
            name = await ask("Common name:")
        found = await client.certificates.find(common_name=name, serial_number=serial_number)
        chosen.output.emit(found.document(), _COLUMNS, rows=[item.document() for item in found.items])

    run_client(ctx, job)


def revoke(
    ctx: typer.Context,
    *,
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE|DIR", help="The certificate, or the folder with its cert.pem, instead of -s."),
    ] = None,
    profile: Annotated[
        int | None, typer.Option("--profile", "-p", min=0, help="Id of the profile that issued the certificate.")
    ] = None,
    reason: Annotated[
        str | None, typer.Option("--reason", "-r", help='Why, e.g. "key compromise"; case and blanks do not matter.')
    ] = None,
    serial_number: Annotated[
        str | None, typer.Option("--serial-number", "-s", help="Serial number, in hexadecimal digits.")
    ] = None,
) -> None:
    """Revoke a certificate. It cannot be undone. On a terminal it shows which one, and asks.

    Example: sectigo-async revoke -p 42 -r "cessation of operation" -s 4F1A
    """
    chosen = settings(ctx)
    if file is not None and serial_number is not None:
        raise typer.BadParameter("name the certificate in one way", param_hint="--serial-number, FILE")
    why = _reason(reason or "")

    async def job(client: SectigoClient) -> None:
        serial = await _serial_to_revoke(chosen, serial_number, file)
        check_profile_is_named(chosen, profile, "--profile")
        with noting("nothing was revoked"):
            if chosen.interactive and await _is_revoked(client, serial, show=True):
                _tell(chosen, serial, None)
                return
            target = await profile_target(chosen, client, profile, "--profile", question="Profile that issued it:")
            because = why
            if chosen.interactive:
                because = await _ask_why(why if reason is not None else None)
        _tell(chosen, serial, await revoke_once(client, target.profile_id, serial, because))

    run_client(ctx, job)


async def _serial_to_revoke(chosen: Settings, given: str | None, file: Path | None) -> str:
    if file is not None:
        return await asyncio.to_thread(_serial_number, file)
    if not given:
        if not chosen.interactive:
            raise typer.BadParameter(
                "missing: name it with --serial-number, or by its file", param_hint="--serial-number"
            )
        given = await ask("Serial number:", hint="as find shows it", check=_serial_problem)
    return normalise_serial_number(given)


async def _ask_why(why: RevocationReason | None) -> RevocationReason:
    """Ask a person whether to revoke, and why unless that is said; return why.

    Raises:
        typer.Exit: they do not want to.
    """
    if why is None:
        why = await choose("Reason:", [(one.text, one) for one in RevocationReason])
    if not await confirm(f"Revoke it ({why.text})? It cannot be undone.", default=False):
        say("nothing was revoked")
        raise typer.Exit(exit_codes.FAILED)
    return why


async def revoke_once(
    client: SectigoClient, profile_id: int, serial: str, why: RevocationReason
) -> RevocationReason | None:
    """Revoke a certificate; return why, or `None` where the service refuses since it is revoked already."""
    try:
        await client.certificates.revoke(profile_id=profile_id, serial_number=serial, reason=why)
    except (BadRequestError, NotFoundError) as error:
        refusal = error
    else:
        return why
    if await _is_revoked(client, serial):
        return None
    raise refusal


def _reason(text: str) -> RevocationReason:
    try:
        return RevocationReason.parse(text)
    except InvalidArgumentError as error:
        problem = f"{error}; {error.hint}"
    raise typer.BadParameter(problem, param_hint="--reason")


def _serial_problem(text: str) -> str:
    try:
        normalise_serial_number(text)
    except InvalidArgumentError as error:
        return str(error)
    return ""


async def _is_revoked(client: SectigoClient, serial: str, *, show: bool = False) -> bool:
    """Say whether the service lists a certificate as revoked; show a person what it lists."""
    from rich.console import Console

    try:
        found = (await client.certificates.find(serial_number=serial)).items
    except SectigoError:
        if show:
            raise
        return False
    if show and not found:
        say(f"warning: the service finds no certificate with serial number {serial}")
    for item in found if show else ():
        with spinner.hushed():
            Console(stderr=True).print(record(item.document(), _COLUMNS))
    return bool(found) and all(item.status.upper() == "REVOKED" for item in found)


def _tell(chosen: Settings, serial: str, why: RevocationReason | None) -> None:
    """Say that a certificate is revoked; `why` is `None` where it was before."""
    if why is None:
        chosen.output.note(f"{serial} was revoked already")
    else:
        chosen.output.note(f"revoked {serial} ({why.text})")
    if chosen.output.chosen:
        chosen.output.emit({"serialNumber": serial, "status": "REVOKED", "reason": None if why is None else why.text})


def _serial_number(place: Path) -> str:
    """Return the serial number of the certificate in a file, or in the `cert.pem` of a folder."""
    file = place / "cert.pem" if place.is_dir() else place
    items = read_items(Archive.from_file(file))
    certificates = {item.thing for item in items if isinstance(item.thing, x509.Certificate)}
    leaves = {str(item.document()["serialNumber"]) for item in items if item.document().get("authority") is False}
    if not leaves and len(certificates) == 1:
        leaves = {f"{next(iter(certificates)).serial_number:X}"}
    if len(leaves) != 1:
        what = "no certificate" if not leaves else "several certificates"
        raise FileError(f"{file} holds {what}", hint="name a file with the one to revoke, or its serial number")
    return leaves.pop()


def register(app: typer.Typer) -> None:
    """Add these commands to `app`."""
    add(app, find)
    add(app, revoke)
