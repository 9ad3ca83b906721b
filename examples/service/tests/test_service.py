"""What callers of the service see, on good days and on bad ones."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path

import httpx
import pytest
from cryptography import x509

from sectigo_async import SectigoClient
from sectigo_async.pki import key_pem, load_key
from sectigo_async.sandbox import Fault, FaultRule, SandboxConfig
from sectigo_async.testing import FakeClock, RunningSandbox

UPLOAD = "POST /api/v1/batches/upload"
DEVICE = "/devices/gw7.example.com/certificate"
ROOT = Path(__file__).parents[3]


async def test_a_device_gets_a_certificate_for_a_key_that_stays_here(
    service: httpx.AsyncClient, tmp_path: Path
) -> None:
    reply = await service.put(DEVICE)

    assert reply.status_code == 200
    certificate, *issuers = x509.load_pem_x509_certificates(reply.json()["certificate"].encode())
    key = load_key((tmp_path / "gw7.example.com" / "privkey.pem").read_bytes())
    assert certificate.public_key() == key.public_key()
    assert issuers
    assert key_pem(key).decode() not in reply.text


async def test_asked_again_or_twice_at_once_one_certificate_is_ordered(
    service: httpx.AsyncClient, sectigo_sandbox: RunningSandbox
) -> None:
    replies = await asyncio.gather(*(service.put(DEVICE) for _ in range(3)))
    replies.append(await service.put(DEVICE))

    assert {reply.status_code for reply in replies} == {200}
    assert len({reply.json()["serial_number"] for reply in replies}) == 1
    assert sectigo_sandbox.stats()["orders"] == 1


class TestWhereIssuingTakesAnHour:
    @pytest.fixture
    def sectigo_sandbox_config(self) -> SandboxConfig:
        return SandboxConfig(issue_delay=3600)

    async def test_the_caller_is_told_where_to_look(
        self, service: httpx.AsyncClient, sectigo_clock: FakeClock
    ) -> None:
        late = await service.put(DEVICE)
        assert late.status_code == 202
        assert "retry-after" in late.headers
        batch = late.headers["location"]
        assert (await service.get(batch)).json() == late.json() | {"reason": None}

        sectigo_clock.advance(3600)

        assert (await service.get(batch)).json()["status"] == "READY_FOR_DOWNLOAD"
        assert (await service.put(DEVICE)).json()["batch_id"] == late.json()["batch_id"]


async def test_a_lost_reply_orders_nothing_twice(service: httpx.AsyncClient, sectigo_sandbox: RunningSandbox) -> None:
    sectigo_sandbox.set_faults(FaultRule(route=UPLOAD, fault=Fault.LOST_REPLY, times=1))

    lost = await service.put(DEVICE)
    again = await service.put(DEVICE)

    assert (lost.status_code, again.status_code) == (503, 200)
    assert "ask again later" in lost.json()["detail"]
    assert sectigo_sandbox.stats()["orders"] == 1


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        (FaultRule(route="*", fault=Fault.CUT_BEFORE), 504),
        (FaultRule(route="*", fault=Fault.RATE_LIMIT), 503),
        (FaultRule(route="*", fault=Fault.WEB_PAGE), 502),
        (FaultRule(route="*", fault=Fault.ERROR_BEFORE, status=403), 404),
    ],
)
async def test_trouble_of_the_certificate_service_is_not_the_caller_s(
    service: httpx.AsyncClient, sectigo_sandbox: RunningSandbox, fault: FaultRule, status: int
) -> None:
    await service.put(DEVICE)
    sectigo_sandbox.set_faults(fault)

    reply = await service.get("/batches/1")

    assert reply.status_code == status
    assert set(reply.json()) == {"detail"}


async def test_what_cannot_be_issued_is_told_with_the_reason(
    service: httpx.AsyncClient, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)

    rejected = await service.put("/devices/rejected.example.com/certificate")
    nonsense = await service.put("/devices/-gw7/certificate")
    nowhere = await service.get("/batches/999999999")

    assert [reply.status_code for reply in (rejected, nonsense, nowhere)] == [422, 422, 404]
    assert "REJECTED" in rejected.json()["detail"]
    assert str(tmp_path) not in rejected.text
    assert str(tmp_path) in caplog.text, "the way out is for the log"


@contextmanager
def serving(directory: Path, environ: dict[str, str]) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """Run the service as in production; give its process and its URL."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "uvicorn", "--factory", "examples.service.app:create_app"),
            *("--port", "0", "--timeout-graceful-shutdown", "1"),
        ],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "HOME": str(directory), "DEVICE_DIRECTORY": str(directory)} | environ,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    with process:
        try:
            url = next(word for line in process.stderr for word in line.split() if word.startswith("http://"))
            yield process, url
        finally:
            process.terminate()
            process.communicate(timeout=20)


class TestWhereTheServiceIsStopped:
    @pytest.fixture
    def sectigo_sandbox_config(self) -> SandboxConfig:
        return SandboxConfig(issue_delay=3600)

    async def test_it_ends_in_time_and_the_next_one_goes_on(
        self,
        sectigo_environ: dict[str, str],
        sectigo_sandbox: RunningSandbox,
        sectigo_clock: FakeClock,
        tmp_path: Path,
    ) -> None:
        with serving(tmp_path, sectigo_environ) as (process, url):
            async with httpx.AsyncClient(base_url=url, timeout=30) as caller:
                asking = asyncio.create_task(caller.put(DEVICE))
                async with asyncio.timeout(20):
                    while not sectigo_sandbox.stats()["polls"]:
                        await asyncio.sleep(0.05)
                process.send_signal(signal.SIGTERM)
                await asyncio.wait([asking])
                assert asking.exception() is not None or asking.result().status_code >= 500
            await asyncio.to_thread(process.wait, 20)

        sectigo_clock.advance(3600)
        with serving(tmp_path, sectigo_environ) as (_, url):
            async with httpx.AsyncClient(base_url=url, timeout=30) as caller:
                assert (await caller.put(DEVICE)).status_code == 200

        assert sectigo_sandbox.stats()["orders"] == 1


async def test_a_wrong_password_tells_callers_nothing_of_the_account(
    open_service: Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]],
    sectigo_client_factory: Callable[..., SectigoClient],
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with open_service(lambda: sectigo_client_factory(password="wrong")) as service:  # noqa: S106
        reply = await service.put(DEVICE)

    assert reply.status_code == 502
    assert "password" not in reply.text
    assert "password" in caplog.text, "the way out is for the log"
