"""What became of an order: found by its marker, known not to have been placed, or left for a person."""

from collections.abc import AsyncIterator

import attrs
import pytest

import sectigo_async
from sectigo_async import (
    MemoryJournal,
    Order,
    OrderKind,
    OrderState,
    OutcomeUnknownError,
    Reconciliation,
    RevocationReason,
    SectigoClient,
)
from sectigo_async.errors import InvalidArgumentError, NoReplyError, NotAuthorizedError, NotFoundError
from sectigo_async.pki import generate_key, make_csr
from sectigo_async.resources.batches import Batches
from sectigo_async.sandbox import Fault, FaultRule, Sandbox, SandboxTransport
from sectigo_async.sandbox.errors import ServiceError
from sectigo_async.sandbox.records import Batch
from sectigo_async.testing import FakeClock

CREATE = "PUT /api/v1/batches/createSingleCertBatch"
UPLOAD = "POST /api/v1/batches/upload"
DETAIL = "GET /api/v1/batches/{id}"
FIND = "POST /api/v1/certificates/find"
REVOKE = "POST /api/v1/certificates/{id}/revoke"


@pytest.fixture
async def sdk(sandbox: Sandbox, clock: FakeClock, credentials: dict[str, str]) -> AsyncIterator[SectigoClient]:
    async with SectigoClient(
        endpoint="http://127.0.0.1",
        transport=SandboxTransport(sandbox),
        clock=clock,
        username=credentials["username"],
        password=credentials["password"],
    ) as client:
        yield client


def params(number: int) -> dict[str, str]:
    return {"commonName": f"gateway-{number}", "serialNumber": f"SN-{number:04}", "pkcs12Password": "secrtpasswrd"}


async def create(sdk: SectigoClient, number: int = 7, *, name: str | None = None) -> int:
    batch = await sdk.batches.create(authority_id=117, params=params(number), name=name)
    return batch.batch_id


async def upload(sdk: SectigoClient, *names: str) -> int:
    requests = b"".join(make_csr(generate_key(), name) for name in names)
    batch = await sdk.batches.upload(profile_id=42, requests=requests)
    return batch.batch_id


async def ambiguous_create(sdk: SectigoClient, number: int = 7, *, name: str | None = None) -> Order:
    with pytest.raises(OutcomeUnknownError) as caught:
        await create(sdk, number, name=name)
    assert caught.value.order is not None
    return caught.value.order


async def ambiguous_upload(sdk: SectigoClient, *names: str) -> Order:
    with pytest.raises(OutcomeUnknownError) as caught:
        await upload(sdk, *names)
    assert caught.value.order is not None
    return caught.value.order


def strike(sandbox: Sandbox, *rules: FaultRule) -> None:
    sandbox.faults.replace(rules)


def lose(route: str) -> FaultRule:
    return FaultRule(route=route, fault=Fault.LOST_REPLY, times=1)


def refuse(route: str, times: int | None = 1) -> FaultRule:
    return FaultRule(route=route, fault=Fault.ERROR_BEFORE, times=times)


async def state_of(sdk: SectigoClient, order: Order) -> tuple[OrderState, int | None]:
    (noted,) = [one for one in await sdk.batches.orders() if one.order_id == order.order_id]
    return noted.state, noted.batch_id


async def only(sdk: SectigoClient, order: Order, **more: float) -> Reconciliation:
    (result,) = await sdk.batches.reconcile([order], **more)  # type: ignore[arg-type]
    return result


async def test_a_lost_order_is_found_by_its_unique_name(sdk: SectigoClient, sandbox: Sandbox) -> None:
    before = await create(sdk, 1)
    strike(sandbox, lose(CREATE))
    order = await ambiguous_create(sdk)
    assert (order.after, order.unique_name, order.state) == (before, True, OrderState.UNKNOWN)

    (result,) = await sdk.batches.reconcile()

    assert result.batch is not None
    assert (result.order.state, result.batch.batch_name) == (OrderState.ORDERED, order.batch_name)
    assert await state_of(sdk, order) == (OrderState.ORDERED, result.batch.batch_id)
    assert await sdk.batches.reconcile() == (), "nothing is left to look for"
    assert (await only(sdk, order)).order.batch_id == result.batch.batch_id, "and it is known from now on"
    assert sandbox.stats()["orders"] == 2


