"""Time, injected: wall clock, monotonic clock and sleep behind one small contract."""

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """What this package asks of time. `sectigo_async.testing.FakeClock` is the one for tests."""

    def time(self) -> float:
        """Return wall-clock time in seconds since the epoch."""
        ...

    def monotonic(self) -> float:
        """Return seconds that only ever grow; differences alone mean something."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Pause this task for `seconds` (0 or more)."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def time(self) -> float:
        """Return wall-clock time in seconds since the epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Return seconds that only ever grow; differences alone mean something."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Pause this task for `seconds` (0 or more)."""
        await asyncio.sleep(seconds)
