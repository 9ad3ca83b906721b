"""What the global options say, and the client they make."""

import os
from collections.abc import Mapping
from pathlib import Path

import attrs
import typer

from sectigo_async import Secret, SectigoClient, SystemClock
from sectigo_async.credentials import Resolved, SharedLogin, resolve
from sectigo_async.errors import ConfigurationError, CredentialStoreError, SignInRequiredError
from sectigo_async_cli.output import say
from sectigo_async_cli.prompts import ask, ask_secret, is_interactive

_LONGEST_ID = 18


@attrs.frozen(kw_only=True)
class Settings:
    """The global options; `None` where one is not given.

    Attributes:
        username: who signs in.
        password: their password.
        password_source: where that came from.
        profile: profile to order under where a command names none.
        environment: what the endpoint is for.
        endpoint: URL of the service.
        account: name of an account that `login` made.
        environ: the environment, with what `--env-file` adds to it.
        env_file: the file of `--env-file`.
        from_file: the variables that it adds.
        debug: whether errors come with a traceback.
    """

    username: str | None = None
    password: Secret | None = None
    password_source: str = "argument"  # noqa: S105 - no password
    profile: str | None = None
    environment: str | None = None
    endpoint: str | None = None
    account: str | None = None
    environ: Mapping[str, str] = attrs.field(factory=lambda: os.environ, repr=False)
    env_file: Path | None = None
    from_file: frozenset[str] = frozenset()
    debug: bool = False
    _found: dict[tuple[str | None, bool, bool], Resolved] = attrs.field(factory=dict, init=False, repr=False)

    def resolve(self, *, store: str | None = None, keeping: bool = False, new_account: bool = False) -> Resolved:
        """Return who signs in where, from the options, the environment and the account."""
        asked = (store, keeping, new_account)
        if asked not in self._found:
            self._found[asked] = self._resolve(store=store, keeping=keeping, new_account=new_account)
        return self._found[asked]

    def _resolve(self, *, store: str | None, keeping: bool, new_account: bool) -> Resolved:
        found = resolve(
            username=self.username,
            password=self.password,
            endpoint=self.endpoint,
            environment=self.environment,
            account=self.account,
            store=store,
            environ=self.environ,
            interactive=is_interactive(),
            keeping=keeping,
            new_account=new_account,
        )
        if self.password is None:
            return found
        return attrs.evolve(found, credentials=attrs.evolve(found.credentials, password_source=self.password_source))

    def source(self, name: str, source: str) -> str:
        """Return where a variable came from, files of variables included."""
        return f"file {self.env_file}" if source == "environment" and name in self.from_file else source

    def client(self) -> SectigoClient:
        """Return a client for these settings."""
        found = self.resolve()
        return SectigoClient(config=found.config, credentials=found.credentials)

    async def what_is_missing(self) -> str:
        """Return what a person must be asked for, user name or password; empty where there is enough to sign in."""
        found = self.resolve()
        given = found.credentials
        if given.access_token is not None or (given.username and given.has_own_password):
            return ""
        shared = given.share(found.config.endpoint, SystemClock())
        token = await shared.access_token()
        if token is not None and token.left(SystemClock()) != 0:
            return ""
        try:
            if await shared.refresh_token() is not None or await shared.password() is not None:
                return ""
        except CredentialStoreError as error:
            say(f"warning: {error}")
        return "password" if given.username else "user name"

    def ask_what_is_missing(self, missing: str) -> "Settings":
        """Return these settings with what a person answers: the user name or the password."""
        found = self.resolve()
        place, username = found.config.endpoint, found.credentials.username
        question = f"User name at {place}: " if missing == "user name" else f"Password of {username} at {place}: "
        answer = ask(question) if missing == "user name" else ask_secret(question)
        if not answer:
            raise SignInRequiredError(f"not signed in: no {missing}", hint="sign in with `sectigo-async login`")
        if missing == "user name":
            return attrs.evolve(self, username=answer)
        return attrs.evolve(self, username=username, password=Secret(answer), password_source="prompt")  # noqa: S106


def share(found: Resolved) -> SharedLogin:
    """Return what the processes of this login share.

    Raises:
        SignInRequiredError: nobody knows who signs in.
    """
    if not found.credentials.is_known:
        raise SignInRequiredError(
            "not signed in: no user name",
            hint="sign in with `sectigo-async login`, or set SECTIGO_USERNAME and SECTIGO_PASSWORD",
        )
    return found.credentials.share(found.config.endpoint, SystemClock())


def read_env_file(path: Path) -> Settings:
    """Return settings with the SECTIGO_ variables of a file, where the environment does not set them.

    Raises:
        ConfigurationError: the file cannot be read.
    """
    import dotenv

    try:
        with path.open(encoding="utf-8") as file:
            read = dotenv.dotenv_values(stream=file, interpolate=False)
    except (OSError, UnicodeDecodeError) as error:
        problem = f"cannot read {path}: {getattr(error, 'strerror', None) or 'it is not text in UTF-8'}"
    else:
        added = {
            name: value
            for name, value in read.items()
            if name.startswith("SECTIGO_") and value and not os.environ.get(name)
        }
        return Settings(environ={**os.environ, **added}, env_file=path, from_file=frozenset(added))
    raise ConfigurationError(problem, hint="--env-file names a file of lines like SECTIGO_USERNAME=ops")


def settings(ctx: typer.Context) -> Settings:
    """Return the global options of this run."""
    found = ctx.find_object(Settings)
    return found if found is not None else Settings()


def default_profile(ctx: typer.Context, given: int | None, option: str) -> int:
    """Return the profile id a command names, or the one of `--profile`.

    Raises:
        typer.BadParameter: neither is there, or `--profile` is no id.
    """
    if given is not None:
        return given
    chosen = settings(ctx)
    named = chosen.profile or chosen.environ.get("SECTIGO_PROFILE")
    if not named:
        raise typer.BadParameter(
            f"missing: name one with {option}, or for all commands with -P or SECTIGO_PROFILE", param_hint=option
        )
    if not named.isdecimal() or len(named) > _LONGEST_ID:
        raise typer.BadParameter(
            f"{named!r} is not an id; `sectigo-async authorities` shows the ids", param_hint="--profile"
        )
    return int(named)
