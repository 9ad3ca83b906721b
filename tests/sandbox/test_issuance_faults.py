"""Bulk runs on bad days of the service: how each ends, and that the same run again ends with one certificate each."""

import asyncio
import io
import re
import time
import zipfile
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from sectigo_async import Config, MemoryStore, OrderState, Secret, SectigoClient
from sectigo_async.credentials import Credentials
from sectigo_async.errors import ConnectFailedError, RateLimitError, SignInRequiredError
from sectigo_async.issuance import (
    DeviceState,
    Event,
    EventKind,
    Issuance,
    Keys,
    Options,
    Run,
    SqliteLedger,
    make_plan,
    read_devices,
)
from sectigo_async.pki import generate_key, load_key
from sectigo_async.sandbox import Fault, FaultRule, Sandbox, SandboxConfig, SandboxTransport
from sectigo_async.sandbox.csr import SigningRequest
from sectigo_async.sandbox.issuing import issue_for_request
from sectigo_async.testing import FakeClock

CREATE = "PUT /api/v1/batches/createSingleCertBatch"
UPLOAD = "POST /api/v1/batches/upload"
DETAIL = "GET /api/v1/batches/{id}"
DOWNLOAD = "GET /api/v1/batches/{id}/download"
ENDPOINT = "http://127.0.0.1"

Send = Callable[[httpx.Request], Awaitable[httpx.Response]]
Hook = Callable[[httpx.Request, Send], Awaitable[httpx.Response]]


class Wire(httpx.AsyncBaseTransport):
    """The way to the sandbox, on which a test may meddle with what passes.

    Attributes:
        hook: gets each request, and what sends it on.
        seen: method and path of each request.
    """

    def __init__(self, sandbox: Sandbox) -> None:
        self._inner = SandboxTransport(sandbox)
        self.hook: Hook | None = None
        self.seen: list[str] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.seen.append(f"{request.method} {request.url.path}")
        send = self._inner.handle_async_request
        return await (send(request) if self.hook is None else self.hook(request, send))


@attrs.frozen
class Ended:
    """How a run ended."""

    issuance: Issuance
    events: list[Event]

    @property
    def counts(self) -> dict[DeviceState, int]:
        return {state: count for state, count in self.issuance.counts.items() if count}

    def told(self, kind: EventKind) -> list[str]:
        return [event.text for event in self.events if event.kind is kind]


@attrs.frozen
class World:
    """A sandbox, the way there, and the directory of a run, all on one clock."""

    sandbox: Sandbox
    clock: FakeClock
    wire: Wire
    directory: Path
    runs: list[Issuance] = attrs.field(factory=list)

    def client(self, **login: Any) -> SectigoClient:
        login = login or {"username": "demo", "password": "demo-password"}
        # Whoever sleeps moves the clock for all: no call may be taken for one that lasts too long.
        config = attrs.evolve(Config.create(ENDPOINT), timeout=None)
        return SectigoClient(config=config, transport=self.wire, clock=self.clock, **login)

    async def issue(
        self,
        data: bytes,
        *,
        keys: Keys = Keys.LOCAL,
        profile_id: int = 42,
        retry_failed: bool = False,
        watch: Callable[[Issuance, Event], object] = lambda _issuance, _event: None,
        login: dict[str, Any] | None = None,
        **options: Any,
    ) -> Ended:
        """Run a list of devices to the end, as a process of its own does."""
        run = Run(endpoint=ENDPOINT, username="demo", profile_id=profile_id, keys=keys)
        async with (
            self.client(**(login or {})) as client,
            SqliteLedger.open(self.directory, run, clock=self.clock) as ledger,
        ):
            plan = await make_plan(client, ledger, self.directory, read_devices(data), retry_failed=retry_failed)
            issuance = Issuance(client, ledger, self.directory, plan, options=Options(**options), clock=self.clock)
            self.runs.append(issuance)
            seen: list[Event] = []
            async with aclosing(issuance.run()) as events:
                async for event in events:
                    seen.append(event)
                    watch(issuance, event)
            return Ended(issuance, seen)

    @property
    def orders(self) -> int:
        return int(self.sandbox.stats()["orders"])

    def check(self, count: int, *, orders: int | None = None) -> None:
        """Check that each device was ordered once, and has its certificate, beside its key."""
        assert self.sandbox.ledger.ordered() == count
        assert set(self.sandbox.stats()["orders_by_key"].values()) == {1}
        assert orders is None or self.orders == orders
        serials = set()
        for number in range(count):
            folder = self.directory / f"gw{number}.example.com"
            certificate = certificate_in(folder)
            key = load_key((folder / "privkey.pem").read_bytes())
            assert certificate.public_key() == key.public_key()
            serials.add(certificate.serial_number)
        assert len(serials) == count


