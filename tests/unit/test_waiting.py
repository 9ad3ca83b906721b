"""Waiting as production code of this API does it (api.md 2)."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sectigo_async import Batch, BatchStatus, ProcessingInfo
from sectigo_async.errors import BatchFailed, CallTimeoutError, NotFoundError, SectigoError, WaitTimeout
from sectigo_async.testing import FakeClock
from sectigo_async.waiting import Schedule, Verdict, next_look, verdict, watch


def seen(status: BatchStatus, counts: tuple[int, int, int] | None = None) -> Batch:
    info = None if counts is None else ProcessingInfo(active=counts[0], success=counts[1], failed=counts[2])
    return Batch(batch_id=24, status=status, processing=info, reject_reason="because")


S = BatchStatus


@pytest.mark.parametrize(
    ("status", "counts", "expected"),
    [
        (S.CREATED, None, Verdict.WAITING),
        (S.PROCESSING, None, Verdict.WAITING),
        (S.PROCESSING, (1, 1, 0), Verdict.WAITING),
        (S.PROCESSING, (0, 0, 1), Verdict.FAILED),
        (S.PROCESSING, (0, 2, 1), Verdict.READY),
        (S.PROCESSING, (0, 1, 0), Verdict.WAITING),
        (S.UNKNOWN, (0, 0, 1), Verdict.FAILED),
        (S.READY_FOR_DOWNLOAD, (1, 1, 0), Verdict.WAITING),
        (S.READY_FOR_DOWNLOAD, (0, 1, 0), Verdict.READY),
        (S.READY_FOR_DOWNLOAD, (0, 1, 1), Verdict.READY),
        (S.READY_FOR_DOWNLOAD, (0, 0, 1), Verdict.READY),
        (S.READY_FOR_DOWNLOAD, (0, 0, 0), Verdict.READY),
        (S.PARTLY_ISSUED, (0, 1, 1), Verdict.READY),
        (S.COLLECTED, (0, 1, 0), Verdict.READY),
        (S.COLLECTED, (0, 0, 0), Verdict.WAITING),
        (S.FAILED, (0, 0, 1), Verdict.FAILED),
        (S.FAILED, (0, 2, 1), Verdict.READY),
        (S.REJECTED, (0, 0, 0), Verdict.FAILED),
        (S.BROKEN, (0, 0, 1), Verdict.FAILED),
        (S.BROKEN, (1, 0, 0), Verdict.WAITING),
        (S.ABORTED, (0, 0, 0), Verdict.FAILED),
        (S.NOT_ACCEPTABLE, (0, 0, 0), Verdict.WAITING),
        (S.NOT_ACCEPTABLE, (0, 0, 1), Verdict.FAILED),
        (S.NOT_ACCEPTABLE, (0, 1, 1), Verdict.READY),
        (S.PROCESSING_REJECT, (0, 0, 0), Verdict.WAITING),
        (S.PROCESSING_REVOKE, (0, 1, 0), Verdict.WAITING),
        (S.REVOKED, (0, 1, 0), Verdict.FAILED),
        (S.REVOCATION_ERROR, (0, 1, 0), Verdict.READY),
        (S.REMOVED_AFTER_EXPIRATION, (0, 1, 0), Verdict.FAILED),
        (S.UNKNOWN, (0, 0, 0), Verdict.WAITING),
        (S.UNKNOWN, (0, 1, 0), Verdict.WAITING),
    ],
)
def test_verdict(status: BatchStatus, counts: tuple[int, int, int] | None, expected: Verdict) -> None:
    assert verdict(seen(status, counts)) is expected


class Looks:
    """Gives one batch or error for each look, the last one for ever."""

    def __init__(self, *answers: Batch | SectigoError) -> None:
        self.answers = list(answers)
        self.limits: list[float | None] = []

    async def __call__(self, left: float | None) -> Batch:
        self.limits.append(left)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, SectigoError):
            raise answer
        return answer


async def collect(looks: Looks, clock: FakeClock, timeout: float | None = 1800.0) -> list[Batch]:
    return [batch async for batch in watch(looks, clock, timeout=timeout)]


async def test_each_change_is_told_once_and_the_last_is_ready(clock: FakeClock) -> None:
    created, working, ready = seen(S.CREATED), seen(S.PROCESSING), seen(S.READY_FOR_DOWNLOAD, (0, 1, 0))

    told = await collect(Looks(created, created, working, working, working, ready), clock)

    assert told == [created, working, ready]
    assert len(clock.sleeps) == 5


async def test_failure_carries_the_batch_and_its_reason(clock: FakeClock) -> None:
    with pytest.raises(BatchFailed, match="because") as caught:
        await collect(Looks(seen(S.CREATED), seen(S.REJECTED, (0, 0, 1))), clock)

    assert caught.value.batch.status is S.REJECTED


async def test_time_out_carries_the_batch_and_is_never_exceeded(clock: FakeClock) -> None:
    with pytest.raises(WaitTimeout) as caught:
        await collect(Looks(seen(S.PROCESSING)), clock, timeout=100)

    assert caught.value.batch.batch_id == 24
    assert 95 <= clock.monotonic() <= 100


async def test_an_unknown_status_is_waited_for_and_named_at_the_end(clock: FakeClock) -> None:
    odd = Batch(batch_id=24, raw={"status": "FROZEN_SOLID"})

    with pytest.raises(WaitTimeout, match=r"FROZEN_SOLID.*does not know"):
        await collect(Looks(odd), clock, timeout=30)


async def test_a_look_that_fails_in_passing_is_made_again(clock: FakeClock) -> None:
    slow = CallTimeoutError("slow", method="GET", path="/x")
    ready = seen(S.READY_FOR_DOWNLOAD, (0, 1, 0))

    assert await collect(Looks(slow, slow, ready), clock) == [ready]


async def test_trouble_that_lasts_to_the_end_is_what_is_told(clock: FakeClock) -> None:
    slow = CallTimeoutError("slow", method="GET", path="/x")

    with pytest.raises(CallTimeoutError):
        await collect(Looks(slow), clock, timeout=60)


async def test_trouble_that_will_not_pass_ends_the_wait_at_once(clock: FakeClock) -> None:
    gone = NotFoundError("gone", status=404, method="GET", path="/x")

    with pytest.raises(NotFoundError):
        await collect(Looks(gone), clock)

    assert not clock.sleeps


async def test_a_look_has_only_the_time_that_is_left(clock: FakeClock) -> None:
    looks = Looks(seen(S.PROCESSING))

    with pytest.raises(WaitTimeout):
        await collect(looks, clock, timeout=10)

    assert looks.limits[0] == 10
    assert all(limit is not None and limit <= 10 for limit in looks.limits)


@given(st.floats(min_value=0, max_value=1e9))
def test_pauses_grow_with_age_within_bounds(age: float) -> None:
    pause = next_look(age)

    assert 1.8 <= pause <= 66
    assert pause <= max(2.2, 0.275 * age * 1.001)


async def test_a_last_look_that_fails_still_ends_as_a_time_out_with_the_batch(clock: FakeClock) -> None:
    slow = CallTimeoutError("slow", method="GET", path="/x")

    with pytest.raises(WaitTimeout, match=r"the last look failed: slow") as caught:
        await collect(Looks(seen(S.CREATED), slow), clock, timeout=30)

    assert caught.value.batch.status is S.CREATED


@pytest.mark.parametrize("timeout", [0, 0.001])
async def test_one_look_is_always_made(clock: FakeClock, timeout: float) -> None:
    looks = Looks(seen(S.READY_FOR_DOWNLOAD, (0, 1, 0)))

    assert len(await collect(looks, clock, timeout)) == 1
    assert looks.limits[0] is not None
    assert looks.limits[0] >= 1


async def test_the_last_look_has_time_to_succeed(clock: FakeClock) -> None:
    looks = Looks(seen(S.PROCESSING))
    with pytest.raises(WaitTimeout, match=r"PROCESSING$"):
        await collect(looks, clock, timeout=20)

    assert all(limit is not None and limit >= 2 for limit in looks.limits)


def taken(schedule: Schedule) -> list[int]:
    return list(iter(schedule.take, None))


def test_the_first_look_is_made_when_half_of_those_before_were_ready(clock: FakeClock) -> None:
    schedule = Schedule(clock)
    assert (schedule.pause(), schedule.take(), len(schedule)) == (None, None, 0)
    for number, lasted in enumerate((10, 30, 28)):
        schedule.add(number)
        clock.advance(schedule.pause() or 0)
        assert schedule.take() == number
        schedule.again(number)
        clock.advance(lasted - schedule.age(number))
        assert schedule.take() == number
        schedule.done(number)

    schedule.add(9)

    assert schedule.pause() == pytest.approx(28)
    assert schedule.take() is None
    clock.advance(28.001)
    assert (schedule.take(), schedule.pause(), len(schedule)) == (9, None, 1)


def test_batches_that_come_to_nothing_teach_nothing(clock: FakeClock) -> None:
    schedule = Schedule(clock)
    schedule.add(1)
    clock.advance(3600)
    assert schedule.take() == 1
    schedule.done(1, ready=False)

    schedule.add(2)

    assert schedule.pause() == pytest.approx(0.5)


def test_batches_that_are_ready_at_the_first_look_make_it_come_sooner(clock: FakeClock) -> None:
    schedule = Schedule(clock)
    pauses: list[float] = []
    for number in range(300):
        schedule.add(number)
        pauses.append(schedule.pause() or 0)
        clock.advance(pauses[-1] + 1e-9)
        assert taken(schedule) == [number]
        schedule.done(number)

    assert pauses[0] == pytest.approx(0.5)
    assert pauses[-1] == pytest.approx(0.2)
    assert all(after <= before + 1e-6 for before, after in pairwise(pauses))


def test_the_one_due_first_is_taken_first_and_each_once(clock: FakeClock) -> None:
    schedule = Schedule(clock)
    for number in (7, 3, 5):
        schedule.add(number)
        clock.advance(0.1)
    clock.advance(1)

    assert taken(schedule) == [7, 3, 5]
    assert len(schedule) == 3


def test_looks_get_rarer_the_longer_it_takes(clock: FakeClock) -> None:
    schedule = Schedule(clock)
    schedule.add(1)
    looks = 0
    pauses: list[float] = []
    while clock.monotonic() < 3600:
        pause = schedule.pause()
        assert pause is not None
        pauses.append(pause)
        clock.advance(pause)
        assert schedule.take() == 1
        looks += 1
        schedule.again(1)

    assert looks < 80
    assert min(pauses) >= 0.2
    assert max(pauses) <= 66


def test_in_a_hurry_all_are_due_but_those_being_looked_at(clock: FakeClock) -> None:
    schedule = Schedule(clock)
    for number in (9, 2, 8, 1):
        schedule.add(number)
        clock.advance(0.2)
    assert schedule.take() == 9
    schedule.hurry()

    assert sorted(taken(schedule)) == [1, 2, 8]
    schedule.again(9)
    pause = schedule.pause()
    assert pause is not None
    assert pause > 0


def test_ten_thousand_batches_take_little_time_and_are_each_looked_at(clock: FakeClock) -> None:
    schedule = Schedule(clock)
    for number in range(10_000):
        schedule.add(number)
    clock.advance(1)
    found = taken(schedule)
    for number in found:
        schedule.done(number)

    assert sorted(found) == list(range(10_000))
    assert (len(schedule), schedule.pause()) == (0, None)
