"""Configuration without secrets: where the service is, and how long to wait for it."""

import enum
import ipaddress
import re
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

import attrs

from sectigo_async.errors import ConfigurationError

__all__ = [
    "ClientCertificate",
    "Config",
    "DEFAULT",
    "Default",
    "Environment",
    "PRODUCTION_ENDPOINT",
    "Timeout",
    "normalise_endpoint",
]

PRODUCTION_ENDPOINT = "https://iot.sectigo.com"
_PRODUCTION_HOST = "iot.sectigo.com"
_HIGHEST_PORT = 65535
_HOST_AND_PORT = re.compile(r"([a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?")


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


def normalise_endpoint(endpoint: str) -> str:
    """Return scheme, host, port and path of an endpoint, spelt in the one way that everything is bound to.

    Raises:
        ConfigurationError: it is no URL, or carries more than that.
    """
    url = _split(endpoint)
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


def _login_hosts(hosts: Iterable[str]) -> tuple[str, ...]:
    """Return host:port for each host, in lower case, with the port of https where none is given."""
    normal = []
    for host in hosts:
        found = _HOST_AND_PORT.fullmatch(host.strip().lower())
        if found is None or not 0 < int(found[2] or 443) <= _HIGHEST_PORT:
            raise ConfigurationError(
                f"{host!r} is not a host and port", hint="SECTIGO_LOGIN_HOST is like login.example.com:443"
            )
        normal.append(f"{found[1]}:{found[2] or 443}")
    return tuple(normal)


@attrs.frozen(kw_only=True)
class ClientCertificate:
    """The TLS client certificate of an account that signs in with one (api.md 3). It is used for nothing else.

    Attributes:
        certificate: PEM file with the certificate, and its chain if it has one.
        key: PEM file with the private key, without a password; the same file when not given.
    """

    certificate: Path
    key: Path | None = None


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
        keep_alive: seconds for which a connection that nobody uses is used again (0 for never). Shorter than the
            service's own, or a call may find its connection closed; it is sent again then.
        reply_limit: the longest JSON reply that is read, in bytes.
        archive_limit: the longest archive that is held in memory, in bytes.
        ca_bundle: PEM file of certificate authorities to trust for TLS, besides those of the operating system.
        client_certificate: what to sign in with where the service asks for it.
        login_hosts: host:port pairs where signing in with a client certificate may go, besides the endpoint's
            own and, in production, any host of sectigo.com.
        trust_anchors: PEM file of the roots that issued certificates must lead to, where a call names none.
    """

    endpoint: str
    environment: Environment
    timeout: float | None = 120.0
    connect_timeout: float = 10.0
    read_timeout: float = 60.0
    attempts: int = attrs.field(default=4, validator=attrs.validators.ge(1))
    connections: int = attrs.field(default=20, validator=attrs.validators.ge(1))
    keep_alive: float = attrs.field(default=5.0, validator=attrs.validators.ge(0))
    reply_limit: int = 8 * 1024 * 1024
    archive_limit: int = 64 * 1024 * 1024
    ca_bundle: Path | None = None
    client_certificate: ClientCertificate | None = None
    login_hosts: tuple[str, ...] = attrs.field(default=(), converter=_login_hosts)
    trust_anchors: Path | None = None

    def __attrs_post_init__(self) -> None:
        _guard(_split(self.endpoint), self.environment)
        object.__setattr__(self, "endpoint", normalise_endpoint(self.endpoint))

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
