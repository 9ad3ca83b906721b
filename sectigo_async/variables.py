"""Every environment variable that this package reads, in one table.

The documentation's table, `sectigo-async validate` and the tests are made from it.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import attrs

from sectigo_async.errors import ConfigurationError
from sectigo_async.secrets import Secret

_LONGEST = 3600.0


@attrs.frozen
class Variable:
    """One environment variable.

    Attributes:
        name: its name.
        meaning: what it says, in one line.
        default: what holds when it is not set, in words.
        secret: whether its value must not be shown.
    """

    name: str
    meaning: str
    default: str = ""
    secret: bool = False


VARIABLES = (
    Variable("SECTIGO_USERNAME", "Who signs in.", "the user of the account"),
    Variable("SECTIGO_PASSWORD", "Their password.", "the password that `login` kept", secret=True),
    Variable("SECTIGO_PASSWORD_FILE", "A file with their password, read at each sign-in."),
    Variable("SECTIGO_ACCESS_TOKEN", "An access token, used until the service refuses it.", secret=True),
    Variable("SECTIGO_REFRESH_TOKEN_FILE", "A file with a refresh token, rewritten when there is a new one."),
    Variable("SECTIGO_ACCOUNT", "Name of an account that `--account NAME login` made.", "default"),
    Variable("SECTIGO_ENDPOINT", "URL of the service.", "the endpoint of the account, or https://iot.sectigo.com"),
    Variable(
        "SECTIGO_ENVIRONMENT",
        "What the endpoint is for: production, staging, docker or testing.",
        "production for iot.sectigo.com, testing for this machine",
    ),
    Variable("SECTIGO_PROFILE", "Id of the profile that the command line orders under."),
    Variable(
        "SECTIGO_CREDENTIAL_STORE",
        "Where a login is kept: auto, keyring, file or memory.",
        "auto: where `login` kept it, else the keyring",
    ),
    Variable(
        "SECTIGO_KEYRING_TIMEOUT", "Seconds that the keyring may take for one answer.", "5, or 60 on a terminal"
    ),
    Variable(
        "SECTIGO_LOCK_DIR",
        "Directory of the lock and the access token that processes share; a local one of your own, mode 0700.",
        "the state directory",
    ),
    Variable("SECTIGO_TOKEN_CACHE", "0 keeps the access token out of that directory.", "1"),
    Variable("SECTIGO_CA_BUNDLE", "A PEM file of further certificate authorities to trust for TLS."),
    Variable("SECTIGO_CLIENT_CERT", "A PEM file with the TLS client certificate for signing in."),
    Variable("SECTIGO_CLIENT_KEY", "A PEM file with its private key.", "SECTIGO_CLIENT_CERT"),
    Variable(
        "SECTIGO_LOGIN_HOST", "host:port where signing in with a client certificate may go, besides the endpoint's."
    ),
    Variable(
        "SECTIGO_LEDGER",
        "URL of the PostgreSQL database with the ledger of bulk runs on several machines; it may hold a password.",
        secret=True,
    ),
    Variable("SECTIGO_TRUST_ANCHORS", "A PEM file of the roots that issued certificates must lead to."),
)


@attrs.frozen
class Variables:
    """The variables of this package that are set; an empty one counts as not set. Secrets are masked from the start.

    Attributes:
        plain: those that may be shown, by name.
        secret: those that may not, by name.
    """

    plain: Mapping[str, str]
    secret: Mapping[str, Secret]

    @classmethod
    def read(cls, environ: Mapping[str, str] | None) -> "Variables":
        """Return what `environ` says; `os.environ` when not given."""
        source = os.environ if environ is None else environ
        names = [(variable.name, variable.secret) for variable in VARIABLES if source.get(variable.name)]
        return cls(
            {name: source[name] for name, secret in names if not secret},
            {name: Secret(source[name]) for name, secret in names if secret},
        )

    def without(self, *names: str) -> "Variables":
        """Return these but for some."""
        return Variables(
            {name: value for name, value in self.plain.items() if name not in names},
            {name: value for name, value in self.secret.items() if name not in names},
        )

    def __contains__(self, name: str) -> bool:
        return name in self.plain or name in self.secret

    def path(self, name: str) -> Path | None:
        """Return the path that a variable names.

        Raises:
            ConfigurationError: it begins with the home directory of nobody.
        """
        if name not in self.plain:
            return None
        try:
            return Path(self.plain[name]).expanduser()
        except RuntimeError:
            problem = f"{name} is {self.plain[name]!r}, and there is no such home directory"
        raise ConfigurationError(problem, hint="write the whole path")

    def choice(self, name: str, choices: tuple[str, ...]) -> str:
        """Return which of `choices` a variable names; the first one where it is not set.

        Raises:
            ConfigurationError: it names none.
        """
        chosen = self.plain.get(name, choices[0]).strip().lower()
        if chosen not in choices:
            raise ConfigurationError(f"{name} is {chosen!r}", hint=f"use one of {', '.join(choices)}")
        return chosen

    def seconds(self, name: str, default: float) -> float:
        """Return the seconds that a variable names, more than 0 and at most an hour.

        Raises:
            ConfigurationError: it names none.
        """
        text = self.plain.get(name)
        if text is None:
            return default
        try:
            seconds = float(text)
        except ValueError:
            seconds = 0.0
        if not 0 < seconds <= _LONGEST:
            raise ConfigurationError(f"{name} is {text!r}", hint=f"use seconds, more than 0 and at most {_LONGEST:g}")
        return seconds
