"""A walk through batch ids: the service has no list of batches that is documented (api.md 1b)."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import attrs

from sectigo_async.errors import NoReplyError, NotFoundError, PermissionDeniedError, SectigoError, ServiceError
from sectigo_async.models import Batch

_AT_ONCE = 10
EMPTY_STRETCH = 100
"""So many missing ids in a row, above every id that is known, and there are none beyond."""
# An id that cannot be read keeps others from being settled: it is worth another try.
_PASSES = 3


@attrs.define
class Walk:
    """A walk, and what it has seen.

    Attributes:
        get: fetches a batch.
        batches: the batches there are, and that may be seen.
        looked: the ids that were answered for, foreign and missing ones included.
        unread: the ids that were not, and why.
    """

    get: Callable[[int], Awaitable[Batch]]
    batches: dict[int, Batch] = attrs.field(factory=dict)
    looked: set[int] = attrs.field(factory=set)
    unread: dict[int, SectigoError] = attrs.field(factory=dict)

    async def through(self, numbers: Sequence[int], *, highest: int) -> None:
        """Look at ids, up to where there are none yet.

        Args:
            numbers: the ids, in rising order.
            highest: the highest id that is known to be taken.

        Raises:
            AuthenticationError: no token can be had.
            NoReplyError: the service does not answer.
        """
        for _ in range(_PASSES):
            await self._pass(numbers, highest)
            numbers = sorted(self.unread)
            if not numbers:
                return

    async def _pass(self, numbers: Sequence[int], highest: int) -> None:
        empty = 0
        for start in range(0, len(numbers), _AT_ONCE):
            some = numbers[start : start + _AT_ONCE]
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._get(number)) for number in some]
            silent = [seen for task in tasks if isinstance(seen := task.result(), NoReplyError)]
            if len(silent) == _AT_ONCE:
                raise silent[0]  # The service is down, or out of reach: other ids will fare no better.
            for number, task in zip(some, tasks, strict=True):
                seen = task.result()
                if isinstance(seen, SectigoError) and not isinstance(seen, ServiceError | NoReplyError):
                    raise seen
                self._note(number, seen)
                empty = empty + 1 if isinstance(seen, NotFoundError) and number > highest else 0
            if empty >= EMPTY_STRETCH:
                return

    async def _get(self, number: int) -> Batch | SectigoError:
        """Return a batch, or why it cannot be had: what is raised in a group of tasks comes out as a group."""
        try:
            return await self.get(number)
        except SectigoError as error:
            return error

    def _note(self, number: int, seen: Batch | SectigoError) -> None:
        if isinstance(seen, Batch):
            self.batches[number] = seen
        elif not isinstance(seen, NotFoundError | PermissionDeniedError):
            self.unread[number] = seen
            return
        self.unread.pop(number, None)
        self.looked.add(number)
