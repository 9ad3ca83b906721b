"""A chunk of a fleet's ledger is one worker's, for as long as its session and the list stay as they are."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import attrs
import psycopg
import pytest

from sectigo_async.errors import LedgerError, LedgerInUseError
from sectigo_async.fleet import PostgresLedger, read_fleet
from sectigo_async.fleet.share import close, halt, outlook
from sectigo_async.issuance import DeviceState, Keys, Options, Outcome, Plan
from tests.fleet.helpers import Fleet, device, end, named, order
from tests.fleet.postgres import Postgres

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(120)]

PATIENCE = 20.0
UNSTORABLE = "no\0, \ud800 and \udfff"
STORED = "no\ufffd, ? and ?"

S = DeviceState


@pytest.fixture
def fleet(database: str, tmp_path: Path) -> Fleet:
    return Fleet(database, tmp_path)


async def test_a_chunk_is_given_to_one(fleet: Fleet) -> None:
    await fleet.put_in(*named(60), options=Options(batch_size=30))

    async with fleet.chunks(1, 2):
        for taken in (1, 2):
            with pytest.raises(LedgerInUseError, match=f"another worker has chunk {taken}"):
                async with fleet.chunks(taken):
                    pass
        async with fleet.whole():  # A list may be put in meanwhile.
            with pytest.raises(LedgerInUseError, match="somebody else is putting a list into"):
                async with fleet.whole():
                    pass
    async with fleet.chunks(1, 2):
        pass


async def test_there_is_no_chunk_before_there_is_a_list(fleet: Fleet) -> None:
    with pytest.raises(LedgerError, match="nothing stands in the ledger yet"):
        async with fleet.chunks(1):
            pass


async def test_who_has_released_the_ledger_only_reads(fleet: Fleet) -> None:
    async with fleet.whole() as first:
        await first.amend(new=[device("a")])
        await first.release()
        async with fleet.whole() as second:
            await second.amend(new=[device("b")])
        assert [entry.device.key for entry in await first.entries()] == ["a", "b"]


WRITES: list[Callable[[PostgresLedger], Awaitable[object]]] = [
    lambda ledger: ledger.intend(order(9), ["b"]),
    lambda ledger: ledger.write(order(1).placed(77)),
    lambda ledger: ledger.write(order(1).not_placed()),
    lambda ledger: ledger.refuse({"b": "no"}),
    lambda ledger: ledger.amend(new=[device("x")]),
    lambda ledger: ledger.adopt(order(9).placed(78), [device("x")]),
    lambda ledger: ledger.work(lambda connection: halt(connection, "no")),
    lambda ledger: ledger.work(lambda connection: close(connection, 1, 1)),
]


async def test_with_the_session_the_lock_is_gone_and_who_had_it_writes_nothing(
    fleet: Fleet, postgres: Postgres
) -> None:
    await fleet.put_in(device("a"), device("b"))
    async with fleet.chunks(1) as (frozen,):
        await frozen.intend(order(1), ["a"])
        before = await fleet.everything()
        postgres.kill_sessions(fleet.url.rpartition("/")[2])

        async with fleet.chunks(1) as (successor,):
            for write in WRITES:
                with pytest.raises(LedgerError, match="cannot use the ledger"):
                    await write(frozen)
            assert await fleet.everything() == before
            await successor.write(order(1).placed(77))
            await successor.intend(order(2), ["b"])


async def test_what_is_cut_off_half_way_was_never_written(fleet: Fleet, postgres: Postgres) -> None:
    await fleet.put_in(device("a"), device("b"))
    before = await fleet.everything()

    async def half(connection: psycopg.AsyncConnection[Any]) -> None:
        await connection.execute("UPDATE sectigo_devices SET state = 'outcome unknown'")
        postgres.kill_sessions(fleet.url.rpartition("/")[2])
        await connection.execute("SELECT 1")

    async with fleet.chunks(1) as (ledger,):
        with pytest.raises(LedgerError):
            await ledger.work(half)

    assert await fleet.everything() == before


async def test_who_is_cancelled_in_the_middle_has_written_all_the_same(fleet: Fleet) -> None:
    await fleet.put_in(device("a"))
    async with fleet.chunks(1) as (ledger,):
        writing = asyncio.create_task(ledger.intend(order(1), ["a"]))
        await asyncio.sleep(0)
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing

    assert await fleet.rows("SELECT order_id, devices FROM sectigo_orders") == [("order-1", ["a"])]


async def change(fleet: Fleet) -> None:
    await fleet.put_in(device("a", dns_names=("other.example.com",)), device("b"))


async def retry(fleet: Fleet) -> None:
    async with fleet.whole() as ledger:
        await ledger.refuse({"a": "the service did not like it"})
    await fleet.put_in(device("a"), device("b"), retry=True)


async def leave_out(fleet: Fleet) -> None:
    await fleet.put_in(device("b"))


async def take_in(fleet: Fleet) -> None:
    async with fleet.whole() as ledger:
        await ledger.adopt(order(7).placed(70), [device("a")])


@pytest.mark.parametrize(
    ("meanwhile", "said"),
    [
        (change, "was changed meanwhile"),
        (retry, "was changed meanwhile"),
        (leave_out, "is not in the list any more: nothing was changed"),
        (take_in, "was changed meanwhile"),
    ],
)
async def test_a_device_that_became_another_is_not_ordered_by_who_has_its_chunk(
    fleet: Fleet, meanwhile: Callable[[Fleet], Awaitable[None]], said: str
) -> None:
    await fleet.put_in(device("a"), device("b"))
    async with fleet.chunks(1) as (worker,):
        planned = await worker.entries({S.PLANNED})
        await meanwhile(fleet)
        before = await fleet.everything()

        for keys in (["a"], ["b", "a"], ["a", "b"]):
            with pytest.raises(LedgerError, match=f"^device a {said}"):
                await worker.intend(order(1), keys)
        assert await fleet.everything() == before
        assert [entry.device.key for entry in planned] == ["a", "b"]
        assert [entry.device.key for entry in await worker.entries()] == ["b"]
        await worker.intend(order(1), ["b"])


@pytest.mark.parametrize("meanwhile", [change, retry])
async def test_a_device_that_became_another_is_given_to_another_chunk(
    fleet: Fleet, meanwhile: Callable[[Fleet], Awaitable[None]]
) -> None:
    await fleet.put_in(device("a"), device("b"))
    async with fleet.chunks(1):
        await meanwhile(fleet)
        assert await fleet.cut() == [["b"], ["a"]]

        async with fleet.chunks(2) as (another,):
            await another.intend(order(1), ["a"])


async def test_a_device_that_is_listed_again_is_ordered_again(fleet: Fleet) -> None:
    await fleet.put_in(device("a"), device("b"))
    await leave_out(fleet)
    await fleet.put_in(device("a"), device("b"))

    async with fleet.chunks(1) as (worker,):
        await worker.intend(order(1), ["a", "b"])


@pytest.mark.parametrize("meanwhile", [change, leave_out])
async def test_what_a_worker_was_about_to_order_is_ordered_whatever_the_list_says_later(
    fleet: Fleet, meanwhile: Callable[[Fleet], Awaitable[None]]
) -> None:
    await fleet.put_in(device("a"), device("b"))
    async with fleet.chunks(1) as (worker,):
        await worker.intend(order(1), ["a"])
        await meanwhile(fleet)
        await worker.write(order(1).placed(77))
        await worker.finish({"a": Outcome(state=S.DONE)})
        states = {entry.device.key: entry.state for entry in await worker.entries()}

    assert states == {"a": S.DONE, "b": S.PLANNED}


async def test_a_list_that_came_too_late_changes_nothing(fleet: Fleet) -> None:
    await fleet.put_in(device("a"), device("b"))
    async with fleet.chunks(1) as (worker,), fleet.whole() as whole:
        plan = Plan(devices=(device("a", line=9), device("b", line=9)), changed=(device("a", line=9),))
        await worker.intend(order(1), ["a"])
        before = await fleet.everything()

        with pytest.raises(LedgerError, match="device a is outcome unknown: nothing was changed"):
            await whole.amend(changed=plan.changed)
        assert await fleet.everything() == before


async def test_what_a_chunk_is_shown_of_the_orders_of_others(fleet: Fleet) -> None:
    await fleet.put_in(*named(6), options=Options(batch_size=2))
    async with fleet.chunks(1, 2, 3) as (one, two, three):
        await one.intend(order(1, after=30), ["gw0000"])
        await two.intend(order(2, after=30), ["gw0002"])
        await two.write(order(2, after=30).placed(30))
        await two.intend(order(3, after=31), ["gw0003"])
        await two.write(order(3, after=31).placed(40))
        await three.intend(order(4, after=40), ["gw0004"])

        shown = await one.orders()
        assert shown == (order(1, after=30), attrs.evolve(order(3, after=31).placed(40), key_sha256=frozenset()))
        assert await two.orders() == (order(2, after=30).placed(30), order(3, after=31).placed(40))
        assert await three.orders() == (order(4, after=40),)
        await one.write(order(1, after=30).not_placed())
        assert await one.orders() == (order(1, after=30).not_placed(),)
        for ledger in (one, two, three):
            assert await ledger.highest() == 40
        assert await one.devices_of_orders() == {"order-1": ("gw0000",)}


async def test_each_chunk_sees_its_own_devices(fleet: Fleet) -> None:
    await fleet.put_in(*named(4), options=Options(batch_size=2))
    async with fleet.chunks(1, 2) as (one, two):
        await one.intend(order(1), ["gw0000", "gw0001"])
        await one.write(order(1).placed(77))

        assert [entry.device.key for entry in await two.entries()] == ["gw0002", "gw0003"]
        assert (await two.counts())[S.ORDERED] == 0
        assert await two.of_batch(77) == ()
        before = await fleet.everything()
        for write in (
            two.finish({"gw0000": Outcome(state=S.DONE)}),
            two.intend(order(2), ["gw0002", "gw0001"]),
            one.refuse({"gw0003": "no"}),
        ):
            with pytest.raises(LedgerError, match="nothing was changed"):
                await write
        assert await fleet.everything() == before


async def test_words_that_postgresql_cannot_keep_are_kept_as_far_as_they_can_be(fleet: Fleet) -> None:
    await fleet.put_in(device("a"), device("b"), device("c", parameters={"x": "\0\ud800"}))
    async with fleet.chunks(1) as (worker,):
        await worker.refuse({"a": UNSTORABLE})
        await worker.intend(order(1), ["b"])
        await worker.write(order(1).placed(77))
        await worker.finish({"b": Outcome(state=S.FAILED, error=UNSTORABLE, warning=UNSTORABLE)})
        await worker.work(lambda connection: halt(connection, UNSTORABLE))
        a, b, c = await worker.entries()
    async with fleet.whole() as ledger:
        await ledger.adopt(order(2, batch_name=UNSTORABLE).placed(78), [device("d")])
        _, adopted = await ledger.orders()

    assert (a.error, b.error, b.warning) == (STORED, STORED, STORED)
    assert c.device == device("c", parameters={"x": "\0\ud800"})
    assert (await read_fleet(fleet.database)).standing.halted == STORED
    assert adopted.batch_name == STORED


async def test_a_batch_is_that_of_one_order_whoever_claims_it_at_the_same_moment(fleet: Fleet) -> None:
    await fleet.put_in(*named(4), options=Options(batch_size=2))
    async with fleet.chunks(1, 2) as (one, two):
        await one.intend(order(1), ["gw0000"])
        await two.intend(order(2), ["gw0002"])
        async with await psycopg.AsyncConnection.connect(fleet.url) as first:
            await first.execute(
                "UPDATE sectigo_orders SET state = 'ordered', batch_id = 77 WHERE order_id = 'order-1'"
            )
            claiming = asyncio.create_task(two.write(order(2).placed(77)))
            async with asyncio.timeout(PATIENCE):
                while not await fleet.rows("SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'"):
                    await asyncio.sleep(0.02)
            await first.commit()

        with pytest.raises(LedgerError, match="batch 77 is that of another order already"):
            await claiming
        assert {entry.device.key: entry.state for entry in await two.entries()}["gw0002"] is S.UNKNOWN
        await two.write(order(2).placed(78))


async def test_two_who_claim_a_batch_at_once(fleet: Fleet) -> None:
    await fleet.put_in(*named(4), options=Options(batch_size=2))
    async with fleet.chunks(1, 2) as (one, two):
        await one.intend(order(1), ["gw0000"])
        await two.intend(order(2), ["gw0002"])

        results = await asyncio.gather(
            one.write(order(1).placed(77)), two.write(order(2).placed(77)), return_exceptions=True
        )

    assert sorted(type(result).__name__ for result in results) == ["LedgerError", "NoneType"]
    assert await fleet.rows("SELECT count(*) FROM sectigo_orders WHERE batch_id = 77") == [(1,)]
    assert await fleet.rows("SELECT count(*) FROM sectigo_devices WHERE state = 'ordered'") == [(1,)]


@pytest.mark.parametrize(
    ("keys", "options", "sizes"),
    [
        (Keys.LOCAL, Options(), [25, 500, 500, 5]),
        (Keys.LOCAL, Options(batch_size=1000), [25, 1000, 5]),
        (Keys.LOCAL, Options(batch_size=400), [25, 400, 400, 205]),
        (Keys.LOCAL, Options(most_open=350), [25, 350, 350, 305]),
        (Keys.SERVER, Options(), [25, *[100] * 10, 5]),
    ],
)
async def test_how_a_list_is_cut(fleet: Fleet, keys: Keys, options: Options, sizes: list[int]) -> None:
    devices = named(1030)

    await fleet.put_in(*devices, keys=keys, options=options)

    chunks = await fleet.cut()
    assert [len(chunk) for chunk in chunks] == sizes
    assert [key for chunk in chunks for key in chunk] == [one.key for one in devices]


@pytest.mark.parametrize(
    ("count", "size", "sizes"),
    [(0, None, []), (1, None, [1]), (25, None, [25]), (26, None, [25, 1]), (7, 3, [3, 3, 1]), (6, 3, [3, 3])],
)
async def test_how_a_short_list_is_cut(fleet: Fleet, count: int, size: int | None, sizes: list[int]) -> None:
    await fleet.put_in(*named(count), options=Options(batch_size=size))

    assert [len(chunk) for chunk in await fleet.cut()] == sizes
    assert (await read_fleet(fleet.database)).standing.open_chunks == len(sizes)


async def test_what_is_in_a_chunk_stays_there_when_lists_are_put_in_again(fleet: Fleet) -> None:
    for devices in (named(60), named(60), named(70), named(70)[::-1]):
        await fleet.put_in(*devices)

    assert [len(chunk) for chunk in await fleet.cut()] == [25, 35, 10]


async def test_the_devices_of_an_order_that_was_taken_in_stay_together(fleet: Fleet) -> None:
    async with fleet.whole() as ledger:
        for number in range(30):
            devices = [device(f"{number:02}-{letter}") for letter in "abc"]
            await ledger.adopt(order(number).placed(100 + number), devices)
        await ledger.adopt(order(99), [device("unknown")])
        await ledger.write(order(98).placed(500))  # For none of our devices.
    await fleet.put_in(device("new"))
    await fleet.put_in(device("new"))

    chunks = await fleet.cut()
    assert chunks[0] == ["new"]
    assert sorted(len(chunk) for chunk in chunks[1:]) == [5 * 3 + 1, 25 * 3]
    apart = "SELECT count(*) FROM sectigo_devices d JOIN sectigo_orders o USING (order_id) WHERE d.chunk <> o.chunk"
    assert await fleet.rows(apart) == [(0,)]
    assert await fleet.rows("SELECT chunk FROM sectigo_orders WHERE order_id = 'order-98'") == [(None,)]
    async with fleet.chunks(2) as (worker,):
        assert len(await worker.orders()) == 25
        await worker.finish({key: Outcome(state=S.DONE) for key in chunks[1]})


async def test_a_chunk_that_was_opened_again_meanwhile_is_not_closed(fleet: Fleet) -> None:
    await fleet.put_in(device("a"))
    async with fleet.chunks(1) as (worker,):
        known = await worker.work(lambda connection: outlook(connection, 1))
        await fleet.put_in(device("a"))

        await worker.work(lambda connection: close(connection, 1, known.times_opened))
        assert (await read_fleet(fleet.database)).standing.open_chunks == 1
        await end(worker, 1)
        assert (await read_fleet(fleet.database)).standing.open_chunks == 0


async def test_chunks_with_nothing_to_do_are_not_opened_again(fleet: Fleet) -> None:
    await fleet.put_in(*named(4), options=Options(batch_size=2))
    async with fleet.chunks(1, 2) as (one, two):
        await one.intend(order(1), ["gw0000", "gw0001"])
        await one.write(order(1).placed(77))
        await one.finish({key: Outcome(state=S.DONE) for key in ("gw0000", "gw0001")})
        await two.refuse({"gw0002": "no", "gw0003": "no"})
        await end(one, 1)
        await end(two, 2)
    await fleet.put_in(*named(4))
    assert (await read_fleet(fleet.database)).standing.open_chunks == 0

    await fleet.put_in(*named(4), retry=True)

    assert await fleet.rows("SELECT chunk FROM sectigo_chunks WHERE is_open") == [(3,)]


async def test_the_first_reason_to_stop_counts_until_a_list_is_put_in_again(fleet: Fleet) -> None:
    await fleet.put_in(device("a"))
    async with fleet.chunks(1) as (worker,):
        await worker.work(lambda connection: halt(connection, "no licences"))
        await worker.work(lambda connection: halt(connection, "something later"))
    assert (await read_fleet(fleet.database)).standing.halted == "no licences"

    await fleet.put_in(device("a"))

    assert (await read_fleet(fleet.database)).standing.halted == ""
