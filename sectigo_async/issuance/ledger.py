"""The ledger: what a bulk run knows of each device and of each order, and how that may change.

It is an order journal, so `batches.reconcile` looks for what it holds; and it knows which order is for which device.
A device is changed together with its order, from one state that is named to another, and durably: who finds it in
another state has lost a race, and has changed nothing.
"""

import enum
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Protocol

import attrs

from sectigo_async.errors import LedgerError
from sectigo_async.issuance.devices import Device
from sectigo_async.journal import Journal
from sectigo_async.models import Order


class Keys(enum.Enum):
    """Where the private keys of a run are made."""

    LOCAL = "local"
    """Here; or elsewhere, where a line names a CSR. They are never sent."""
    SERVER = "server"
    """At the service, which sends each as PKCS#12."""


class DeviceState(enum.Enum):
    """How far a device has come."""

    PLANNED = "planned"
    """Nothing is ordered for it."""
    UNKNOWN = "outcome unknown"
    """An order for it was sent, or was about to be: it may or may not have been placed."""
    ORDERED = "ordered"
    """An order for it was placed; its batch is known."""
    DONE = "done"
    """Its files are saved, and every check was passed."""
    VERIFY_FAILED = "verify failed"
    """Its files are saved, and a check was not passed."""
    FAILED = "failed"
    """No certificate is issued for it: the service refused it."""


OPEN = frozenset({DeviceState.PLANNED, DeviceState.FAILED})
"""The states of a device for which nothing is ordered: it may be changed."""
PAID = frozenset({DeviceState.UNKNOWN, DeviceState.ORDERED})
"""The states of a device for which something may be ordered that is not saved yet."""


@attrs.frozen(kw_only=True)
class Run:
    """What all devices of a ledger have in common.

    Attributes:
        endpoint: the service that they are ordered from.
        username: who orders them.
        profile_id: the profile, or the authority, that they are ordered under.
        keys: where their private keys are made.
    """

    endpoint: str
    username: str
    profile_id: int
    keys: Keys


@attrs.frozen(kw_only=True)
class Entry:
    """A device as the ledger has it.

    Attributes:
        device: the device.
        state: how far it has come.
        order_id: its order; empty where there is none.
        batch_id: the batch of that order, where it was placed.
        error: why it failed; empty where it did not.
        warning: what is to be known about its certificate.
        serial_number: of its certificate, in upper-case hex; empty where there is none.
        not_after: until when that is valid (aware).
        updated: when it came to its state (aware).
    """

    device: Device
    state: DeviceState = DeviceState.PLANNED
    order_id: str = ""
    batch_id: int | None = None
    error: str = ""
    warning: str = ""
    serial_number: str = ""
    not_after: datetime | None = None
    updated: datetime


@attrs.frozen(kw_only=True)
class Outcome:
    """What an order brought for one device.

    Attributes:
        state: `DONE`, `VERIFY_FAILED` or `FAILED`.
        error: why it is not `DONE`.
        warning: what is to be known about its certificate.
        serial_number: of its certificate, in upper-case hex.
        not_after: until when that is valid (aware).
    """

    state: DeviceState
    error: str = ""
    warning: str = ""
    serial_number: str = ""
    not_after: datetime | None = None


class Ledger(Journal, Protocol):
    """Where a run is written down. Every change is durable when its method returns.

    As a journal it takes orders that it was told of by `intend`, and others, which are for none of its devices. An
    order that turns out placed takes its devices from `UNKNOWN` to `ORDERED`, one that was not back to `PLANNED`.
    It holds no secrets.
    """

    @property
    def run(self) -> Run:
        """What all its devices have in common."""
        ...

    async def amend(self, *, new: Iterable[Device] = (), changed: Iterable[Device] = ()) -> None:
        """Add devices, and change some for which nothing is ordered; these are `PLANNED` from now on.

        Raises:
            LedgerError: it cannot be written; or something is ordered for a device that changed.
        """
        ...

    async def entries(self, states: Collection[DeviceState] | None = None) -> tuple[Entry, ...]:
        """Return the devices in these states, or all, in the order in which they were added.

        Raises:
            LedgerError: it cannot be read.
        """
        ...

    async def of_batch(self, batch_id: int) -> tuple[Entry, ...]:
        """Return the devices that a batch was ordered for, as they stand.

        Raises:
            LedgerError: it cannot be read.
        """
        ...

    async def counts(self) -> dict[DeviceState, int]:
        """Return how many devices are in each state.

        Raises:
            LedgerError: it cannot be read.
        """
        ...

    async def intend(self, order: Order, keys: Collection[str]) -> None:
        """Write down an order that is about to be sent, and take its devices from `PLANNED` to `UNKNOWN`.

        Args:
            order: the order.
            keys: `Device.key` of each device it is for.

        Raises:
            LedgerError: it cannot be written; or a device is not `PLANNED`.
        """
        ...

    async def adopt(
        self, order: Order, devices: Collection[Device], outcomes: Mapping[str, Outcome] | None = None
    ) -> None:
        """Write down an order that was sent without this ledger, and its devices, which are new to it or `PLANNED`.

        Its batch may be that of another order: more devices of it may be found later.

        Args:
            order: the order, placed or of unknown outcome; its `size` is 0.
            devices: the devices that it is for.
            outcomes: what became of those that are saved, by `Device.key`; the others are as the order is.

        Raises:
            LedgerError: it cannot be written; or the order is in the ledger already, or something is ordered for a
                device.
        """
        ...

    async def refuse(self, errors: Mapping[str, str]) -> None:
        """Take devices from `PLANNED` to `FAILED`, since the service refuses to issue for them.

        Args:
            errors: why, by `Device.key`.

        Raises:
            LedgerError: it cannot be written; or a device is not `PLANNED`.
        """
        ...

    async def finish(self, outcomes: Mapping[str, Outcome]) -> None:
        """Take devices from `ORDERED`, or `VERIFY_FAILED`, to what became of them.

        Args:
            outcomes: that, by `Device.key`.

        Raises:
            LedgerError: it cannot be written; or a device is neither.
        """
        ...

    async def retry(self, keys: Collection[str]) -> None:
        """Take devices from `FAILED` back to `PLANNED`.

        Raises:
            LedgerError: it cannot be written; or a device is not `FAILED`.
        """
        ...

    async def devices_of_orders(self) -> dict[str, tuple[str, ...]]:
        """Return for which devices, by their keys, each order was that `intend` was told of, by its id.

        Raises:
            LedgerError: it cannot be read.
        """
        ...


class Intent:
    """The journal of one order: it tells the ledger which devices the order is for.

    Args:
        ledger: the ledger.
        keys: `Device.key` of each device that the order is for.

    Attributes:
        order_id: the order, once it was written down.
        trouble: why the ledger could not be told what became of the order, if it could not.
    """

    def __init__(self, ledger: Ledger, keys: Collection[str]) -> None:
        self._ledger = ledger
        self._keys = keys
        self.order_id: str = ""
        self.trouble: LedgerError | None = None

    async def highest(self) -> int:
        """Return what the ledger returns."""
        return await self._ledger.highest()

    async def write(self, order: Order) -> None:
        """Write an order down; the first time with its devices."""
        if self.order_id == order.order_id:
            try:
                await self._ledger.write(order)
            except LedgerError as error:
                self.trouble = error
                raise
            return
        self.order_id = order.order_id
        await self._ledger.intend(order, self._keys)

    async def orders(self) -> tuple[Order, ...]:
        """Return what the ledger returns."""
        return await self._ledger.orders()