@pytest.fixture
def make_world(clock: FakeClock, tmp_path: Path) -> Callable[..., World]:
    def make(clock: FakeClock = clock, **settings: Any) -> World:
        sandbox = Sandbox(SandboxConfig(**({"issue_delay": 10.0} | settings)), clock)
        return World(sandbox, clock, Wire(sandbox), tmp_path / "certs")

    return make


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    return make_world()


def names(count: int) -> bytes:
    return "".join(["common_name\n", *(f"gw{number}.example.com\n" for number in range(count))]).encode()


def done(count: int) -> dict[DeviceState, int]:
    return {DeviceState.DONE: count}


def certificate_in(folder: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate((folder / "cert.pem").read_bytes())


def bad_day() -> list[FaultRule]:
    """Return rules by which about three of ten requests that matter meet a fault, of any kind there is."""
    each = 0.03
    rules = [FaultRule(route=route, fault=Fault.LATE_COMMIT, rate=each, seconds=300) for route in (CREATE, UPLOAD)]
    # An archive that comes damaged three times is given up for this run: so often it does not happen here.
    damages, old_news = (Fault.BIT_FLIP, Fault.TRUNCATED), (Fault.LAG, Fault.OUT_OF_ORDER)
    rules += [FaultRule(route=DOWNLOAD, fault=fault, rate=each, times=1) for fault in damages]
    rules += [FaultRule(route=DETAIL, fault=fault, rate=each, seconds=60) for fault in old_news]
    seconds = {Fault.LATENCY: 5.0, Fault.DRIP: 0.01, Fault.CLOCK_SKEW: 3600.0}
    others = set(Fault) - {rule.fault for rule in rules}
    for fault in sorted(others | {Fault.TRUNCATED}):
        routes = {CREATE, UPLOAD, DETAIL, DOWNLOAD} - ({DOWNLOAD} if fault is Fault.TRUNCATED else set())
        rules += [
            FaultRule(route=route, fault=fault, rate=each, seconds=seconds.get(fault, 0)) for route in sorted(routes)
        ]
    return rules


@pytest.mark.parametrize(("keys", "size"), [(Keys.LOCAL, 1), (Keys.LOCAL, 10), (Keys.SERVER, 1)])
async def test_a_day_on_which_three_of_ten_requests_fail(
    make_world: Callable[..., World], keys: Keys, size: int
) -> None:
    world = make_world(seed=size)
    data = names(40).replace(b"common_name", b"common_name,serialNumber").replace(b".com\n", b".com,SN-0001\n")
    more: dict[str, Any] = {"keys": keys, "profile_id": 117, "batch_size": size}
    world.sandbox.faults.replace(bad_day())

    ended = await world.issue(data, **more)
    while ended.counts != done(40):
        # What nothing proves is ordered again only where somebody says so; by then all that ran shows.
        world.clock.advance(1000)
        ended = await world.issue(data, resubmit=True, **more)
        assert world.clock.monotonic() < 100_000, ended.counts

    world.check(40, orders=40 // size)
    assert sum(world.sandbox.faults.counts.values()) > 2, "faults that do not strike prove nothing"


def requests_in(request: httpx.Request) -> list[x509.CertificateSigningRequest]:
    pem = rb"-----BEGIN CERTIFICATE REQUEST-----.*?-----END CERTIFICATE REQUEST-----"
    return [x509.load_pem_x509_csr(found[0]) for found in re.finditer(pem, request.content, re.DOTALL)]


def refusing(name: str) -> Hook:
    """Have the service refuse an upload that holds a request for this name."""

    async def hook(request: httpx.Request, send: Send) -> httpx.Response:
        wanted = [
            str(csr.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value) for csr in requests_in(request)
        ]
        if name in wanted:
            return httpx.Response(400, json={"status": 400, "message": f"{name} is on the list of names not wanted"})
        return await send(request)

    return hook


def damaging(change: Callable[[bytes], bytes], times: int = 1_000_000) -> Hook:
    """Have archives come changed, so many times."""
    left = times

    async def hook(request: httpx.Request, send: Send) -> httpx.Response:
        nonlocal left
        reply = await send(request)
        if not request.url.path.endswith("/download") or reply.status_code != 200 or left == 0:
            return reply
        left -= 1
        content = change(await reply.aread())
        headers = {name: value for name, value in reply.headers.items() if name != "content-length"}
        return httpx.Response(200, headers=headers, content=content)

    return hook


async def test_one_request_that_the_service_refuses_spoils_none_of_the_others(world: World) -> None:
    world.wire.hook = refusing("gw17.example.com")

    first = await world.issue(names(40), batch_size=10)

    assert first.counts == {DeviceState.DONE: 39, DeviceState.FAILED: 1}
    assert first.told(EventKind.REFUSED) == [
        "gw17.example.com: gw17.example.com is on the list of names not wanted (400, POST /api/v1/batches/upload)"
    ]
    assert world.sandbox.ledger.ordered() == 39
    # Halved again and again, the order that was refused leaves few and large ones.
    assert world.orders <= 3 + 4
    again = await world.issue(names(40))
    assert (again.counts, world.sandbox.ledger.ordered()) == (first.counts, 39)

    world.wire.hook = None
    last = await world.issue(names(40), retry_failed=True)

    assert last.counts == done(40)
    world.check(40)


ADDED = x509.DNSName("added.example.com")
CAs: dict[str, Callable[[SigningRequest], SigningRequest]] = {
    "adds a name": lambda request: attrs.evolve(
        request, alternative_names=x509.SubjectAlternativeName([*(request.alternative_names or ()), ADDED])
    ),
    "leaves a name out": lambda request: attrs.evolve(
        request, alternative_names=x509.SubjectAlternativeName([x509.DNSName(request.common_name)])
    ),
    "certifies another key": lambda request: attrs.evolve(request, public_key=generate_key().public_key()),
}


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("adds a name", "the service added the name added.example.com"),
        ("leaves a name out", "its certificate lacks the name www.gw1.example.com"),
        ("certifies another key", "its certificate is for another key"),
    ],
)
async def test_a_certificate_that_is_not_what_was_ordered_is_kept_and_told(
    world: World, monkeypatch: pytest.MonkeyPatch, what: str, said: str
) -> None:

    def issued(ca: Any, profile: Any, request: SigningRequest, formats: Any) -> Any:
        mine = request if request.common_name != "gw1.example.com" else CAs[what](request)
        return issue_for_request(ca, profile, mine, formats)

    monkeypatch.setattr("sectigo_async.sandbox.state.issue_for_request", issued)
    rows = [f"gw{number}.example.com,gw{number}.example.com www.gw{number}.example.com\n" for number in range(3)]
    data = "".join(["common_name,dns_names\n", *rows]).encode()

    ended = await world.issue(data)

    right = what == "adds a name"
    assert ended.counts == (done(3) if right else {DeviceState.DONE: 2, DeviceState.VERIFY_FAILED: 1})
    run = Run(endpoint=ENDPOINT, username="demo", profile_id=42, keys=Keys.LOCAL)
    async with SqliteLedger.open(world.directory, run) as ledger:
        (entry,) = [one for one in await ledger.entries() if one.device.name == "gw1.example.com"]
    assert (entry.warning if right else entry.error) == said
    kept = certificate_in(world.directory / "gw1.example.com")
    assert f"{kept.serial_number:X}" == entry.serial_number.upper().lstrip("0")
    assert {path.name for path in (world.directory / "gw1.example.com").iterdir()} >= {"privkey.pem", "chain.pem"}
    again = await world.issue(data, retry_failed=True)
    assert (again.counts, world.orders) == (ended.counts, 1)