async def test_the_very_first_order_is_found(sdk: SectigoClient, sandbox: Sandbox) -> None:
    strike(sandbox, lose(CREATE))
    order = await ambiguous_create(sdk)
    assert order.after == 0

    assert (await only(sdk, order)).order.batch_id == 24


async def test_a_name_of_ones_own_is_found_and_said_to_be_one(sdk: SectigoClient, sandbox: Sandbox) -> None:
    strike(sandbox, lose(CREATE))
    order = await ambiguous_create(sdk, name="fleet")

    result = await only(sdk, order)

    assert result.order.state is OrderState.ORDERED
    assert "was given and may not be unique" in result.reason


async def test_a_name_that_two_batches_have_is_for_a_person(sdk: SectigoClient, sandbox: Sandbox) -> None:
    strike(sandbox, FaultRule(route=CREATE, fault=Fault.LOST_REPLY, times=2))
    orders = [await ambiguous_create(sdk, 1, name="fleet"), await ambiguous_create(sdk, 2, name="fleet")]

    results = await sdk.batches.reconcile()

    assert [result.order.order_id for result in results] == [order.order_id for order in orders]
    for result in results:
        assert (result.order.state, len(result.candidates)) == (OrderState.UNKNOWN, 2)
        assert "only a person can tell" in result.reason


async def test_a_batch_is_not_found_for_two_orders(sdk: SectigoClient, sandbox: Sandbox) -> None:
    strike(sandbox, lose(CREATE), refuse(CREATE))
    for number in range(2):
        await ambiguous_create(sdk, number, name="fleet")

    results = await sdk.batches.reconcile()

    assert [result.order.state for result in results] == [OrderState.UNKNOWN] * 2
    assert all("fits more than one order" in result.reason for result in results)


async def test_a_batch_of_another_order_is_not_taken_for_it(sdk: SectigoClient, sandbox: Sandbox) -> None:
    strike(sandbox, refuse(CREATE))
    order = await ambiguous_create(sdk, name="fleet")
    await create(sdk, 8, name="fleet")

    assert (await only(sdk, order)).order.state is OrderState.UNKNOWN


async def test_an_upload_is_found_by_its_public_keys(sdk: SectigoClient, sandbox: Sandbox, clock: FakeClock) -> None:
    other = await ambiguous_upload_by_somebody_else(sdk, sandbox)
    strike(sandbox, lose(UPLOAD))
    order = await ambiguous_upload(sdk, "gw1.example.com", "gw2.example.com")

    early = await only(sdk, order)
    assert early.order.state is OrderState.UNKNOWN
    assert "cannot be compared" in early.reason
    clock.advance(5)
    result = await only(sdk, order)

    assert result.batch is not None
    assert result.batch.batch_id > other
    assert result.order.state is OrderState.ORDERED
    assert "public keys" in result.reason


async def ambiguous_upload_by_somebody_else(sdk: SectigoClient, sandbox: Sandbox) -> int:
    """Order as another machine of the same account does: this journal knows nothing of it."""
    async with SectigoClient(
        endpoint="http://127.0.0.1",
        transport=SandboxTransport(sandbox),
        clock=sdk._clock,
        username="demo",
        password="demo-password",
    ) as stranger:
        return await upload(stranger, "gw1.example.com", "gw2.example.com")


async def test_an_upload_of_which_some_failed_is_found(
    sdk: SectigoClient, sandbox: Sandbox, clock: FakeClock
) -> None:
    strike(sandbox, lose(UPLOAD))
    order = await ambiguous_upload(sdk, "gw1.example.com", "rejected.example.com")
    clock.advance(5)

    assert (await only(sdk, order)).order.state is OrderState.ORDERED


