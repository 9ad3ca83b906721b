"""What is still to be ordered in a run: how much of it goes into one order, and when the next may be placed."""

import math
from collections import Counter, deque
from collections.abc import Iterable, Sequence

from sectigo_async.issuance.devices import Device
from sectigo_async.issuance.doubt import Doubt
from sectigo_async.issuance.ledger import DeviceState, Keys
from sectigo_async.issuance.options import Options
from sectigo_async.issuance.pace import Pace

PILOT = 25
"""As many devices are ordered before one has succeeded, unless somebody says how many."""

_BATCH = 500


class Backlog:
    """The devices of a run that are to be ordered.

    Args:
        options: how large orders are, and how much is ordered at once.
        keys: where private keys are made.
        counts: how many devices of the run are in each state, now and later.
        doubt: the orders that nobody knows the outcome of.
        pace: how much is ordered at once, where several runs share that.
    """

    def __init__(self, options: Options, keys: Keys, counts: Counter[DeviceState], doubt: Doubt, pace: Pace) -> None:
        self._options = options
        self._keys = keys
        self._counts = counts
        self._doubt = doubt
        self._pace = pace
        self._devices: deque[Device] = deque()
        self._chunks: deque[Sequence[Device]] = deque()
        self._under_way = 0

    def add(self, devices: Iterable[Device]) -> None:
        """Take in devices, in any orders."""
        self._devices.extend(devices)

    def add_chunk(self, chunk: Sequence[Device]) -> None:
        """Take in devices that go into one order of their own, before the others."""
        self._chunks.append(chunk)

    def put_back(self, chunk: Sequence[Device]) -> None:
        """Take devices back, to be ordered next."""
        self._devices.extendleft(reversed(chunk))

    def take(self) -> Sequence[Device]:
        """Return the devices to order next; `ordered` is to be told when that is over."""
        chunk = self._chunks.popleft() if self._chunks else [self._devices.popleft() for _ in range(self._next_size)]
        self._under_way += len(chunk)
        return chunk

    def ordered(self, chunk: Sequence[Device]) -> None:
        """Take note that an order is not under way any more, whatever became of it."""
        self._under_way -= len(chunk)

    def pause(self) -> float | None:
        """Return the seconds until the next order is placed; `None` where none is, as things stand."""
        remaining = len(self._chunks) + math.ceil(len(self._devices) / self._size)
        if not remaining:
            return None
        settles_in = self._doubt.settles_in()
        # Sent later, the last order proves what became of those of unknown outcome.
        bears_witness = remaining == 1 and not self._options.resubmit
        if settles_in is not None and (bears_witness or self._is_pilot):
            return settles_in
        size = len(self._chunks[0]) if self._chunks else self._next_size
        most = self._options.most_open if self._pace.most_open is None else self._pace.most_open
        most = min(most, PILOT) if self._is_pilot else most
        is_open = self._under_way + self._counts[DeviceState.ORDERED]
        return None if is_open and is_open + size > most else 0.0

    @property
    def _next_size(self) -> int:
        return min(self._size, len(self._devices))

    @property
    def _is_pilot(self) -> bool:
        """Whether nothing has succeeded yet, so that little is ordered at once, unless somebody says how much."""
        needed = self._options.pilot and self._options.batch_size is None
        return needed and self._counts[DeviceState.DONE] == 0

    @property
    def _size(self) -> int:
        """How many devices go into one order."""
        if self._keys is Keys.SERVER:
            return 1
        return self._options.batch_size or (PILOT if self._is_pilot else _BATCH)
