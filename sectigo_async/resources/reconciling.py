"""What became of orders whose outcome is unknown: the look for them, and what may be concluded from it.

The service has no list of batches that is documented (api.md 1b). So ids are walked through, from the highest that
was known before an order was sent, and each batch is held against what tells the order apart. That nothing is found
proves nothing by itself: a request may run late, and an answer may lag.
"""

import asyncio
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import attrs

from sectigo_async.clock import Clock
from sectigo_async.errors import (
    BatchError,
    NoReplyError,
    PkiError,
    ServiceError,
    WrongPasswordError,
)
from sectigo_async.models import Batch, Order, OrderKind, Reconciliation
from sectigo_async.models.order import readable_part_of
from sectigo_async.resources.walking import EMPTY_STRETCH, Walk
from sectigo_async.transport import Transport
from sectigo_async.wire import calls

if TYPE_CHECKING:
    from sectigo_async.resources.batches import Batches

# More than any clock is wrong by, and any zone is off.
_SLACK = timedelta(hours=26)


@attrs.define
class _Matches:
    """What fits an order: surely, or so that nobody can tell."""

    sure: list[Batch] = attrs.field(factory=list)
    perhaps: list[Batch] = attrs.field(factory=list)


class Reconciler:
    """Looks for orders.

    Args:
        batches: fetches batches and archives.
        transport: sends searches.
        clock: time.
        known: the other orders of the same login, of which those that were placed tell what an id belongs to.
            Orders of unknown outcome that may be mistaken for each other are to be looked for together.
        settle: seconds after which a request that was sent has surely run, if it ever does.
        scan: how many ids are looked at for an order.
    """

    def __init__(
        self,
        batches: "Batches",
        transport: Transport,
        clock: Clock,
        known: Iterable[Order],
        *,
        settle: float,
        scan: int,
    ) -> None:
        self._batches = batches
        self._transport = transport
        self._clock = clock
        self._placed = {order.batch_id: order for order in known if order.batch_id is not None}
        self._settle = timedelta(seconds=settle)
        self._scan = scan
        self._keys: dict[int, frozenset[str] | None] = {}

    async def look(self, orders: Sequence[Order], *, timeout: float | None) -> list[Reconciliation]:
        """Return what became of each order.

        Raises:
            AuthenticationError: no token can be had.
            NoReplyError: the service does not answer.
        """
        began, walk = self._now(), Walk(self._batches.get)
        results: dict[str, Reconciliation] = {}
        late = asyncio.timeout(timeout)
        try:
            async with late:
                await self._walk(orders, walk)
                results = await self._found(orders, walk)
                for order in orders:
                    if order.order_id not in results:
                        results[order.order_id] = await self._missing(order, walk, began)
        except TimeoutError:
            if not late.expired():
                raise
        no_time = "there was no time to look at everything: look again"
        return [results.get(order.order_id) or Reconciliation(order=order, reason=no_time) for order in orders]

    async def _found(self, orders: Iterable[Order], walk: Walk) -> dict[str, Reconciliation]:
        """Return what is to be said of the orders that some batch fits."""
        matches = [(order, await self._match(order, walk.batches.values())) for order in orders]
        claims = Counter(batch.batch_id for order, found in matches for batch in found.sure if order.size)
        results = {
            order.order_id: _conclude(order, found, claims) for order, found in matches if found.sure or found.perhaps
        }
        # What was found just now shows as well as what was known that the service shows orders.
        self._placed |= {one.batch.batch_id: one.order for one in results.values() if one.batch is not None}
        return results

    def _range(self, order: Order) -> range:
        """Return the ids that may be an order's."""
        first = order.after + 1
        later = [number for number, other in self._placed.items() if other.sent_at > order.sent_at and other.size]
        if order.after == 0 and later:
            # Nothing was known then; since, the nearest later order tells about where it must be.
            first = max(1, min(later) - self._scan)
        return range(first, first + self._scan)

    async def _walk(self, orders: Iterable[Order], walk: Walk) -> None:
        # A later order of ours shows that the service shows what is new: it is looked at, too.
        witnesses = {witness for order in orders if (witness := self._witness(order)) is not None}
        others = {number for order in orders for number in self._range(order)} - self._placed.keys()
        # Of an order of which only a device is left, others may be known already.
        others |= {number for order in orders if not order.size for number in self._range(order)}
        await walk.through(sorted(others | witnesses), highest=max(self._placed, default=0))

    def _witness(self, order: Order) -> int | None:
        """Return the lowest id of an order of ours that was sent when this one had surely run, if it ever did.

        Ids grow as orders run, so all that may be this order's are lower.
        """
        later = [
            number
            for number, other in self._placed.items()
            if other.sent_at >= order.sent_at + self._settle and number > order.after and other.size
        ]
        return min(later, default=None)

    async def _match(self, order: Order, batches: Iterable[Batch]) -> _Matches:
        matches = _Matches()
        for batch in batches:
            # Of an upload of which only one device is left, others may be known already.
            is_part = order.kind is OrderKind.UPLOAD and not order.size
            if batch.batch_id <= order.after or (batch.batch_id in self._placed and not is_part):
                continue
            if order.kind is OrderKind.CREATE and not order.size:
                if readable_part_of(batch.batch_name) == order.batch_name:
                    matches.perhaps.append(batch)
            elif order.kind is OrderKind.CREATE:
                if batch.batch_name == order.batch_name and (order.unique_name or _fits_in_time(order, batch)):
                    matches.sure.append(batch)
            elif 0 in {batch.size, order.size} or batch.size == order.size:
                keys = await self._keys_of(batch)
                if keys is None:
                    matches.perhaps.append(batch)
                elif keys & order.key_sha256:
                    matches.sure.append(batch)
        return matches

    async def _keys_of(self, batch: Batch) -> frozenset[str] | None:
        """Return the SHA-256 of the public keys that a batch has certificates for; `None` where that is not known."""
        if batch.batch_id not in self._keys:
            try:
                self._keys[batch.batch_id] = await self._batches.key_sha256(batch.batch_id)
            except WrongPasswordError:
                self._keys[batch.batch_id] = frozenset()  # Its keys were made by the service.
            except (ServiceError, NoReplyError, BatchError, PkiError):
                self._keys[batch.batch_id] = None
        return self._keys[batch.batch_id]

    async def _missing(self, order: Order, walk: Walk, began: datetime) -> Reconciliation:
        """Conclude what may be concluded from an order that no batch fits."""
        # Where to look for an order of which only a device is left, a person said: that proves nothing.
        witness = self._witness(order) if order.size else None
        reason = self._doubt(order, walk, witness, began)
        provable = witness is not None and order.after > 0
        if reason and (provable or not self._is_exhausted(order, walk, began)):
            return Reconciliation(order=order, reason=f"no batch fits{reason}")
        if hint := await self._hint(order):
            return Reconciliation(order=order, reason=f"no batch fits, but {hint}")
        if reason or witness is None:
            return Reconciliation(order=order, reason=f"no batch fits{reason}", exhausted=True)
        return Reconciliation(
            order=order.not_placed(),
            reason=f"no batch fits among all up to {witness}, which was ordered later: nothing was spent",
        )

    def _doubt(self, order: Order, walk: Walk, witness: int | None, began: datetime) -> str:
        """Return why nothing is proved by no batch fitting an order."""
        settled = order.sent_at + self._settle
        if began < settled:
            return f" yet: look again after {settled:%Y-%m-%d %H:%M:%S} UTC"
        if order.after == 0:
            return ", and nothing tells from which id on to look: see in the portal"
        if witness is None:
            return (
                ", but no order of yours that was sent after the settle time shows that it would: see in the portal"
            )
        if witness not in walk.batches:
            return f", but the later batch {witness} does not show either: look again"
        passed = walk.looked | self._placed.keys()
        if not all(number in passed for number in range(order.after + 1, witness)):
            trouble = "".join(f" ({error})" for error in [*walk.unread.values()][:1])
            return f", but not every id up to batch {witness} was looked at{trouble}: look again"
        return ""

    def _is_exhausted(self, order: Order, walk: Walk, began: datetime) -> bool:
        """Say whether it is late enough, and all ids up to where there are none yet were answered for."""
        # What ran while ids were walked through may have one that was passed by then.
        settled = began >= order.sent_at + self._settle
        numbers = self._range(order)
        end = next((number for number in numbers if number not in walk.looked | self._placed.keys()), numbers.stop)
        beyond = end - max((*walk.batches, *self._placed, order.after, 0)) > EMPTY_STRETCH
        return settled and not walk.unread and beyond

    async def _hint(self, order: Order) -> str:
        """Return words on certificates that may come from an order; a search proves nothing, but it may warn."""
        for name in filter(None, order.common_names):
            try:
                found = await self._transport.send(calls.find(name, None))
            except (ServiceError, NoReplyError) as error:
                return f"a search for {name} failed: {error}"
            dates = [item.creation_date for item in found.items]
            # When an order was sent of which only a device is left, nobody knows.
            if any(date is None or date >= order.sent_at - _SLACK or not order.size for date in dates):
                return f"there is a certificate for {name} of about that time, and nobody can tell of which batch"
        return ""

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.time(), UTC)