async def test_an_upload_that_failed_holds_nothing_to_compare(
    sdk: SectigoClient, sandbox: Sandbox, clock: FakeClock
) -> None:
    strike(sandbox, lose(UPLOAD))
    order = await ambiguous_upload(sdk, "rejected.example.com")
    clock.advance(5)

    result = await only(sdk, order)

    assert (result.order.state, [one.batch_id for one in result.candidates]) == (OrderState.UNKNOWN, [24])


async def test_not_ordered_is_concluded_after_the_settle_time_and_a_later_order(
    sdk: SectigoClient, sandbox: Sandbox, clock: FakeClock
) -> None:
    await create(sdk, 1)
    strike(sandbox, refuse(CREATE))
    order = await ambiguous_create(sdk)

    assert "look again after" in (await only(sdk, order)).reason
    clock.advance(3600)
    assert "sent after the settle time" in (await only(sdk, order)).reason
    clock.advance(30 * 86_400)
    assert (await only(sdk, order)).order.state is OrderState.UNKNOWN, "time alone proves nothing"
    later = await create(sdk, 2)
    result = await only(sdk, order)

    assert result.order.state is OrderState.NOT_ORDERED
    assert str(later) in result.reason
    assert await state_of(sdk, order) == (OrderState.NOT_ORDERED, None)


async def test_a_later_order_proves_nothing_before_the_settle_time(
    sdk: SectigoClient, sandbox: Sandbox, clock: FakeClock
) -> None:
    await create(sdk, 1)
    strike(sandbox, FaultRule(route=CREATE, fault=Fault.LATE_COMMIT, seconds=300, times=1))
    order = await ambiguous_create(sdk)
    clock.advance(60)
    await create(sdk, 2)

    assert (await only(sdk, order)).order.state is OrderState.UNKNOWN
    clock.advance(300)
    result = await only(sdk, order)

    assert result.order.state is OrderState.ORDERED
    assert sandbox.stats()["orders_by_name"][order.batch_name] == 1


async def test_a_later_batch_that_does_not_show_proves_nothing(
    sdk: SectigoClient, sandbox: Sandbox, clock: FakeClock
) -> None:
    await create(sdk, 1)
    strike(sandbox, refuse(CREATE))
    order = await ambiguous_create(sdk)
    clock.advance(1000)
    later = await create(sdk, 2)
    strike(sandbox, FaultRule(route=DETAIL, fault=Fault.LAG, seconds=60))

    assert f"the later batch {later} does not show" in (await only(sdk, order)).reason


async def test_a_request_that_ran_after_a_later_order_is_not_missed(
    sdk: SectigoClient, sandbox: Sandbox, clock: FakeClock
) -> None:
    """It has the higher id of the two. Where that cannot be read, the lower one proves nothing."""
    await create(sdk, 1)
    strike(sandbox, FaultRule(route=CREATE, fault=Fault.LATE_COMMIT, seconds=300, times=1))
    order = await ambiguous_create(sdk)
    clock.advance(10)
    between = await create(sdk, 2)
    clock.advance(1000)
    await sdk.licenses.get()
    looked = sandbox.ledger.batch

    def blind(batch_id: int, now: float) -> Batch:
        if batch_id > between:
            raise ServiceError(500, "nothing to see")
        return looked(batch_id, now)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sandbox.ledger, "batch", blind)
        assert (await only(sdk, order)).order.state is OrderState.UNKNOWN

    assert (await only(sdk, order)).order.state is OrderState.ORDERED


async def test_a_unique_name_is_enough(sdk: SectigoClient, sandbox: Sandbox) -> None:
    """Whatever else the service says of the batch."""
    strike(sandbox, lose(CREATE))
    order = await ambiguous_create(sdk)

    await sdk.batches.decide(order, None)

    assert (await only(sdk, attrs.evolve(order, order_id="other", size=7))).order.state is OrderState.ORDERED


