"""What the service's answers to signing in and refreshing mean (api.md 1a and 3). No I/O here."""

import json
import re
from contextlib import suppress
from urllib.parse import urlsplit

import attrs

from sectigo_async.auth.token import Tokens
from sectigo_async.config import Config, Environment
from sectigo_async.errors import (
    AuthenticationError,
    ClientCertificateRequiredError,
    InvalidCredentialsError,
    NotAuthorizedError,
    ServiceError,
)
from sectigo_async.secrets import Secret
from sectigo_async.text import fits_a_header
from sectigo_async.wire.reply import Reply, error_for

_LONGEST_LOCATION = 2000
_HIGHEST_PORT = 65535
# What a URL parser and a person read alike: no user information, no escapes, no trailing dot, ASCII alone.
_TARGET = re.compile(
    r"https://(?P<host>[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*|\[[0-9a-f:.]+\])"
    r"(?::(?P<port>[0-9]{1,5}))?(?P<path>/[!-~]*)?",
    re.IGNORECASE | re.ASCII,
)


def certificate_sign_in_url(reply: Reply, config: Config, username: str) -> str:
    """Return where to sign in with the client certificate, which a 307 to the sign-in asks for (api.md 1a and 3).

    The password goes there, so it is https, and one of: the endpoint's own host and port, a host of
    `Config.login_hosts`, in production any host of sectigo.com.

    Raises:
        ClientCertificateRequiredError: there is no certificate to sign in with, or that is nowhere to send it.
    """
    if config.client_certificate is None:
        raise ClientCertificateRequiredError(
            f"user {username!r} must sign in with a TLS client certificate",
            hint="set SECTIGO_CLIENT_CERT and SECTIGO_CLIENT_KEY to its files",
        )
    location = reply.headers.get("location", "").strip()
    if len(location) > _LONGEST_LOCATION:
        location = ""
    home = urlsplit(config.endpoint)
    if re.fullmatch(r"/(?!/)[!-~]*", location) and home.scheme == "https":
        return f"https://{home.netloc}{location}"
    found = _TARGET.fullmatch(location)
    host, port = (found["host"].lower(), int(found["port"] or 443)) if found else ("", 0)
    if found is not None and 0 < port <= _HIGHEST_PORT:
        here = home.scheme == "https" and f"{host}:{port}" == _host_and_port(config.endpoint)
        vendor = config.environment is Environment.PRODUCTION and host.endswith(".sectigo.com")
        if here or vendor or f"{host}:{port}" in config.login_hosts:
            return f"https://{host}:{port}{found['path'] or '/'}"
    raise ClientCertificateRequiredError(
        f"the service wants user {username!r} to sign in at {reply.quote(location) or 'a place it does not name'}, "
        "which is not a place to send a password to; nothing was sent there",
        hint="if that is right, set SECTIGO_LOGIN_HOST to its host:port",
    )


def _host_and_port(endpoint: str) -> str:
    url = urlsplit(endpoint)
    host = url.netloc if url.port is None else url.netloc.rpartition(":")[0]
    return f"{host}:{url.port or 443}"


def read_sign_in(reply: Reply, username: str) -> Tokens:
    """Read the answer to a sign-in with user name and password.

    Raises:
        InvalidCredentialsError: 401.
        NotAuthorizedError: 403.
        ServiceError: any other answer without tokens.
    """
    if reply.status == 401:  # noqa: PLR2004
        raise InvalidCredentialsError(
            f"the service refused the user name or password of {username!r}",
            hint="check SECTIGO_USERNAME and SECTIGO_PASSWORD, or sign in again with `sectigo-async login`; "
            "the same password is not tried again by itself, because accounts lock",
        )
    if reply.status == 403:  # noqa: PLR2004
        raise NotAuthorizedError(
            f"user {username!r} may not use the API",
            hint="ask the administrator of your ecosystem for the role",
        )
    if not reply.ok:
        raise _refusal(reply, "/auth/pwd")
    return _read_tokens(reply, None)


def read_refresh(reply: Reply, used: Secret) -> Tokens | None:
    """Read the answer to a refresh; `None` where the service refused (401, 403).

    Raises:
        ServiceError: any other answer without tokens.
    """
    if reply.status in {401, 403}:
        return None
    if not reply.ok:
        raise _refusal(reply, "/auth/refresh")
    return _read_tokens(reply, used)


def _refusal(reply: Reply, path: str) -> ServiceError:
    """Return the error for a reply that is no answer to signing in; its body may hold tokens, so it is not quoted."""
    error = error_for(attrs.evolve(reply, body=_message_only(reply)), "POST", path)
    error.hint = error.hint or "check that the endpoint is the IoT Manager API"
    return error


def _message_only(reply: Reply) -> bytes:
    with suppress(ValueError):
        document = reply.json()
        if isinstance(document, dict) and isinstance(document.get("message"), str):
            return json.dumps({"message": document["message"]}, ensure_ascii=False).encode("utf-8", "replace")
    return b"<html>" if reply.is_web_page else b""


def _read_tokens(reply: Reply, kept: Secret | None) -> Tokens:
    try:
        document = reply.json()
    except ValueError:
        document = None
    access = document.get("accessToken") if isinstance(document, dict) else None
    if not isinstance(document, dict) or not isinstance(access, str) or not fits_a_header(access):
        # The reply is not quoted: it may hold a token in a shape not known here.
        raise AuthenticationError(
            "the service answered the sign-in without an access token",
            hint="check that the endpoint is the IoT Manager API",
        )
    renewed = document.get("refreshToken")
    has_new = isinstance(renewed, str) and bool(renewed)
    return Tokens(access=Secret(access), refresh=Secret(str(renewed)) if has_new else kept)
