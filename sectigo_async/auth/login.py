"""What the service's answers to signing in and refreshing mean (api.md 1a and 3). No I/O here."""

import json
from contextlib import suppress

import attrs

from sectigo_async.auth.token import Tokens
from sectigo_async.errors import (
    AuthenticationError,
    ClientCertificateRequiredError,
    InvalidCredentialsError,
    NotAuthorizedError,
    ServiceError,
)
from sectigo_async.secrets import Secret
from sectigo_async.wire.reply import Reply, error_for


def read_sign_in(reply: Reply, username: str) -> Tokens:
    """Read the answer to a sign-in with user name and password.

    Raises:
        InvalidCredentialsError: 401.
        NotAuthorizedError: 403.
        ClientCertificateRequiredError: 307.
        ServiceError: any other answer without tokens.
    """
    if reply.status == 401:  # noqa: PLR2004
        raise InvalidCredentialsError(
            f"the service refused the user name or password of {username!r}",
            hint="check SECTIGO_USERNAME and SECTIGO_PASSWORD; it is not tried again, because accounts lock",
        )
    if reply.status == 403:  # noqa: PLR2004
        raise NotAuthorizedError(
            f"user {username!r} may not use the API",
            hint="ask the administrator of your ecosystem for the role",
        )
    if reply.status == 307:  # noqa: PLR2004
        raise ClientCertificateRequiredError(
            f"user {username!r} must sign in with a TLS client certificate",
            hint="this version cannot do that yet; use an account without two-factor sign-in",
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


def _fits_a_header(token: str) -> bool:
    return bool(token) and token.isascii() and token.isprintable() and " " not in token


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
    if not isinstance(document, dict) or not isinstance(access, str) or not _fits_a_header(access):
        # The reply is not quoted: it may hold a token in a shape not known here.
        raise AuthenticationError(
            "the service answered the sign-in without an access token",
            hint="check that the endpoint is the IoT Manager API",
        )
    renewed = document.get("refreshToken")
    has_new = isinstance(renewed, str) and bool(renewed)
    return Tokens(access=Secret(access), refresh=Secret(str(renewed)) if has_new else kept)