def _fits_in_time(order: Order, batch: Batch) -> bool:
    return batch.creation_date is None or batch.creation_date >= order.sent_at - _SLACK


def _conclude(order: Order, matches: _Matches, claims: Counter[int]) -> Reconciliation:
    """Conclude what may be concluded from what fits an order."""
    everything = (*matches.sure, *matches.perhaps)
    numbers = _listed(everything)
    if len(matches.sure) == 1 and (claims[matches.sure[0].batch_id] == 1 or not order.size):
        batch = matches.sure[0]
        by = "its name" if order.kind is OrderKind.CREATE else "its public keys"
        mine = (
            "" if order.unique_name or order.kind is OrderKind.UPLOAD else ", which was given and may not be unique"
        )
        return Reconciliation(
            order=order.placed(batch.batch_id), reason=f"batch {batch.batch_id} has {by}{mine}", batch=batch
        )
    if matches.sure:
        reason = f"{numbers} fits more than one order" if len(matches.sure) == 1 else f"{numbers} fit"
        reason += ", and only a person can tell which it is"
    else:
        keys = "public keys cannot be compared: look again once it is ready"
        why = keys if order.kind is OrderKind.UPLOAD else "name begins alike: only a person can tell"
        reason = f"it may be {numbers}, whose {why}"
    return Reconciliation(order=order, reason=reason, candidates=everything)


def _listed(batches: Collection[Batch]) -> str:
    noun = "batch" if len(batches) == 1 else "batches"
    return f"{noun} {', '.join(str(batch.batch_id) for batch in batches)}"
