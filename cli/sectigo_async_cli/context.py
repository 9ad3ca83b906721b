"""What the global options say, and the client they make."""

import os

import attrs
import platformdirs
import typer

from sectigo_async import Config, FileTokenStore, Secret, SectigoClient
from sectigo_async.credentials import Credentials, resolve_credentials
from sectigo_async.errors import SignInRequiredError

_LONGEST_ID = 18


@attrs.frozen(kw_only=True)
class Settings:
    """The global options; `None` where one is not given.

    Attributes:
        username: who signs in.
        password: their password.
        profile: profile to order under where a command names none.
        environment: what the endpoint is for.
        endpoint: URL of the service.
        debug: whether errors come with a traceback.
    """

    username: str | None = None
    password: Secret | None = None
    profile: str | None = None
    environment: str | None = None
    endpoint: str | None = None
    debug: bool = False

    def credentials(self) -> Credentials:
        """Return who signs in, from the options and the environment."""
        return resolve_credentials(self.username, self.password)

    def config(self) -> Config:
        """Return the configuration, from the options and the environment."""
        endpoint = self.endpoint or os.environ.get("SECTIGO_ENDPOINT")
        return Config.create(endpoint, self.environment or os.environ.get("SECTIGO_ENVIRONMENT"))

    def token_store(self) -> FileTokenStore:
        """Return the store by which one command's access token serves the next.

        Raises:
            SignInRequiredError: nobody knows who signs in.
        """
        username = self.credentials().username
        if not username:
            raise SignInRequiredError("not signed in: no user name", hint="set SECTIGO_USERNAME and SECTIGO_PASSWORD")
        directory = platformdirs.user_state_path("sectigo-async") / "tokens"
        return FileTokenStore(directory, endpoint=self.config().endpoint, username=username)

    def client(self) -> SectigoClient:
        """Return a client for these settings."""
        found = self.credentials()
        return SectigoClient(
            username=found.username,
            password=found.password,
            config=self.config(),
            token_store=self.token_store(),
        )


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
    named = settings(ctx).profile
    if named is None:
        raise typer.BadParameter(
            f"missing: name one with {option}, or for all commands with -P or SECTIGO_PROFILE", param_hint=option
        )
    if not named.isdecimal() or len(named) > _LONGEST_ID:
        raise typer.BadParameter(
            f"{named!r} is not an id; `sectigo-async authorities` shows the ids", param_hint="--profile"
        )
    return int(named)
