"""Blocking work off the event loop, when it must not be left half done."""

import asyncio
import functools
from collections.abc import Callable
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
