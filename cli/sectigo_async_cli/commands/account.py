"""What the account may use: authorities, licenses, profiles, organization."""

from typing import Annotated

import typer

from sectigo_async import SectigoClient
from sectigo_async_cli.context import settings
from sectigo_async_cli.options import register as add
from sectigo_async_cli.run import run_client
from sectigo_async_cli.targets import profile_target


def authorities(
    ctx: typer.Context,
    *,
    balances: Annotated[
        bool, typer.Option("--balances", "-b", help="Show how many certificates each has left to order.")
    ] = False,
) -> None:
    """List the authorities you may order under.

    Example: sectigo-async authorities --balances
    """

    async def job(client: SectigoClient) -> None:
        listed = await client.authorities.list()
        documents = [authority.document() for authority in listed]
        if balances:
            for authority, document in zip(listed, documents, strict=True):
                document["availableBalance"] = await client.authorities.balance(authority.id)
        columns = {
            "id": "Authority",
            "profileId": "Profile",
            "profileName": "Profile name",
            "ecosystemName": "Ecosystem",
            "enabled": "Enabled",
            "balance": "Balance",
        }
        settings(ctx).output.emit(documents, columns | ({"availableBalance": "Available"} if balances else {}))

    run_client(ctx, job)


def licenses(ctx: typer.Context) -> None:
    """Show how many certificates were ordered and issued.

    Example: sectigo-async licenses
    """

    async def job(client: SectigoClient) -> None:
        settings(ctx).output.emit((await client.licenses.get()).document())

    run_client(ctx, job)


def profiles(
    ctx: typer.Context,
    *,
    profile_id: Annotated[int | None, typer.Option("--id", "-i", min=0, help="Show this profile.")] = None,
    params: Annotated[
        bool, typer.Option("--params", "-p", help="Show the parameters that an order under it takes.")
    ] = False,
) -> None:
    """List the profiles, or show one.

    Example: sectigo-async profiles -i 42 --params
    """
    chosen = settings(ctx)
    if params and profile_id is None and not chosen.interactive:
        raise typer.BadParameter("--params needs the id of a profile", param_hint="--id")

    async def job(client: SectigoClient) -> None:
        number = profile_id
        if params and number is None:
            number = (await profile_target(chosen, client, None, "--id", question="Profile:")).profile_id
        if number is None:
            listed = [profile.document() for profile in await client.profiles.list()]
            settings(ctx).output.emit(listed, {"profileId": "Profile", "algorithms": "Algorithms", "ca": "Authority"})
        elif params:
            taken = [parameter.document() for parameter in await client.profiles.parameters(number)]
            columns = {"name": "Parameter", "title": "Title", "required": "Required", "message": "Rule"}
            settings(ctx).output.emit(taken, columns | {"placeholder": "Example"})
        else:
            settings(ctx).output.emit((await client.profiles.get(number)).document())

    run_client(ctx, job)


def organization(ctx: typer.Context) -> None:
    """Show your organisation.

    Example: sectigo-async organization
    """

    async def job(client: SectigoClient) -> None:
        settings(ctx).output.emit((await client.organizations.current()).document())

    run_client(ctx, job)


def register(app: typer.Typer) -> None:
    """Add these commands to `app`."""
    for command in (authorities, licenses, profiles, organization):
        add(app, command)
    add(app, profiles, name="profile", hidden=True)