async def test_licences_that_run_out_end_the_run_and_once_there_are_more_it_goes_on(
    make_world: Callable[..., World],
) -> None:
    world = make_world(balance=25)

    first = await world.issue(names(40), batch_size=10)

    assert first.counts == {DeviceState.DONE: 20, DeviceState.PLANNED: 20}
    assert first.issuance.halted == "10 licences are needed for the next order, and 5 are left"
    assert first.told(EventKind.STOPPED) == [first.issuance.halted]
    again = await world.issue(names(40), batch_size=10)
    assert (again.counts, world.orders) == (first.counts, 2)

    world.sandbox.ledger._balances[1] += 15
    last = await world.issue(names(40), batch_size=10)

    assert (last.counts, last.issuance.halted) == (done(40), "")
    world.check(40, orders=4)


def without_one(content: bytes) -> bytes:
    """Return an archive without the certificate of one device."""
    before = zipfile.ZipFile(io.BytesIO(content))
    after = io.BytesIO()
    with zipfile.ZipFile(after, "w") as archive:
        for name in before.namelist()[1:]:
            archive.writestr(name, before.read(name))
    return after.getvalue()


def flipped(content: bytes) -> bytes:
    """Return an archive in which a bit of the first certificate is another."""
    name = zipfile.ZipFile(io.BytesIO(content)).namelist()[0]
    inside = content.index(name.encode()) + len(name) + 100
    return content[:inside] + bytes([content[inside] ^ 1]) + content[inside + 1 :]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "truncated": lambda content: content[: len(content) // 2],
    "no ZIP": lambda _: b"<html>Please sign in</html>",
    "empty": lambda _: b"",
    "a bit": flipped,
    "no certificate in it": lambda _: b"PK\x05\x06" + bytes(18),
    "lacks one": without_one,
}