async def test_an_order_is_not_looked_for_without_those_it_may_be_mistaken_for(
    sdk: SectigoClient, sandbox: Sandbox
) -> None:
    strike(sandbox, lose(CREATE), refuse(CREATE))
    order = await ambiguous_create(sdk, 1, name="fleet")
    await ambiguous_create(sdk, 2, name="fleet")

    assert (await only(sdk, order)).order.state is OrderState.UNKNOWN


async def test_who_is_signed_out_is_told_so(sdk: SectigoClient, sandbox: Sandbox) -> None:
    strike(sandbox, lose(CREATE))
    await ambiguous_create(sdk)
    strike(sandbox, FaultRule(route="POST /auth/pwd", fault=Fault.ERROR_BEFORE, status=403))
    sandbox.reset_tokens()

    with pytest.raises(NotAuthorizedError):
        await sdk.batches.reconcile()


async def test_a_service_that_is_down_is_told_of_at_once(sdk: SectigoClient, sandbox: Sandbox) -> None:
    strike(sandbox, lose(CREATE))
    order = await ambiguous_create(sdk)
    strike(sandbox, FaultRule(route=DETAIL, fault=Fault.CUT_BEFORE))

    with pytest.raises(NoReplyError, match="connection broke"):
        await sdk.batches.reconcile()

    assert sandbox.faults.counts[Fault.CUT_BEFORE] <= 10 * 4
    assert await state_of(sdk, order) == (OrderState.UNKNOWN, None)


async def test_an_id_that_cannot_be_read_proves_nothing(
    sdk: SectigoClient, sandbox: Sandbox, clock: FakeClock
) -> None:
    await create(sdk, 1)
    strike(sandbox, lose(CREATE))
    order = await ambiguous_create(sdk)
    clock.advance(1000)
    await create(sdk, 2)
    # Of the ids between, the first is tried four times in vain.
    strike(sandbox, refuse(DETAIL, 4))

    result = await only(sdk, order)

    assert result.order.state is not OrderState.NOT_ORDERED


async def test_a_certificate_of_that_name_and_time_warns(
    sdk: SectigoClient, sandbox: Sandbox, clock: FakeClock
) -> None:
    await create(sdk, 1)
    strike(sandbox, refuse(CREATE))
    order = await ambiguous_create(sdk, 7)
    clock.advance(1000)
    await create(sdk, 7)
    clock.advance(5)

    result = await only(sdk, order)

    assert result.order.state is OrderState.UNKNOWN
    assert "certificate for gateway-7" in result.reason


async def test_the_look_is_bounded(sdk: SectigoClient, sandbox: Sandbox, clock: FakeClock) -> None:
    await create(sdk, 1)
    strike(sandbox, refuse(CREATE))
    order = await ambiguous_create(sdk)
    before = sandbox.counts["polls"]

    await only(sdk, order)
    assert sandbox.counts["polls"] - before <= 120, "it ends where nothing is any more"

    for number in range(20):
        await create(sdk, number)
    clock.advance(1000)
    result = await only(sdk, order, scan=1)
    assert result.order.state is not OrderState.ORDERED


async def test_time_ends_the_look_and_keeps_what_is_known(sdk: SectigoClient, sandbox: Sandbox) -> None:
    strike(sandbox, lose(CREATE))
    order = await ambiguous_create(sdk)

    result = await only(sdk, order, timeout=0)

    assert (result.order.state, "no time" in result.reason) == (OrderState.UNKNOWN, True)


async def test_orders_are_looked_for_together(sdk: SectigoClient, sandbox: Sandbox, clock: FakeClock) -> None:
    strike(sandbox, FaultRule(route=CREATE, fault=Fault.LOST_REPLY), FaultRule(route=UPLOAD, fault=Fault.LOST_REPLY))
    for number in range(10):
        await ambiguous_create(sdk, number)
        await ambiguous_upload(sdk, f"gw{number}.example.com")
    strike(sandbox)
    clock.advance(5)
    before = sandbox.counts["polls"]

    results = await sdk.batches.reconcile()

    assert [result.order.state for result in results] == [OrderState.ORDERED] * 20
    assert len({result.order.batch_id for result in results}) == 20
    assert sandbox.counts["polls"] - before < 250, "one walk serves them all"


