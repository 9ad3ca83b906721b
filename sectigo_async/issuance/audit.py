"""What the service has beside what a ledger knows: orders that were placed twice, and those that no device owns."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

import attrs

from sectigo_async.client import SectigoClient
from sectigo_async.errors import BatchError, InvalidArgumentError, NoReplyError, PkiError, ServiceError
from sectigo_async.issuance.renewal import Renewals
from sectigo_async.issuance.sqlite_ledger import SqliteLedger, read_ledger
from sectigo_async.models import Batch, Order, OrderState

_BEFORE = 1000


@attrs.frozen(kw_only=True)
class Finding:
    """A batch at the service that no device of a run owns.

    Attributes:
        batch: the batch.
        order: the order of the run that it fits, by its unique name or by its public keys; `None` where it fits none.
        devices: the devices of that order, by their keys.
        reason: what it is, in words.
    """

    batch: Batch
    order: Order | None
    devices: tuple[str, ...] = ()
    reason: str

    @property
    def is_paid_twice(self) -> bool:
        """Whether it was ordered for devices of the run, which have another batch or are said to have none."""
        return self.order is not None and self.order.state is not OrderState.UNKNOWN


def ledgers_of(directory: Path) -> list[Path]:
    """Return the directories of the ledgers that belong to a run: its own, and those of its renewals."""
    return [place for place in (directory, *Renewals(directory).places()) if SqliteLedger.exists(place)]


async def audit_ledger(
    client: SectigoClient, directory: Path, *, after: int | None = None, timeout: float | None = 3600.0
) -> tuple[Finding, ...]:
    """Look at each batch at the service, and return those that no device of a run owns. Nothing is changed.

    Batches that the order journal of this client knows, or a ledger of its renewals, are left out. The run may be
    going on.

    Args:
        client: asks the service, as the user who ordered.
        directory: the directory of the run.
        after: the batch id after which to begin; by what is known of the orders when not given.
        timeout: seconds for the look at all ids; `None` for no limit.

    Raises:
        InvalidArgumentError: `after` is higher than a batch of the run.
        LedgerError: there is no ledger, or it cannot be read.
        SectigoError: the service does not answer.
    """

    async def read() -> tuple[list[Order], dict[str, tuple[str, ...]]]:
        copies = [await read_ledger(place) for place in ledgers_of(directory) or [directory]]
        devices = {order_id: keys for copy in copies for order_id, keys in copy.devices_of_orders.items()}
        return [order for copy in copies for order in copy.orders], devices

    return await audit_orders(client, read, after=after, timeout=timeout)


async def audit_orders(
    client: SectigoClient,
    read: Callable[[], Awaitable[tuple[Sequence[Order], Mapping[str, tuple[str, ...]]]]],
    *,
    after: int | None,
    timeout: float | None,
) -> tuple[Finding, ...]:
    """Look at each batch at the service, and return those that no order of a run owns, as `audit_ledger` does.

    Args:
        client: asks the service, as the user who ordered.
        read: returns the orders of the run as they stand, and for which devices each was, by its id.
        after: the batch id after which to begin; by what is known of the orders when not given.
        timeout: seconds for the look at all ids; `None` for no limit.
    """
    orders, _ = await read()
    placed = [order.batch_id for order in orders if order.batch_id is not None]
    if after is None and not orders:
        return ()
    if after is not None and placed and after >= min(placed):
        raise InvalidArgumentError(f"batch {min(placed)} of this run is older than that", hint="give a lower id")
    batches = await client.batches.scan(
        after=_start(orders, placed) if after is None else after, highest=max(placed, default=0), timeout=timeout
    )
    # Read anew: what was ordered meanwhile is owned as well.
    known, devices = await read()
    owned = {order.batch_id for order in (*known, *await client.batches.orders())}
    marks = _Marks.of(known)
    return tuple([await _judge(client, batch, marks, devices) for batch in batches if batch.batch_id not in owned])


def _start(orders: Sequence[Order], placed: Sequence[int]) -> int:
    """Return the id after which the orders are."""
    if all(order.after for order in orders):
        return min(order.after for order in orders)
    # Nothing was known when the first were sent; since, the nearest later one tells about where they must be.
    return max(0, min(placed, default=0) - _BEFORE)


@attrs.frozen
class _Marks:
    """What tells orders apart."""

    by_name: Mapping[str, Order]
    by_key: Mapping[str, Order]

    @classmethod
    def of(cls, orders: Sequence[Order]) -> "_Marks":
        # The last one for a key is the one that counts.
        return cls(
            {order.batch_name: order for order in orders if order.unique_name},
            {key: order for order in orders for key in order.key_sha256},
        )


async def _judge(
    client: SectigoClient, batch: Batch, marks: _Marks, devices: Mapping[str, tuple[str, ...]]
) -> Finding:
    order, doubt = marks.by_name.get(batch.batch_name), ""
    if order is None and marks.by_key:
        try:
            keys = await client.batches.key_sha256(batch.batch_id)
        except (BatchError, PkiError, ServiceError, NoReplyError) as error:
            doubt = f", as far as can be told without its keys: {error}"
        else:
            order = next((marks.by_key[key] for key in keys if key in marks.by_key), None)
    if order is None:
        return Finding(batch=batch, order=None, reason=f"it is no order of this run{doubt}")
    reason = {
        OrderState.UNKNOWN: f"it is {order.subject}, whose outcome is unknown: issue takes it up",
        OrderState.NOT_ORDERED: f"it is {order.subject}, which counts as not placed",
        OrderState.ORDERED: f"it is ordered beside batch {order.batch_id} for the same devices",
    }
    return Finding(batch=batch, order=order, devices=devices.get(order.order_id, ()), reason=reason[order.state])