@pytest.mark.parametrize("damage", DAMAGES)
async def test_an_archive_that_came_damaged_is_fetched_again(world: World, damage: str) -> None:
    world.wire.hook = damaging(DAMAGES[damage], times=2)

    ended = await world.issue(names(10))

    assert ended.counts == done(10)
    world.check(10, orders=1)
    assert not list((world.directory / ".sectigo-async" / "archives").iterdir())


@pytest.mark.parametrize("damage", DAMAGES)
async def test_an_archive_that_stays_damaged_costs_no_second_order(world: World, damage: str) -> None:
    world.wire.hook = damaging(DAMAGES[damage])

    first = await world.issue(names(10), timeout=600.0)

    # What is paid for stays so, and the next run fetches it.
    to_come = {DeviceState.ORDERED: 10}
    assert first.counts == ({DeviceState.DONE: 9, DeviceState.ORDERED: 1} if damage == "lacks one" else to_come)
    said = [*first.told(EventKind.FAILED), *first.told(EventKind.TROUBLE)]
    assert any(words in text for text in said for words in ("archive", "ZIP")), said
    again = await world.issue(names(10), timeout=600.0, retry_failed=True)
    assert (again.counts, world.orders) == (first.counts, 1)

    world.wire.hook = None
    last = await world.issue(names(10))

    assert last.counts == done(10)
    world.check(10, orders=1)


