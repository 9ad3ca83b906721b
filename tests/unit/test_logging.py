"""What a service's log says: one event for each request, why one was sent again, what cost money; and no secret."""

import asyncio
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from pytest_httpx import HTTPXMock

from sectigo_async import Config, RevocationReason, Secret, SectigoClient
from sectigo_async.credentials import Credentials
from sectigo_async.errors import CallTimeoutError, ServerError
from sectigo_async.testing import FakeClock

BASE = "https://iot.sectigo.com"
DEVICES = f"{BASE}/api/v1/devices"
COUNTERS = {"total": 1, "issued": 0, "remaining": 1}
CANARY = "canary-93b1"


@pytest.fixture(autouse=True)
def everything(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="sectigo_async")


def events(caplog: pytest.LogCaptureFixture, area: str, level: int) -> list[logging.LogRecord]:
    return [one for one in caplog.records if one.name == f"sectigo_async.{area}" and one.levelno == level]


def field(record: logging.LogRecord, name: str) -> object:
    return vars(record)[name]


@pytest.mark.usefixtures("signed_in")
async def test_each_request_is_one_event_with_fields(
    httpx_mock: HTTPXMock, client: SectigoClient, caplog: pytest.LogCaptureFixture
) -> None:
    httpx_mock.add_response(url=DEVICES, json=COUNTERS)

    await client.licenses.get()

    signing_in, asking = events(caplog, "transport", logging.DEBUG)
    assert (field(signing_in, "method"), field(signing_in, "path")) == ("POST", "/auth/pwd")
    assert (field(asking, "method"), field(asking, "path")) == ("GET", "/api/v1/devices")
    assert (field(asking, "status"), field(asking, "attempt"), field(asking, "problem")) == (200, 1, None)
    took = field(asking, "duration_ms")
    assert isinstance(took, float)
    assert 0 <= took < 10_000
    assert asking.getMessage() == f"GET /api/v1/devices: 200, {took:.0f} ms, attempt 1"


@pytest.mark.usefixtures("signed_in")
async def test_a_retry_says_why_and_when(
    httpx_mock: HTTPXMock, client: SectigoClient, caplog: pytest.LogCaptureFixture
) -> None:
    httpx_mock.add_response(url=DEVICES, status_code=503, headers={"retry-after": "7"})
    httpx_mock.add_exception(httpx.ReadError("cut"), url=DEVICES)
    httpx_mock.add_response(url=DEVICES, json=COUNTERS)

    await client.licenses.get()

    busy, cut = events(caplog, "transport", logging.INFO)
    assert busy.getMessage() == "GET /api/v1/devices: 503 at attempt 1, sent again in 7.0 s"
    assert (field(busy, "status"), field(busy, "delay_s")) == (503, 7.0)
    assert (field(cut, "attempt"), field(cut, "problem")) == (2, "the connection broke: cut")
    requests = [one for one in events(caplog, "transport", logging.DEBUG) if field(one, "path") == "/api/v1/devices"]
    assert [(field(one, "attempt"), field(one, "status")) for one in requests] == [(1, 503), (2, None), (3, 200)]


