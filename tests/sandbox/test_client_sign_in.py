"""Signing in against the sandbox: many tasks, tokens that end, a service that forgets, a certificate to show."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest

from sectigo_async import ClientCertificate, Config, MemoryStore, Secret, SectigoClient
from sectigo_async.connections import LeasedTransport
from sectigo_async.credentials import Credentials
from sectigo_async.errors import (
    ClientCertificateRequiredError,
    InvalidCredentialsError,
    NoReplyError,
    SignInRequiredError,
)
from sectigo_async.sandbox import Sandbox, SandboxConfig, SandboxServer, create_app
from sectigo_async.testing import FakeClock

DEVICES = "/api/v1/devices"


class Service(httpx.AsyncBaseTransport):
    """The sandbox in process, over as many connections as it is told; counts what is asked of it."""

    def __init__(self, sandbox: Sandbox, connections: int) -> None:
        app = httpx.ASGITransport(create_app(sandbox))
        self._pool = LeasedTransport(connections, lambda: app)
        self.paths: list[str] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.paths.append(request.url.path)
        return await self._pool.handle_async_request(request)


Connect = Callable[..., SectigoClient]


@pytest.fixture
def connect(clock: FakeClock, credentials: dict[str, Any]) -> Connect:
    def make(transport: httpx.AsyncBaseTransport, **more: Any) -> SectigoClient:
        config = attrs.evolve(Config.create("http://127.0.0.1"), timeout=None)
        account: dict[str, Any] = {} if "credentials" in more else credentials
        return SectigoClient(config=config, transport=transport, clock=clock, **account, **more)

    return make


@pytest.mark.parametrize("connections", [1, 20])
async def test_ten_thousand_calls_with_an_ended_token_cause_one_refresh(
    sandbox: Sandbox, clock: FakeClock, connect: Connect, connections: int
) -> None:
    for_calls = Service(sandbox, connections)
    async with connect(for_calls) as client:
        await client.licenses.get()
        clock.advance(700)
        for_calls.paths.clear()
        await asyncio.gather(*(client.licenses.get() for _ in range(10_000)))

    assert sandbox.counts["refreshes"] == 1
    assert sandbox.counts["logins"] == 1
    assert for_calls.paths.count(DEVICES) == 10_000, "whose end is known is not sent"


@pytest.mark.parametrize("connections", [1, 20])
async def test_ten_thousand_calls_with_a_refused_token_cause_one_sign_in(
    sandbox: Sandbox, connect: Connect, connections: int
) -> None:
    for_calls = Service(sandbox, connections)
    async with connect(for_calls) as client:
        await client.licenses.get()
        sandbox.reset_tokens()
        await asyncio.gather(*(client.licenses.get() for _ in range(10_000)))

    assert sandbox.counts["refreshes"] == 0
    assert sandbox.counts["logins"] == 2
    assert for_calls.paths.count("/auth/refresh") == 1


async def test_tokens_that_keep_ending_fail_no_call(clock: FakeClock, connect: Connect) -> None:
    sandbox = Sandbox(SandboxConfig(access_ttl=60, refresh_ttl=600, rotate_refresh=True), clock)
    done = 0

    async def work(client: SectigoClient) -> None:
        nonlocal done
        for _ in range(100):
            await client.licenses.get()
            done += 1
            if done % 20 == 0:
                clock.advance(3)

    async with connect(Service(sandbox, 20)) as client, asyncio.TaskGroup() as tasks:
        for _ in range(200):
            tasks.create_task(work(client))

    assert done == 20_000
    # 3,000 s went by: 50 lifetimes of an access token, 5 of a refresh token that is never the same for long.
    assert 45 <= sandbox.counts["refreshes"] <= 100
    assert sandbox.counts["logins"] == 1


async def test_a_service_that_forgets_every_token_is_not_noticed(
    sandbox: Sandbox, connect: Connect, params: dict[str, str], tmp_path: Path
) -> None:
    def login() -> SectigoClient:
        credentials = Credentials(username="demo", store=store, directory=tmp_path / "state")
        return connect(Service(sandbox, 2), credentials=credentials)

    store = MemoryStore()
    shared = Credentials(username="demo", store=store).share("http://127.0.0.1", FakeClock())
    async with login() as one, login() as other:
        with pytest.raises(SignInRequiredError, match="no password"):
            await one.licenses.get()
        await shared.save_password(Secret(sandbox.config.password))
        await one.licenses.get()
        await other.licenses.get()
        assert sandbox.counts["logins"] == 1
        sandbox.reset_tokens()

        await one.licenses.get()
        sandbox.reset_tokens()
        # The token that the other one left behind is as dead as its own.
        await other.batches.create(authority_id=42, name="once", params=params)
        await one.licenses.get()

        assert sandbox.counts["logins"] == 3
        assert sandbox.stats()["orders_by_name"] == {"once": 1}
    async with login() as next_command:
        await next_command.licenses.get()
    assert sandbox.counts["logins"] == 3


async def test_a_token_that_another_process_left_behind_dead_is_replaced(
    sandbox: Sandbox, connect: Connect, tmp_path: Path, credentials: dict[str, Any]
) -> None:
    def client() -> SectigoClient:
        found = Credentials(username="demo", password=Secret(credentials["password"]), directory=tmp_path / "state")
        return connect(Service(sandbox, 2), credentials=found)

    async with client() as one, client() as other:
        await one.sign_in()
        sandbox.reset_tokens()
        await other.sign_in(fresh=True)
        sandbox.reset_tokens()

        await one.licenses.get()

    assert sandbox.counts["logins"] == 3


@pytest.mark.parametrize("ahead", [-86_400.0, 86_400.0])
async def test_a_clock_that_is_wrong_by_a_day_changes_nothing(
    clock: FakeClock, connect: Connect, ahead: float
) -> None:
    sandbox = Sandbox(SandboxConfig(clock_skew=ahead), clock)
    async with connect(Service(sandbox, 1)) as client:
        for _ in range(10):
            await client.licenses.get()
            clock.advance(300)

    assert sandbox.counts["logins"] == 1
    assert sandbox.counts["refreshes"] == 4


@pytest.fixture
def certified(tmp_path: Path) -> tuple[SandboxConfig, ClientCertificate]:
    """A client certificate, and a service that demands it."""
    authority = Sandbox()
    (tmp_path / "client.pem").write_bytes(authority.tls_pem("ops.example.com"))
    (tmp_path / "client-ca.pem").write_bytes(authority.ca_pem())
    return (
        SandboxConfig(client_ca=tmp_path / "client-ca.pem"),
        ClientCertificate(certificate=tmp_path / "client.pem"),
    )


async def test_an_account_signs_in_with_its_client_certificate_over_real_tls(
    certified: tuple[SandboxConfig, ClientCertificate], tmp_path: Path, credentials: dict[str, Any]
) -> None:
    settings, certificate = certified
    sandbox = Sandbox(settings)
    (tmp_path / "root.pem").write_bytes(sandbox.ca_pem())
    async with SandboxServer(sandbox, tls=True) as server:
        config = attrs.evolve(Config.create(server.url), ca_bundle=tmp_path / "root.pem")
        async with SectigoClient(config=config, **credentials) as client:
            with pytest.raises(ClientCertificateRequiredError, match="client certificate") as caught:
                await client.licenses.get()
            assert "SECTIGO_CLIENT_CERT" in caught.value.hint
        config = attrs.evolve(config, client_certificate=certificate)
        async with SectigoClient(config=config, **credentials) as client:
            assert (await client.licenses.get()).ordered == 0
        async with SectigoClient(config=config, username="demo", password="wrong") as client:
            with pytest.raises(InvalidCredentialsError):
                await client.licenses.get()


async def test_a_client_certificate_that_the_service_does_not_know_is_told(
    certified: tuple[SandboxConfig, ClientCertificate], tmp_path: Path, credentials: dict[str, Any]
) -> None:
    sandbox = Sandbox(certified[0])
    (tmp_path / "root.pem").write_bytes(sandbox.ca_pem())
    (tmp_path / "stranger.pem").write_bytes(Sandbox().tls_pem("eve.example.com"))
    async with SandboxServer(sandbox, tls=True) as server:
        config = attrs.evolve(
            Config.create(server.url),
            ca_bundle=tmp_path / "root.pem",
            client_certificate=ClientCertificate(certificate=tmp_path / "stranger.pem"),
        )
        async with SectigoClient(config=config, **credentials) as client:
            with pytest.raises(NoReplyError) as caught:
                await client.licenses.get()
    assert "SECTIGO_CLIENT_CERT" in caught.value.hint


async def test_a_service_of_an_unknown_authority_gets_no_password(
    credentials: dict[str, Any], clock: FakeClock
) -> None:
    sandbox = Sandbox()
    async with (
        SandboxServer(sandbox, tls=True) as server,
        SectigoClient(config=Config.create(server.url), clock=clock, **credentials) as client,
    ):
        with pytest.raises(NoReplyError, match="certificate verify failed") as caught:
            await client.licenses.get()
    assert "SECTIGO_CA_BUNDLE" in caught.value.hint
    assert sandbox.counts["logins"] == 0
