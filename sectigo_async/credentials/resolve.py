"""Who signs in where, and with what: the precedence of arguments, environment, account, keyring and prompt."""

import logging
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import attrs

from sectigo_async.clock import Clock
from sectigo_async.config import ClientCertificate, Config, Environment, normalise_endpoint
from sectigo_async.credentials.accounts import DEFAULT_ACCOUNT, Account, Accounts
from sectigo_async.credentials.keyring_store import DEFAULT_TIMEOUT, INTERACTIVE_TIMEOUT, KeyringStore
from sectigo_async.credentials.login import Login
from sectigo_async.credentials.shared import SharedLogin
from sectigo_async.credentials.state import state_directory
from sectigo_async.credentials.stores import CredentialStore, FileStore, RefreshTokenFile, read_secret_file
from sectigo_async.errors import ConfigurationError, CredentialStoreError
from sectigo_async.secrets import Secret
from sectigo_async.text import fits_a_header
from sectigo_async.variables import VARIABLES, Variables

_log = logging.getLogger("sectigo_async.credentials")

_OF_ONE_LOGIN = (
    "SECTIGO_USERNAME",
    "SECTIGO_PASSWORD",
    "SECTIGO_PASSWORD_FILE",
    "SECTIGO_ACCESS_TOKEN",
    "SECTIGO_REFRESH_TOKEN_FILE",
    "SECTIGO_ENDPOINT",
    "SECTIGO_ENVIRONMENT",
)
_SECRETS = ("SECTIGO_PASSWORD", "SECTIGO_PASSWORD_FILE", "SECTIGO_ACCESS_TOKEN", "SECTIGO_REFRESH_TOKEN_FILE")


@attrs.frozen
class Found:
    """A secret and where it came from."""

    secret: Secret
    source: str


def _fit_for_a_header(_: object, __: object, token: Secret | None) -> None:
    if token is not None and not fits_a_header(token.reveal()):
        raise ConfigurationError(
            "SECTIGO_ACCESS_TOKEN is not a token", hint="a token has neither blanks nor line ends, and is ASCII alone"
        )


@attrs.frozen(kw_only=True)
class Credentials:
    """Who signs in, and what they sign in with.

    Attributes:
        username: who signs in; `None` where nobody knows.
        password: the password, where the caller or the environment gives one.
        password_source: where that came from.
        password_file: a file with the password, read at each sign-in.
        access_token: a token to use until it is refused.
        store: where the refresh token and the password are kept between processes, where they are.
        directory: the directory of the lock and the shared access token; `None` where nothing is shared.
        cache: whether the access token is shared.
    """

    username: str | None = None
    password: Secret | None = None
    password_source: str = "argument"  # noqa: S105 - no password
    password_file: Path | None = None
    access_token: Secret | None = attrs.field(default=None, validator=_fit_for_a_header)
    store: CredentialStore | None = None
    directory: Path | None = None
    cache: bool = True

    @property
    def is_known(self) -> bool:
        """Whether it is known whose login this is."""
        return bool(self.username) or isinstance(self.store, RefreshTokenFile)

    @property
    def has_own_password(self) -> bool:
        """Whether the password comes from the caller or the environment, and not from the store."""
        return bool(self.password) or self.password_file is not None

    def share(self, endpoint: str, clock: Clock) -> SharedLogin:
        """Return what the processes of this login share at the normalised `endpoint`."""
        # A file with a refresh token may be used by programs that name no user, or name it otherwise.
        name = self.store.identity if isinstance(self.store, RefreshTokenFile) else self.username
        return SharedLogin(
            Login(endpoint, name or ""),
            store=self.store if name else None,
            directory=self.directory if name else None,
            cache=self.cache and self.access_token is None,
            clock=clock,
        )

    async def find_password(self, shared: SharedLogin) -> Found | None:
        """Return the password to sign in with, or `None`: the caller's, the file's, or the one that is kept.

        Raises:
            CredentialStoreError: the place that should hold it cannot be used.
        """
        if self.password:
            return Found(self.password, self.password_source)
        if self.password_file is not None:
            return Found(await read_secret_file(self.password_file), "SECTIGO_PASSWORD_FILE")
        kept = await shared.password()
        return None if kept is None or shared.store is None else Found(kept, shared.store.name)


@attrs.frozen
class Setting:
    """One setting as it is in force.

    Attributes:
        value: its value; a secret is masked; empty where there is none.
        source: where it came from: `argument`, `environment`, `account NAME` or `default`.
    """

    value: str
    source: str


@attrs.frozen(kw_only=True)
class Resolved:
    """What `resolve` found.

    Attributes:
        config: where the service is, and how to reach it.
        credentials: who signs in, and with what.
        account: name of the account in use; empty where it is none.
        settings: each variable of `VARIABLES` as it is in force.
    """

    config: Config
    credentials: Credentials
    account: str
    settings: Mapping[str, Setting]


