"""Blocking work off the event loop: work that must not be left half done, and work that may never return."""

import asyncio
import functools
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def run_to_end(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run `function` in a thread; cancellations take effect once it has returned, the first one counting.

    For short work on files: whoever is cancelled may clean up, with nobody still at work on the file.
    """
    # A future, not a task: a loop that ends cancels all tasks.
    work = asyncio.get_running_loop().run_in_executor(None, functools.partial(function, *args, **kwargs))
    cancelled: asyncio.CancelledError | None = None
    while not work.done():
        try:
            await asyncio.wait([work])
        except asyncio.CancelledError as error:
            cancelled = cancelled or error
    if cancelled is not None:
        work.exception()  # Marks it as seen.
        raise cancelled
    return work.result()


async def run_bounded(function: Callable[[], T], seconds: float) -> T:
    """Run `function` in a thread that is left behind if it takes longer than `seconds`.

    Not in the loop's executor: the end of the loop, and the end of the process, would wait for it.

    Raises:
        TimeoutError: it took too long.
    """
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if outcome.done():
            return
        if error is not None:
            outcome.set_exception(error)
        else:
            outcome.set_result(result)  # type: ignore[arg-type]

    def work() -> None:
        result: T | None = None
        problem: BaseException | None = None
        try:
            result = function()
        except BaseException as error:  # noqa: BLE001 - whoever waits decides what to do with it
            problem = error
        with suppress(RuntimeError):  # The loop may have ended meanwhile.
            loop.call_soon_threadsafe(settle, result, problem)

    threading.Thread(target=work, name="sectigo_async bounded", daemon=True).start()
    async with asyncio.timeout(seconds):
        return await outcome
