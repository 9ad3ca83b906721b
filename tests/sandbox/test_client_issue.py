"""`issue()`: one certificate, taken up again after anything, never ordered twice."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest
from cryptography import x509

from sectigo_async import Config, SectigoClient
from sectigo_async.errors import (
    BatchFailed,
    FileError,
    InvalidArgumentError,
    InvalidCSRError,
    NotFoundError,
    OutcomeUnknownError,
    WaitTimeout,
)
from sectigo_async.models import Order
from sectigo_async.pki import ChainStatus, generate_key, load_key
from sectigo_async.sandbox import Fault, FaultRule, Sandbox, create_app
from sectigo_async.testing import FakeClock

NAME = "gw8.example.com"


class Line(httpx.AsyncBaseTransport):
    """A line to the sandbox that can fail before or after an order runs."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._inner = httpx.ASGITransport(create_app(sandbox))
        self.cut: str | None = None
        self.answer: int | None = None
        self.reached = asyncio.Event()
        self.go_on = asyncio.Event()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        ordering = request.url.path.endswith("/upload")
        if request.url.path == "/auth/pwd" and self.cut == "signing in":
            self.reached.set()
            await self.go_on.wait()
        if ordering and self.cut == "before it is sent":
            raise httpx.ConnectError("refused")
        response = await self._inner.handle_async_request(request)
        if ordering and self.answer is not None:
            return httpx.Response(self.answer, headers={"location": "/elsewhere"})
        if ordering and self.cut == "after it ran":
            raise httpx.ReadError("reset")
        if ordering and self.cut == "for ever":
            await asyncio.sleep(3600)
        return response


@pytest.fixture
def line(sandbox: Sandbox) -> Line:
    return Line(sandbox)


@pytest.fixture
async def sdk(line: Line, clock: FakeClock, credentials: dict[str, str]) -> AsyncIterator[SectigoClient]:
    async with SectigoClient(
        endpoint="http://127.0.0.1",
        transport=line,
        clock=clock,
        username=credentials["username"],
        password=credentials["password"],
    ) as client:
        yield client


async def test_key_intent_and_certificate_lie_in_one_private_folder(
    sdk: SectigoClient, sandbox: Sandbox, tmp_path: Path
) -> None:
    root = x509.load_pem_x509_certificate(sandbox.ca_pem())

    issued = await sdk.issue(
        common_name=NAME, profile_id=42, directory=tmp_path, dns_names=[NAME, "alt.example.com"], trust=[root]
    )

    folder = tmp_path / NAME
    assert issued.directory == folder
    assert issued.certificate.sound
    assert issued.certificate.chain_check.status is ChainStatus.VERIFIED
    assert issued.certificate.dns_names == (NAME, "alt.example.com")
    names = {".lock", "archive.zip", "cert.pem", "chain.pem", "fullchain.pem", "issue.json", "privkey.pem"}
    assert {file.name: file.stat().st_mode & 0o777 for file in folder.iterdir()} == dict.fromkeys(names, 0o600)
    key = load_key((folder / "privkey.pem").read_bytes())
    certificate = x509.load_pem_x509_certificate((folder / "cert.pem").read_bytes())
    assert key.public_key() == certificate.public_key()
    record = json.loads((folder / "issue.json").read_text())
    assert (record["batch_id"], record["profile_id"]) == (issued.batch.batch_id, 42)
    assert "PRIVATE" not in (folder / "issue.json").read_text()


async def test_called_again_it_gives_the_same_certificate_and_orders_nothing(
    sdk: SectigoClient, sandbox: Sandbox, tmp_path: Path
) -> None:
    first = await sdk.issue(common_name=NAME, profile_id=42, directory=tmp_path)
    again = await sdk.issue(common_name=NAME, profile_id=42, directory=tmp_path)

    assert again.certificate.certificate == first.certificate.certificate
    assert sandbox.stats()["orders"] == 1
    assert first.certificate.chain_check.status is ChainStatus.NOT_PINNED


async def test_stopped_while_waiting_it_goes_on_with_the_same_batch(
    sdk: SectigoClient, sandbox: Sandbox, tmp_path: Path
) -> None:
    with pytest.raises(WaitTimeout) as caught:
        await sdk.issue(common_name=NAME, profile_id=42, directory=tmp_path, timeout=0.5)
    assert str(caught.value.batch.batch_id) in "".join(caught.value.__notes__)

    issued = await sdk.issue(common_name=NAME, profile_id=42, directory=tmp_path)

    assert issued.batch.batch_id == caught.value.batch.batch_id
    assert issued.certificate.key_match
    assert sandbox.stats()["orders"] == 1


