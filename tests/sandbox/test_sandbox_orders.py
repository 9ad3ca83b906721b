"""Ordering: parameters, balances, batch ids, and how an order ends (api.md 1a, 2, 4)."""

import asyncio
import threading
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import httpx
import pytest

from sectigo_async.sandbox import Sandbox, SandboxConfig, state
from sectigo_async.testing import FakeClock

CREATE = "/api/v1/batches/createSingleCertBatch"


async def _balance(client: httpx.AsyncClient, authority: int) -> int:
    balance: int = (await client.get(f"/api/v1/authorities/{authority}/balanceavailable")).json()
    return balance


async def test_every_problem_with_parameters_is_named_at_once(
    create: Callable[..., Any], assert_error: Callable[..., str]
) -> None:
    params = {"commonName": "not a domain", "pkcs12Password": "short77", "countryName": "USA", "colour": "red"}
    message = assert_error(await create(params, authority=85), 400)
    assert "commonName: must be a domain name" in message
    assert "dNSName is required" in message
    assert "pkcs12Password: must have 8" in message
    assert "countryName: must be an ISO 3166" in message
    assert "organizationName is required" in message
    assert "unknown parameter 'colour'" in message
    assert "short77" not in message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("commonName", "example.com\n"),
        ("commonName", "-example.com"),
        ("commonName", "a" * 65),
        ("dNSName", "example.com\n\nwww.example.com"),
        ("dNSName", "example.com,www.example.com"),
        ("pkcs12Password", "1234567"),
    ],
)
async def test_patterns_are_enforced_on_the_whole_value(
    create: Callable[..., Any],
    params: dict[str, str],
    assert_error: Callable[..., str],
    name: str,
    value: str,
) -> None:
    assert name in assert_error(await create(params | {name: value}, authority=42), 400)


async def test_an_optional_parameter_may_be_left_empty(create: Callable[..., Any], device: dict[str, str]) -> None:
    reply = await create(device | {"dNSName": "", "deviceType": "sensor"})
    assert reply.status_code == 201


async def test_authority_id_may_be_a_profile_id(create: Callable[..., Any], device: dict[str, str]) -> None:
    for either in (3, 117):
        assert (await create(device, authority=either)).json()["profile"] == "IoT Device"


async def test_an_unknown_authority_is_404(
    create: Callable[..., Any], device: dict[str, str], assert_error: Callable[..., str]
) -> None:
    assert "77" in assert_error(await create(device, authority=77), 404)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff",
        b"[" * 100_000,
        b'{"authorityId":"3","batchName":"x","profileParams":{}}',
        b'{"authorityId":true,"batchName":"x","profileParams":{}}',
        b'{"authorityId":3,"batchName":" ","profileParams":{}}',
        b'{"authorityId":3,"batchName":"\\ud800","profileParams":{}}',
        b'{"authorityId":3,"batchName":"x","profileParams":{"commonName":7}}',
        b'{"authorityId":3,"batchName":"x","profileParams":null}',
        b'{"authorityId":3,"batchName":"x"}',
    ],
)
async def test_a_malformed_order_is_400(
    client: httpx.AsyncClient, assert_error: Callable[..., str], body: bytes
) -> None:
    assert_error(await client.put(CREATE, content=body), 400)


async def test_an_endless_order_is_413(client: httpx.AsyncClient, assert_error: Callable[..., str]) -> None:
    assert_error(await client.put(CREATE, content=b" " * (1024 * 1024 + 1)), 413)


@pytest.mark.parametrize("config", [SandboxConfig(balance=1)])
async def test_a_balance_falls_and_refuses_at_zero(
    client: httpx.AsyncClient,
    create: Callable[..., Any],
    device: dict[str, str],
    assert_error: Callable[..., str],
    sandbox: Sandbox,
) -> None:
    assert (await create(device)).status_code == 201
    assert await _balance(client, 3) == 0
    assert "insufficient balance" in assert_error(await create(device), 400)
    assert await _balance(client, 3) == 0
    assert await _balance(client, 1) == 1
    assert sandbox.stats()["orders"] == 1
    authorities = (await client.get("/api/v1/authorities/allowed")).json()
    assert authorities[2]["balance"] == 1, "bought, not left"


@pytest.mark.parametrize("config", [SandboxConfig(balance=3)])
async def test_concurrent_orders_cannot_overspend(
    client: httpx.AsyncClient, create: Callable[..., Any], device: dict[str, str]
) -> None:
    replies = await asyncio.gather(*(create(device) for _ in range(10)))
    assert sorted(reply.status_code for reply in replies) == [201] * 3 + [400] * 7
    assert await _balance(client, 3) == 0


