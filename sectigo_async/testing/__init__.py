"""Helpers for your own tests: a clock that you move by hand."""

from sectigo_async.testing.clock import FakeClock

__all__ = [
    "FakeClock",
]
