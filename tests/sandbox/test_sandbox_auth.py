"""Signing in, refreshing, and what becomes of wrong tokens (api.md 1a, 3)."""

import json
import uuid
from base64 import urlsafe_b64decode
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from sectigo_async.sandbox import Sandbox, SandboxConfig
from sectigo_async.testing import FakeClock

PROFILES = "/api/v1/profiles"


@pytest.fixture
async def tokens(anonymous: httpx.AsyncClient, credentials: dict[str, str]) -> dict[str, str]:
    reply = await anonymous.post("/auth/pwd", json=credentials)
    assert reply.status_code == 200
    document: dict[str, str] = reply.json()
    assert set(document) == {"accessToken", "refreshToken"}
    return document


def _decode(part: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return document


async def _get(client: httpx.AsyncClient, token: str) -> httpx.Response:
    return await client.get(PROFILES, headers={"authorization": f"Bearer {token}"})


def test_tokens_are_hs512_with_the_claims_of_the_service(tokens: dict[str, str], clock: FakeClock) -> None:
    header, claims, _ = tokens["accessToken"].split(".")
    now = int(clock.time())
    assert _decode(header)["alg"] == "HS512"
    assert _decode(claims) == {
        "sub": "/account/42/user/10",
        "scopes": ["ROLE_USER"],
        "first-login": False,
        "iss": "https://iot.sectigo.com/",
        "iat": now,
        "exp": int(clock.time() + 600),
    }
    refresh = _decode(tokens["refreshToken"].split(".")[1])
    uuid.UUID(refresh.pop("jti"))
    assert refresh == {
        "sub": "/account/42/user/10",
        "scopes": ["ROLE_REFRESH_TOKEN"],
        "iss": "https://iot.sectigo.com/",
        "iat": now,
        "exp": int(clock.time() + 7200),
    }


@pytest.mark.parametrize(
    ("username", "password"), [("demo", "wrong"), ("other", "demo-password"), ("démo", "demo-password")]
)
async def test_wrong_credentials_are_401(
    anonymous: httpx.AsyncClient, assert_error: Callable[..., str], username: str, password: str
) -> None:
    reply = await anonymous.post("/auth/pwd", json={"username": username, "password": password})
    assert "username or password" in assert_error(reply, 401)


async def test_refresh_takes_the_bare_token_and_keeps_it(
    anonymous: httpx.AsyncClient, tokens: dict[str, str], clock: FakeClock
) -> None:
    clock.advance(1000)
    assert (await _get(anonymous, tokens["accessToken"])).status_code == 401
    reply = await anonymous.post("/auth/refresh", content=tokens["refreshToken"])
    assert reply.status_code == 200
    assert reply.json()["refreshToken"] == tokens["refreshToken"]
    assert (await _get(anonymous, reply.json()["accessToken"])).status_code == 200


async def test_refresh_refuses_a_quoted_token_an_access_token_and_garbage(
    anonymous: httpx.AsyncClient, tokens: dict[str, str], assert_error: Callable[..., str]
) -> None:
    for body in (json.dumps(tokens["refreshToken"]), tokens["accessToken"], "", "a.b.c", b"\xff\xfe"):
        assert_error(await anonymous.post("/auth/refresh", content=body), 401)


async def test_tokens_expire_by_the_injected_clock(
    anonymous: httpx.AsyncClient, tokens: dict[str, str], clock: FakeClock, assert_error: Callable[..., str]
) -> None:
    clock.advance(598)
    assert (await _get(anonymous, tokens["accessToken"])).status_code == 200
    clock.advance(2)
    assert "expired" in assert_error(await _get(anonymous, tokens["accessToken"]), 401)
    clock.advance(6600)
    assert_error(await anonymous.post("/auth/refresh", content=tokens["refreshToken"]), 401)


async def test_a_refresh_token_opens_nothing(
    anonymous: httpx.AsyncClient, tokens: dict[str, str], assert_error: Callable[..., str]
) -> None:
    assert_error(await _get(anonymous, tokens["refreshToken"]), 401)


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer x", "Basic ZGVtbzpkZW1v", "Bearer a.b.c"])
async def test_anything_but_a_valid_bearer_is_401(
    anonymous: httpx.AsyncClient, assert_error: Callable[..., str], header: str
) -> None:
    assert_error(await anonymous.get(PROFILES, headers={"authorization": header}), 401)


async def test_an_unsigned_token_is_401(
    anonymous: httpx.AsyncClient, tokens: dict[str, str], assert_error: Callable[..., str]
) -> None:
    claims = tokens["accessToken"].split(".")[1]
    for forged in (f"eyJhbGciOiJub25lIn0.{claims}.", f"{tokens['accessToken']}x"):
        assert_error(await _get(anonymous, forged), 401)


async def test_reset_forgets_every_token(
    anonymous: httpx.AsyncClient,
    sandbox: Sandbox,
    tokens: dict[str, str],
    credentials: dict[str, str],
    assert_error: Callable[..., str],
) -> None:
    sandbox.reset_tokens()
    assert_error(await _get(anonymous, tokens["accessToken"]), 401)
    assert_error(await anonymous.post("/auth/refresh", content=tokens["refreshToken"]), 401)
    reply = await anonymous.post("/auth/pwd", json=credentials)
    assert (await _get(anonymous, reply.json()["accessToken"])).status_code == 200


def test_the_password_is_not_in_the_config_s_repr() -> None:
    assert "hunter22" not in repr(SandboxConfig(password="hunter22"))


@pytest.mark.parametrize(
    "setting", [{"balance": -1}, {"issue_delay": -1}, {"access_ttl": 0}, {"username": ""}, {"password": ""}]
)
def test_senseless_settings_are_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(setting))):
        SandboxConfig(**setting)