async def test_an_order_that_fails_unexpectedly_costs_nothing(
    *,
    client: httpx.AsyncClient,
    create: Callable[..., Any],
    device: dict[str, str],
    assert_error: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("out of entropy")

    monkeypatch.setattr(state, "issue_with_new_key", broken)
    message = assert_error(await create(device), 500)
    assert "entropy" not in message
    assert "unexpected failure" in caplog.text
    assert device["pkcs12Password"] not in caplog.text
    assert await _balance(client, 3) == 1000


async def test_a_cancelled_order_costs_nothing(
    client: httpx.AsyncClient,
    create: Callable[..., Any],
    device: dict[str, str],
    sandbox: Sandbox,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun, release = threading.Event(), threading.Event()

    def slow(*_: object) -> None:
        begun.set()
        release.wait(10)

    monkeypatch.setattr(state, "issue_with_new_key", slow)
    order = asyncio.create_task(create(device))
    await asyncio.to_thread(begun.wait, 10)
    assert await _balance(client, 3) == 999
    order.cancel()
    with pytest.raises(asyncio.CancelledError):
        await order
    release.set()
    assert await _balance(client, 3) == 1000
    assert sandbox.stats()["orders"] == 0


async def test_batch_ids_have_gaps_with_other_tenants_between(
    client: httpx.AsyncClient, create: Callable[..., Any], device: dict[str, str]
) -> None:
    ids = [(await create(device)).json()["batchId"] for _ in range(12)]
    assert ids[0] == 24
    steps = {after - before for before, after in pairwise(ids)}
    assert steps <= {1, 2, 3, 4, 5}
    assert len(steps) > 1
    between = [number for number in range(24, ids[-1]) if number not in ids]
    codes = [(await client.get(f"/api/v1/batches/{number}")).status_code for number in between]
    assert set(codes) == {403, 404}
    assert (await client.get(f"/api/v1/batches/{ids[-1] + 50}")).status_code == 404


async def test_time_moves_a_batch(
    client: httpx.AsyncClient,
    create: Callable[..., Any],
    device: dict[str, str],
    clock: FakeClock,
    assert_error: Callable[..., str],
) -> None:
    await create(device)
    seen = []
    for _ in range(5):
        detail = (await client.get("/api/v1/batches/24")).json()
        info = (await client.get("/api/v1/batches/24/processing_info")).json()
        seen.append((detail["status"], detail["downloadable"], info["active"], info["success"]))
        if detail["status"] != "READY_FOR_DOWNLOAD":
            reply = await client.get("/api/v1/batches/24/download")
            assert "not ready" in assert_error(reply, 400)
        clock.advance(0.5)
    assert seen == [
        ("CREATED", True, 1, 0),
        ("PROCESSING", True, 1, 0),
        ("PROCESSING", True, 1, 0),
        ("PROCESSING", True, 1, 0),
        ("READY_FOR_DOWNLOAD", True, 0, 1),
    ]


@pytest.mark.parametrize("config", [SandboxConfig(issue_delay=0)])
async def test_without_a_delay_a_batch_is_ready_at_once(
    client: httpx.AsyncClient, create: Callable[..., Any], device: dict[str, str]
) -> None:
    assert (await create(device)).json()["status"] == "CREATED"
    assert (await client.get("/api/v1/batches/24")).json()["status"] == "READY_FOR_DOWNLOAD"


@pytest.mark.parametrize(
    ("label", "status", "sentence", "reason"),
    [
        ("rejected", "REJECTED", "Not Acceptable. Status: REJECTED", "REJECTED Error"),
        ("failed", "FAILED", "Failed", ""),
        ("broken", "BROKEN", "Not Acceptable. Status: BROKEN", "BROKEN Error"),
    ],
)
async def test_bad_ends_can_be_provoked(
    *,
    client: httpx.AsyncClient,
    create: Callable[..., Any],
    device: dict[str, str],
    clock: FakeClock,
    assert_error: Callable[..., str],
    label: str,
    status: str,
    sentence: str,
    reason: str,
) -> None:
    reply = await create(device | {"commonName": f"{label.title()}.example.com"})
    assert reply.json()["rejectReason"] == ""
    clock.advance(2)
    detail = (await client.get("/api/v1/batches/24")).json()
    assert detail["status"] == status
    assert detail["rejectReason"].startswith(reason)
    assert bool(detail["rejectReason"]) == bool(reason)
    assert (detail["downloadable"], detail["rejectable"]) == (False, False)
    assert (await client.get("/api/v1/batches/24/status")).text == sentence
    info = (await client.get("/api/v1/batches/24/processing_info")).json()
    assert info == {"active": 0, "success": 0, "failed": 1}
    assert_error(await client.get("/api/v1/batches/24/download"), 400)
    assert (await client.get("/api/v1/devices")).json() == {"ordered": 1, "issued": 0}


async def test_orders_are_counted(
    create: Callable[..., Any], device: dict[str, str], client: httpx.AsyncClient, sandbox: Sandbox
) -> None:
    await create(device, name="one")
    await create(device, name="two")
    await create(device, name="two")
    for path in ("", "/status", "/processing_info"):
        await client.get(f"/api/v1/batches/24{path}")
    stats = sandbox.stats()
    assert stats["logins"] == 1
    assert stats["orders"] == 3
    assert stats["orders_by_name"] == {"one": 1, "two": 2}
    assert list(stats["orders_by_key"].values()) == [1, 1, 1]
    assert stats["polls"] == 3
    assert stats["downloads"] == 0
