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
from sectigo_async.sandbox.store import Logins, Store

_SUBJECT: Final = "/account/42/user/10"
_ISSUER: Final = "https://iot.sectigo.com/"
_ACCESS_SCOPE: Final = "ROLE_USER"
_REFRESH_SCOPE: Final = "ROLE_REFRESH_TOKEN"
_KEY: Final = "token key"


class TokenMint:
    """Issues and checks tokens.

    Args:
        clock: its wall clock stamps and judges the tokens.
        store: keeps the key that they are signed with, and which login each belongs to.
        access_ttl: seconds an access token lives.
        refresh_ttl: seconds a refresh token lives.
        rotate: whether a refresh token is good for one refresh, and its second use ends the whole login.
    """

    def __init__(
        self, clock: Clock, store: Store, *, access_ttl: float, refresh_ttl: float, rotate: bool = False
    ) -> None:
        self._clock = clock
        self._store = store
        self._access_ttl = access_ttl
        self._refresh_ttl = refresh_ttl
        self._rotate = rotate
        self._key = store.keep(_KEY, _new_key)
        # Kept only where logins can end. Two logins of the same second have the same access token, since it has no id
        # (api.md 3).
        self._logins = store.kept.logins

    def reset(self) -> None:
        """Make every token issued so far invalid."""
        self._key = _new_key()
        self._logins = Logins()
        self._store.replace_secret(_KEY, self._key)
        self._store.forget_logins()

    def sign_in(self) -> tuple[str, str]:
        """Return a new access token and a new refresh token."""
        return self._issue(uuid.uuid4().hex)

    def refresh(self, token: str) -> tuple[str, str]:
        """Return a new access token and the refresh token to use from here on, or raise the service's 401."""
        self._check(token, _REFRESH_SCOPE)
        if not self._rotate:
            return self._access(), token
        digest = _digest(token)
        if digest not in self._logins.of:
            # It was given before logins could end.
            self._remember(digest, uuid.uuid4().hex)
        (login,) = self._logins.of[digest]
        if digest in self._logins.used:
            self._logins.ended.add(login)
            self._store.end_login(login)
            raise ServiceError(401, "Refresh token was used before", ErrorCode.AUTHENTICATION)
        self._logins.used.add(digest)
        self._store.use_token(digest)
        return self._issue(login)

    def check_access(self, token: str) -> None:
        """Raise the service's 401 unless `token` is a valid access token."""
        self._check(token, _ACCESS_SCOPE)

    def _issue(self, login: str) -> tuple[str, str]:
        claims = {"scopes": [_REFRESH_SCOPE], "jti": str(uuid.uuid4())}
        tokens = self._access(), self._sign(claims, self._refresh_ttl)
        if self._rotate:
            for token in tokens:
                self._remember(_digest(token), login)
        return tokens

    def _remember(self, digest: bytes, login: str) -> None:
        self._logins.of.setdefault(digest, set()).add(login)
        self._store.add_token(digest, login)

    def _access(self) -> str:
        return self._sign({"scopes": [_ACCESS_SCOPE], "first-login": False}, self._access_ttl)

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
        logins = self._logins.of.get(_digest(token))
        if scope not in claims["scopes"] or (logins and logins <= self._logins.ended):
            raise ServiceError(401, "Authentication failed", ErrorCode.AUTHENTICATION)
        if self._clock.time() >= claims["exp"]:
            raise ServiceError(401, "Token has expired", ErrorCode.TOKEN_EXPIRED)


def _new_key() -> bytes:
    return secrets.token_bytes(64)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _encode(document: dict[str, Any]) -> str:
    return urlsafe_b64encode(json.dumps(document, separators=(",", ":")).encode()).rstrip(b"=").decode()
