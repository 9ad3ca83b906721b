"""What every ledger of bulk runs must do, as tests to inherit."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from typing import ClassVar, TypeVar

import attrs

from sectigo_async.errors import LedgerError
from sectigo_async.issuance import Device, DeviceState, Entry, Keys, Ledger, Outcome, Run
from sectigo_async.models import Order, OrderKind

T = TypeVar("T")

_SENT = datetime(2026, 3, 1, 12, tzinfo=UTC)
_UNTIL = datetime(2027, 3, 1, 12, 30, 15, tzinfo=UTC)
_DONE = Outcome(state=DeviceState.DONE, serial_number="AB12", not_after=_UNTIL)

S = DeviceState


def _device(name: str, **more: object) -> Device:
    given: dict[str, object] = {"key": name.casefold(), "name": name, "common_name": name, "line": 2} | more
    return Device(**given)  # type: ignore[arg-type]


def _order(number: int, **more: object) -> Order:
    given: dict[str, object] = {
        "order_id": f"order-{number}",
        "kind": OrderKind.UPLOAD,
        "profile_id": 42,
        "common_names": ("a",),
        "key_sha256": frozenset({f"{number:064x}"}),
        "sent_at": _SENT + timedelta(seconds=number),
        "after": 23,
    }
    return Order(**given | more)  # type: ignore[arg-type]


async def _refused(change: Awaitable[object]) -> None:
    try:
        await change
    except LedgerError:
        return
    raise AssertionError("a change that nobody may make was made")


async def _states(ledger: Ledger) -> dict[str, DeviceState]:
    return {entry.device.key: entry.state for entry in await ledger.entries()}


class LedgerContract:
    """Tests for a `Ledger` of your own.

    Inherit from it in a class that your test runner collects, and say how the ledger is opened:

    ```python
    class TestOtherLedger(LedgerContract):
        def open_ledger(self) -> AbstractAsyncContextManager[Ledger]:
            return OtherLedger.open(..., self.run)
    ```

    Each test gets a new instance of that class and expects a ledger in which nothing stands. The tests are plain
    functions, so that any plugin for asyncio may run beside them.

    Attributes:
        run: what the ledger is of.
    """

    run: ClassVar[Run] = Run(endpoint="https://iot.sectigo.com", username="ops", profile_id=42, keys=Keys.LOCAL)

    def open_ledger(self) -> AbstractAsyncContextManager[Ledger]:
        """Open the ledger to test, each time the same; one has been closed before the next is opened."""
        raise NotImplementedError

    def do(self, work: Callable[[Ledger], Awaitable[T]]) -> T:
        """Open the ledger, do something with it, and close it."""

        async def inside() -> T:
            async with self.open_ledger() as ledger:
                return await work(ledger)

        return asyncio.run(inside())

    def test_a_new_one_is_empty(self) -> None:
        """Nothing stands in it, every state is counted, and it knows its run."""

        async def work(ledger: Ledger) -> None:
            assert ledger.run == self.run
            assert await ledger.entries() == ()
            assert await ledger.orders() == ()
            assert await ledger.counts() == dict.fromkeys(DeviceState, 0)
            assert await ledger.devices_of_orders() == {}
            assert await ledger.of_batch(77) == ()
            assert await ledger.highest() >= 0
            await ledger.amend()
            await ledger.refuse({})
            await ledger.finish({})
            await ledger.retry([])

        self.do(work)

    def test_devices_are_kept_as_they_are_in_the_order_of_the_list(self) -> None:
        """Every text comes back unchanged, after it was opened anew, and what is added later comes last."""
        texts = ["Grüße", "日本 🔑", 'z\' "quoted" \\ %s ?', "a", "-- ; DROP", "e\u0301", "x" * 5000]
        devices = [
            _device(
                text,
                dns_names=(f"{number}.example.com", "*.example.com"),
                parameters={"organizationName": text, text[:20]: "value", "leer": ""},
                csr=f"csrs/{text[:20]}.pem" if number % 2 else None,
                request="-----BEGIN" if number % 2 else "",
                line=number,
            )
            for number, text in enumerate(texts)
        ]
        late = _device("0 comes last", line=1)
        self.do(lambda ledger: ledger.amend(new=iter(devices)))
        self.do(lambda ledger: ledger.amend(new=[late]))

        found = self.do(lambda ledger: ledger.entries())

        assert [entry.device for entry in found] == [*devices, late]
        assert {entry.state for entry in found} == {S.PLANNED}
        assert all(entry.updated.utcoffset() is not None for entry in found)
        assert self.do(lambda ledger: ledger.entries({S.PLANNED})) == found
        assert self.do(lambda ledger: ledger.entries(())) == ()
        assert self.do(lambda ledger: ledger.entries({S.DONE, S.FAILED})) == ()

    def test_from_the_list_to_the_certificate(self) -> None:
        """Devices follow their order, and keep what came of it; each step is there when it is opened anew."""

        async def plan(ledger: Ledger) -> None:
            await ledger.amend(new=map(_device, "abc"))
            await ledger.intend(_order(1), ["a", "b"])

        async def intended(ledger: Ledger) -> None:
            assert await _states(ledger) == {"a": S.UNKNOWN, "b": S.UNKNOWN, "c": S.PLANNED}
            assert await ledger.orders() == (_order(1),)
            assert await ledger.devices_of_orders() == {"order-1": ("a", "b")}
            assert [one.order_id for one in await ledger.entries()] == ["order-1", "order-1", ""]
            await ledger.write(_order(1).placed(77))

        async def ordered(ledger: Ledger) -> None:
            assert await _states(ledger) == {"a": S.ORDERED, "b": S.ORDERED, "c": S.PLANNED}
            assert await ledger.orders() == (_order(1).placed(77),)
            assert await ledger.highest() == _order(1).placed(77).batch_id
            assert [(one.device.key, one.batch_id) for one in await ledger.of_batch(77)] == [
                ("a", 77),
                ("b", 77),
            ]
            bad = Outcome(state=S.VERIFY_FAILED, error="wrong: ä", warning="odd: ö", serial_number="CD")
            await ledger.finish({"a": _DONE, "b": Outcome(state=S.VERIFY_FAILED, error="looked at once")})
            await ledger.finish({"b": bad})

        async def finished(ledger: Ledger) -> None:
            a, b, _ = await ledger.entries()
            assert (a.state, a.serial_number, a.not_after, a.error) == (S.DONE, "AB12", _UNTIL, "")
            assert (b.state, b.error, b.warning, b.serial_number) == (S.VERIFY_FAILED, "wrong: ä", "odd: ö", "CD")
            assert (b.not_after, b.batch_id, b.order_id) == (None, 77, "order-1")
            expected = {S.DONE: 1, S.VERIFY_FAILED: 1, S.PLANNED: 1}
            assert await ledger.counts() == dict.fromkeys(DeviceState, 0) | expected

        for work in (plan, intended, ordered, finished):
            self.do(work)

    def test_what_was_ordered_without_it_can_be_taken_in(self) -> None:
        """New devices come with their order: as it is, or with what became of them; whole or not at all."""
        unknown = Order(
            order_id="order-2",
            kind=OrderKind.CREATE,
            profile_id=42,
            batch_name="c",
            size=0,
            common_names=("c",),
            sent_at=_SENT,
            after=23,
        )

        async def take(ledger: Ledger) -> None:
            await ledger.adopt(_order(1).placed(77), [_device("a"), _device("b")], {"b": _DONE})
            await ledger.adopt(unknown, [_device("c")])

        async def look(ledger: Ledger) -> None:
            assert await _states(ledger) == {"a": S.ORDERED, "b": S.DONE, "c": S.UNKNOWN}
            assert await ledger.orders() == (_order(1).placed(77), unknown)
            assert await ledger.devices_of_orders() == {"order-1": ("a", "b"), "order-2": ("c",)}
            a, b, c = await ledger.entries()
            assert (a.batch_id, a.serial_number, a.order_id) == (77, "", "order-1")
            assert (b.batch_id, b.serial_number, b.not_after) == (77, "AB12", _UNTIL)
            assert (c.batch_id, c.order_id) == (None, "order-2")
            before = await ledger.entries()
            for order, device in ((_order(3), "a"), (_order(1), "d")):
                await _refused(ledger.adopt(order, [_device("x"), _device(device)]))
                assert await ledger.entries() == before
            await ledger.finish({"a": _DONE})
            await ledger.amend(new=[_device("d"), _device("e")])
            await ledger.adopt(_order(3, size=0).placed(77), [_device("d")])
            await ledger.write(unknown.placed(77))
            assert [one.device.key for one in await ledger.of_batch(77)] == ["a", "b", "c", "d"]
            assert await _states(ledger) == {"a": S.DONE, "b": S.DONE, "c": S.ORDERED, "d": S.ORDERED, "e": S.PLANNED}

        self.do(take)
        self.do(look)

    def test_an_order_that_was_not_placed_frees_its_devices(self) -> None:
        """They can be ordered again, and both orders are remembered."""

        async def work(ledger: Ledger) -> None:
            await ledger.amend(new=map(_device, "ab"))
            await ledger.intend(_order(1), ["a", "b"])
            await ledger.write(_order(1).not_placed())
            assert await _states(ledger) == {"a": S.PLANNED, "b": S.PLANNED}
            assert [one.order_id for one in await ledger.entries()] == ["", ""]
            await ledger.intend(_order(2), ["b"])
            await ledger.write(_order(1).not_placed())
            assert await _states(ledger) == {"a": S.PLANNED, "b": S.UNKNOWN}

        self.do(work)
        assert self.do(lambda ledger: ledger.orders()) == (_order(1).not_placed(), _order(2))
        assert self.do(lambda ledger: ledger.devices_of_orders()) == {"order-1": ("a", "b"), "order-2": ("b",)}

    def test_an_intent_is_whole_or_not_at_all(self) -> None:
        """With one device that is not planned, or not there, or twice in it, nothing changes."""

        async def work(ledger: Ledger) -> None:
            await ledger.amend(new=map(_device, "abcd"))
            await ledger.intend(_order(1), ["b"])
            await ledger.refuse({"d": "no"})
            before = await ledger.entries()
            for keys in (["a", "b"], ["a", "nobody"], ["a", "d", "c"], ["a", "a"]):
                await _refused(ledger.intend(_order(2), keys))
                assert await ledger.entries() == before
            assert await ledger.orders() == (_order(1),)
            await _refused(ledger.intend(_order(1), ["a"]))
            assert await ledger.entries() == before
            assert await ledger.devices_of_orders() == {"order-1": ("b",)}

        self.do(work)

    def test_every_other_change_is_whole_or_not_at_all(self) -> None:
        """One device in a state that does not allow it, and the others stay as they are, too."""

        async def work(ledger: Ledger) -> None:
            await ledger.amend(new=map(_device, "abcde"))
            await ledger.intend(_order(1), ["a", "b"])
            await ledger.write(_order(1).placed(30))
            await ledger.refuse({"d": "no"})
            before = await ledger.entries()
            changes: list[Callable[[], Awaitable[object]]] = [
                lambda: ledger.amend(new=[_device("x"), _device("c")]),
                lambda: ledger.amend(new=[_device("x"), _device("x")]),
                lambda: ledger.amend(new=[_device("x")], changed=[_device("c", line=9), _device("a")]),
                lambda: ledger.amend(changed=[_device("c", line=9), _device("nobody")]),
                lambda: ledger.refuse({"c": "no", "d": "again"}),
                lambda: ledger.refuse({"c": "no", "a": "too late"}),
                lambda: ledger.finish({"a": _DONE, "c": _DONE}),
                lambda: ledger.finish({"a": _DONE, "nobody": _DONE}),
                lambda: ledger.retry(["d", "c"]),
                lambda: ledger.retry(["d", "a"]),
            ]
            for change in changes:
                await _refused(change())
                assert await ledger.entries() == before
            await ledger.finish({"a": _DONE, "b": Outcome(state=S.FAILED, error="no")})
            await _refused(ledger.finish({"a": _DONE}))
            await _refused(ledger.amend(changed=[_device("a", line=9)]))

        self.do(work)

    def test_what_failed_can_be_tried_again_or_changed(self) -> None:
        """Either way it is as new: nothing of what went wrong is left."""

        async def work(ledger: Ledger) -> None:
            await ledger.amend(new=map(_device, "abc"))
            await ledger.intend(_order(1), ["a", "b"])
            await ledger.write(_order(1).placed(30))
            bad = Outcome(state=S.FAILED, error="e", warning="w", serial_number="1", not_after=_UNTIL)
            await ledger.finish({"a": bad, "b": bad})
            await ledger.refuse({"c": "never"})
            assert {entry.error for entry in await ledger.entries()} == {"e", "never"}
            await ledger.retry(["a", "c"])
            changed = _device("b", dns_names=("other.example.com",))
            await ledger.amend(changed=[changed])
            found = await ledger.entries()
            assert [entry.device for entry in found] == [_device("a"), changed, _device("c")]
            fresh = Entry(device=_device("a"), updated=found[0].updated)
            for entry in found:
                assert attrs.evolve(entry, device=fresh.device, updated=fresh.updated) == fresh
            await ledger.intend(_order(2), ["a", "b", "c"])

        self.do(work)

    def test_what_became_of_an_order_is_said_once(self) -> None:
        """The same again changes nothing; anything else is refused, and so is a batch for two orders."""

        async def work(ledger: Ledger) -> None:
            await ledger.amend(new=map(_device, "abc"))
            for number, key in enumerate("abc", start=1):
                await ledger.intend(_order(number), [key])
            await ledger.write(_order(1).placed(30))
            await ledger.write(_order(2).not_placed())
            before = await ledger.entries()
            await ledger.write(_order(1).placed(30))
            await ledger.write(_order(2).not_placed())
            await ledger.write(_order(3))
            for conflict in (
                _order(1).placed(31),
                _order(1).not_placed(),
                _order(1),
                _order(2).placed(32),
                _order(2),
                _order(3).placed(30),
            ):
                await _refused(ledger.write(conflict))
            assert await ledger.entries() == before
            assert await ledger.orders() == (_order(1).placed(30), _order(2).not_placed(), _order(3))
            await ledger.finish({"a": _DONE})
            await ledger.write(_order(1).placed(30))
            assert (await _states(ledger))["a"] is S.DONE

        self.do(work)

    def test_orders_of_others_are_kept_beside(self) -> None:
        """As a journal it takes orders that are for none of its devices, in the order in which they were sent."""

        async def work(ledger: Ledger) -> None:
            orders = [_order(number, kind=OrderKind.CREATE, batch_name=f"b-{number}-ü") for number in range(12)]
            for order in orders:
                await ledger.write(order)
            await ledger.write(orders[3].placed(90))
            await ledger.write(orders[5].placed(80))
            orders[3], orders[5] = orders[3].placed(90), orders[5].placed(80)
            assert await ledger.orders() == tuple(orders)
            assert await ledger.highest() == orders[3].batch_id
            assert (await ledger.devices_of_orders()).get("order-3", ()) == ()
            assert await ledger.entries() == ()

        self.do(work)

    def test_many_tasks_at_once(self) -> None:
        """Of 200 that write at once each gets its own; of those that want the same, one."""

        async def work(ledger: Ledger) -> None:
            keys = [f"gw{number}" for number in range(100)]
            await ledger.amend(new=map(_device, keys))

            async def order(number: int) -> bool:
                try:
                    await ledger.intend(_order(number), [keys[number % 100]])
                except LedgerError:
                    return False
                await ledger.write(_order(number).placed(1000 + number))
                return True

            won = await asyncio.gather(*(order(number) for number in range(200)))
            assert won.count(True) == len(keys)
            assert all(won[number] != won[number + 100] for number in range(100))
            assert set((await _states(ledger)).values()) == {S.ORDERED}
            assert _of_devices(await ledger.devices_of_orders()) == sorted(keys)
            await asyncio.gather(*(ledger.finish({key: _DONE}) for key in keys))

        self.do(work)
        counts, orders = self.do(lambda ledger: ledger.counts()), self.do(lambda ledger: ledger.orders())
        assert counts[S.DONE] == len(orders) == sum(counts.values())

    def test_a_writer_that_is_cancelled_leaves_all_or_nothing(self) -> None:
        """Whenever it is cancelled, the order and its devices agree."""

        async def work(ledger: Ledger) -> None:
            for steps in range(6):
                key = f"gw{steps}"
                await ledger.amend(new=[_device(key)])
                writing = asyncio.ensure_future(ledger.intend(_order(steps), [key]))
                for _ in range(steps):
                    await asyncio.sleep(0)
                writing.cancel()
                await asyncio.wait([writing])

        self.do(work)

        async def look(ledger: Ledger) -> None:
            written = {order.order_id for order in await ledger.orders()}
            for entry in await ledger.entries():
                steps = entry.device.key.removeprefix("gw")
                assert (entry.state is S.UNKNOWN) == (f"order-{steps}" in written)

        self.do(look)


def _of_devices(found: dict[str, tuple[str, ...]]) -> list[str]:
    together: Iterable[tuple[str, ...]] = found.values()
    return sorted(key for keys in together for key in keys)
