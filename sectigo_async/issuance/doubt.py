"""Orders of unknown outcome in a run: when they are looked for again, and when it is of no use any more."""

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from sectigo_async.clock import Clock
from sectigo_async.models import Order

_LOOKS = 2
_SHORTEST = 1.0
_BESIDE_OTHER_WORK = 15.0
_LONGEST = 60.0
_PART_OF_AGE = 0.25


class Doubt:
    """The orders of a run that nobody knows the outcome of.

    Args:
        clock: time.
        settle: seconds after which a request that was sent has surely run, if it ever does.
    """

    def __init__(self, clock: Clock, settle: float) -> None:
        self._clock = clock
        self._settle = timedelta(seconds=settle)
        self._orders: dict[str, Order] = {}
        self._looks: Counter[str] = Counter()
        self._settled: list[str] = []
        self._settles: dict[str, float] = {}
        self._next_look = clock.monotonic()

    def __iter__(self) -> Iterator[Order]:
        return iter(self._orders.values())

    def __len__(self) -> int:
        return len(self._orders)

    def add(self, order: Order) -> None:
        """Take in an order."""
        self._orders[order.order_id] = order
        left = (order.sent_at + self._settle - self._now()).total_seconds()
        # Of a clock that was ahead nobody waits for more than the settle time.
        bounded = min(left, self._settle.total_seconds())
        self._settles.setdefault(order.order_id, self._clock.monotonic() + bounded)

    def remove(self, order: Order) -> None:
        """Forget an order whose outcome is known now."""
        self._orders.pop(order.order_id, None)

    def look_again(self) -> None:
        """Take note that another order was placed: it may prove what became of these."""
        self._looks.clear()

    def settles_in(self) -> float | None:
        """Return the seconds until all of them have settled; `None` where they have."""
        latest = max((self._settles[order_id] for order_id in self._orders), default=0.0)
        left = latest - self._clock.monotonic()
        return left if left > 0 else None

    def next_look(self) -> float | None:
        """Return the seconds until they are to be looked for; `None` where that is of no more use."""
        if all(self._looks[order_id] >= _LOOKS for order_id in self._orders):
            return None
        return max(0.0, self._next_look - self._clock.monotonic())

    def look(self) -> None:
        """Take note that a look begins: it counts for those that have settled by now."""
        now = self._clock.monotonic()
        self._settled = [order_id for order_id in self._orders if now >= self._settles[order_id]]

    def looked(self, *, beside_other_work: bool) -> None:
        """Take note that a look has ended, and settle on when the next is made.

        Args:
            beside_other_work: whether there is something else to do meanwhile.
        """
        now = self._now()
        self._looks.update(self._settled)
        oldest = min((order.sent_at for order in self), default=now)
        pause = min(max(_SHORTEST, _PART_OF_AGE * (now - oldest).total_seconds()), _LONGEST)
        if beside_other_work:
            pause = max(pause, _BESIDE_OTHER_WORK)
        settles_in = self.settles_in()
        self._next_look = self._clock.monotonic() + (pause if settles_in is None else min(pause, settles_in))

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.time(), UTC)
