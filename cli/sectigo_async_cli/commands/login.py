"""Signing in and out, and what is known of it: login, logout, auth, validate."""

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import attrs
import typer

from sectigo_async import ConfigurationError, Secret, SectigoClient, SignIn, SystemClock
from sectigo_async.credentials import (
    Account,
    Accounts,
    Resolved,
    SharedLogin,
    StoredToken,
    read_secret_file,
    state_directory,
    without_newline,
)
from sectigo_async.credentials.accounts import DEFAULT_ACCOUNT
from sectigo_async.errors import SignInRequiredError
from sectigo_async_cli.context import Settings, settings, share
from sectigo_async_cli.output import emit, print_text, say
from sectigo_async_cli.prompts import ask, ask_secret, confirm, is_interactive
from sectigo_async_cli.run import reported, run, run_client

_LONGEST_PASSWORD = 64 * 1024


def login(
    ctx: typer.Context,
    *,
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the password from standard input.")
    ] = False,
    password_file: Annotated[Path | None, typer.Option(help="Read the password from this file.")] = None,
    save_password: Annotated[
        bool | None,
        typer.Option(
            "--save-password/--no-save-password",
            help="Keep the password too, so that signing in goes on when the refresh token has ended.",
        ),
    ] = None,
    credential_store: Annotated[
        str | None, typer.Option(help="Where to keep the login: keyring, or file (in clear text, mode 0600).")
    ] = None,
) -> None:
    """Sign in, and keep the login in the keyring of the operating system.

    Asks for what is not given, on a terminal. With --account before the command, the login gets a name.

    Example: sectigo-async login
    """
    chosen = settings(ctx)
    with reported(chosen):
        if password_stdin + (password_file is not None) + (chosen.password is not None) > 1:
            raise typer.BadParameter("give the password in one way", param_hint="--password-stdin, --password-file")
        if password_stdin:
            chosen = attrs.evolve(chosen, password=_password_from_stdin(), password_source="standard input")  # noqa: S106 - where it is from
        found = _to_sign_in(chosen, credential_store)
        if not found.credentials.username:
            chosen = attrs.evolve(chosen, username=_ask_username(found))
    if password_file is not None:
        password = run(chosen, lambda: read_secret_file(password_file))
        chosen = attrs.evolve(chosen, password=password, password_source="password file")  # noqa: S106 - where it is from
    with reported(chosen):
        found = _to_sign_in(chosen, credential_store)
        shared = share(found)
    # Before a person types, and before the service is asked, it is known whether the login can be kept.
    run(chosen, shared.password)
    if not found.credentials.has_own_password:
        with reported(chosen):
            chosen = attrs.evolve(chosen, password=_ask_password(found), password_source="prompt")  # noqa: S106 - where it is from
            found = _to_sign_in(chosen, credential_store)
            shared = share(found)

    signed_in, password = run(chosen, lambda: _sign_in_and_keep(chosen, found, shared))
    assert shared.store is not None
    if save_password is None and is_interactive():
        with reported(chosen):
            save_password = confirm(
                f"Keep the password in the {shared.store.name} too, so that signing in goes on by itself?"
            )

    async def finish() -> None:
        await shared.save_password(password if save_password else None)
        emit(_login_document(chosen, found, shared, signed_in, password_kept=bool(save_password)))

    run(chosen, finish)


def _to_sign_in(chosen: Settings, store: str | None) -> Resolved:
    found = chosen.resolve(store=store, signing_in=True)
    if found.credentials.store is None:
        raise ConfigurationError(
            "a login cannot be kept in memory", hint="set SECTIGO_CREDENTIAL_STORE to keyring or file, or unset it"
        )
    return found


def _password_from_stdin() -> Secret:
    try:
        text = "" if sys.stdin is None else sys.stdin.read(_LONGEST_PASSWORD)
    except UnicodeDecodeError:
        text = ""
    if not (password := without_newline(text)):
        raise SignInRequiredError(
            "standard input holds no password", hint="write it there in UTF-8, and nothing else"
        )
    return password


def _ask_username(found: Resolved) -> str:
    username = ask(f"User name at {found.config.endpoint}: ") if is_interactive() else ""
    if not username:
        raise SignInRequiredError("no user name", hint="give it with -u before the command, or in SECTIGO_USERNAME")
    return username


def _ask_password(found: Resolved) -> Secret:
    username, endpoint = found.credentials.username, found.config.endpoint
    password = ask_secret(f"Password of {username} at {endpoint}: ") if is_interactive() else ""
    if not password:
        raise SignInRequiredError(
            "no password", hint="give it on a terminal, with --password-stdin, or with --password-file"
        )
    return Secret(password)


