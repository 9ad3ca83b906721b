"""A run that workers carry out, for whoever puts its list in and looks on."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from procrastinate.exceptions import ConnectorException

from sectigo_async.clock import Clock, SystemClock
from sectigo_async.errors import LedgerError
from sectigo_async.fleet.database import Connection, Database
from sectigo_async.fleet.ledger import PostgresLedger
from sectigo_async.fleet.marks import mark_of
from sectigo_async.fleet.queue import Terms, hand_out, make_app, put_in
from sectigo_async.fleet.share import SILENCE, Standing, bind_sink, check_sink, standing
from sectigo_async.issuance.events import Event, EventKind
from sectigo_async.issuance.ledger import DeviceState
from sectigo_async.issuance.options import Options
from sectigo_async.issuance.plan import Plan, write_plan
from sectigo_async.issuance.sink import DirectorySink, Sink
from sectigo_async.models import Order, OrderState
from sectigo_async.threads import run_to_end

if TYPE_CHECKING:
    from cryptography import x509

_EVERY = 1.0
_ALONE = 10.0
_AGAIN = 5.0
_PART_OF_TIME = 20


class FleetRun:
    """Puts into the ledger what a plan says, for workers to carry out, and tells how that goes.

    Args:
        database: where the ledger is.
        ledger: the whole of it, open; others may put lists into it once the run has begun.
        directory: where the workers keep the folders of the devices.
        plan: what is to be ordered.
        options: how to go about it; all workers together keep to its limits.
        trust: roots that the certificates must lead to; without any, chains are not checked.
        sink: keeps the folders of the devices, where that is not `directory`.
        clock: time.

    Attributes:
        counts: how many devices are in each state.
        parked: the orders that nobody knows the outcome of, at the end.
        halted: why no more was ordered, where something was left to order.
        stopped: whether somebody called `stop`.

    Raises:
        InvalidArgumentError: the plan has problems.
    """

    def __init__(
        self,
        database: Database,
        ledger: PostgresLedger,
        directory: Path,
        plan: Plan,
        *,
        options: Options | None = None,
        trust: "Iterable[x509.Certificate] | None" = None,
        sink: Sink | None = None,
        clock: Clock | None = None,
    ) -> None:
        plan.check()
        self._database = database
        self._ledger = ledger
        self._plan = plan
        self._terms = Terms(options=options or Options(), trust=None if trust is None else tuple(trust))
        self._sink: Sink = sink or DirectorySink(directory.absolute(), self._terms.options.access)
        self._clock = clock or SystemClock()
        self._leaving = asyncio.Event()
        self.counts: Counter[DeviceState] = Counter()
        self.parked: tuple[Order, ...] = ()
        self.halted: str = ""

    @property
    def stopped(self) -> bool:
        """Whether somebody called `stop`."""
        return self._leaving.is_set()

    def stop(self, reason: str = "interrupted") -> None:  # noqa: ARG002 - as `Issuance` has it
        """Look on no more. The workers go on."""
        self._leaving.set()

    async def run(self) -> AsyncGenerator[Event, None]:
        """Put the plan in, and yield how it goes, until nothing more is done about it.

        Raises:
            LedgerError: the ledger cannot be written, or a device was changed that is ordered by now.
            FileError: keys are not kept in this directory, or it cannot be used.
        """
        await self._put_in()
        await self._hand_out()
        before: Standing | None = None
        told_alone = False
        silent_since = self._clock.monotonic()
        while True:
            began = self._clock.monotonic()
            try:
                stands = await self._ledger.work(lambda connection: standing(connection, SILENCE))
            except LedgerError as error:
                # The workers wait for it as well.
                yield Event(kind=EventKind.TROUBLE, text=str(error), counts=dict(self.counts))
                if self._leaving.is_set() or self._is_late(silent_since):
                    raise
                await self._rest(_AGAIN)
                continue
            took = self._clock.monotonic() - began
            self.counts = Counter(stands.counts)
            if before is None or stands != before:
                silent_since = self._clock.monotonic()
                for event in _told(before, stands):
                    yield event
            before = stands
            alone = self._clock.monotonic() - silent_since > _ALONE and stands.workers == 0 and not told_alone
            if alone and stands.open_chunks:
                told_alone = True
                text = "no worker is at work: start `sectigo-async worker` on as many hosts as you like"
                yield Event(kind=EventKind.OUTCOME_UNKNOWN, text=text, counts=stands.counts)
            if self._is_late(silent_since):
                self.halted = f"nothing has happened for {self._terms.options.timeout:,.0f} s"
                break
            if (stands.open_chunks == 0 and stands.under_way == 0) or self._leaving.is_set():
                self.halted = stands.halted or stands.problem
                break
            await self._rest(max(_EVERY, _PART_OF_TIME * took))
        orders = await self._ledger.orders()
        self.parked = tuple(order for order in orders if order.state is OrderState.UNKNOWN)

    def _is_late(self, since: float) -> bool:
        limit = self._terms.options.timeout
        return limit is not None and self._clock.monotonic() - since > limit

    async def _put_in(self) -> None:
        await keys_are_kept_in(self._ledger, self._sink)
        mark = await run_to_end(mark_of, self._sink, make=False)
        await write_plan(self._ledger, self._plan)
        keys = self._ledger.run.keys

        async def work(connection: Connection) -> None:
            await bind_sink(connection, mark, self._sink.where(""))
            await put_in(connection, keys, self._plan, self._terms)

        await self._ledger.work(work)
        await self._ledger.release()

    async def _hand_out(self) -> None:
        """Hand the chunks out sooner than a worker would; where that fails, one does."""
        app = make_app(self._database, _not_here, _not_here, 1)
        with suppress(LedgerError, ConnectorException):
            async with app.open_async(), self._database.session() as connection:
                with self._database.errors():
                    await hand_out(app, connection, self._terms)

    async def _rest(self, seconds: float) -> None:
        leaving = asyncio.create_task(self._leaving.wait())
        resting = asyncio.create_task(self._clock.sleep(seconds))
        try:
            await asyncio.wait({leaving, resting}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (leaving, resting):
                task.cancel()
            await asyncio.gather(leaving, resting, return_exceptions=True)


async def keys_are_kept_in(ledger: PostgresLedger, sink: Sink | Path) -> None:
    """See that the keys of a run are kept in a sink, or a directory, or may be kept there.

    Args:
        ledger: the ledger.
        sink: where; it is given a mark where it has none, and must be readable and writable.

    Raises:
        FileError: they are kept elsewhere, or cannot be kept there.
        LedgerError: the database is out of reach.
    """
    place = _sink(sink)
    mark = await run_to_end(mark_of, place)
    await ledger.work(lambda connection: check_sink(connection, mark, place.where(""), may_move=True))


def _sink(place: Sink | Path) -> Sink:
    return DirectorySink(place.absolute()) if isinstance(place, Path) else place


async def _not_here(_: object) -> None:
    """Do no job: who puts a list in is no worker."""


def _told(before: Standing | None, stands: Standing) -> list[Event]:
    """Return what has happened since one last looked."""
    events = []
    if stands.workers != (0 if before is None else before.workers):
        text = f"{stands.workers} worker{'s are' if stands.workers != 1 else ' is'} at work"
        events.append(Event(kind=EventKind.FOUND, text=text, counts=stands.counts))
    if stands.halted and (before is None or not before.halted):
        text = f"no more is ordered: {stands.halted}"
        events.append(Event(kind=EventKind.STOPPED, text=text, counts=stands.counts))
    if stands.problem and (before is None or before.problem != stands.problem):
        events.append(Event(kind=EventKind.FAILED, text=stands.problem, counts=stands.counts))
    if before is None or before.counts != stands.counts:
        events.append(Event(kind=EventKind.SAVED, text="", counts=stands.counts))
    return events