@pytest.mark.usefixtures("signed_in")
async def test_a_request_that_nobody_waits_for_any_more_is_logged(
    httpx_mock: HTTPXMock, client: SectigoClient, caplog: pytest.LogCaptureFixture
) -> None:
    async def never(_: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError

    httpx_mock.add_callback(never, url=DEVICES)

    with pytest.raises(CallTimeoutError):
        await client.licenses.get(timeout=0.05)

    given_up = events(caplog, "transport", logging.DEBUG)[-1]
    assert (field(given_up, "status"), field(given_up, "problem")) == (None, "given up")


@pytest.mark.usefixtures("signed_in")
async def test_a_refused_token_shows_as_a_second_attempt(
    httpx_mock: HTTPXMock, client: SectigoClient, caplog: pytest.LogCaptureFixture
) -> None:
    httpx_mock.add_response(url=DEVICES, status_code=401)
    httpx_mock.add_response(url=f"{BASE}/auth/refresh", method="POST", status_code=401)
    httpx_mock.add_response(url=DEVICES, json=COUNTERS)

    await client.licenses.get()

    requests = [one for one in events(caplog, "transport", logging.DEBUG) if field(one, "path") == "/api/v1/devices"]
    assert [(field(one, "attempt"), field(one, "status")) for one in requests] == [(1, 401), (2, 200)]


@pytest.mark.usefixtures("signed_in")
async def test_new_tokens_are_told_with_what_they_were_got_for(
    httpx_mock: HTTPXMock,
    client: SectigoClient,
    clock: FakeClock,
    mint: Callable[..., str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    httpx_mock.add_response(url=DEVICES, json=COUNTERS, is_reusable=True)
    httpx_mock.add_response(url=f"{BASE}/auth/refresh", method="POST", json={"accessToken": mint("next")})

    await client.licenses.get()
    await clock.sleep(901)
    await client.licenses.get()

    first, second = events(caplog, "auth", logging.INFO)
    assert first.getMessage() == "new access token by password (argument), good for 900 s"
    assert (field(first, "source"), field(first, "expires_in_s")) == ("password (argument)", 900.0)
    assert field(second, "source") == "refresh token"


@pytest.mark.usefixtures("signed_in")
async def test_the_token_of_another_process_is_told_at_debug(
    httpx_mock: HTTPXMock, tmp_path: Path, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    httpx_mock.add_response(url=DEVICES, json=COUNTERS, is_reusable=True)
    for _ in range(2):
        credentials = Credentials(username="ops", password=Secret(CANARY), directory=tmp_path)
        async with SectigoClient(config=Config.create(), credentials=credentials, clock=clock) as client:
            await client.licenses.get()

    assert len(events(caplog, "auth", logging.INFO)) == 1
    (adopted,) = events(caplog, "auth", logging.DEBUG)
    assert field(adopted, "expires_in_s") == 900.0


@pytest.mark.usefixtures("signed_in")
async def test_what_cost_money_and_what_cannot_be_undone_is_told_at_info(
    httpx_mock: HTTPXMock, client: SectigoClient, caplog: pytest.LogCaptureFixture
) -> None:
    httpx_mock.add_response(url=f"{BASE}/api/v1/batches/createSingleCertBatch", method="PUT", json={"batchId": 24})
    httpx_mock.add_response(url=f"{BASE}/api/v1/certificates/42/revoke", method="POST")

    await client.batches.create(authority_id=42, name="gateway\n7", params={"pkcs12Password": Secret(CANARY)})
    await client.certificates.revoke(profile_id=42, serial_number="0a1b", reason=RevocationReason.KEY_COMPROMISE)

    (ordered,) = events(caplog, "batches", logging.INFO)
    assert ordered.getMessage() == "ordered batch 24 under profile 42, size 1: gateway 7"
    assert (field(ordered, "batch_id"), field(ordered, "profile_id"), field(ordered, "size")) == (24, 42, 1)
    assert field(ordered, "order_id") == (await client.batches.orders())[0].order_id
    (revoked,) = events(caplog, "certificates", logging.INFO)
    assert (field(revoked, "profile_id"), field(revoked, "reason")) == (42, "key compromise")
    assert field(revoked, "serial_number") == "A1B"


async def test_no_field_holds_a_secret(
    httpx_mock: HTTPXMock, client: SectigoClient, signed_in: str, caplog: pytest.LogCaptureFixture
) -> None:
    httpx_mock.add_response(status_code=503, text=f"not with {CANARY}", is_reusable=True)

    with pytest.raises(ServerError):
        await client.request("GET", f"/api/{signed_in}?ticket={CANARY}")

    shown = "\n".join(f"{one.getMessage()} {vars(one)}" for one in caplog.records)
    assert "GET /api/**********" in shown
    assert signed_in not in shown
    assert CANARY not in shown


@pytest.mark.usefixtures("signed_in")
async def test_nothing_is_said_where_nobody_listens(
    httpx_mock: HTTPXMock, client: SectigoClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, logger="sectigo_async")
    httpx_mock.add_response(url=DEVICES, json=COUNTERS)

    await client.licenses.get()

    assert not caplog.records


@pytest.mark.usefixtures("signed_in")
async def test_the_example_of_the_documentation_writes_json_lines(
    httpx_mock: HTTPXMock, client: SectigoClient, caplog: pytest.LogCaptureFixture
) -> None:
    text = (Path(__file__).parents[2] / "docs" / "logging.md").read_text(encoding="utf-8")
    code = text.split("```python\n")[1].split("```")[0].partition("logging.config.dictConfig(")[0]
    namespace: dict[str, Any] = {}
    exec(code, namespace)  # noqa: S102 - our own documentation
    httpx_mock.add_response(url=DEVICES, status_code=503, headers={"retry-after": "7"})
    httpx_mock.add_response(url=DEVICES, json=COUNTERS)

    await client.licenses.get()

    (retry,) = events(caplog, "transport", logging.INFO)
    written = json.loads(namespace["JsonLines"]().format(retry))
    shown = json.loads(text.split("A line of it:\n\n```json\n")[1].splitlines()[0])
    assert set(written) == set(shown)
    assert (written["status"], written["attempt"], written["delay_s"]) == (503, 1, 7.0)
