"""Waiting for batches: what a status means, when to look again, and when to give up."""

import enum
import random
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from heapq import heappop, heappush
from statistics import median

from sectigo_async.clock import Clock
from sectigo_async.errors import BatchFailed, SectigoError, WaitTimeout
from sectigo_async.models import Batch, BatchStatus, ProcessingInfo

_SHORTEST = 2.0
_LONGEST = 60.0
_PART_OF_AGE = 0.25
_JITTER = 0.1
_FIRST_LOOK = 5.0
_LAST_LOOK = 5.0
_PART_FOR_LAST_LOOK = 0.1
_FIRST = 0.5
_SHORTEST_OF_MANY = 0.2
_SOONER = 0.7
_REMEMBERED = 101

Look = Callable[[float | None], Awaitable[Batch]]
"""Fetches the batch anew, in at most so many seconds."""


class Verdict(enum.Enum):
    """What a batch's state means for somebody who waits."""

    WAITING = "waiting"
    READY = "ready"
    FAILED = "failed"


_SETTLED = {
    BatchStatus.READY_FOR_DOWNLOAD: Verdict.READY,
    BatchStatus.PARTLY_ISSUED: Verdict.READY,
    BatchStatus.REVOCATION_ERROR: Verdict.READY,
    BatchStatus.REVOKED: Verdict.FAILED,
    BatchStatus.REMOVED_AFTER_EXPIRATION: Verdict.FAILED,
}
_NEVER_ISSUED = {BatchStatus.FAILED, BatchStatus.REJECTED, BatchStatus.BROKEN, BatchStatus.ABORTED}


def verdict(batch: Batch) -> Verdict:
    """Judge a batch by its status and counters, as production code of this API does (api.md 2).

    The counters weigh more than a status that is not final: a certificate that failed, with none under way, ends
    the wait. A failed batch of which some certificates were issued is ready: they can be downloaded. A status that
    is not known means waiting, since nothing is guessed about it.
    """
    counts = batch.processing or ProcessingInfo()
    if counts.active > 0:
        return Verdict.WAITING
    if batch.status in _SETTLED:
        return _SETTLED[batch.status]
    if batch.status in _NEVER_ISSUED or counts.failed > 0:
        return Verdict.READY if counts.success > 0 else Verdict.FAILED
    if batch.status is BatchStatus.COLLECTED and counts.success > 0:
        return Verdict.READY
    return Verdict.WAITING


def next_look(age: float) -> float:
    """Return the seconds until the next look at a batch that has been waited for since `age` seconds."""
    pause = min(max(_PART_OF_AGE * age, _SHORTEST), _LONGEST)
    return pause * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 - spreads load, guards nothing


async def watch(look: Look, clock: Clock, *, timeout: float | None) -> AsyncIterator[Batch]:
    """Yield a batch when it is first seen and at each change, until it is ready, which is yielded last.

    A look that fails in passing is made again; it never orders anything anew.

    Args:
        look: fetches the batch.
        clock: time.
        timeout: seconds until giving up; `None` for never. One look is always made, in at least 5 seconds.

    Raises:
        BatchFailed: it will never be ready.
        WaitTimeout: it was not ready in time.
        SectigoError: what a look raised, where that will not pass, or no look ever succeeded.
    """
    started = clock.monotonic()
    seen: Batch | None = None
    trouble: SectigoError | None = None
    while True:
        left = None if timeout is None else timeout - (clock.monotonic() - started)
        if left is not None and seen is None and trouble is None:
            left = max(left, _FIRST_LOOK)
        try:
            batch = await look(left)
        except SectigoError as error:
            if not error.retryable:
                raise
            trouble = error
        else:
            trouble = None
            judged = verdict(batch)
            if judged is Verdict.FAILED:
                raise failed(batch)
            if seen is None or (batch.status, batch.processing) != (seen.status, seen.processing):
                yield batch
            if judged is Verdict.READY:
                return
            seen = batch
        pause = _pause(clock.monotonic() - started, timeout)
        if pause is None:
            raise _too_late(seen, timeout, trouble)
        await clock.sleep(pause)


