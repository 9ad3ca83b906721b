"""How much is under way at once: more while all goes well, half when the service is troubled."""

from sectigo_async.clock import Clock

_FIRST = 4.0
_SHORTEST = 0.5
_LONGEST = 60.0
_LONGEST_ASKED = 600.0


class Pace:
    """Additive increase, multiplicative decrease of what may be under way at once.

    Args:
        clock: time.
        most: what may be under way at once at most (1 or more).
    """

    def __init__(self, clock: Clock, most: int) -> None:
        self._clock = clock
        self._most = float(most)
        self._limit = min(_FIRST, self._most)
        self._not_before = 0.0
        self._row = 0
        self.last_good = clock.monotonic()

    def allows(self, under_way: int) -> bool:
        """Say whether one more may be begun beside those under way."""
        return under_way < int(self._limit) and self.pause() == 0

    def pause(self) -> float:
        """Return the seconds until the service is to be asked again."""
        return max(0.0, self._not_before - self._clock.monotonic())

    def faster(self) -> None:
        """Take note that something went well."""
        self._limit = min(self._limit + 1 / self._limit, self._most)
        self._row = 0
        self.last_good = self._clock.monotonic()

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