async def _sign_in_and_keep(chosen: Settings, found: Resolved, shared: SharedLogin) -> tuple[SignIn, Secret]:
    """Sign in, keep tokens and account; return how that went, and the password."""
    password = await found.credentials.find_password(shared)
    assert password is not None
    async with SectigoClient(config=found.config, credentials=found.credentials) as client:
        signed_in = await client.sign_in(fresh=True)
    assert shared.store is not None
    account = Account(
        endpoint=found.config.endpoint,
        environment=found.config.environment.value,
        username=shared.login.username,
        store=shared.store.name,
    )
    Accounts(state_directory()).save(_account_name(chosen), account)
    return signed_in, password.secret


def _account_name(chosen: Settings) -> str:
    return chosen.account or chosen.environ.get("SECTIGO_ACCOUNT") or DEFAULT_ACCOUNT


def _login_document(
    chosen: Settings, found: Resolved, shared: SharedLogin, signed_in: SignIn, *, password_kept: bool
) -> dict[str, object]:
    assert shared.store is not None
    return {
        "account": _account_name(chosen),
        "username": signed_in.username,
        "endpoint": signed_in.endpoint,
        "environment": found.config.environment.value,
        "credentialStore": shared.store.name,
        "passwordKept": password_kept,
        "validUntil": _valid_until(signed_in.expires_in),
    }


def logout(ctx: typer.Context) -> None:
    """Forget a login: its tokens, its password and its account. At the service the tokens live on to their end.

    Example: sectigo-async logout
    """
    chosen = settings(ctx)

    async def job() -> None:
        found = _to_sign_in(chosen, None)
        shared = share(found)
        async with shared.locked():
            await shared.erase()
        Accounts(state_directory()).remove(found.account)
        say(f"signed out {shared.login.username} at {shared.login.endpoint}")
        given = [name for name in ("SECTIGO_PASSWORD", "SECTIGO_PASSWORD_FILE") if chosen.environ.get(name)]
        for name in given:
            say(f"note: {name} is still set, and signs in again")

    run(chosen, job)


def auth(
    ctx: typer.Context,
    *,
    debug: Annotated[
        bool, typer.Option("--debug", "-d", help="Show the state of the tokens, without any network.")
    ] = False,
    cache: Annotated[bool, typer.Option("--cache", "-C", help="Show where the access token is shared.")] = False,
) -> None:
    """Sign in, and show who is signed in, where, by what, and for how long.

    Example: sectigo-async auth
    """
    chosen = settings(ctx)
    if cache:
        run(chosen, lambda: _show_cache(chosen))
    elif debug:
        run(chosen, lambda: _show_state(chosen))
    else:
        run_client(ctx, lambda client: _check(chosen, client))


async def _show_cache(chosen: Settings) -> None:
    shared = share(chosen.resolve())
    there = shared.cache_path is not None and await shared.access_token() is not None
    print_text(str(shared.cache_path) if there else "no credentials cache file exists")


async def _show_state(chosen: Settings) -> None:
    shared = share(chosen.resolve())
    if (token := await shared.access_token()) is not None and (left := _left(token)) != 0:
        print_text(f"credentials are valid until {_moment(left)}")
    elif (token := await shared.stored_refresh_token()) is not None and (left := _left(token)) != 0:
        print_text(f"credentials are current until {_moment(left)}")
    else:
        print_text("credentials are expired or invalid")


def _left(token: StoredToken) -> float | None:
    return token.left(SystemClock())


def _moment(left: float | None) -> str:
    if left is None:
        return "a time they do not tell"
    return f"{datetime.now(UTC) + timedelta(seconds=left):%Y-%m-%d %H:%M:%S} UTC"


def _valid_until(left: float | None) -> str | None:
    return None if left is None else f"{datetime.now(UTC) + timedelta(seconds=left):%Y-%m-%dT%H:%M:%SZ}"


async def _check(chosen: Settings, client: SectigoClient) -> None:
    # A token that is at hand would hide that the password at hand is wrong.
    await client.sign_in(fresh=chosen.resolve().credentials.has_own_password)
    await client.organizations.current()
    signed_in = await client.sign_in()
    if sys.stdout is None or not sys.stdout.isatty():
        print_text(f"user authenticated and credentials {'cached' if signed_in.shared else 'not cached'}")
        return
    emit(
        {
            "username": signed_in.username,
            "endpoint": signed_in.endpoint,
            "environment": client.config.environment.value,
            "signed in by": signed_in.source,
            "kept in": signed_in.store or "nothing: it ends with the command",
            "access token": f"valid until {_moment(signed_in.expires_in)}, renewed before",
            "shared": "yes" if signed_in.shared else "no",
        }
    )


def validate(ctx: typer.Context) -> None:
    """Check the configuration, and show each setting and where it comes from. No network, no keyring.

    Example: sectigo-async validate
    """
    chosen = settings(ctx)

    async def job() -> None:
        found = chosen.resolve()
        documents = [
            {"name": name, "value": setting.value, "source": setting.source}
            for name, setting in found.settings.items()
        ]
        emit(documents, {"name": "Setting", "value": "Value", "source": "Source"})

    run(chosen, job)


def register(app: typer.Typer) -> None:
    """Add these commands to `app`."""
    for command in (login, logout, auth, validate):
        app.command()(command)
