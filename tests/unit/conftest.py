import base64
import json
from collections.abc import AsyncIterator, Callable

import pytest
from pytest_httpx import HTTPXMock

from sectigo_async import Secret, SectigoClient
from sectigo_async.testing import FakeClock

BASE = "https://iot.sectigo.com"


def _part(document: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(document).encode()).decode().rstrip("=")


@pytest.fixture
def mint() -> Callable[..., str]:
    """Make tokens with the claims of api.md 3."""

    def make(
        name: str = "a", *, lifetime: float | None = 900, issued: float = 1_700_000_000, first_login: bool = False
    ) -> str:
        claims: dict[str, object] = {"sub": "/account/42/user/42", "scopes": ["ROLE_USER"], "jti": name}
        claims |= {"first-login": True} if first_login else {}
        if lifetime is not None:
            claims |= {"iat": issued, "exp": issued + lifetime}
        return f"{_part({'alg': 'HS512'})}.{_part(claims)}.signature"

    return make


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def signed_in(httpx_mock: HTTPXMock, mint: Callable[..., str]) -> str:
    """Let the service accept every sign-in; return the access token it gives."""
    access = mint("access")
    tokens = {"accessToken": access, "refreshToken": mint("refresh", lifetime=7200)}
    httpx_mock.add_response(url=f"{BASE}/auth/pwd", method="POST", json=tokens, is_reusable=True, is_optional=True)
    return access


@pytest.fixture
async def client(clock: FakeClock) -> AsyncIterator[SectigoClient]:
    async with SectigoClient(username="ops", password=Secret("canary-93b1"), clock=clock) as opened:
        yield opened