def resolve(
    *,
    username: str | None = None,
    password: str | Secret | None = None,
    endpoint: str | None = None,
    environment: Environment | str | None = None,
    account: str | None = None,
    store: str | None = None,
    environ: Mapping[str, str] | None = None,
    interactive: bool = False,
    keeping: bool = False,
    new_account: bool = False,
) -> Resolved:
    """Decide who signs in where, and with what. Nothing is sent, and no keyring is touched.

    Each value, on its own, is

    1. the argument, if it is given and not empty;
    2. the environment variable. Its secrets belong to its user name and endpoint: they are not used where the
       caller names another;
    3. for endpoint, environment and user name: what the account says. The account named by the argument comes
       before the variables of one login (user, secrets, endpoint), which then count for nothing. The account
       named by SECTIGO_ACCOUNT must agree with them. The account `default` is used only where it agrees.
       For secrets, where neither 1 nor 2 gives any: what `login` kept in the keyring, or in the store that
       SECTIGO_CREDENTIAL_STORE names. No other store is tried when that one fails;
    4. on a terminal, what a person answers: the command line asks, and gives it as the argument.

    Args:
        username: the caller's own choice.
        password: the caller's own choice.
        endpoint: the caller's own choice.
        environment: the caller's own choice.
        account: name of an account that `login` made.
        store: the caller's own choice of SECTIGO_CREDENTIAL_STORE.
        environ: the environment; `os.environ` when not given.
        interactive: whether a person is there, who may unlock the keyring.
        keeping: whether there is to be a store even where the secret is given, as for `login` and `logout`.
        new_account: whether the account need not exist, or may be another's until now, as for `login`.

    Raises:
        ConfigurationError: values that cannot work, or contradict each other.
        CredentialStoreError: the list of accounts cannot be read.
    """
    variables = Variables.read(environ)
    del environ  # No frame on the way of an error holds what it says.
    password = Secret(password) if password else None
    if store:
        variables = attrs.evolve(variables, plain={**variables.plain, "SECTIGO_CREDENTIAL_STORE": store})
    name = account or variables.plain.get("SECTIGO_ACCOUNT") or ""
    given_all = bool(password or any(secret in variables for secret in _SECRETS)) and not keeping
    found = _account(name, must_exist=not new_account, must_be_read=not given_all)
    if account and found is not None:
        variables = variables.without(*_OF_ONE_LOGIN)
    elif _is_of_another_login(variables, username, endpoint):
        withheld = [secret for secret in _SECRETS if secret in variables]
        if withheld and not password:
            _log.warning("not used, since user name or endpoint are not those beside it: %s", ", ".join(withheld))
        variables = variables.without(*_SECRETS)
    who = username or variables.plain.get("SECTIGO_USERNAME")
    where = endpoint or variables.plain.get("SECTIGO_ENDPOINT")
    if found is not None and not _agrees(found, who, where):
        if name and not new_account:
            raise ConfigurationError(
                f"account {name!r} is {found.username!r} at {found.endpoint}, and not {who or found.username!r} "
                f"at {where or found.endpoint}",
                hint="leave out the account, or the user name and endpoint",
            )
        found = None
    purpose = environment or variables.plain.get("SECTIGO_ENVIRONMENT")
    if found is not None:
        who, where, purpose = who or found.username, where or found.endpoint, purpose or found.environment
    config = _config(where, purpose, variables)
    used = name or DEFAULT_ACCOUNT if found is not None else ""
    given: dict[str, object] = {"SECTIGO_USERNAME": username, "SECTIGO_PASSWORD": password}
    given |= {"SECTIGO_ENDPOINT": endpoint, "SECTIGO_ENVIRONMENT": environment, "SECTIGO_ACCOUNT": account}
    return Resolved(
        config=config,
        credentials=_credentials(who, password, variables, found, interactive=interactive, keeping=keeping),
        account=used,
        settings=_settings(given, variables, config, found, used),
    )


def _account(name: str, *, must_exist: bool, must_be_read: bool) -> Account | None:
    try:
        directory = state_directory()
    except CredentialStoreError:
        if not name:
            return None  # A container without a home has no accounts.
        raise
    try:
        found = Accounts(directory).get(name or DEFAULT_ACCOUNT)
    except CredentialStoreError as error:
        if name or must_be_read:
            raise
        _log.warning("the list of accounts is not used: %s", error)
        return None
    if found is None and name and must_exist:
        raise ConfigurationError(
            f"there is no account {name!r}", hint=f"make it with: sectigo-async --account {name} login"
        )
    return found


def _is_of_another_login(variables: Variables, username: str | None, endpoint: str | None) -> bool:
    """Say whether the caller means another user or endpoint than the environment, whose secrets are for that."""
    its_user, its_endpoint = variables.plain.get("SECTIGO_USERNAME"), variables.plain.get("SECTIGO_ENDPOINT")
    return bool(username and its_user and username != its_user) or bool(
        endpoint and its_endpoint and not _same(endpoint, its_endpoint)
    )


def _same(endpoint: str, other: str) -> bool:
    with suppress(ConfigurationError):
        return normalise_endpoint(endpoint) == normalise_endpoint(other)
    return endpoint == other


def _agrees(account: Account, username: str | None, endpoint: str | None) -> bool:
    return (username is None or username == account.username) and (
        endpoint is None or _same(endpoint, account.endpoint)
    )


