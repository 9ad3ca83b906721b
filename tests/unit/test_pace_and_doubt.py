"""How fast a bulk run goes, and how long it looks for orders that nobody knows the outcome of."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import attrs
import pytest

from sectigo_async.issuance.doubt import Doubt
from sectigo_async.issuance.pace import Pace
from sectigo_async.models import Order, OrderKind
from sectigo_async.testing import FakeClock


def room(pace: Pace) -> int:
    """Return how much may be under way at once."""
    number = 0
    while pace.allows():
        pace.begin()
        number += 1
    for _ in range(number):
        pace.end()
    return number


def test_it_begins_slowly_and_gets_faster_up_to_the_most(clock: FakeClock) -> None:
    pace = Pace(clock, 20)
    seen = [room(pace)]
    for _ in range(400):
        pace.faster()
        seen.append(room(pace))

    assert (seen[0], seen[-1]) == (4, 20)
    assert seen == sorted(seen)
    # One more for as much that went well as was under way, and no faster.
    assert seen[5] <= 5


@pytest.mark.parametrize("most", [1, 2])
def test_it_never_does_more_than_it_may(clock: FakeClock, most: int) -> None:
    pace = Pace(clock, most)
    for _ in range(100):
        pace.faster()

    assert room(pace) == most


def test_trouble_halves_it_after_a_rest_and_one_thing_always_goes_on(clock: FakeClock) -> None:
    pace = Pace(clock, 20)
    rests = []
    for _ in range(10):
        pace.slower()
        assert not pace.allows()
        rests.append(pace.pause())
        clock.advance(rests[-1])
        assert pace.allows()

    assert rests == [0.5, 1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert room(pace) == 1
    pace.faster()
    pace.slower()
    assert pace.pause() == 0.5


def test_what_was_under_way_when_the_trouble_came_counts_once(clock: FakeClock) -> None:
    pace = Pace(clock, 20)
    for _ in range(1000):
        pace.faster()
    for _ in range(20):
        pace.slower()
    clock.advance(pace.pause())

    assert room(pace) == 10


def test_that_is_so_where_the_service_says_how_long_too_and_it_is_left_alone_as_long_as_it_asks(
    clock: FakeClock,
) -> None:
    pace = Pace(clock, 20)
    for _ in range(1000):
        pace.faster()
    for number in range(20):
        pace.slower(retry_after=2 if number < 19 else 3)

    assert pace.pause() == 3
    clock.advance(3)
    assert room(pace) == 10


@pytest.mark.parametrize(("asked", "rest"), [(0.0, 0.5), (120.0, 120.0), (1e9, 600.0)])
def test_what_the_service_asks_for_is_believed_within_bounds(clock: FakeClock, asked: float, rest: float) -> None:
    pace = Pace(clock, 20)
    pace.slower(retry_after=asked)

    assert pace.pause() == rest


SETTLE = 900.0
TINY = 1e-6


def sent(clock: FakeClock, name: str = "a") -> Order:
    now = datetime.fromtimestamp(clock.time(), UTC)
    return Order(order_id=name, kind=OrderKind.UPLOAD, profile_id=42, sent_at=now)


def looks(doubt: Doubt, clock: FakeClock, *, beside: bool) -> list[float]:
    """Look as often as it is of use; return at which times."""
    times: list[float] = []
    while (pause := doubt.next_look()) is not None:
        clock.advance(pause)
        doubt.look()
        times.append(clock.monotonic())
        doubt.looked(beside_other_work=beside)
        assert len(times) < 1000
    return times


@pytest.mark.parametrize("beside", [True, False])
def test_an_order_is_looked_for_until_it_has_settled_and_twice_after(clock: FakeClock, *, beside: bool) -> None:
    doubt = Doubt(clock, SETTLE)
    doubt.add(sent(clock))
    assert (len(doubt), doubt.settles_in(), doubt.next_look()) == (1, SETTLE, 0)

    times = looks(doubt, clock, beside=beside)

    assert len([time for time in times if time >= SETTLE - TINY]) == 2
    assert pytest.approx(SETTLE) in times, "as soon as it has settled"
    assert len(times) <= 60
    gaps = [after - before for before, after in pairwise(times) if after != pytest.approx(SETTLE)]
    assert min(gaps) >= (15 if beside else 1) - TINY
    assert max(gaps) <= 60 + TINY
    assert doubt.settles_in() is None


def test_one_that_joins_later_is_looked_for_as_long(clock: FakeClock) -> None:
    doubt = Doubt(clock, SETTLE)
    doubt.add(sent(clock, "a"))
    clock.advance(500)
    doubt.add(sent(clock, "b"))
    assert doubt.settles_in() == SETTLE

    times = looks(doubt, clock, beside=False)

    assert len([time for time in times if time >= 500 + SETTLE - TINY]) == 2
    doubt.remove(sent(clock, "b"))
    doubt.remove(sent(clock, "b"))
    assert [order.order_id for order in doubt] == ["a"]


def test_an_order_that_was_placed_later_is_a_reason_to_look_again(clock: FakeClock) -> None:
    doubt = Doubt(clock, SETTLE)
    doubt.add(sent(clock))
    looks(doubt, clock, beside=False)

    doubt.look_again()

    assert len(looks(doubt, clock, beside=False)) == 2


def test_without_orders_there_is_nothing_to_look_for(clock: FakeClock) -> None:
    doubt = Doubt(clock, SETTLE)

    assert (len(doubt), doubt.settles_in(), doubt.next_look()) == (0, None, None)


def test_where_nothing_has_to_settle_two_looks_are_enough(clock: FakeClock) -> None:
    doubt = Doubt(clock, 0)
    doubt.add(sent(clock))

    assert len(looks(doubt, clock, beside=False)) == 2


def test_a_look_that_began_before_it_had_settled_does_not_count(clock: FakeClock) -> None:
    doubt = Doubt(clock, SETTLE)
    doubt.add(sent(clock))
    clock.advance(SETTLE - 1)
    doubt.look()
    clock.advance(30)
    doubt.looked(beside_other_work=False)

    assert len(looks(doubt, clock, beside=False)) == 2


def test_a_look_that_began_before_it_was_known_does_not_count(clock: FakeClock) -> None:
    doubt = Doubt(clock, 0)
    doubt.add(sent(clock, "a"))
    doubt.look()
    doubt.add(sent(clock, "b"))
    doubt.looked(beside_other_work=False)

    assert len(looks(doubt, clock, beside=False)) == 2


def test_of_a_clock_that_was_ahead_nobody_waits_for_more_than_the_settle_time(clock: FakeClock) -> None:
    doubt = Doubt(clock, SETTLE)
    order = sent(clock)
    doubt.add(attrs.evolve(order, sent_at=order.sent_at + timedelta(days=10)))

    assert doubt.settles_in() == SETTLE
    assert len([time for time in looks(doubt, clock, beside=False) if time >= SETTLE - TINY]) == 2
    assert doubt.settles_in() is None
