"""Tokens of the service: JWTs that only the service can verify (api.md 3)."""

import base64
import json

import attrs

from sectigo_async.secrets import Secret


@attrs.frozen(kw_only=True)
class Claims:
    """What a token says of itself, unverified; `None` where it does not say.

    Attributes:
        lifetime: seconds from its issue to its end.
        expires_at: wall-clock time of its end by the service's clock, in seconds since the epoch.
        first_login: the service's flag of that name, probably "must change the password" (api.md 3).
    """

    lifetime: float | None = None
    expires_at: float | None = None
    first_login: bool = False


def read_claims(token: Secret) -> Claims:
    """Read a token without verifying it; a token that cannot be read says nothing."""
    try:
        _, payload, _ = token.reveal().split(".")
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        issued, expires = claims.get("iat"), claims.get("exp")
    except (ValueError, AttributeError, RecursionError):
        return Claims()
    known = [value for value in (issued, expires) if isinstance(value, int | float)]
    return Claims(
        lifetime=known[1] - known[0] if len(known) == 2 and known[1] > known[0] else None,  # noqa: PLR2004
        expires_at=float(expires) if isinstance(expires, int | float) else None,
        first_login=claims.get("first-login") is True,
    )


@attrs.frozen(kw_only=True)
class Tokens:
    """What a sign-in or refresh yields.

    Attributes:
        access: sent with every call.
        refresh: buys the next access token; `None` where the service gave none.
    """

    access: Secret
    refresh: Secret | None