async def test_an_order_that_was_not_sent_is_ordered_by_the_next_call_with_the_same_key(
    sdk: SectigoClient, line: Line, sandbox: Sandbox, tmp_path: Path
) -> None:
    line.cut = "before it is sent"
    from sectigo_async.errors import ConnectFailedError

    with pytest.raises(ConnectFailedError):
        await sdk.issue(common_name=NAME, profile_id=42, directory=tmp_path)
    key = (tmp_path / NAME / "privkey.pem").read_bytes()
    line.cut = None

    issued = await sdk.issue(common_name=NAME, profile_id=42, directory=tmp_path)

    assert issued.certificate.key_match
    assert (tmp_path / NAME / "privkey.pem").read_bytes() == key
    assert sandbox.stats()["orders"] == 1


async def test_an_order_of_unknown_outcome_is_never_ordered_again_by_itself(
    sdk: SectigoClient, line: Line, sandbox: Sandbox, tmp_path: Path
) -> None:
    line.cut = "after it ran"
    with pytest.raises(OutcomeUnknownError):
        await sdk.issue(common_name=NAME, profile_id=42, directory=tmp_path)
    line.cut = None

    with pytest.raises(OutcomeUnknownError):
        await sdk.issue(common_name=NAME, profile_id=42, directory=tmp_path)
    with pytest.raises(OutcomeUnknownError, match=NAME) as caught:
        await sdk.issue(common_name=NAME, profile_id=42, directory=tmp_path)

    assert "issue.json" in caught.value.hint
    assert sandbox.stats()["orders"] == 1
    assert (tmp_path / NAME / "privkey.pem").exists()


async def test_cancelled_while_the_order_is_out_the_intent_stays(
    sdk: SectigoClient, line: Line, sandbox: Sandbox, tmp_path: Path
) -> None:
    line.cut = "for ever"
    task = asyncio.create_task(sdk.issue(common_name=NAME, profile_id=42, directory=tmp_path))
    while not sandbox.stats()["orders"]:
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    line.cut = None

    assert "gw8.example.com" in "".join(caught.value.__notes__)
    with pytest.raises(OutcomeUnknownError):
        await sdk.issue(common_name=NAME, profile_id=42, directory=tmp_path)
    assert sandbox.stats()["orders"] == 1


async def test_of_two_at_once_one_orders(sdk: SectigoClient, sandbox: Sandbox, tmp_path: Path) -> None:
    results = await asyncio.gather(
        *(sdk.issue(common_name=NAME, profile_id=42, directory=tmp_path) for _ in range(5)), return_exceptions=True
    )

    assert sandbox.stats()["orders"] == 1
    assert sum(not isinstance(result, BaseException) for result in results) == 1
    refused = [result for result in results if isinstance(result, BaseException)]
    assert all(isinstance(error, FileError) and "somebody else" in str(error) for error in refused)


