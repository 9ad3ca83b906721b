"""How much is under way at once: more while all goes well, half when the service is troubled."""

import asyncio

from sectigo_async.clock import Clock

_FIRST = 4.0
_SHORTEST = 0.5
_LONGEST = 60.0
_LONGEST_ASKED = 600.0


class Pace:
    """Additive increase, multiplicative decrease of what may be under way at once; several runs may share it.

    Args:
        clock: time.
        most: what may be under way at once at most (1 or more).

    Attributes:
        most_open: how many devices of one run are ordered and not saved at most, where several share that.
        disk: held while a batch is written: those written at once only wait for each other, since Python runs one
            thread at a time.
        last_good: when something went well last, by the monotonic clock.
    """

    def __init__(self, clock: Clock, most: int) -> None:
        self._clock = clock
        self._most = most
        self._limit = _FIRST
        self._not_before = 0.0
        self._row = 0
        self._under_way = 0
        self._changed = asyncio.Event()
        self.most_open: int | None = None
        self.disk: asyncio.Lock = asyncio.Lock()
        self.last_good: float = clock.monotonic()

    @property
    def most(self) -> int:
        """What may be under way at once at most."""
        return self._most

    @most.setter
    def most(self, most: int) -> None:
        self._most = most
        self._changed.set()

    def allows(self) -> bool:
        """Say whether one more may be begun."""
        return self._under_way < min(int(self._limit), self._most) and self.pause() == 0

    def begin(self) -> None:
        """Take note that something is begun; `end` is to be told when it is over."""
        self._under_way += 1

    def end(self) -> None:
        """Take note that something is over, however it went."""
        self._under_way -= 1
        self._changed.set()

    async def turn(self) -> None:
        """Wait until one more may be begun; others that wait may be quicker to begin it."""
        while not self.allows():
            if pause := self.pause():
                await self._clock.sleep(pause)
            else:
                self._changed.clear()
                await self._changed.wait()

    def pause(self) -> float:
        """Return the seconds until the service is to be asked again."""
        return max(0.0, self._not_before - self._clock.monotonic())

    def faster(self) -> None:
        """Take note that something went well."""
        self._limit = max(1.0, min(self._limit + 1 / self._limit, float(self._most)))
        self._row = 0
        self.last_good = self._clock.monotonic()
        self._changed.set()

    def slower(self, retry_after: float | None = None) -> None:
        """Take note that the service is troubled. What was under way at that moment counts once.

        Args:
            retry_after: the seconds it asks to be left alone.
        """
        now = self._clock.monotonic()
        if self.pause() == 0:
            self._limit = max(1.0, self._limit / 2)
            self._not_before = now + min(_SHORTEST * 2**self._row, _LONGEST)
            self._row += 1
        self._not_before = max(self._not_before, now + min(retry_after or 0.0, _LONGEST_ASKED))
