"""Signing in, refreshing, and what becomes of wrong tokens (api.md 1a, 3)."""

import json
import uuid
from base64 import urlsafe_b64decode
from collections.abc import AsyncIterator, Callable
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from sectigo_async.sandbox import Sandbox, SandboxConfig, create_app
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


@pytest.fixture
async def rotating(clock: FakeClock) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(Sandbox(SandboxConfig(rotate_refresh=True), clock))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
        yield client


async def test_rotated_refresh_tokens_are_good_once_and_the_second_use_ends_the_login(
    rotating: httpx.AsyncClient, credentials: dict[str, str], clock: FakeClock, assert_error: Callable[..., str]
) -> None:
    async def sign_in() -> dict[str, str]:
        clock.advance(1)  # Two access tokens of one second are the same.
        document: dict[str, str] = (await rotating.post("/auth/pwd", json=credentials)).json()
        return document

    first, other = await sign_in(), await sign_in()
    clock.advance(1)
    second = (await rotating.post("/auth/refresh", content=first["refreshToken"])).json()
    assert second["refreshToken"] != first["refreshToken"]
    third = (await rotating.post("/auth/refresh", content=second["refreshToken"])).json()

    assert "used before" in assert_error(await rotating.post("/auth/refresh", content=first["refreshToken"]), 401)

    assert_error(await rotating.post("/auth/refresh", content=third["refreshToken"]), 401)
    for ended in (first, second, third):
        assert_error(await _get(rotating, ended["accessToken"]), 401)
    assert (await _get(rotating, other["accessToken"])).status_code == 200
    assert (await rotating.post("/auth/refresh", content=other["refreshToken"])).status_code == 200


@pytest.mark.parametrize("ahead", [-86_400, 86_400])
async def test_the_clock_of_the_service_may_be_ahead_or_behind(clock: FakeClock, ahead: float) -> None:
    app = create_app(Sandbox(SandboxConfig(clock_skew=ahead), clock))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
        reply = await client.post("/auth/pwd", json={"username": "demo", "password": "demo-password"})
        token = reply.json()["accessToken"]

        assert parsedate_to_datetime(reply.headers["date"]).timestamp() == int(clock.time() + ahead)
        assert _decode(token.split(".")[1])["iat"] == int(clock.time() + ahead)
        assert (await _get(client, token)).status_code == 200


async def test_where_client_certificates_are_demanded_a_sign_in_is_sent_elsewhere(
    clock: FakeClock, credentials: dict[str, str], tmp_path: Path, assert_error: Callable[..., str]
) -> None:
    app = create_app(Sandbox(SandboxConfig(client_ca=tmp_path / "any.pem"), clock))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="https://127.0.0.1:8831") as client:
        reply = await client.post("/auth/pwd", json=credentials)
        assert reply.status_code == 307
        assert reply.headers["location"] == "https://127.0.0.1:8831/auth/pwd/certificate"
        assert "certificate" in assert_error(await client.post(reply.headers["location"], json=credentials), 403)
