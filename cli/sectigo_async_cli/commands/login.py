"""Signing in and out, and what is known of it: login, logout, auth, validate."""

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import attrs
import typer

from sectigo_async import ConfigurationError, Secret, SectigoClient, SignIn, SystemClock
from sectigo_async.credentials import (
    Account,
    Accounts,
    Credentials,
    Login,
    Resolved,
    SharedLogin,
    StoredToken,
    read_secret_file,
    state_directory,
)
from sectigo_async.credentials.accounts import DEFAULT_ACCOUNT
from sectigo_async.errors import (
    CredentialStoreError,
    InvalidArgumentError,
    KeyringUnavailableError,
    SignInRequiredError,
)
from sectigo_async_cli.context import Settings, settings, share, sign_in_answer
from sectigo_async_cli.options import register as add
from sectigo_async_cli.prompts import confirm
from sectigo_async_cli.run import busy, run, run_client
from sectigo_async_cli.stdin import PasswordFile, PasswordStdin, check_one_way, password_from_stdin
from sectigo_async_cli.streams import say

_FILES = (
    "SECTIGO_PASSWORD_FILE",
    "SECTIGO_REFRESH_TOKEN_FILE",
    "SECTIGO_CA_BUNDLE",
    "SECTIGO_CLIENT_CERT",
    "SECTIGO_CLIENT_KEY",
    "SECTIGO_TRUST_ANCHORS",
)


