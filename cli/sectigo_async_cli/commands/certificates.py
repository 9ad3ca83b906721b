"""Finding and revoking: find, revoke."""

from typing import Annotated

import typer

from sectigo_async import RevocationReason, SectigoClient
from sectigo_async.errors import InvalidArgumentError
from sectigo_async.models import normalise_serial_number
from sectigo_async_cli.context import default_profile
from sectigo_async_cli.output import emit, say
from sectigo_async_cli.run import run_client

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

    async def job(client: SectigoClient) -> None:
        found = await client.certificates.find(common_name=common_name, serial_number=serial_number)
        emit(found.document(), _COLUMNS, rows=[item.document() for item in found.items])

    run_client(ctx, job)


def revoke(
    ctx: typer.Context,
    *,
    profile: Annotated[
        int | None, typer.Option("--profile", "-p", min=0, help="Profile that issued the certificate.")
    ] = None,
    reason: Annotated[
        str, typer.Option("--reason", "-r", help='Why, e.g. "key compromise"; case and blanks do not matter.')
    ] = "unspecified",
    serial_number: Annotated[
        str, typer.Option("--serial-number", "-s", help="Serial number, in hexadecimal digits.")
    ],
) -> None:
    """Revoke a certificate. It cannot be undone.

    Example: sectigo-async revoke -p 42 -r "cessation of operation" -s 4F1A
    """
    profile_id = default_profile(ctx, profile, "--profile")
    try:
        why = RevocationReason.parse(reason)
    except InvalidArgumentError as error:
        problem = f"{error}; {error.hint}"
    else:
        problem = ""
    if problem:
        raise typer.BadParameter(problem, param_hint="--reason")

    async def job(client: SectigoClient) -> None:
        await client.certificates.revoke(profile_id=profile_id, serial_number=serial_number, reason=why)
        say(f"revoked {normalise_serial_number(serial_number)} ({why.text})")

    run_client(ctx, job)


def register(app: typer.Typer) -> None:
    """Add these commands to `app`."""
    app.command()(find)
    app.command()(revoke)
