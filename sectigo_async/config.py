"""Configuration without secrets: where the service is, and how long to wait for it."""

import enum
import ipaddress
from urllib.parse import SplitResult, urlsplit

import attrs

from sectigo_async.errors import ConfigurationError

__all__ = [
    "Config",
    "DEFAULT",
    "Default",
    "Environment",
    "PRODUCTION_ENDPOINT",
    "Timeout",
]

PRODUCTION_ENDPOINT = "https://iot.sectigo.com"
_PRODUCTION_HOST = "iot.sectigo.com"


class Default(enum.Enum):
    """The type of `DEFAULT`, which stands for "not given" where `None` means "no limit"."""

    DEFAULT = "default"

    def __repr__(self) -> str:
        return "DEFAULT"


DEFAULT = Default.DEFAULT
Timeout = float | None | Default
"""Seconds for a whole call; `None` for no limit; `DEFAULT` for what `Config.timeout` says."""


class Environment(enum.Enum):
    """What an endpoint is for. It guards against orders that reach the wrong service (api.md 4.17)."""

    PRODUCTION = "production"
    STAGING = "staging"
    DOCKER = "docker"
    TESTING = "testing"


def _split(endpoint: str) -> SplitResult:
    try:
        endpoint.encode()
        url = urlsplit(endpoint.strip())
        _ = url.port
    except ValueError:
        url = None
    if url is None or url.scheme not in {"http", "https"} or not url.hostname:
        # What stands before an @ may be a password.
        shown = "" if "@" in endpoint else f" {endpoint!r}"
        raise ConfigurationError(f"endpoint{shown} is not a URL", hint="write it like https://iot.sectigo.com")
    if url.username is not None or url.password is not None or url.query or url.fragment:
        raise ConfigurationError(
            "the endpoint must not carry a user name, a password, a query or a fragment",
            hint="write only scheme, host, port and path, like https://iot.sectigo.com",
        )
    return url


def is_loopback(host: str) -> bool:
    """Say whether `host` is this machine: `localhost`, or a loopback address written out."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _normalise(url: SplitResult) -> str:
    host = (url.hostname or "").lower()
    if ":" in host:
        host = f"[{host}]"
    default_port = {"http": 80, "https": 443}[url.scheme]
    port = "" if url.port in {None, default_port} else f":{url.port}"
    return f"{url.scheme}://{host}{port}{url.path.rstrip('/')}"


def _environment_for(host: str, given: "Environment | str | None") -> Environment:
    if given is None:
        if host == _PRODUCTION_HOST:
            return Environment.PRODUCTION
        if is_loopback(host):
            return Environment.TESTING
        raise ConfigurationError(
            f"which environment is {host}?",
            hint="say it with environment= or SECTIGO_ENVIRONMENT: staging or docker",
        )
    if isinstance(given, Environment):
        return given
    try:
        return Environment(given.strip().lower())
    except ValueError:
        known = ", ".join(member.value for member in Environment)
        problem = f"unknown environment {given!r}"
    raise ConfigurationError(problem, hint=f"use one of {known}")


def _guard(url: SplitResult, environment: Environment) -> None:
    host = (url.hostname or "").lower()
    bare = host.rstrip(".")
    loopback = is_loopback(host)
    if environment is Environment.PRODUCTION and host != _PRODUCTION_HOST:
        raise ConfigurationError(
            f"environment production is for {_PRODUCTION_HOST} only, not {host}",
            hint="set SECTIGO_ENVIRONMENT to staging, docker or testing for another endpoint",
        )
    if environment in {Environment.STAGING, Environment.DOCKER} and (
        bare == "sectigo.com" or bare.endswith(".sectigo.com")
    ):
        raise ConfigurationError(
            f"environment {environment.value} must not reach {host}",
            hint="set SECTIGO_ENVIRONMENT=production if real certificates are meant",
        )
    if environment is Environment.TESTING and not loopback:
        raise ConfigurationError(
            f"environment testing is for this machine only, not {host}",
            hint="start `sectigo-async serve` and set SECTIGO_ENDPOINT to the address it prints",
        )
    if url.scheme == "http" and not loopback:
        raise ConfigurationError(f"plain http to {host} would show the password to the network", hint="use https")


@attrs.frozen(kw_only=True)
class Config:
    """Where the service is and how patient to be. Holds no secrets.

    `Config.create` guesses the environment and normalises the endpoint; both are checked however it is made.

    Attributes:
        endpoint: scheme, host, port and path prefix, normalised, without a trailing slash.
        environment: what the endpoint is for.
        timeout: seconds for a whole call, retries and sign-in included; `None` for no limit.
        connect_timeout: seconds for making one connection.
        read_timeout: seconds between two pieces of a reply. Orders take long (api.md 6): 60 or more.
        attempts: how often a repeatable call is sent at most (1 or more).
        connections: how many requests are under way at once (1 or more).
        reply_limit: the longest JSON reply that is read, in bytes.
        archive_limit: the longest archive that is held in memory, in bytes.
    """

    endpoint: str
    environment: Environment
    timeout: float | None = 120.0
    connect_timeout: float = 10.0
    read_timeout: float = 60.0
    attempts: int = attrs.field(default=4, validator=attrs.validators.ge(1))
    connections: int = attrs.field(default=20, validator=attrs.validators.ge(1))
    reply_limit: int = 32 * 1024 * 1024
    archive_limit: int = 64 * 1024 * 1024

    def __attrs_post_init__(self) -> None:
        url = _split(self.endpoint)
        _guard(url, self.environment)
        object.__setattr__(self, "endpoint", _normalise(url))

    @classmethod
    def create(cls, endpoint: str | None = None, environment: Environment | str | None = None) -> "Config":
        """Check and normalise an endpoint.

        Args:
            endpoint: URL of the service; the production service when not given.
            environment: what the endpoint is for. When not given: production for iot.sectigo.com,
                testing for this machine; any other endpoint must name one.

        Raises:
            ConfigurationError: the endpoint is no URL, or does not fit the environment.
        """
        url = _split(endpoint or PRODUCTION_ENDPOINT)
        chosen = _environment_for((url.hostname or "").lower(), environment or None)
        return cls(endpoint=endpoint or PRODUCTION_ENDPOINT, environment=chosen)
