"""Access and refresh tokens: HS512 JWTs with the service's claims (api.md 3)."""

import hashlib
import hmac
import json
import secrets
import uuid
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any, Final

from sectigo_async.clock import Clock
from sectigo_async.sandbox.errors import ErrorCode, ServiceError

_SUBJECT: Final = "/account/42/user/10"
_ISSUER: Final = "https://iot.sectigo.com/"
_ACCESS_SCOPE: Final = "ROLE_USER"
_REFRESH_SCOPE: Final = "ROLE_REFRESH_TOKEN"


class TokenMint:
    """Issues and checks tokens; it keeps a key and no list of tokens.

    Args:
        clock: its wall clock stamps and judges the tokens.
        access_ttl: seconds an access token lives.
        refresh_ttl: seconds a refresh token lives.
    """

    def __init__(self, clock: Clock, *, access_ttl: float, refresh_ttl: float) -> None:
        self._clock = clock
        self._access_ttl = access_ttl
        self._refresh_ttl = refresh_ttl
        self.reset()

    def reset(self) -> None:
        """Make every token issued so far invalid."""
        self._key = secrets.token_bytes(64)

    def access(self) -> str:
        """Return a new access token."""
        return self._sign({"scopes": [_ACCESS_SCOPE], "first-login": False}, self._access_ttl)

    def refresh(self) -> str:
        """Return a new refresh token."""
        return self._sign({"scopes": [_REFRESH_SCOPE], "jti": str(uuid.uuid4())}, self._refresh_ttl)

    def check_access(self, token: str) -> None:
        """Raise the service's 401 unless `token` is a valid access token."""
        self._check(token, _ACCESS_SCOPE)

    def check_refresh(self, token: str) -> None:
        """Raise the service's 401 unless `token` is a valid refresh token."""
        self._check(token, _REFRESH_SCOPE)

    def _sign(self, claims: dict[str, Any], ttl: float) -> str:
        now = self._clock.time()
        life = {"iss": _ISSUER, "iat": int(now), "exp": int(now + ttl)}
        signed = f"{_encode({'alg': 'HS512'})}.{_encode({'sub': _SUBJECT, **claims, **life})}"
        return f"{signed}.{self._signature(signed)}"

    def _signature(self, signed: str) -> str:
        digest = hmac.digest(self._key, signed.encode(), hashlib.sha512)
        return urlsafe_b64encode(digest).rstrip(b"=").decode()

    def _check(self, token: str, scope: str) -> None:
        signed, _, signature = token.rpartition(".")
        if not hmac.compare_digest(self._signature(signed).encode(), signature.encode()):
            raise ServiceError(401, "Authentication failed", ErrorCode.AUTHENTICATION)
        # From here on the payload is known to be our own, whatever its header claims.
        claims = json.loads(urlsafe_b64decode(signed.partition(".")[2] + "=="))
        if scope not in claims["scopes"]:
            raise ServiceError(401, "Authentication failed", ErrorCode.AUTHENTICATION)
        if self._clock.time() >= claims["exp"]:
            raise ServiceError(401, "Token has expired", ErrorCode.TOKEN_EXPIRED)


def _encode(document: dict[str, Any]) -> str:
    return urlsafe_b64encode(json.dumps(document, separators=(",", ":")).encode()).rstrip(b"=").decode()