def out_for(clock: FakeClock, seconds: float, out: Callable[[], httpx.Response]) -> Hook:
    """Have the service be out, beginning with the first look at a batch, for so long."""
    until: float | None = None

    async def hook(request: httpx.Request, send: Send) -> httpx.Response:
        nonlocal until
        if until is None and re.search(r"/batches/\d+$", request.url.path):
            until = clock.monotonic() + seconds
        return out() if until is not None and clock.monotonic() < until else await send(request)

    return hook


def unreachable() -> httpx.Response:
    raise httpx.ConnectError("No route to host")


OUTAGES: dict[str, Callable[[], httpx.Response]] = {
    "out of reach": unreachable,
    "429": lambda: httpx.Response(429, json={"message": "slow down"}, headers={"retry-after": "45"}),
}


@pytest.mark.parametrize("outage", OUTAGES)
async def test_a_service_that_is_out_for_half_an_hour_is_waited_for(world: World, outage: str) -> None:
    world.wire.hook = out_for(world.clock, 1800, OUTAGES[outage])

    ended = await world.issue(names(40), batch_size=5, most_open=10)

    assert ended.counts == done(40)
    assert ended.told(EventKind.TROUBLE)
    assert not ended.told(EventKind.OUTCOME_UNKNOWN), "what did not run is known not to have run"
    world.check(40, orders=8)
    # Somebody who is asked to be left alone for 45 seconds is asked about once in that time.
    assert len(world.wire.seen) < 60 + 1800 / 45 * 4


@pytest.mark.parametrize("outage", OUTAGES)
async def test_a_service_that_is_out_for_longer_than_the_timeout_ends_the_run(world: World, outage: str) -> None:
    world.wire.hook = out_for(world.clock, 1e9, OUTAGES[outage])
    with pytest.raises((ConnectFailedError, RateLimitError)):
        await world.issue(names(40), batch_size=5, most_open=10, timeout=900.0)
    assert 900 < world.clock.monotonic() < 3000
    assert world.orders in {1, 2}

    world.wire.hook = None
    ended = await world.issue(names(40), batch_size=5)

    assert ended.counts == done(40)
    world.check(40, orders=8)


async def test_errors_for_an_hour_order_nothing_twice(world: World) -> None:
    world.wire.hook = out_for(world.clock, 3500, lambda: httpx.Response(503, json={"message": "maintenance"}))

    ended = await world.issue(names(40), batch_size=5, most_open=10, timeout=7200.0)
    assert world.sandbox.ledger.ordered() == ended.counts[DeviceState.DONE]
    world.clock.advance(1000)
    ended = await world.issue(names(40), batch_size=5, resubmit=True)

    assert ended.counts == done(40)
    world.check(40, orders=8)


async def test_a_login_that_ends_in_the_middle_is_renewed_with_the_password(make_world: Callable[..., World]) -> None:
    world = make_world(access_ttl=60, refresh_ttl=90, issue_delay=300)

    ended = await world.issue(names(20), batch_size=5, most_open=5)

    assert ended.counts == done(20)
    world.check(20, orders=4)
    assert world.sandbox.counts["logins"] > 2


async def test_a_login_that_ends_where_no_password_is_ends_the_run(
    make_world: Callable[..., World], tmp_path: Path
) -> None:
    world = make_world(access_ttl=60, refresh_ttl=90, issue_delay=300)
    store = MemoryStore()
    kept = Credentials(username="demo", store=store).share(ENDPOINT, world.clock)
    await kept.save_refresh_token(Secret(world.sandbox.sign_in("demo", "demo-password")["refreshToken"]), 90)
    login = {"credentials": Credentials(username="demo", store=store, directory=tmp_path / "state")}

    with pytest.raises(SignInRequiredError, match="no password"):
        await world.issue(names(20), batch_size=5, most_open=5, login=login)

    assert world.sandbox.counts["logins"] == 1
    ordered = world.orders
    assert ordered in {1, 2}
    ended = await world.issue(names(20), batch_size=5)
    assert ended.counts == done(20)
    world.check(20, orders=4)