def login(
    ctx: typer.Context,
    *,
    password_stdin: PasswordStdin = False,
    password_file: PasswordFile = None,
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
    check_one_way(password_stdin, password_file, chosen.password)

    async def job() -> None:
        found = _to_sign_in(chosen, credential_store)
        credentials = found.credentials
        if not credentials.username:
            credentials = attrs.evolve(credentials, username=await _ask_username(chosen, found))
        if password_stdin:
            credentials = _with_password(credentials, await password_from_stdin(), "standard input")
        elif password_file is not None:
            credentials = _with_password(credentials, await read_secret_file(password_file), "file")
        # Before a person types, and before the service is asked, it is known whether the login can be kept.
        shared = credentials.share(found.config.endpoint, SystemClock())
        await shared.password()
        if not credentials.has_own_password:
            credentials = _with_password(credentials, await _ask_password(chosen, credentials, found), "prompt")
        found = attrs.evolve(found, credentials=credentials)
        with busy(chosen, "signing in"):
            signed_in, password = await _sign_in_and_keep(chosen, found, shared)
        keep = await _keep_password(chosen, signed_in) if save_password is None else save_password
        if keep is None:
            # Where nobody says, a password that was kept before stays, if it is still the one.
            keep = await shared.password() == password
        await shared.save_password(password if keep else None)
        if chosen.session is not None:
            await chosen.session.renew()
        chosen.output.emit(
            {
                "account": _account_name(chosen),
                "username": signed_in.username,
                "endpoint": signed_in.endpoint,
                "environment": found.config.environment.value,
                "credentialStore": signed_in.store,
                "passwordKept": keep,
                "validUntil": _valid_until(signed_in.expires_in),
            }
        )

    run(chosen, job)


async def _keep_password(chosen: Settings, signed_in: SignIn) -> bool | None:
    """Ask a person whether to keep the password; `None` where nobody is there."""
    if not chosen.interactive:
        return None
    question = f"Keep the password in the {signed_in.store} too, so that signing in goes on by itself?"
    try:
        return await confirm(question, default=True)
    except InvalidArgumentError:
        return False
    except asyncio.CancelledError as cancelled:
        cancelled.add_note("signed in all the same, without keeping the password")
        raise


def _to_sign_in(chosen: Settings, store: str | None) -> Resolved:
    found = chosen.resolve(store=store, keeping=True, new_account=True)
    if found.credentials.store is None:
        raise ConfigurationError(
            "a login cannot be kept in memory", hint="set SECTIGO_CREDENTIAL_STORE to keyring or file, or unset it"
        )
    return found


def _with_password(credentials: Credentials, password: Secret, source: str) -> Credentials:
    return attrs.evolve(credentials, password=password, password_source=source, password_file=None)


async def _ask_username(chosen: Settings, found: Resolved) -> str:
    if chosen.interactive:
        return await sign_in_answer(f"User name at {found.config.endpoint}:")
    raise SignInRequiredError("no user name", hint="give it with -u before the command, or in SECTIGO_USERNAME")


async def _ask_password(chosen: Settings, credentials: Credentials, found: Resolved) -> Secret:
    if chosen.interactive:
        question = f"Password of {credentials.username} at {found.config.endpoint}:"
        return Secret(await sign_in_answer(question, secret=True))
    raise SignInRequiredError(
        "no password", hint="give it on a terminal, with --password-stdin, or with --password-file"
    )


async def _sign_in_and_keep(chosen: Settings, found: Resolved, shared: SharedLogin) -> tuple[SignIn, Secret]:
    """Sign in, keep tokens and account; return how that went, and the password."""
    password = await found.credentials.find_password(shared)
    assert password is not None
    await shared.clear_refusal()
    async with SectigoClient(config=found.config, credentials=found.credentials) as client:
        signed_in = await client.sign_in(fresh=True)
    assert signed_in.store is not None
    account = Account(
        endpoint=found.config.endpoint,
        environment=found.config.environment.value,
        username=shared.login.username,
        store=signed_in.store,
    )
    accounts = Accounts(state_directory())
    before = accounts.get(_account_name(chosen))
    await asyncio.to_thread(accounts.save, _account_name(chosen), account)
    stores = {"file"} | ({before.store} if before else set())
    try:
        await _erase(chosen, shared.login, stores - {account.store})
        if before and not accounts.of_login(old := Login(before.endpoint, before.username)):
            await _erase(chosen, old, stores, {found.credentials.directory, state_directory()})
    except CredentialStoreError as error:
        say(f"warning: something that an earlier login has kept is still there: {error}")
    return signed_in, password.secret


async def _erase(
    chosen: Settings, login: Login, stores: Iterable[str], directories: Iterable[Path | None] = (None,)
) -> None:
    """Leave nothing of a login in some stores and directories."""
    for name in sorted(stores):  # The file first: it is in clear text.
        store = chosen.resolve(store=name, keeping=True, new_account=True).credentials.store
        for directory in directories:
            there = Credentials(username=login.username, store=store, directory=directory)
            await there.share(login.endpoint, SystemClock()).erase()


def _account_name(chosen: Settings) -> str:
    return chosen.account or chosen.environ.get("SECTIGO_ACCOUNT") or DEFAULT_ACCOUNT


def logout(ctx: typer.Context) -> None:
    """Forget a login: its tokens, its password and its account. At the service the tokens live on to their end.

    Example: sectigo-async logout
    """
    chosen = settings(ctx)

    async def job() -> None:
        found = chosen.resolve(keeping=True)
        if not found.credentials.username:
            raise SignInRequiredError("nobody is signed in", hint="name a login with -u and -e, or with --account")
        shared = found.credentials.share(found.config.endpoint, SystemClock())
        accounts = Accounts(state_directory())
        names = accounts.of_login(shared.login)
        stores = {"file"} | {account.store for account in names.values()}
        async with shared.locked():
            await _erase(chosen, shared.login, stores, {found.credentials.directory, state_directory()})
            if "keyring" not in stores:
                await _erase_from_a_keyring_that_may_hold_it(chosen, shared.login)
        await asyncio.to_thread(accounts.remove, *names)
        if chosen.session is not None:
            await chosen.session.renew()
        say(f"signed out {shared.login.username} at {shared.login.endpoint}")
        for name in ("SECTIGO_PASSWORD", "SECTIGO_PASSWORD_FILE", "SECTIGO_REFRESH_TOKEN_FILE"):
            if chosen.environ.get(name):
                say(f"note: {name} is still set, and signs in again")

    run(chosen, job)


async def _erase_from_a_keyring_that_may_hold_it(chosen: Settings, login: Login) -> None:
    try:
        await _erase(chosen, login, {"keyring"})
    except KeyringUnavailableError:
        pass  # No account says that it was kept there.
    except CredentialStoreError as error:
        say(f"warning: whether an earlier login was kept in the keyring is not known: {error}")


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
    path = str(shared.cache_path) if there else None
    chosen.output.emit({"cache": path}, text=path or "no credentials cache file exists")


async def _show_state(chosen: Settings) -> None:
    shared = share(chosen.resolve())
    left: float | None = 0.0
    state, text = "expired", "credentials are expired or invalid"
    if (token := await shared.access_token()) is not None and (left := _left(token)) != 0:
        state, text = "valid", f"credentials are valid until {_moment(left)}"
    elif (token := await shared.stored_refresh_token()) is not None and (left := _left(token)) != 0:
        state, text = "current", f"credentials are current until {_moment(left)}"
    chosen.output.emit({"state": state, "validUntil": _valid_until(left) if left != 0 else None}, text=text)


def _left(token: StoredToken) -> float | None:
    return token.left(SystemClock())


def _moment(left: float | None) -> str:
    if left is None:
        return "a time they do not tell"
    return f"{datetime.now(UTC) + timedelta(seconds=left):%Y-%m-%d %H:%M:%S} UTC"


def _valid_until(left: float | None) -> str | None:
    return None if left is None else f"{datetime.now(UTC) + timedelta(seconds=left):%Y-%m-%dT%H:%M:%SZ}"


async def _check(chosen: Settings, client: SectigoClient) -> None:
    credentials = chosen.resolve().credentials
    if chosen.interactive:
        # A person asks for it: a password is tried that was refused before. A program could lock the account.
        await credentials.share(client.config.endpoint, SystemClock()).clear_refusal()
    # A token that is at hand would hide that the password at hand is wrong.
    await client.sign_in(fresh=credentials.has_own_password)
    await client.organizations.current()
    signed_in = await client.sign_in()
    headings = {
        "account": "account",
        "username": "username",
        "endpoint": "endpoint",
        "environment": "environment",
        "source": "signed in by",
        "store": "kept in",
        "validUntil": "token valid until",
        "shared": "shared",
    }
    chosen.output.emit(
        {
            "account": chosen.resolve().account,
            "username": signed_in.username,
            "endpoint": signed_in.endpoint,
            "environment": client.config.environment.value,
            "source": signed_in.source,
            "store": signed_in.store,
            "validUntil": _valid_until(signed_in.expires_in),
            "shared": signed_in.shared,
        },
        headings,
        text=f"user authenticated and credentials {'cached' if signed_in.shared else 'not cached'}",
    )


def validate(ctx: typer.Context) -> None:
    """Check the configuration, and show each setting and where it comes from. No network, no keyring.

    Example: sectigo-async validate
    """
    chosen = settings(ctx)

    async def job() -> None:
        found = chosen.resolve()
        documents = [
            {"name": name, "value": setting.value, "source": chosen.source(name, setting.source)}
            for name, setting in found.settings.items()
        ]
        if chosen.profile:
            (profile,) = (document for document in documents if document["name"] == "SECTIGO_PROFILE")
            profile |= {"value": chosen.profile, "source": "argument"}
        chosen.output.emit(documents, {"name": "Setting", "value": "Value", "source": "Source"})
        _check_files(found)

    run(chosen, job)


def _check_files(found: Resolved) -> None:
    """Raise an error if a file that is named is none."""
    for name, setting in found.settings.items():
        if setting.value and name in _FILES and not Path(setting.value).expanduser().is_file():
            raise ConfigurationError(f"{name}: {setting.value} is not a file", hint="name one, or unset it")


def register(app: typer.Typer) -> None:
    """Add these commands to `app`."""
    for command in (login, logout, auth, validate):
        add(app, command)