def _pause(age: float, timeout: float | None) -> float | None:
    """Return the seconds until the next look, or `None` where no time is left for one."""
    if timeout is None:
        return next_look(age)
    # The last look needs some time of its own.
    last = timeout - min(_LAST_LOOK, timeout * _PART_FOR_LAST_LOOK)
    return None if age >= last else min(next_look(age), last - age)


def failed(batch: Batch) -> BatchFailed:
    """Return the error for a batch that will never be ready."""
    reason = f": {batch.reject_reason}" if batch.reject_reason else ""
    hint = "order it again after mending the cause"
    if batch.status is BatchStatus.REMOVED_AFTER_EXPIRATION:
        hint = "its certificates were issued, but the service no longer keeps the archive"
    elif batch.status is BatchStatus.REVOKED:
        hint = "its certificates were issued and revoked since"
    return BatchFailed(f"batch {batch.batch_id} is {describe(batch)}{reason}", batch=batch, hint=hint)


def describe(batch: Batch) -> str:
    """Return a batch's status in a word, the service's own where this version does not know it."""
    known = batch.status is not BatchStatus.UNKNOWN
    return batch.status.value if known else f"{batch.status_text!r}, a status this version does not know"


def _too_late(seen: Batch | None, timeout: float | None, trouble: SectigoError | None) -> SectigoError:
    if seen is None:
        assert trouble is not None
        return trouble
    last = f"; the last look failed: {trouble}" if trouble else ""
    return WaitTimeout(
        f"batch {seen.batch_id} is not ready after {timeout:g} s: {describe(seen)}{last}",
        batch=seen,
        hint=f"nothing is lost: wait for batch {seen.batch_id} again",
    )


class Schedule:
    """When to look at which of many batches next. One heap, and no task, for one batch or ten thousand.

    A batch is first looked at when half of those before it were ready, then ever more rarely, as `next_look` says.

    Args:
        clock: time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._due: list[tuple[float, int]] = []
        self._since: dict[int, tuple[float, int]] = {}
        self._lasted: deque[float] = deque(maxlen=_REMEMBERED)

    def __len__(self) -> int:
        return len(self._since)

    def add(self, batch_id: int) -> None:
        """Take in a batch that was just ordered."""
        now = self._clock.monotonic()
        self._since[batch_id] = (now, 0)
        first = median(self._lasted) if self._lasted else _FIRST
        heappush(self._due, (now + first, batch_id))

    def age(self, batch_id: int) -> float:
        """Return the seconds since a batch was taken in."""
        return self._clock.monotonic() - self._since[batch_id][0]

    def pause(self) -> float | None:
        """Return the seconds until a batch is due: 0 where one is, `None` where none will be."""
        return max(0.0, self._due[0][0] - self._clock.monotonic()) if self._due else None

    def take(self) -> int | None:
        """Return a batch that is due, which `again` or `done` is to be told of once it was looked at."""
        if self.pause() != 0:
            return None
        _, batch_id = heappop(self._due)
        since, looks = self._since[batch_id]
        self._since[batch_id] = (since, looks + 1)
        return batch_id

    def again(self, batch_id: int) -> None:
        """Have a batch looked at again later."""
        age = self.age(batch_id)
        # The first looks come fast, or a service that issues within a second would seem to take two.
        pause = max(age, _SHORTEST_OF_MANY) if age < _SHORTEST else next_look(age)
        heappush(self._due, (self._clock.monotonic() + pause, batch_id))

    def hurry(self) -> None:
        """Have every batch looked at now."""
        now = self._clock.monotonic()
        self._due = [(now, batch_id) for _, batch_id in self._due]

    def done(self, batch_id: int, *, ready: bool = True) -> None:
        """Forget a batch; one that is ready tells how long others will take."""
        lasted = self.age(batch_id)
        _, looks = self._since.pop(batch_id)
        if ready:
            # It was ready before it was looked at; nobody knows since when.
            self._lasted.append(max(lasted * (_SOONER if looks == 1 else 1), _SHORTEST_OF_MANY))