async def test_a_service_that_refuses_the_tokens_it_issues_ends_the_run_at_once(world: World) -> None:
    async def hook(request: httpx.Request, send: Send) -> httpx.Response:
        if request.url.path.endswith("/upload"):
            return httpx.Response(401, json={"message": "Authentication failed"})
        return await send(request)

    world.wire.hook = hook
    with pytest.raises(SignInRequiredError, match="refuses a token it just issued"):
        await world.issue(names(20), batch_size=5)
    # Twice for each of the orders that are under way at once.
    assert world.wire.seen.count("POST /api/v1/batches/upload") <= 3 * 4
    assert world.sandbox.counts["logins"] + world.sandbox.counts["refreshes"] <= 1 + 4

    world.wire.hook = None
    ended = await world.issue(names(20), batch_size=5)

    assert ended.counts == done(20)
    world.check(20, orders=4)


async def test_a_batch_that_is_not_ready_in_time_is_taken_up_by_the_next_run(
    make_world: Callable[..., World],
) -> None:
    world = make_world(issue_delay=7200)

    first = await world.issue(names(10), timeout=600.0)

    assert first.counts == {DeviceState.ORDERED: 10}
    assert 600 <= world.clock.monotonic() < 900
    again = await world.issue(names(10), timeout=600.0)
    assert (again.counts, world.orders) == (first.counts, 1)

    world.clock.advance(7200)
    last = await world.issue(names(10))

    assert last.counts == done(10)
    world.check(10, orders=1)


class TimeLapse(FakeClock):
    """A clock that is twenty times as fast as the machine's: threads get the time that they take."""

    def monotonic(self) -> float:
        return time.monotonic() * 20

    def time(self) -> float:
        return self._start + self.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / 20)


async def test_stopped_it_orders_no_more_and_fetches_what_is_ready(
    make_world: Callable[..., World],
) -> None:
    world = make_world(TimeLapse(), issue_delay=0)
    orders_at_stop = 0

    def stop(issuance: Issuance, event: Event) -> None:
        nonlocal orders_at_stop
        if event.kind is EventKind.ORDERED and not issuance.stopped:
            issuance.stop()
            orders_at_stop = world.orders

    first = await world.issue(names(40), batch_size=2, watch=stop)

    assert first.issuance.halted == "interrupted"
    # Four at once, at the beginning.
    assert world.orders <= orders_at_stop + 3
    ordered = world.sandbox.ledger.ordered()
    assert 2 <= ordered <= 8
    assert first.counts == {DeviceState.DONE: ordered, DeviceState.PLANNED: 40 - ordered}
    last = await world.issue(names(40), batch_size=2)

    assert last.counts == done(40)
    world.check(40, orders=20)


@pytest.mark.parametrize("ran", [True, False])
async def test_an_order_that_is_cut_off_when_the_time_is_over_is_looked_for_by_the_next_run(
    world: World, ran: bool
) -> None:
    async def hook(request: httpx.Request, send: Send) -> httpx.Response:
        if not request.url.path.endswith("/upload"):
            return await send(request)
        if ran:
            await send(request)
        world.runs[-1].stop()
        await asyncio.Event().wait()
        raise AssertionError

    # Where nothing was ordered before, nothing would tell from which id on to look.
    assert (await world.issue(names(1))).counts == done(1)
    world.wire.hook = hook
    first = await world.issue(names(5))
    assert (first.counts, world.orders) == ({DeviceState.DONE: 1, DeviceState.UNKNOWN: 4}, 1 + int(ran))
    assert [order.state for order in first.issuance.parked] == [OrderState.UNKNOWN]

    world.wire.hook = None
    again = await world.issue(names(5))
    if ran:
        assert again.counts == done(5)
        world.check(5, orders=2)
        return
    assert (again.counts, world.orders) == (first.counts, 1), "that nothing shows proves nothing"

    # An order that is sent later, and shows, is what proves it.
    last = await world.issue(names(6))
    assert last.counts == done(6)
    assert last.told(EventKind.NOT_ORDERED)
    world.check(6, orders=3)
