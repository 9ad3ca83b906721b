"""Tokens of the service: JWTs that only the service can verify (api.md 3)."""

import base64
import json

import attrs

from sectigo_async.secrets import Secret

_LONGEST_LIFE = 1e9


@attrs.frozen(kw_only=True)
class Claims:
    """What a token says of itself, unverified; `None` where it does not say.

    Attributes:
        lifetime: seconds from its issue to its end.
        first_login: the service's flag of that name, probably "must change the password" (api.md 3).
    """

    lifetime: float | None = None
    first_login: bool = False


def read_claims(token: Secret) -> Claims:
    """Read a token without verifying it; a token that cannot be read says nothing."""
    try:
        _, payload, _ = token.reveal().split(".")
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        issued, expires = _seconds(claims.get("iat")), _seconds(claims.get("exp"))
    except (ValueError, AttributeError, RecursionError, OverflowError):
        return Claims()
    lifetime = expires - issued if issued is not None and expires is not None else 0.0
    return Claims(
        lifetime=lifetime if 0 < lifetime < _LONGEST_LIFE else None,
        first_login=claims.get("first-login") is True,
    )


def _seconds(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


@attrs.frozen(kw_only=True)
class Tokens:
    """What a sign-in or refresh yields.

    Attributes:
        access: sent with every call.
        refresh: buys the next access token; `None` where the service gave none.
    """

    access: Secret
    refresh: Secret | None


@attrs.frozen(eq=False)
class AccessToken:
    """An access token as a call uses it.

    Attributes:
        secret: the token.
        good_until: monotonic time of its end, as far as it tells.
        minted: whether this process got it from the service itself.
    """

    secret: Secret
    good_until: float
    minted: bool = False


@attrs.frozen(kw_only=True)
class SignIn:
    """Who is signed in, and how that came about.

    Attributes:
        username: who is signed in; `None` where only a token is known.
        endpoint: where.
        source: where the access token came from: `shared token`, `refresh token (keyring)`,
            `password (SECTIGO_PASSWORD)` and the like.
        expires_in: seconds until it ends; it is renewed before. `None` where it does not say.
        first_login: the service's flag of that name: it probably wants the password changed (api.md 3).
        shared: whether other processes of this user can use the access token.
        store: name of the store that keeps the refresh token; `None` where it ends with the process.
    """

    username: str | None
    endpoint: str
    source: str
    expires_in: float | None
    first_login: bool
    shared: bool
    store: str | None
