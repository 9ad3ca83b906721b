"""Waiting for 10,000 batches that become ready at random over ten minutes, beside a poll every five seconds.

`.venv/bin/python -m benchmarks.waiting`

Time is simulated, so the figures are the same on every machine. All batches are ordered at once; each becomes ready
at a moment of its own. The peer looks at every batch that is not ready, every five seconds, from a moment of its own
on. What counts is how many looks it takes, and how long after it is ready a batch is seen to be.
"""

import random
import statistics

import attrs

from benchmarks.figures import Figure
from sectigo_async.testing import FakeClock
from sectigo_async.waiting import Schedule

BATCHES = 10_000
SPREAD = 600.0
PERIOD = 5.0
MOST_REQUESTS = 1 / 3


@attrs.frozen
class Waited:
    """What waiting took.

    Attributes:
        looks: how many.
        delay: the median time after which a batch was seen to be ready, in seconds.
    """

    looks: int
    delay: float


def ours(ready: dict[int, float]) -> Waited:
    """Wait with the scheduler."""
    clock = FakeClock()
    start = clock.monotonic()
    schedule = Schedule(clock)
    for number in ready:
        schedule.add(number)
    looks = 0
    delays: list[float] = []
    while (pause := schedule.pause()) is not None:
        clock.advance(pause)
        while (due := schedule.take()) is not None:
            looks += 1
            late = clock.monotonic() - start - ready[due]
            if late >= 0:
                delays.append(late)
                schedule.done(due)
            else:
                schedule.again(due)
    return Waited(looks, statistics.median(delays))


def every_five_seconds(ready: dict[int, float], chance: random.Random) -> Waited:
    """Wait as a loop does that looks every five seconds."""
    looks = 0
    delays: list[float] = []
    for moment in ready.values():
        first = chance.uniform(0, PERIOD)
        rounds = max(0, -int(-(moment - first) // PERIOD))
        looks += rounds + 1
        delays.append(first + rounds * PERIOD - moment)
    return Waited(looks, statistics.median(delays))


def figures() -> list[Figure]:
    """Simulate, and return the figures."""
    chance = random.Random(10_000)  # noqa: S311 - to be repeated
    ready = {number: chance.uniform(0, SPREAD) for number in range(BATCHES)}
    we, they = ours(ready), every_five_seconds(ready, chance)
    return [
        Figure(
            name=f"looks for {BATCHES:,} batches",
            target="at most a third of a poll every 5 s",
            measured=f"{we.looks:,} ({we.looks / they.looks:.2f} times)",
            peer=f"{they.looks:,}",
            passed=we.looks <= MOST_REQUESTS * they.looks,
        ),
        Figure(
            name="median delay until one is seen",
            target="not longer than that of the poll",
            measured=f"{we.delay:.1f} s",
            peer=f"{they.delay:.1f} s",
            passed=we.delay <= they.delay,
        ),
    ]


if __name__ == "__main__":
    for figure in figures():
        print(figure)
