"""Signing in, and what the account may use: auth, authorities, licenses, profiles, organization."""

import asyncio
from datetime import UTC, datetime
from typing import Annotated

import typer

from sectigo_async import SectigoClient
from sectigo_async.pki.files import file_errors
from sectigo_async_cli.context import Settings, settings
from sectigo_async_cli.output import emit, print_text
from sectigo_async_cli.run import run, run_client


def auth(
    ctx: typer.Context,
    *,
    debug: Annotated[
        bool, typer.Option("--debug", "-d", help="Show the state of the stored token, without any network.")
    ] = False,
    cache: Annotated[bool, typer.Option("--cache", "-C", help="Show where the token is stored.")] = False,
) -> None:
    """Sign in and keep the access token for the next commands.

    Example: sectigo-async auth
    """
    chosen = settings(ctx)
    if cache:
        run(chosen, lambda: _show_cache(chosen))
    elif debug:
        run(chosen, lambda: _show_state(chosen))
    else:
        run_client(ctx, lambda client: _sign_in(chosen, client))


async def _show_cache(chosen: Settings) -> None:
    path = chosen.token_store().path
    found = await asyncio.to_thread(path.exists)
    print_text(str(path) if found else "no credentials cache file exists")


async def _show_state(chosen: Settings) -> None:
    store = chosen.token_store()
    with file_errors(store.path):
        stored = await store.load()
    now = datetime.now(UTC)
    if stored is None:
        print_text("credentials are expired or invalid")
    elif stored.expires_at is None:
        print_text("credentials are valid, until a time they do not tell")
    elif stored.expires_at <= now.timestamp():
        print_text("credentials are expired or invalid")
    else:
        until = datetime.fromtimestamp(stored.expires_at, UTC)
        print_text(f"credentials are valid until {until:%Y-%m-%d %H:%M:%S} UTC")


async def _sign_in(chosen: Settings, client: SectigoClient) -> None:
    store = chosen.token_store()
    with file_errors(store.path):
        if chosen.credentials().password is not None:
            # A stored token would hide that the password at hand is wrong.
            await store.erase()
    await client.organizations.current()
    with file_errors(store.path):
        kept = await store.load()
    print_text(f"user authenticated and credentials {'cached' if kept else 'not cached'}")


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
        emit(documents, columns | ({"availableBalance": "Available"} if balances else {}))

    run_client(ctx, job)


def licenses(ctx: typer.Context) -> None:
    """Show how many certificates were ordered and issued.

    Example: sectigo-async licenses
    """

    async def job(client: SectigoClient) -> None:
        emit((await client.licenses.get()).document())

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
    if params and profile_id is None:
        raise typer.BadParameter("--params needs the id of a profile", param_hint="--id")

    async def job(client: SectigoClient) -> None:
        if profile_id is None:
            listed = [profile.document() for profile in await client.profiles.list()]
            emit(listed, {"profileId": "Profile", "algorithms": "Algorithms", "ca": "Authority"})
        elif params:
            taken = [parameter.document() for parameter in await client.profiles.parameters(profile_id)]
            columns = {"name": "Parameter", "title": "Title", "required": "Required", "message": "Rule"}
            emit(taken, columns | {"placeholder": "Example"})
        else:
            emit((await client.profiles.get(profile_id)).document())

    run_client(ctx, job)


def organization(ctx: typer.Context) -> None:
    """Show your organisation.

    Example: sectigo-async organization
    """

    async def job(client: SectigoClient) -> None:
        emit((await client.organizations.current()).document())

    run_client(ctx, job)


def register(app: typer.Typer) -> None:
    """Add these commands to `app`."""
    for command in (auth, authorities, licenses, profiles, organization):
        app.command()(command)
    app.command("profile", hidden=True)(profiles)