def _config(endpoint: str | None, environment: Environment | str | None, variables: Variables) -> Config:
    certificate, key = variables.path("SECTIGO_CLIENT_CERT"), variables.path("SECTIGO_CLIENT_KEY")
    if key is not None and certificate is None:
        raise ConfigurationError("SECTIGO_CLIENT_KEY is set without SECTIGO_CLIENT_CERT", hint="set both")
    return attrs.evolve(
        Config.create(endpoint, environment),
        ca_bundle=variables.path("SECTIGO_CA_BUNDLE"),
        client_certificate=None if certificate is None else ClientCertificate(certificate=certificate, key=key),
        login_hosts=[host for host in variables.plain.get("SECTIGO_LOGIN_HOST", "").split(",") if host.strip()],
        trust_anchors=variables.path("SECTIGO_TRUST_ANCHORS"),
    )


def _credentials(
    username: str | None,
    password: Secret | None,
    variables: Variables,
    account: Account | None,
    *,
    interactive: bool,
    keeping: bool,
) -> Credentials:
    if password:
        variables = variables.without(*_SECRETS)
    if "SECTIGO_PASSWORD" in variables and "SECTIGO_PASSWORD_FILE" in variables:
        raise ConfigurationError("both SECTIGO_PASSWORD and SECTIGO_PASSWORD_FILE are set", hint="set one of them")
    kept_in = variables.choice("SECTIGO_CREDENTIAL_STORE", ("auto", "keyring", "file", "memory"))
    directory = variables.path("SECTIGO_LOCK_DIR")
    if directory is not None and not directory.is_absolute():
        raise ConfigurationError(
            f"SECTIGO_LOCK_DIR is {str(directory)!r}", hint="write the whole path, so that all programs meet there"
        )
    timeout = variables.seconds("SECTIGO_KEYRING_TIMEOUT", INTERACTIVE_TIMEOUT if interactive else DEFAULT_TIMEOUT)
    explicit = bool(password) or any(name in variables for name in _SECRETS)
    refresh_token_file = variables.path("SECTIGO_REFRESH_TOKEN_FILE")
    store: CredentialStore | None = None
    if refresh_token_file is not None and not keeping:
        store = RefreshTokenFile(refresh_token_file)
    elif (keeping or not explicit) and kept_in != "memory":
        kept_in = (account.store if account else "keyring") if kept_in == "auto" else kept_in
        store = open_store(kept_in, timeout=timeout, lock_in=directory)
    if kept_in == "memory" and store is None:
        directory = None
    elif directory is None:
        try:
            directory = state_directory()
        except CredentialStoreError:
            if store is not None:
                raise
    return Credentials(
        username=username,
        password=password or variables.secret.get("SECTIGO_PASSWORD"),
        password_source="argument" if password else "SECTIGO_PASSWORD",
        password_file=variables.path("SECTIGO_PASSWORD_FILE"),
        access_token=None if keeping else variables.secret.get("SECTIGO_ACCESS_TOKEN"),
        store=store,
        directory=directory,
        cache=variables.choice("SECTIGO_TOKEN_CACHE", ("1", "0")) == "1",
    )


def open_store(name: str, *, timeout: float = DEFAULT_TIMEOUT, lock_in: Path | None = None) -> CredentialStore:
    """Return the store of that name.

    Args:
        name: `keyring` or `file`.
        timeout: seconds that the keyring may take for one answer.
        lock_in: directory of the lock that keeps processes from using the keyring at the same time.

    Raises:
        ConfigurationError: there is no store of that name.
        CredentialStoreError: the user has no home directory.
    """
    if name == "file":
        return FileStore(state_directory() / "credentials")
    if name == "keyring":
        return KeyringStore(timeout=timeout, lock=None if lock_in is None else lock_in / "keyring.lock")
    raise ConfigurationError(f"there is no store {name!r}", hint="use keyring or file")


def _settings(
    given: Mapping[str, object],
    variables: Variables,
    config: Config,
    account: Account | None,
    account_name: str,
) -> dict[str, Setting]:
    of_account: dict[str, str] = {}
    if account is not None:
        of_account = {"SECTIGO_USERNAME": account.username, "SECTIGO_ENDPOINT": account.endpoint}
        of_account |= {"SECTIGO_ENVIRONMENT": account.environment, "SECTIGO_CREDENTIAL_STORE": account.store}
    defaults = {"SECTIGO_ENDPOINT": config.endpoint, "SECTIGO_ENVIRONMENT": config.environment.value}
    defaults |= {"SECTIGO_ACCOUNT": account_name}
    settings = {}
    for variable in VARIABLES:
        name = variable.name
        argument = given.get(name)
        if argument:
            shown = argument.value if isinstance(argument, Environment) else str(argument)
            settings[name] = Setting(shown, "argument")
        elif name in variables:
            settings[name] = Setting(variables.plain.get(name) or str(variables.secret[name]), "environment")
        elif name in of_account:
            settings[name] = Setting(of_account[name], f"account {account_name}")
        else:
            settings[name] = Setting(defaults.get(name, ""), "default")
    return settings
