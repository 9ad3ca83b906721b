"""Every fault against every call, and orders by the hundred on a bad day: typed errors, and never two for one."""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import attrs
import httpx
import pytest

from sectigo_async import (
    Order,
    OrderState,
    OutcomeUnknownError,
    Reconciliation,
    SectigoClient,
    SectigoError,
)
from sectigo_async.pki import generate_key, make_csr
from sectigo_async.sandbox import Fault, FaultRule, Sandbox, SandboxConfig, SandboxServer, SandboxTransport
from sectigo_async.testing import FakeClock

CREATE = "PUT /api/v1/batches/createSingleCertBatch"
UPLOAD = "POST /api/v1/batches/upload"
REVOKE = "POST /api/v1/certificates/{id}/revoke"
DETAIL = "GET /api/v1/batches/{id}"
DOWNLOAD = "GET /api/v1/batches/{id}/download"
FIND = "POST /api/v1/certificates/find"
ORDERS = (CREATE, UPLOAD)
AUTH = ("POST /auth/pwd", "POST /auth/refresh")


def params(number: int) -> dict[str, str]:
    return {"commonName": f"gateway-{number}", "serialNumber": f"SN-{number:04}", "pkcs12Password": "secrtpasswrd"}


@attrs.frozen
class World:
    """A sandbox with one batch in it, and a client, on one clock."""

    sandbox: Sandbox
    clock: FakeClock
    sdk: SectigoClient
    batch: int
    serial: str


def client_of(sandbox: Sandbox, clock: FakeClock) -> SectigoClient:
    return SectigoClient(
        endpoint="http://127.0.0.1",
        transport=SandboxTransport(sandbox),
        clock=clock,
        username="demo",
        password="demo-password",
    )


async def refresh(world: World) -> object:
    world.clock.advance(700)
    return await world.sdk.licenses.get()


CALLS: dict[str, Callable[[World], Awaitable[object]]] = {
    "POST /auth/pwd": lambda world: world.sdk.sign_in(fresh=True),
    "POST /auth/refresh": refresh,
    CREATE: lambda world: world.sdk.batches.create(authority_id=117, params=params(7)),
    UPLOAD: lambda world: world.sdk.batches.upload(
        profile_id=42, requests=make_csr(generate_key(), "gw7.example.com")
    ),
    DETAIL: lambda world: world.sdk.batches.get(world.batch),
    "GET /api/v1/batches/{id}/status": lambda world: world.sdk.batches.status(world.batch),
    "GET /api/v1/batches/{id}/processing_info": lambda world: world.sdk.batches.processing_info(world.batch),
    DOWNLOAD: lambda world: world.sdk.batches.download(world.batch),
    "GET /api/v1/devices": lambda world: world.sdk.licenses.get(),
    "GET /api/v1/authorities/allowed": lambda world: world.sdk.authorities.list(),
    "GET /api/v1/authorities/{id}/balanceavailable": lambda world: world.sdk.authorities.balance(1),
    "GET /api/v1/profiles": lambda world: world.sdk.profiles.list(),
    "GET /api/v1/profiles/{id}": lambda world: world.sdk.profiles.get(42),
    "GET /api/v1/profiles/{id}/parameters": lambda world: world.sdk.profiles.parameters(42),
    "GET /api/v1/organizations/user": lambda world: world.sdk.organizations.current(),
    FIND: lambda world: world.sdk.certificates.find(common_name="gateway-1"),
    REVOKE: lambda world: world.sdk.certificates.revoke(profile_id=117, serial_number=world.serial),
}
PASSING = {
    Fault.RATE_LIMIT,
    Fault.ERROR_BEFORE,
    Fault.ERROR_AFTER,
    Fault.CUT_BEFORE,
    Fault.LOST_REPLY,
    Fault.CUT_AFTER_HEADERS,
    Fault.CUT_MID_BODY,
    Fault.LATE_COMMIT,
}
HARMLESS = {
    Fault.LATENCY,
    Fault.DRIP,
    Fault.WRONG_TYPE,
    Fault.LAG,
    Fault.OUT_OF_ORDER,
    Fault.CLOCK_SKEW,
    Fault.BIT_FLIP,
}


async def attempt(world: World, call: Callable[[World], Awaitable[object]]) -> SectigoError | None:
    try:
        await call(world)
    except SectigoError as error:
        return error
    return None


