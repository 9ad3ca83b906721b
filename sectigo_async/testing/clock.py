"""A clock for tests: sleeping costs no real time."""

import asyncio
import threading


class FakeClock:
    """A `sectigo_async.clock.Clock` that moves only when told to, or when somebody sleeps on it.

    A sandbox in another thread may share it.

    Args:
        start: wall-clock time at the beginning, in seconds since the epoch.
    """

    def __init__(self, start: float = 1_700_000_000.0) -> None:
        self._start = start
        self._elapsed = 0.0
        self._lock = threading.Lock()
        self.sleeps: list[float] = []

    def time(self) -> float:
        """Return wall-clock time in seconds since the epoch."""
        return self._start + self._elapsed

    def monotonic(self) -> float:
        """Return the seconds that have passed on this clock."""
        return self._elapsed

    def advance(self, seconds: float) -> None:
        """Move the clock forward by `seconds`."""
        with self._lock:
            self._elapsed += seconds

    async def sleep(self, seconds: float) -> None:
        """Advance the clock by `seconds`, note it in `sleeps`, and let other tasks run."""
        self.sleeps.append(seconds)
        self.advance(seconds)
        await asyncio.sleep(0)
