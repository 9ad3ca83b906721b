"""A look at the endpoint without signing in."""

from datetime import UTC, datetime
from email.utils import format_datetime

import httpx
import pytest
from pytest_httpx import HTTPXMock

from sectigo_async import ConnectFailedError, SectigoClient
from sectigo_async.testing import FakeClock


@pytest.mark.parametrize("ahead", [0, 600, -600])
async def test_the_clocks_are_compared(httpx_mock: HTTPXMock, ahead: float) -> None:
    clock = FakeClock()
    date = format_datetime(datetime.fromtimestamp(clock.time() + ahead, UTC), usegmt=True)
    httpx_mock.add_response(url="http://127.0.0.1:1/", status_code=404, headers={"date": date})

    async with SectigoClient(endpoint="http://127.0.0.1:1", clock=clock) as client:
        probe = await client.probe()

    assert (probe.status, probe.tls_version) == (404, "")
    assert probe.clock_skew == pytest.approx(ahead, abs=1)
    (request,) = httpx_mock.get_requests()
    assert "authorization" not in request.headers


@pytest.mark.parametrize("date", ["", "yesterday", "Wed, 99 Nov 2026 00:00:00 GMT"])
async def test_a_service_that_does_not_tell_its_time(httpx_mock: HTTPXMock, date: str) -> None:
    httpx_mock.add_response(headers={"date": date} if date else {})

    async with SectigoClient(endpoint="http://127.0.0.1:1") as client:
        assert (await client.probe()).clock_skew is None


async def test_an_endpoint_that_does_not_answer(httpx_mock: HTTPXMock) -> None:
    httpx_mock.add_exception(httpx.ConnectError("refused"))

    async with SectigoClient(endpoint="http://127.0.0.1:1") as client:
        with pytest.raises(ConnectFailedError, match="refused"):
            await client.probe()