@pytest.mark.parametrize("fault", Fault)
@pytest.mark.parametrize("route", CALLS)
async def test_every_fault_against_every_call(route: str, fault: Fault) -> None:
    clock = FakeClock()
    sandbox = Sandbox(SandboxConfig(issue_delay=0), clock)
    async with client_of(sandbox, clock) as sdk:
        batch = await sdk.batches.create(authority_id=117, params=params(1))
        found = await sdk.certificates.find(common_name="gateway-1")
        clock.advance(60)
        world = World(sandbox, clock, sdk, batch.batch_id, found.items[0].serial_number)
        # Skewed by less than a batch is old; twice is less than the attempts there are.
        sandbox.faults.replace([FaultRule(route=route, fault=fault, times=2, seconds=0.01)])
        started = clock.monotonic()
        error = await attempt(world, CALLS[route])
        took = clock.monotonic() - started
        sandbox.faults.replace([])

        assert took <= 120 + (700 if route == "POST /auth/refresh" else 0)
        assert str(error).isprintable()
        if route in ORDERS:
            await assert_order(world, error, fault)
        elif route == REVOKE:
            assert error is None or isinstance(error, OutcomeUnknownError)
        elif fault in HARMLESS or (fault in PASSING and route not in AUTH):
            assert error is None or (fault is Fault.BIT_FLIP and route == DOWNLOAD), error
        elif fault is Fault.WEB_PAGE and route not in AUTH:
            assert error is not None, "a web page is no answer"


async def assert_order(world: World, error: SectigoError | None, fault: Fault) -> None:
    """Check that the order ran once at most, and that a look for it never says otherwise."""
    world.clock.advance(1000)
    await world.sdk.batches.create(authority_id=117, params=params(2))
    world.clock.advance(60)
    ran = world.sandbox.stats()["orders"] - 2
    assert ran in {0, 1}
    if fault in HARMLESS | {Fault.RATE_LIMIT}:
        assert (error, ran) == (None, 1)
        return
    assert isinstance(error, OutcomeUnknownError)
    assert error.order is not None
    (result,) = await world.sdk.batches.reconcile([error.order])
    assert result.order.state is (OrderState.ORDERED if ran else OrderState.NOT_ORDERED), result.reason


KINDS = (*(PASSING - {Fault.LATE_COMMIT}), Fault.WEB_PAGE, Fault.TRUNCATED)


def bad_day(seconds: float = 300) -> list[FaultRule]:
    """Return rules by which three of ten orders, and three of ten reads, meet a fault."""
    each = 0.035
    rules = [FaultRule(route=route, fault=Fault.LATE_COMMIT, rate=each, seconds=seconds) for route in ORDERS]
    for kind in sorted(KINDS):
        rules += [FaultRule(route=route, fault=kind, rate=each) for route in (*ORDERS, DETAIL, DOWNLOAD, FIND)]
    return [*rules, FaultRule(route=DETAIL, fault=Fault.LAG, rate=each, seconds=60)]


Place = Callable[[SectigoClient], Awaitable[object]]


@attrs.define
class Device:
    """One that is to have one certificate."""

    name: str
    place: Place
    order: Order | None = None
    done: bool = False


def devices() -> list[Device]:
    def create(number: int) -> Place:
        return lambda sdk: sdk.batches.create(authority_id=117, params=params(number))

    def upload(name: str) -> Place:
        request = make_csr(generate_key(), name)
        return lambda sdk: sdk.batches.upload(profile_id=42, requests=request)

    created = [Device(f"gateway-{number}", create(number)) for number in range(100)]
    names = [f"gw{number}.example.com" for number in range(200)]
    return created + [Device(name, upload(name)) for name in names]


async def place(device: Device, sdk: SectigoClient) -> None:
    try:
        await device.place(sdk)
        device.done = True
    except OutcomeUnknownError as error:
        device.order = error.order
    except SectigoError:
        pass  # It is known that nothing was ordered.


def settle(waiting: list[Device], results: tuple[Reconciliation, ...]) -> None:
    found = {result.order.order_id: result for result in results}
    for device in waiting:
        assert device.order is not None
        state = found[device.order.order_id].order.state
        device.done = state is OrderState.ORDERED
        if state is not OrderState.UNKNOWN:
            device.order = None


def counted(sandbox: Sandbox) -> Counter[str]:
    """Return how many certificates the sandbox has for each common name."""
    return Counter(one.issued.common_name for one in sandbox.ledger.revealed(sandbox.clock.monotonic()))