async def test_a_refused_order_leaves_the_way_free(sdk: SectigoClient, sandbox: Sandbox, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        await sdk.issue(common_name=NAME, profile_id=4711, directory=tmp_path)

    await sdk.issue(common_name=NAME, profile_id=42, directory=tmp_path)

    assert sandbox.stats()["orders"] == 1


async def test_a_batch_that_failed_stays_failed(sdk: SectigoClient, sandbox: Sandbox, tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(BatchFailed):
            await sdk.issue(common_name="failed.example.com", profile_id=42, directory=tmp_path)

    assert sandbox.stats()["orders"] == 1


async def test_a_folder_of_another_order_is_refused(sdk: SectigoClient, sandbox: Sandbox, tmp_path: Path) -> None:
    await sdk.issue(common_name=NAME, profile_id=42, directory=tmp_path)

    with pytest.raises(FileError, match="other names"):
        await sdk.issue(common_name=NAME, profile_id=117, directory=tmp_path)
    (tmp_path / NAME / "issue.json").write_text("{")
    with pytest.raises(FileError, match="cannot be read"):
        await sdk.issue(common_name=NAME, profile_id=42, directory=tmp_path)

    assert sandbox.stats()["orders"] == 1


async def test_with_a_key_of_the_callers_own_nothing_is_written(
    sdk: SectigoClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    key = generate_key()

    issued = await sdk.issue(common_name=NAME, profile_id=42, key=key)

    assert issued.directory is None
    assert issued.certificate.key_match
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("both", [False, True])
async def test_either_a_directory_or_a_key(sdk: SectigoClient, tmp_path: Path, both: bool) -> None:
    with pytest.raises(InvalidArgumentError):
        await sdk.issue(
            common_name=NAME,
            profile_id=42,
            directory=tmp_path if both else None,
            key=generate_key() if both else None,
        )


async def test_cancelled_while_signing_in_leaves_the_way_free(
    sdk: SectigoClient, line: Line, sandbox: Sandbox, tmp_path: Path
) -> None:
    line.cut = "signing in"
    task = asyncio.create_task(sdk.issue(common_name=NAME, profile_id=42, directory=tmp_path))
    await line.reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    line.cut = None
    line.go_on.set()

    await sdk.issue(common_name=NAME, profile_id=42, directory=tmp_path)

    assert sandbox.stats()["orders"] == 1


@pytest.mark.parametrize("status", [302, 303, 307, 408, 410, 499, 500])
async def test_an_answer_that_does_not_prove_anything_is_never_followed_by_another_order(
    sdk: SectigoClient, line: Line, sandbox: Sandbox, tmp_path: Path, status: int
) -> None:
    line.answer = status
    for _ in range(2):
        with pytest.raises(OutcomeUnknownError):
            await sdk.issue(common_name=NAME, profile_id=42, directory=tmp_path)

    assert sandbox.stats()["orders"] == 1


async def test_a_batch_id_that_cannot_be_recorded_is_found_again(
    sdk: SectigoClient, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: FakeClock
) -> None:
    from sectigo_async.resources import issuing

    write = issuing._Folder._write

    def fail(folder: issuing._Folder, order: Order) -> None:
        if order.batch_id is not None:
            raise FileError("the disk is full")
        write(folder, order)

    with monkeypatch.context() as patched:
        patched.setattr(issuing._Folder, "_write", fail)
        await sdk.issue(common_name=NAME, profile_id=42, directory=tmp_path)
    clock.advance(60)

    issued = await sdk.issue(common_name=NAME, profile_id=42, directory=tmp_path)

    assert issued.batch.batch_id == 24
    assert sandbox.stats()["orders"] == 1


async def test_an_order_of_unknown_outcome_is_found_by_its_key_and_gone_on_with(
    sdk: SectigoClient, line: Line, sandbox: Sandbox, tmp_path: Path, clock: FakeClock
) -> None:
    line.cut = "after it ran"
    with pytest.raises(OutcomeUnknownError):
        await sdk.issue(common_name=NAME, profile_id=42, directory=tmp_path)
    line.cut = None
    clock.advance(60)

    issued = await sdk.issue(common_name=NAME, profile_id=42, directory=tmp_path)

    assert issued.certificate.key_match
    assert sandbox.stats()["orders"] == 1


async def test_an_order_that_surely_was_not_placed_is_placed_by_a_later_call(
    sdk: SectigoClient, sandbox: Sandbox, tmp_path: Path, clock: FakeClock
) -> None:
    await sdk.issue(common_name="gw7.example.com", profile_id=42, directory=tmp_path)
    sandbox.faults.replace([FaultRule(route="POST /api/v1/batches/upload", fault=Fault.ERROR_BEFORE, times=1)])
    with pytest.raises(OutcomeUnknownError):
        await sdk.issue(common_name=NAME, profile_id=42, directory=tmp_path)
    clock.advance(10)
    with pytest.raises(OutcomeUnknownError, match="no batch fits yet"):
        await sdk.issue(common_name=NAME, profile_id=42, directory=tmp_path)
    clock.advance(900)
    await sdk.issue(common_name="gw9.example.com", profile_id=42, directory=tmp_path)

    issued = await sdk.issue(common_name=NAME, profile_id=42, directory=tmp_path)

    assert issued.certificate.key_match
    assert sandbox.stats()["orders"] == 3


async def test_names_in_capitals_and_another_subject(sdk: SectigoClient, tmp_path: Path) -> None:
    issued = await sdk.issue(common_name="GW9.example.com", profile_id=42, directory=tmp_path)

    assert issued.certificate.name_match
    with pytest.raises(FileError, match="subject"):
        await sdk.issue(
            common_name="GW9.example.com", profile_id=42, directory=tmp_path, subject={"organizationName": "Acme"}
        )


async def test_a_key_that_others_could_read_is_made_private(sdk: SectigoClient, tmp_path: Path) -> None:
    from sectigo_async.pki import key_pem

    folder = tmp_path / NAME
    folder.mkdir()
    (folder / "privkey.pem").write_bytes(key_pem(generate_key()))
    (folder / "privkey.pem").chmod(0o644)

    await sdk.issue(common_name=NAME, profile_id=42, directory=tmp_path)

    assert (folder / "privkey.pem").stat().st_mode & 0o777 == 0o600


async def test_the_time_is_that_of_all_of_it(sdk: SectigoClient, clock: FakeClock, tmp_path: Path) -> None:
    started = clock.monotonic()

    with pytest.raises(WaitTimeout):
        await sdk.issue(common_name=NAME, profile_id=42, directory=tmp_path, timeout=1.0)

    assert clock.monotonic() - started <= 1.0


async def test_a_key_that_is_gone_is_not_replaced_under_an_old_order(
    sdk: SectigoClient, sandbox: Sandbox, tmp_path: Path
) -> None:
    await sdk.issue(common_name=NAME, profile_id=42, directory=tmp_path)
    (tmp_path / NAME / "privkey.pem").unlink()

    with pytest.raises(FileError, match="is gone"):
        await sdk.issue(common_name=NAME, profile_id=42, directory=tmp_path)

    assert not (tmp_path / NAME / "privkey.pem").exists()
    assert sandbox.stats()["orders"] == 1


async def test_a_name_that_cannot_be_ordered_writes_nothing(sdk: SectigoClient, tmp_path: Path) -> None:
    with pytest.raises(InvalidCSRError):
        await sdk.issue(common_name="ü.example.com", profile_id=42, directory=tmp_path)

    assert not list(tmp_path.iterdir())


async def test_an_unexpected_error_after_the_reply_does_not_withdraw_the_intent(
    sdk: SectigoClient,
    sandbox: Sandbox,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    from sectigo_async import exchange

    def explode(*_: object, **__: object) -> None:
        if sandbox.stats()["orders"]:
            raise RuntimeError

    caplog.set_level("DEBUG", logger="sectigo_async")
    monkeypatch.setattr(exchange._log, "debug", explode)
    with pytest.raises(RuntimeError):
        await sdk.issue(common_name=NAME, profile_id=42, directory=tmp_path)
    monkeypatch.undo()

    with pytest.raises(OutcomeUnknownError):
        await sdk.issue(common_name=NAME, profile_id=42, directory=tmp_path)
    assert sandbox.stats()["orders"] == 1


async def test_a_key_in_another_form_is_used_and_left_as_it_is(sdk: SectigoClient, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization

    pem = generate_key().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    folder = tmp_path / NAME
    folder.mkdir()
    (folder / "privkey.pem").write_bytes(pem)

    issued = await sdk.issue(common_name=NAME, profile_id=42, directory=tmp_path)

    assert issued.certificate.key_match
    assert (folder / "cert.pem").exists()
    assert (folder / "privkey.pem").read_bytes() == pem


async def test_the_roots_of_the_configuration_are_those_to_check_against(
    line: Line, clock: FakeClock, sandbox: Sandbox, tmp_path: Path
) -> None:
    (tmp_path / "roots.pem").write_bytes(sandbox.ca_pem())
    config = attrs.evolve(Config.create("http://127.0.0.1"), trust_anchors=tmp_path / "roots.pem")
    account: dict[str, Any] = {"username": sandbox.config.username, "password": sandbox.config.password}
    async with SectigoClient(config=config, transport=line, clock=clock, **account) as client:
        issued = await client.issue(common_name=NAME, profile_id=42, directory=tmp_path / "keys")
        assert issued.certificate.chain_check.status is ChainStatus.VERIFIED

        (tmp_path / "roots.pem").write_text("none")
        with pytest.raises(FileError, match=r"roots\.pem holds no certificates"):
            await client.issue(common_name="gw9.example.com", profile_id=42, directory=tmp_path / "keys")
    assert sandbox.counts["orders"] == 1
