"""What the options of every command say, and the client they make."""

import asyncio
import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

import attrs
import typer

from sectigo_async import Batch, Secret, SectigoClient, SqliteJournal, SystemClock
from sectigo_async.credentials import Resolved, SharedLogin, resolve
from sectigo_async.errors import (
    ConfigurationError,
    CredentialStoreError,
    InvalidArgumentError,
    SignInRequiredError,
)
from sectigo_async_cli.output import Output
from sectigo_async_cli.prompts import ask, ask_secret, is_terminal
from sectigo_async_cli.streams import is_live, say

_OF_A_LOGIN = ("username", "password", "endpoint", "environment", "account", "environ")
_NO = frozenset({"", "0", "false", "no"})


@attrs.frozen(kw_only=True)
class Settings:
    """The options that every command takes; `None` where one is not given.

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
        output: how data is written.
        no_input: whether nothing may be asked.
        debug: whether errors come with a traceback.
        session: the shell that this command is typed in; it has the event loop and the client.
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
    output: Output = attrs.field(factory=Output)
    no_input: bool = False
    debug: bool = False
    session: "Session | None" = attrs.field(default=None, repr=False)
    _found: dict[tuple[str | None, bool, bool], Resolved] = attrs.field(factory=dict, init=False, repr=False)

    @property
    def interactive(self) -> bool:
        """Whether a person is there, and may be asked."""
        automatic = self.environ.get("CI", "").lower() not in _NO
        return not self.no_input and not automatic and is_terminal()

    @property
    def talks_to_a_terminal(self) -> bool:
        """Whether talk is seen by a person as it is said."""
        return is_live(sys.stderr)

    def remember(self, batch: Batch) -> None:
        """Let the shell, if this is one, offer a batch from now on."""
        if self.session is not None:
            self.session.batches[batch.batch_id] = batch.batch_name

    def command(self, *words: str) -> str:
        """Return a command line that means the same login, to be copied."""
        options = {"-u": self.username, "-e": self.endpoint, "-E": self.environment, "--account": self.account}
        options["--env-file"] = None if self.env_file is None else str(self.env_file)
        given = [word for option, value in options.items() if value for word in (option, value)]
        return f"`{shlex.join(['sectigo-async', *given, *words])}`"

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
            interactive=self.interactive,
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
        return SectigoClient(config=found.config, credentials=found.credentials, journal=self.journal())

    def journal(self) -> SqliteJournal:
        """Return the journal of this login's orders."""
        found = self.resolve()
        return SqliteJournal(endpoint=found.config.endpoint, username=found.credentials.username or "")

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

    async def with_answers(self) -> "Settings":
        """Return these settings with what a person answers, where there is not enough to sign in with.

        Raises:
            SignInRequiredError: they answer nothing.
        """
        chosen = self
        while self.interactive and (missing := await chosen.what_is_missing()):
            found = chosen.resolve()
            place, username = found.config.endpoint, found.credentials.username
            if missing == "user name":
                chosen = attrs.evolve(chosen, username=await sign_in_answer(f"User name at {place}:"))
            else:
                answer = await sign_in_answer(f"Password of {username} at {place}:", secret=True)
                chosen = attrs.evolve(
                    chosen,
                    username=username,
                    password=Secret(answer),
                    password_source="prompt",  # noqa: S106 - no password
                )
        return chosen


@attrs.define
class Session:
    """What the commands typed in one shell share.

    Attributes:
        runner: the event loop.
        started: the options that the shell was started with.
        terminated: whether SIGTERM came, so that the shell has to end.
        batches: ids of the batches that its commands told of, with their names.
    """

    runner: asyncio.Runner
    started: Settings
    terminated: bool = False
    batches: dict[int, str] = attrs.field(factory=dict)
    _client: SectigoClient | None = attrs.field(default=None, init=False)

    def fits(self, chosen: Settings) -> bool:
        """Say whether these options mean the login of the shell."""
        return all(getattr(chosen, name) == getattr(self.started, name) for name in _OF_A_LOGIN)

    @property
    def open_client(self) -> SectigoClient | None:
        """The client, where a command has needed it."""
        return self._client

    async def client(self) -> SectigoClient:
        """Return the one client of the shell, made when it is first needed."""
        if self._client is None:
            self._client = (await self.started.with_answers()).client()
        return self._client

    async def renew(self) -> None:
        """Forget the client, since somebody signed in or out; the next command makes another."""
        self.started = attrs.evolve(self.started)  # What it has found out is of before.
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()


async def sign_in_answer(question: str, *, secret: bool = False) -> str:
    """Return what a person answers to a question about signing in.

    Raises:
        SignInRequiredError: they answer nothing.
    """
    try:
        answer = await (ask_secret(question) if secret else ask(question))
    except InvalidArgumentError:
        answer = ""
    if not answer:
        raise SignInRequiredError("not signed in: there was no answer", hint="sign in with `sectigo-async login`")
    return answer


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


def read_env_file(base: Settings, path: Path) -> Settings:
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
            if name.startswith("SECTIGO_") and value and not base.environ.get(name)
        }
        return attrs.evolve(base, environ={**base.environ, **added}, env_file=path, from_file=frozenset(added))
    raise ConfigurationError(problem, hint="--env-file names a file of lines like SECTIGO_USERNAME=ops")


def refuse_in_a_shell(chosen: Settings) -> None:
    """Raise an error where a command is typed in a shell that it would not end in.

    Raises:
        typer.BadParameter: it is.
    """
    if chosen.session is not None:
        raise typer.BadParameter("not in the shell: run it in another terminal")


def settings(ctx: typer.Context) -> Settings:
    """Return the global options of this run."""
    found = ctx.find_object(Settings)
    return found if found is not None else Settings()