@pytest.mark.timeout(300)
async def test_300_orders_on_a_bad_day_are_300_batches() -> None:
    clock = FakeClock()
    sandbox = Sandbox(SandboxConfig(issue_delay=0, balance=10_000), clock)
    wanted = devices()
    async with client_of(sandbox, clock) as sdk:
        await sdk.sign_in()
        sandbox.faults.replace(bad_day())
        rounds = 0
        while not all(device.done for device in wanted):
            rounds += 1
            assert rounds < 30, [device.name for device in wanted if not device.done]
            for device in wanted:
                if not device.done and device.order is None:
                    await place(device, sdk)
            clock.advance(1000)
            # One more of ours shows, in the end, that all that came before would show.
            rules, sandbox.faults.rules = sandbox.faults.rules, ()
            await sdk.batches.create(authority_id=117, params=params(9000 + rounds))
            sandbox.faults.rules = rules
            waiting = [device for device in wanted if device.order is not None]
            orders = [device.order for device in waiting if device.order is not None]
            settle(waiting, await sdk.batches.reconcile(orders, timeout=None))

    stats = sandbox.stats()
    names = counted(sandbox)
    assert [names[device.name] for device in wanted] == [1] * 300
    assert stats["orders"] == 300 + rounds
    assert set(stats["orders_by_name"].values()) == {1}
    assert sorted(stats["orders_by_key"].values()) == [1] * len(stats["orders_by_key"])
    assert stats["late_commits"] > 0, "the case of the late commit is among them"

    naive = await naive_retries()
    assert sum(count - 1 for count in naive.values()) > 0, "faults that do no harm prove nothing"


async def naive_retries() -> Counter[str]:
    """Order on the same bad day as a client does that orders again until it is told a batch id."""
    clock = FakeClock()
    sandbox = Sandbox(SandboxConfig(issue_delay=0, balance=10_000), clock)
    async with httpx.AsyncClient(transport=SandboxTransport(sandbox), base_url="http://127.0.0.1") as client:
        tokens = (await client.post("/auth/pwd", json={"username": "demo", "password": "demo-password"})).json()
        client.headers["authorization"] = f"Bearer {tokens['accessToken']}"
        sandbox.faults.replace(bad_day(0))
        for number in range(300):
            document = {"authorityId": 117, "batchName": f"naive-{number}", "profileParams": params(number)}
            while True:
                try:
                    if "batchId" in (await client.put(CREATE.split()[1], json=document)).json():
                        break
                except (httpx.TransportError, ValueError):
                    continue
    return counted(sandbox)


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.mark.timeout(300)
async def test_an_hour_of_faults_leaks_nothing() -> None:
    """On a fake clock, over real connections: tasks, sockets, leases and files are as many after as before."""
    clock = FakeClock()
    sandbox = Sandbox(SandboxConfig(issue_delay=0, balance=100_000, access_ttl=3.0e6), clock)
    dice = random.Random(5)  # noqa: S311 - to be repeated
    calls = [call for route, call in CALLS.items() if route not in (*AUTH, REVOKE)]
    trouble = [FaultRule(route="*", fault=fault, rate=0.03, seconds=0.01) for fault in Fault]
    async with SandboxServer(sandbox) as server:  # noqa: SIM117 - what the client leaves is looked at inside
        async with SectigoClient(endpoint=server.url, username="demo", password="demo-password", clock=clock) as sdk:
            batch = await sdk.batches.create(authority_id=117, params=params(1))
            world = World(sandbox, clock, sdk, batch.batch_id, "01")
            leased = sdk._owned[0]
            places = leased._places._value  # type: ignore[attr-defined]
            sandbox.faults.replace(trouble)
            before = open_files()
            end = clock.monotonic() + 3600
            made = 0
            while clock.monotonic() < end:
                made += 1
                await attempt(world, dice.choice(calls))
                clock.advance(5)
            sandbox.faults.replace([])
            await sdk.licenses.get()
            await asyncio.sleep(0.1)
            assert made > 200
            assert len(sandbox.faults.counts) >= 15
            assert leased._places._value == places  # type: ignore[attr-defined]
            assert open_files() <= before + 2 * 20
            assert len(asyncio.all_tasks()) < 30
    await asyncio.sleep(0)
    assert len(asyncio.all_tasks()) == 1
