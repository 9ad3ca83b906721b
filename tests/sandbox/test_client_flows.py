"""The SDK against the sandbox, in process and over a socket: what a user does, rightly and wrongly."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509

from sectigo_async import BatchStatus, RevocationReason, Secret, SectigoClient
from sectigo_async.errors import (
    BadRequestError,
    BatchFailed,
    BatchNotReady,
    InvalidCredentialsError,
    NotFoundError,
    PermissionDeniedError,
    WaitTimeout,
)
from sectigo_async.pki import ChainStatus, generate_key, make_csr
from sectigo_async.sandbox import Sandbox, SandboxServer, create_app
from sectigo_async.testing import FakeClock


@pytest.fixture(params=["in process", "over a socket"])
async def sdk(
    request: pytest.FixtureRequest, sandbox: Sandbox, clock: FakeClock, credentials: dict[str, str]
) -> AsyncIterator[SectigoClient]:
    """A client of the sandbox that shares its clock, so that waiting costs no time."""
    account: dict[str, Any] = {**credentials, "clock": clock}
    async with AsyncExitStack() as stack:
        if request.param == "in process":
            transport = httpx.ASGITransport(create_app(sandbox))
            client = SectigoClient(endpoint="http://127.0.0.1", transport=transport, **account)
        else:
            server = await stack.enter_async_context(SandboxServer(sandbox))
            client = SectigoClient(endpoint=server.url, **account)
        yield await stack.enter_async_context(client)


@pytest.fixture
def root(sandbox: Sandbox) -> x509.Certificate:
    return x509.load_pem_x509_certificate(sandbox.ca_pem())


async def test_server_key_from_order_to_revocation(
    sdk: SectigoClient, sandbox: Sandbox, root: x509.Certificate, params: dict[str, str]
) -> None:
    (authority, *_) = await sdk.authorities.list()
    before = await sdk.authorities.balance(authority.id)
    taken = {parameter.name for parameter in await sdk.profiles.parameters(42) if parameter.required}
    assert taken <= set(params)

    batch = await sdk.batches.create(authority_id=42, name="example.com certs", params=params)
    assert (batch.status, batch.batch_name, batch.size) == (BatchStatus.CREATED, "example.com certs", 1)
    ready = await sdk.batches.wait(batch.batch_id)
    archive = await sdk.batches.download(ready.batch_id)
    (issued,) = archive.open(password=params["pkcs12Password"], trust=[root], names={"example.com"})

    assert ready.status is BatchStatus.READY_FOR_DOWNLOAD
    assert (issued.key_match, issued.name_match) == (True, True)
    assert issued.chain_check.status is ChainStatus.VERIFIED
    assert await sdk.authorities.balance(authority.id) == before - 1
    counters = await sdk.licenses.get()
    assert (counters.ordered, counters.issued) == (1, 1)
    found = await sdk.certificates.find(serial_number=issued.certificate.serial_number)
    assert [item.status for item in found.items] == ["ISSUED"]

    await sdk.certificates.revoke(
        profile_id=42, serial_number=issued.serial_number, reason=RevocationReason.KEY_COMPROMISE
    )

    found = await sdk.certificates.find(common_name="example.com")
    assert [item.status for item in found.items] == ["REVOKED"]
    crl = x509.load_pem_x509_crl((await sdk.request("GET", "/_sandbox/crl.pem")).body)
    entry = crl.get_revoked_certificate_by_serial_number(issued.certificate.serial_number)
    assert entry is not None
    assert entry.extensions.get_extension_for_class(x509.CRLReason).value.reason is x509.ReasonFlags.key_compromise
    assert sandbox.stats()["orders_by_name"] == {"example.com certs": 1}


async def test_one_upload_of_many_requests(sdk: SectigoClient, root: x509.Certificate, sandbox: Sandbox) -> None:
    keys = {f"gw{number}.example.com": generate_key() for number in range(5)}
    requests = b"".join(make_csr(key, name) for name, key in keys.items())

    batch = await sdk.batches.upload(profile_id=42, requests=requests)
    await sdk.batches.wait(batch.batch_id)
    issued = (await sdk.batches.download(batch.batch_id)).open(keys=keys.values(), trust=[root], names=set(keys))

    assert {one.common_name for one in issued} == set(keys)
    for one in issued:
        assert one.sound
        assert one.key is not None
        assert one.key.private_numbers() == keys[one.common_name].private_numbers()
    assert batch.size == 5
    assert sandbox.stats()["orders"] == 1


async def test_each_change_of_a_batch_can_be_watched(sdk: SectigoClient) -> None:
    batch = await sdk.batches.upload(profile_id=117, requests=make_csr(generate_key(), "gw7.example.com"))

    seen = [state.status async for state in sdk.batches.watch(batch.batch_id)]

    assert seen[0] is BatchStatus.CREATED
    assert seen[-1] is BatchStatus.READY_FOR_DOWNLOAD


async def test_partial_success_is_told_and_downloaded(sdk: SectigoClient) -> None:
    good, bad = generate_key(), generate_key()
    requests = make_csr(good, "good.example.com") + make_csr(bad, "failed.example.com")
    batch = await sdk.batches.upload(profile_id=42, requests=requests)

    ready = await sdk.batches.wait(batch.batch_id)

    assert ready.partial
    assert ready.processing is not None
    assert (ready.processing.success, ready.processing.failed) == (1, 1)
    (issued,) = (await sdk.batches.download(batch.batch_id)).open(keys=[good, bad])
    assert issued.common_name == "good.example.com"


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("rejected.example.com", BatchStatus.REJECTED),
        ("failed.example.com", BatchStatus.FAILED),
        ("broken.example.com", BatchStatus.BROKEN),
    ],
)
async def test_batches_that_fail_say_why_however_they_are_asked(
    sdk: SectigoClient, tmp_path: Path, name: str, status: BatchStatus
) -> None:
    batch = await sdk.batches.upload(profile_id=42, requests=make_csr(generate_key(), name))

    with pytest.raises(BatchFailed) as caught:
        await sdk.batches.wait(batch.batch_id)
    assert caught.value.batch.status is status
    assert caught.value.batch.reject_reason in str(caught.value)
    assert (await sdk.batches.status(batch.batch_id)).status is status
    with pytest.raises(BatchFailed):
        await sdk.batches.download_to(batch.batch_id, tmp_path)
    assert not list(tmp_path.iterdir())


async def test_a_request_without_dns_name_breaks_its_batch(
    sdk: SectigoClient, make_csr: Callable[..., bytes]
) -> None:
    batch = await sdk.batches.upload(profile_id=42, requests=make_csr("gw7.example.com", sans=[]))

    with pytest.raises(BatchFailed, match="SubjectAlternativeName dNSName value is missing") as caught:
        await sdk.batches.wait(batch.batch_id)

    assert caught.value.batch.status is BatchStatus.BROKEN


async def test_a_batch_that_is_not_ready_is_neither_downloaded_nor_waited_for_too_long(
    sdk: SectigoClient, tmp_path: Path
) -> None:
    batch = await sdk.batches.upload(profile_id=117, requests=make_csr(generate_key(), "gw7.example.com"))

    with pytest.raises(BatchNotReady) as caught:
        await sdk.batches.download_to(batch.batch_id, tmp_path)
    assert caught.value.batch.batch_id == batch.batch_id
    assert caught.value.hint
    with pytest.raises(BatchNotReady):
        await sdk.batches.download(batch.batch_id)
    with pytest.raises(WaitTimeout):
        await sdk.batches.wait(batch.batch_id, timeout=0.5)
    assert not list(tmp_path.iterdir())


async def test_orders_that_break_the_rules_spend_nothing(
    sdk: SectigoClient, params: dict[str, str], sandbox: Sandbox
) -> None:
    with pytest.raises(BadRequestError, match="dNSName"):
        await sdk.batches.create(authority_id=42, params={"commonName": "a", "pkcs12Password": "secrtpasswrd"})
    with pytest.raises(BadRequestError, match="shoeSize"):
        await sdk.batches.create(authority_id=42, params=params | {"shoeSize": "43"})
    with pytest.raises(BadRequestError, match="countryName"):
        await sdk.batches.create(authority_id=85, params=params | {"countryName": "Germany"})
    with pytest.raises(NotFoundError):
        await sdk.batches.create(authority_id=4711, params=params)

    assert sandbox.stats()["orders"] == 0
    assert await sdk.authorities.balance(1) == 1000


async def test_ids_of_nobody_and_of_others(sdk: SectigoClient) -> None:
    request = make_csr(generate_key(), "a.example.com")
    ids = [(await sdk.batches.upload(profile_id=117, requests=request)).batch_id for _ in range(13)]
    kinds = set()
    for batch_id in range(ids[0], ids[-1] + 1):
        try:
            await sdk.batches.get(batch_id)
        except (NotFoundError, PermissionDeniedError) as error:
            kinds.add(type(error))

    assert kinds == {NotFoundError, PermissionDeniedError}
    with pytest.raises(NotFoundError):
        await sdk.batches.get(ids[-1] + 1000)


async def test_revoking_what_is_not_there(sdk: SectigoClient) -> None:
    with pytest.raises(NotFoundError):
        await sdk.certificates.revoke(profile_id=42, serial_number="AF01")


async def test_a_restart_that_forgets_every_token_is_not_noticed(
    sdk: SectigoClient, sandbox: Sandbox, clock: FakeClock
) -> None:
    await sdk.licenses.get()
    sandbox.reset_tokens()
    clock.advance(1)

    async with asyncio.TaskGroup() as group:
        for _ in range(50):
            group.create_task(sdk.licenses.get())

    assert sandbox.stats()["logins"] == 2


async def test_wrong_password(sandbox: Sandbox) -> None:
    transport = httpx.ASGITransport(create_app(sandbox))
    async with SectigoClient(
        username="demo", password=Secret("wrong"), endpoint="http://127.0.0.1", transport=transport
    ) as client:
        with pytest.raises(InvalidCredentialsError):
            await client.licenses.get()


async def test_zero_balance_refuses_at_zero(clock: FakeClock, credentials: dict[str, str]) -> None:
    from sectigo_async.sandbox import SandboxConfig

    sandbox = Sandbox(SandboxConfig(balance=1), clock)
    transport = httpx.ASGITransport(create_app(sandbox))
    async with SectigoClient(
        endpoint="http://127.0.0.1",
        transport=transport,
        clock=clock,
        username="demo",
        password=credentials["password"],
    ) as client:
        await client.batches.upload(profile_id=117, requests=make_csr(generate_key(), "a.example.com"))
        with pytest.raises(BadRequestError, match="balance"):
            await client.batches.upload(profile_id=117, requests=make_csr(generate_key(), "b.example.com"))

    assert sandbox.stats()["orders"] == 1


async def test_two_hundred_tasks_share_the_connections_and_one_sign_in(
    sandbox: Sandbox, credentials: dict[str, str]
) -> None:
    username, password = credentials["username"], credentials["password"]
    async with (
        SandboxServer(sandbox) as server,
        SectigoClient(endpoint=server.url, username=username, password=password) as client,
        asyncio.TaskGroup() as group,
    ):
        for _ in range(200):
            group.create_task(client.licenses.get())

    assert sandbox.stats()["logins"] == 1