async def test_a_person_decides(sdk: SectigoClient, sandbox: Sandbox) -> None:
    strike(sandbox, lose(CREATE), refuse(CREATE))
    first, second = await ambiguous_create(sdk, 1), await ambiguous_create(sdk, 2)

    with pytest.raises(NotFoundError):
        await sdk.batches.decide(first, 4711)
    await sdk.batches.decide(first, 24)
    await sdk.batches.decide(second, None)

    assert await state_of(sdk, first) == (OrderState.ORDERED, 24)
    assert await state_of(sdk, second) == (OrderState.NOT_ORDERED, None)


async def test_refused_orders_are_known_not_to_have_been_placed(sdk: SectigoClient) -> None:
    with pytest.raises(NotFoundError):
        await sdk.batches.create(authority_id=4711, params={})

    (order,) = await sdk.batches.orders()
    assert order.state is OrderState.NOT_ORDERED


async def revocable(sdk: SectigoClient, clock: FakeClock) -> str:
    await create(sdk)
    clock.advance(5)
    return (await sdk.certificates.find(common_name="gateway-7")).items[0].serial_number


async def test_a_revocation_is_looked_up(sdk: SectigoClient, sandbox: Sandbox, clock: FakeClock) -> None:
    serial = await revocable(sdk, clock)
    strike(sandbox, lose(REVOKE))

    await sdk.certificates.revoke(profile_id=117, serial_number=serial)

    assert (await sdk.certificates.find(serial_number=serial)).items[0].status == "REVOKED"


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault.ERROR_BEFORE, RevocationReason.UNSPECIFIED),
        (Fault.LOST_REPLY, RevocationReason.REMOVE_FROM_CRL),
    ],
)
async def test_a_revocation_that_does_not_show_stays_unknown(
    sdk: SectigoClient, sandbox: Sandbox, clock: FakeClock, fault: Fault, reason: RevocationReason
) -> None:
    serial = await revocable(sdk, clock)
    await sdk.certificates.revoke(
        profile_id=117, serial_number=serial, reason=RevocationReason.CERTIFICATE_HOLD
    ) if reason is RevocationReason.REMOVE_FROM_CRL else None
    strike(sandbox, FaultRule(route=REVOKE, fault=fault, times=1))

    with pytest.raises(OutcomeUnknownError) as caught:
        await sdk.certificates.revoke(profile_id=117, serial_number=serial, reason=reason)

    assert caught.value.serial_number == serial
    assert "search for its serial number" in caught.value.hint


async def test_a_journal_in_memory_forgets_only_what_is_settled(sdk: SectigoClient, sandbox: Sandbox) -> None:
    strike(sandbox, lose(CREATE))
    order = await ambiguous_create(sdk)
    journal = MemoryJournal()
    await journal.write(order)
    for number in range(10_010):
        await journal.write(Order(kind=order.kind, profile_id=1, sent_at=order.sent_at).placed(number))

    orders = await journal.orders()

    assert len(orders) == 10_001
    assert orders[0] == order
    assert await journal.highest() == 10_009


