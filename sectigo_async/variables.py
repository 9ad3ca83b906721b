"""Every environment variable that this package reads, in one table.

The documentation's table, `sectigo-async validate` and the tests are made from it.
"""

from collections.abc import Mapping

import attrs


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
    Variable("SECTIGO_ACCOUNT", "Name of the account that `login --account` made.", "default"),
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
    Variable("SECTIGO_TRUST_ANCHORS", "A PEM file of the roots that issued certificates must lead to."),
)


def read_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of this package that are set; an empty one counts as not set."""
    return {variable.name: environ[variable.name] for variable in VARIABLES if environ.get(variable.name)}
