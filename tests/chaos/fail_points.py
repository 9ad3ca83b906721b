"""The moments at which a run touches the world, numbered, and death at one of them.

The product knows nothing of this: what it calls is wrapped, in the process of the driver alone.
"""

import functools
import os
import signal
import sqlite3
import threading
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

from sectigo_async.exchange import Attempt

P = ParamSpec("P")
T = TypeVar("T")

_FILES = ("fsync", "link", "mkdir", "replace", "unlink")
_DURABLE = ("COMMIT", "PRAGMA journal_mode")
_REQUEST = (
    "send_request_headers.started",
    "send_request_body.complete",
    "receive_response_headers.complete",
    "receive_response_body.complete",
)


class FailPoints:
    """Counts the moments, and kills this process at one.

    Args:
        kill_at: number of that moment, from 1; 0 for never.

    Attributes:
        passed: how many there were.
    """

    def __init__(self, kill_at: int) -> None:
        self.passed = 0
        self._kill_at = kill_at
        self._lock = threading.Lock()

    def install(self) -> None:
        """Wrap what this process calls, for good."""
        for name in _FILES:
            setattr(os, name, self._around(getattr(os, name)))
        os.open = self._around(os.open, lambda _, flags, *__, **___: bool(flags & os.O_CREAT))
        self._wrap_databases()
        self._wrap_requests()

    def _point(self) -> None:
        with self._lock:
            self.passed += 1
            if self.passed == self._kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    def _around(self, call: Callable[P, T], counts: Callable[P, bool] = lambda *_, **__: True) -> Callable[P, T]:
        """Return `call` with a moment before and one after, where it counts."""

        @functools.wraps(call)
        def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
            if not counts(*args, **kwargs):
                return call(*args, **kwargs)
            self._point()
            result = call(*args, **kwargs)
            self._point()
            return result

        return wrapped

    def _wrap_databases(self) -> None:
        around = self._around

        class Connection(sqlite3.Connection):
            def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
                execute = super().execute
                return (around(execute) if sql.startswith(_DURABLE) else execute)(sql, *parameters)

            def close(self) -> None:
                around(super().close)()

        sqlite3.connect = functools.partial(sqlite3.connect, factory=Connection)  # type: ignore[assignment]

    def _wrap_requests(self) -> None:
        """Count through what httpcore tells of a request, which the product listens to as well."""
        listen = Attempt.__call__

        async def heard(attempt: Attempt, event: str, info: Mapping[str, Any]) -> None:
            await listen(attempt, event, info)
            if event.endswith(_REQUEST):
                self._point()

        Attempt.__call__ = heard  # type: ignore[assignment,method-assign]