async def test_all_is_looked_at_only_by_a_look_that_began_when_the_order_had_settled(
    sdk: SectigoClient, sandbox: Sandbox, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await create(sdk, 1)
    late = FaultRule(route=CREATE, fault=Fault.LATE_COMMIT, times=1, seconds=890)
    strike(sandbox, late, FaultRule(route=FIND, fault=Fault.LAG, seconds=1000))
    order = await ambiguous_create(sdk)
    clock.advance(880)
    look = Batches.get

    async def slowly(batches: Batches, batch_id: int, **more: float) -> sectigo_async.Batch:
        clock.advance(1 if batch_id > order.after + 20 else 0)
        return await look(batches, batch_id, **more)

    monkeypatch.setattr(Batches, "get", slowly)
    result = await only(sdk, order)
    assert clock.time() > order.sent_at.timestamp() + 900
    assert (result.order.state, result.exhausted) == (OrderState.UNKNOWN, False), "it ran after its id was looked at"
    monkeypatch.undo()

    assert (await only(sdk, order)).order.state is OrderState.ORDERED


async def test_of_an_order_that_never_ran_all_is_looked_at_once_it_has_settled(
    sdk: SectigoClient, sandbox: Sandbox, clock: FakeClock
) -> None:
    await create(sdk, 1)
    strike(sandbox, refuse(CREATE))
    order = await ambiguous_create(sdk)
    assert not (await only(sdk, order)).exhausted
    clock.advance(900)

    result = await only(sdk, order)

    assert (result.order.state, result.exhausted) == (OrderState.UNKNOWN, True)
    assert not (await only(sdk, order, scan=50)).exhausted, "there may be something beyond"
    strike(sandbox, refuse(DETAIL, times=None))
    assert not (await only(sdk, order)).exhausted, "what could not be read may be it"


async def test_an_order_of_which_only_the_devices_are_left_is_known_by_its_key(
    sdk: SectigoClient, sandbox: Sandbox, clock: FakeClock
) -> None:
    strike(sandbox, lose(UPLOAD))
    lost = await ambiguous_upload(sdk, "one.example.com", "two.example.com")
    await clock.sleep(60)
    order = Order(
        kind=OrderKind.UPLOAD,
        profile_id=42,
        size=0,
        common_names=("one.example.com",),
        key_sha256=frozenset(sorted(lost.key_sha256)[:1]),
        sent_at=lost.sent_at,
        after=1,
    )

    (result,) = await sdk.batches.under(MemoryJournal()).reconcile([order])

    assert (result.order.state, result.order.batch_id) == (OrderState.ORDERED, 24)


async def test_one_of_which_only_half_a_name_is_left_is_for_a_person(sdk: SectigoClient, sandbox: Sandbox) -> None:
    """Another device may have a name that begins alike."""
    strike(sandbox, lose(CREATE))
    lost = await ambiguous_create(sdk, 7)
    order = Order(
        kind=OrderKind.CREATE,
        profile_id=117,
        batch_name="gateway-7",
        size=0,
        common_names=("gateway-7",),
        sent_at=lost.sent_at,
        after=1,
    )

    (result,) = await sdk.batches.under(MemoryJournal()).reconcile([order])

    assert (result.order.state, [one.batch_id for one in result.candidates]) == (OrderState.UNKNOWN, [24])
    assert "name begins alike: only a person can tell" in result.reason
    assert order.subject == 'batch "gateway-7"'


async def test_a_batch_that_cannot_be_the_orders_is_refused(sdk: SectigoClient, sandbox: Sandbox) -> None:
    before = await create(sdk, 0)
    strike(sandbox, lose(CREATE), lose(UPLOAD))
    named = await ambiguous_create(sdk)
    keyed = await ambiguous_upload(sdk, "mine.example.com")
    known = await create(sdk, 1)
    strangers = sdk.batches.under(MemoryJournal())
    other = (await strangers.create(authority_id=117, params=params(2))).batch_id
    request = make_csr(generate_key(), "foreign.example.com")
    foreign = (await strangers.upload(profile_id=42, requests=request)).batch_id
    for batch_id in (other, foreign):
        await sdk.batches.wait(batch_id)
    part = attrs.evolve(named, size=0, unique_name=False, batch_name="gateway-7")

    for order, batch_id, words in (
        (named, before, "it is older"),
        (named, known, "it is that of order"),
        (named, other, "its name is"),
        (part, other, "its name is"),
        (keyed, other, "made by the service"),
        (keyed, foreign, "for other keys"),
        (attrs.evolve(keyed, size=2), foreign, "for 1 certificates"),
    ):
        with pytest.raises(InvalidArgumentError, match=words):
            await sdk.batches.decide(order, batch_id)

    assert [order.state for order in await sdk.batches.orders()].count(OrderState.UNKNOWN) == 2
