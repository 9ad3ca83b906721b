"""The run itself: one conductor that decides what is done next, and the jobs that do it.

What is paid for comes first: ready batches are fetched before others are looked at, and these before anything is
ordered. Whatever happens, the ledger knows it first, so that a run that ends anyhow is taken up by the next.
"""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncGenerator, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sectigo_async.client import SectigoClient
from sectigo_async.clock import Clock, SystemClock
from sectigo_async.errors import (
    ArchiveError,
    BadRequestError,
    BatchFailed,
    BatchNotReady,
    NoReplyError,
    OutcomeUnknownError,
    RateLimitError,
    SectigoError,
    ServerError,
    ServiceError,
    UnexpectedReplyError,
    WrongPasswordError,
)
from sectigo_async.issuance.backlog import PILOT, Backlog
from sectigo_async.issuance.devices import Device
from sectigo_async.issuance.doubt import Doubt
from sectigo_async.issuance.events import Event, EventKind
from sectigo_async.issuance.folders import Batched, Folders, judge_again, save, sweep
from sectigo_async.issuance.ledger import DeviceState, Entry, Intent, Keys, Ledger, Outcome
from sectigo_async.issuance.options import Options
from sectigo_async.issuance.pace import Pace
from sectigo_async.issuance.plan import Plan, balance_of, parameters_of, write_plan
from sectigo_async.issuance.sink import DirectorySink, Sink
from sectigo_async.models import Batch, Order, OrderState, Reconciliation
from sectigo_async.pki import Archive
from sectigo_async.threads import run_to_end
from sectigo_async.waiting import Schedule, Verdict, failed, verdict

if TYPE_CHECKING:
    from cryptography import x509

_GRACE = 30.0
_DOWNLOADS = 3
_LOOK_LIMIT = 600.0
_TROUBLES = (NoReplyError, RateLimitError, ServerError)

_Job = Coroutine[Any, Any, None]


class Issuance:
    """One run: it orders what a plan says, fetches what was ordered, now or before, and saves and checks it.

    Args:
        client: sends all of it.
        ledger: where all of it is written down; nobody else has it meanwhile.
        directory: where the folders of the devices are, and archives until their certificates are saved.
        plan: what is to be ordered.
        options: how to go about it.
        trust: roots that the certificates must lead to; without any, chains are not checked.
        sink: keeps the folders of the devices, where that is not `directory`.
        archives: where archives are, where that is not in `directory`; nobody else uses it meanwhile.
        pace: how much is under way at once, where other runs share it.
        leaves_doubts: end when there is nothing to do but to wait until orders of unknown outcome have settled.
        clock: time.

    Attributes:
        counts: how many devices are in each state.
        parked: the orders that nobody knows the outcome of, at the end.
        halted: why no more was ordered, where something was left to order.

    Raises:
        InvalidArgumentError: the plan has problems.
    """

    def __init__(
        self,
        client: SectigoClient,
        ledger: Ledger,
        directory: Path,
        plan: Plan,
        *,
        options: Options | None = None,
        trust: "Iterable[x509.Certificate] | None" = None,
        sink: Sink | None = None,
        archives: Path | None = None,
        pace: Pace | None = None,
        leaves_doubts: bool = False,
        clock: Clock | None = None,
    ) -> None:
        plan.check()
        self._client = client
        self._ledger = ledger
        self._plan = plan
        self._options = options or Options()
        self._trust = None if trust is None else list(trust)
        self._clock = clock or SystemClock()
        self._folders = Folders(sink or DirectorySink(directory, self._options.access))
        self._archives = archives or directory / ".sectigo-async" / "archives"
        self._events: asyncio.Queue[Event | None] = asyncio.Queue()
        self._wake = asyncio.Event()
        self._pace = pace or Pace(self._clock, self._options.at_once)
        self._schedule = Schedule(self._clock)
        self._doubt = Doubt(self._clock, self._options.settle)
        self._awaited: set[int] = set()
        self._ready: deque[int] = deque()
        self._downloads: Counter[int] = Counter()
        self._failed_in: dict[int, int | None] = {}
        self._leaves_doubts = leaves_doubts
        self._began = self._clock.monotonic()
        self._looking = False
        self._has_looked = False
        self._failures = 0
        self._until: float | None = None
        self._fatal: SectigoError | None = None
        self._trouble: SectigoError | None = None
        self.counts: Counter[DeviceState] = Counter()
        self.halted: str = ""
        self._backlog = Backlog(self._options, ledger.run.keys, self.counts, self._doubt, self._pace)

    @property
    def parked(self) -> tuple[Order, ...]:
        """The orders that nobody knows the outcome of."""
        return tuple(self._doubt)

    @property
    def settles_in(self) -> float | None:
        """The seconds until all orders of unknown outcome have settled; `None` where they have, or there are none."""
        return self._doubt.settles_in()

    @property
    def stopped(self) -> bool:
        """Whether somebody called `stop`."""
        return self._until is not None

    def stop(self, reason: str = "interrupted") -> None:
        """Order nothing more. What is under way gets 30 seconds; what is ready is fetched."""
        if self._until is None:
            self.halted = self.halted or reason
            self._until = self._clock.monotonic() + _GRACE
            self._schedule.hurry()
            self._tell(EventKind.STOPPED, f"no more is ordered: {reason}")
            self._wake.set()

    async def run(self) -> AsyncGenerator[Event, None]:
        """Do it, and yield what happens. Left early, it stops at once, and loses nothing.

        Raises:
            AuthenticationError: no token can be had any more.
            LedgerError: the ledger cannot be written.
            FileError: a folder cannot be used.
            SectigoError: the service is out of reach for too long, or does not let this user order.
        """
        work = asyncio.create_task(self._work())
        work.add_done_callback(lambda _: self._events.put_nowait(None))
        try:
            while (event := await self._events.get()) is not None:
                yield event
            await work
        finally:
            work.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.gather(work, return_exceptions=True)

    async def _work(self) -> None:
        await self._begin()
        running: set[asyncio.Task[None]] = set()
        async with asyncio.TaskGroup() as group:
            while not self._is_over():
                while self._pace.allows() and (job := self._next()) is not None:
                    self._pace.begin()
                    task = group.create_task(self._guarded(job))
                    task.add_done_callback(lambda _: self._pace.end())
                    running.add(task)
                pause = self._pause()
                if not running and (pause is None or self._only_doubts_are_left()):
                    break
                await self._rest(running, pause)
                running = {task for task in running if not task.done()}
            for task in running:
                task.cancel()
        if self._fatal is not None:
            raise self._fatal
        await self._end()

    async def _begin(self) -> None:
        """Take the plan into the ledger, and what stands there into the run."""
        known = await write_plan(self._ledger, self._plan)
        await run_to_end(sweep, self._folders, self._archives, known.values())
        self.counts.update(await self._ledger.counts())
        self._backlog.add(self._plan.devices)
        for order in await self._ledger.orders():
            if order.state is OrderState.UNKNOWN:
                self._doubt.add(order)
        if (left := self._doubt.settles_in()) is not None:
            told = f"{len(self._doubt)} orders of unknown outcome are looked for; they have settled in {left:,.0f} s"
            self._tell(EventKind.OUTCOME_UNKNOWN, told)
        for entry in known.values():
            if entry.state is DeviceState.ORDERED and entry.batch_id is not None:
                self._await(entry.batch_id)
        await self._judge_again([entry for entry in known.values() if entry.state is DeviceState.VERIFY_FAILED])

    async def _judge_again(self, entries: Sequence[Entry]) -> None:
        """Look whether what did not pass its checks passes them now: a key was put back, or a root was mistaken."""
        outcomes = await run_to_end(judge_again, self._folders, self._ledger.run, entries, self._trust)
        if outcomes:
            await self._ledger.finish(outcomes)
            self._move(len(outcomes), DeviceState.VERIFY_FAILED, DeviceState.DONE)
            self._tell(EventKind.SAVED, f"{len(outcomes)} passed their checks now", tuple(outcomes))

    async def _end(self) -> None:
        """Count anew: what was cut short knows nothing of what became of it."""
        self.counts.clear()
        self.counts.update(await self._ledger.counts())
        for order in await self._ledger.orders():
            if order.state is OrderState.UNKNOWN:
                self._doubt.add(order)

    def _await(self, batch_id: int) -> None:
        if batch_id not in self._awaited:
            self._awaited.add(batch_id)
            self._schedule.add(batch_id)

    def _next(self) -> _Job | None:
        """Return what is to be done next, the most urgent first."""
        if self._fatal is not None:
            return None
        if self._ready:
            return self._collect(self._ready.popleft())
        if (batch_id := self._schedule.take()) is not None:
            return self._look(batch_id)
        if self._look_pause() == 0:
            self._looking = True
            self._doubt.look()
            return self._reconcile()
        if self._order_pause() == 0:
            return self._order(self._backlog.take())
        return None

    def _pause(self) -> float | None:
        """Return the seconds until there is something to do; `None` where, as things stand, there will not be."""
        if self._fatal is not None:
            return None
        ready = 0.0 if self._ready else None
        waits = (ready, self._schedule.pause(), self._look_pause(), self._order_pause())
        due = [wait for wait in waits if wait is not None]
        return max(min(due), self._pace.pause()) if due else None

    def _only_doubts_are_left(self) -> bool:
        """Say whether there is nothing to do but to wait for orders to settle, and that is left to a later run."""
        if not self._leaves_doubts or not self._has_looked or self._doubt.settles_in() is None:
            return False
        return not self._ready and not len(self._schedule) and self._order_pause() != 0

    def _look_pause(self) -> float | None:
        """Return the seconds until orders of unknown outcome are looked for; `None` where they are not."""
        if self._looking or self._until is not None or not self._doubt:
            return None
        return self._doubt.next_look()

    def _order_pause(self) -> float | None:
        """Return the seconds until the next order is placed; `None` where none is, as things stand."""
        return None if self.halted else self._backlog.pause()

    async def _rest(self, running: Iterable["asyncio.Task[None]"], pause: float | None) -> None:
        """Wait until a job is done, something is due, or somebody says stop."""
        if self._until is not None:
            left = max(0.0, self._until - self._clock.monotonic())
            pause = left if pause is None or running else min(pause, left)
        signals: list[asyncio.Task[Any]] = [asyncio.create_task(self._wake.wait())]
        if pause is not None:
            # Where something is due and does not begin, something has to end first.
            wait = self._clock.sleep(pause) if pause > 0 else self._pace.turn()
            signals.append(asyncio.create_task(wait))
        try:
            await asyncio.wait({*running, *signals}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for signal in signals:
                signal.cancel()
            await asyncio.gather(*signals, return_exceptions=True)
        self._wake.clear()

    def _is_over(self) -> bool:
        return self._until is not None and self._clock.monotonic() >= self._until

    async def _guarded(self, job: _Job) -> None:
        """Do a job; what it cannot cope with ends the run, but none of the other jobs."""
        try:
            await job
        except SectigoError as error:
            self._fatal = self._fatal or error
        if self._trouble is not None and self._options.timeout is not None:
            # Before this run began, nobody may have asked for long.
            silent = self._clock.monotonic() - max(self._pace.last_good, self._began)
            if silent > self._options.timeout:
                self._fatal = self._fatal or self._trouble

    def _troubled(self, error: SectigoError) -> None:
        """Slow down, since the service is in trouble."""
        self._trouble = error
        self._pace.slower(error.retry_after if isinstance(error, ServiceError) else None)
        self._tell(EventKind.TROUBLE, str(error))

    def _went_well(self) -> None:
        self._trouble = None
        self._pace.faster()

    async def _order(self, chunk: Sequence[Device]) -> None:
        """Place an order for devices."""
        names = tuple(device.name for device in chunk)
        try:
            batch = await self._place(chunk)
        except OutcomeUnknownError as error:
            self._move(len(chunk), DeviceState.PLANNED, DeviceState.UNKNOWN)
            if error.order is not None:
                self._doubt.add(error.order)
            settled = f"it is looked for, and has settled in {self._options.settle:,.0f} s"
            self._tell(EventKind.OUTCOME_UNKNOWN, f"{error}; {settled}", names)
            self._pace.slower()
        except BadRequestError as error:
            await self._refuse(chunk, error)
        except _TROUBLES as error:
            self._backlog.put_back(chunk)
            self._troubled(error)
        else:
            self._move(len(chunk), DeviceState.PLANNED, DeviceState.ORDERED)
            self._doubt.look_again()
            self._tell(EventKind.ORDERED, f"batch {batch.batch_id}: {len(chunk)} ordered", names, batch.batch_id)
            self._went_well()
        finally:
            self._backlog.ordered(chunk)

    async def _place(self, chunk: Sequence[Device]) -> Batch:
        """Make what must be durable before the order, and send it."""
        run = self._ledger.run
        intent = Intent(self._ledger, [device.key for device in chunk])
        batches = self._client.batches.under(intent)
        if run.keys is Keys.SERVER:
            (device,) = chunk
            rule = self._plan.password_rule
            password = {} if rule is None else {rule.name: await run_to_end(self._folders.password, device, rule)}
            batch = await batches.create(authority_id=run.profile_id, params={**parameters_of(device), **password})
        else:
            async with self._pace.disk:
                requests = await run_to_end(self._folders.requests, chunk)
            batch = await batches.upload(profile_id=run.profile_id, requests=requests)
        if intent.trouble is not None:
            # What the ledger does not know as ordered cannot be saved: the next run looks for it.
            raise intent.trouble
        self._await(batch.batch_id)
        return batch

    async def _refuse(self, chunk: Sequence[Device], error: BadRequestError) -> None:
        """Cope with an order that the service refuses: nothing was ordered by it."""
        left = await balance_of(self._client, self._ledger.run.profile_id)
        if left is not None and left < len(chunk):
            self._backlog.put_back(chunk)
            if not self.halted:
                self.halted = f"{len(chunk)} licences are needed for the next order, and {left} are left"
                self._tell(EventKind.STOPPED, self.halted)
            return
        if len(chunk) > 1:
            # One bad request spoils an upload; the others are none the worse.
            middle = len(chunk) // 2
            self._backlog.add_chunk(chunk[:middle])
            self._backlog.add_chunk(chunk[middle:])
            return
        (device,) = chunk
        await self._ledger.refuse({device.key: str(error)})
        self._move(1, DeviceState.PLANNED, DeviceState.FAILED)
        self._tell(EventKind.REFUSED, f"{device.name}: {error}", (device.name,))
        self._note_failures(1)

    def _note_failures(self, count: int) -> None:
        self._failures += count
        none_succeeded = self._options.pilot and self.counts[DeviceState.DONE] == 0
        if self._failures >= PILOT and none_succeeded and not self.halted:
            self.halted = f"none of the first {self._failures} devices succeeded"
            self._tell(EventKind.STOPPED, self.halted)

    async def _look(self, batch_id: int) -> None:
        """Look how a batch stands."""
        try:
            batch = await self._client.batches.look(batch_id)
        except ServiceError as error:
            self._later(batch_id)
            if error.retryable:
                self._troubled(error)
        except NoReplyError as error:
            self._later(batch_id)
            self._troubled(error)
        else:
            self._went_well()
            judged = verdict(batch)
            if judged is Verdict.READY:
                self._failed_in[batch_id] = None if batch.processing is None else batch.processing.failed
                self._ready.append(batch_id)
            elif judged is Verdict.FAILED:
                await self._fail(batch_id, str(failed(batch)))
            else:
                self._later(batch_id)

    def _later(self, batch_id: int) -> None:
        """Have a batch looked at again, unless it has been waited for long enough."""
        limit = self._options.timeout
        if self._until is not None or (limit is not None and self._schedule.age(batch_id) > limit):
            self._schedule.done(batch_id, ready=False)
        else:
            self._schedule.again(batch_id)

    async def _fail(self, batch_id: int, error: str) -> None:
        """Note that a batch brings nothing."""
        self._schedule.done(batch_id, ready=False)
        entries = await self._of_batch(batch_id)
        await self._finish(
            batch_id, {one.device.key: Outcome(state=DeviceState.FAILED, error=error) for one in entries}
        )

    async def _of_batch(self, batch_id: int) -> list[Entry]:
        entries = await self._ledger.of_batch(batch_id)
        return [entry for entry in entries if entry.state is DeviceState.ORDERED]

    async def _collect(self, batch_id: int) -> None:
        """Fetch a batch that is ready, save what came, and judge it."""
        entries = await self._of_batch(batch_id)
        run = self._ledger.run
        batched = Batched(
            batch_id=batch_id,
            devices=[entry.device for entry in entries],
            endpoint=run.endpoint,
            profile_id=run.profile_id,
            keys=run.keys,
            trust=self._trust,
        )
        self._downloads[batch_id] += 1
        try:
            path = await self._client.batches.download_to(batch_id, self._archives, overwrite=True)
            async with self._pace.disk:
                outcomes = await run_to_end(_save, self._folders, batched, path)
        except BatchFailed as error:
            await self._fail(batch_id, str(error))
        except (BatchNotReady, UnexpectedReplyError, *_TROUBLES) as error:
            self._downloads[batch_id] -= 1
            self._later(batch_id)
            if not isinstance(error, BatchNotReady):
                self._troubled(error)
        except (ArchiveError, WrongPasswordError) as error:
            self._came_damaged(batch_id, str(error))
        else:
            missing = [key for key, outcome in outcomes.items() if outcome.state is DeviceState.FAILED]
            failed_in = self._failed_in[batch_id]
            lacks_some = failed_in is not None and len(missing) > failed_in
            if lacks_some:
                # What the service has made is paid for, though it did not come: nothing may order it again.
                outcomes = {key: outcome for key, outcome in outcomes.items() if key not in missing}
                more = f", and {len(missing) - 1} more" if len(missing) > 1 else ""
                self._came_damaged(batch_id, f"its archive lacks the certificate for {missing[0]}{more}")
            else:
                self._schedule.done(batch_id)
            if outcomes:
                await self._finish(batch_id, outcomes)
            if not lacks_some and all(one.state is not DeviceState.VERIFY_FAILED for one in outcomes.values()):
                await run_to_end(path.unlink, missing_ok=True)
            self._went_well()

    def _came_damaged(self, batch_id: int, problem: str) -> None:
        """Have a batch fetched again whose archive came damaged: in this run a few times, then by the next."""
        if self._downloads[batch_id] < _DOWNLOADS:
            self._schedule.again(batch_id)
            return
        self._schedule.done(batch_id, ready=False)
        kept = f"batch {batch_id}: {problem}; it is kept in {self._archives}, and the next run fetches it again"
        self._tell(EventKind.FAILED, kept, batch_id=batch_id)

    async def _finish(self, batch_id: int, outcomes: Mapping[str, Outcome]) -> None:
        await self._ledger.finish(outcomes)
        by_state = Counter(outcome.state for outcome in outcomes.values())
        for state, count in by_state.items():
            self._move(count, DeviceState.ORDERED, state)
        words = ", ".join(f"{count} {state.value}" for state, count in by_state.items())
        bad = [f"{key}: {outcome.error}" for key, outcome in outcomes.items() if outcome.error]
        more = f": {bad[0]}" + (f", and {len(bad) - 1} more" if len(bad) > 1 else "") if bad else ""
        kind = EventKind.FAILED if bad else EventKind.SAVED
        self._tell(kind, f"batch {batch_id}: {words}{more}", tuple(outcomes), batch_id)
        self._note_failures(by_state[DeviceState.FAILED])

    async def _reconcile(self) -> None:
        """Look what became of orders of unknown outcome."""
        batches = self._client.batches.under(self._ledger)
        try:
            results = await batches.reconcile(list(self._doubt), settle=self._options.settle, timeout=_LOOK_LIMIT)
            for result in results:
                await self._take(result)
            self._went_well()
        except (ServiceError, NoReplyError) as error:
            self._troubled(error)
        finally:
            self._looking = False
            self._has_looked = True
            self._doubt.looked(beside_other_work=self._order_pause() is not None or len(self._schedule) > 0)

    async def _take(self, result: Reconciliation) -> None:
        """Take in what is known of an order now."""
        order = result.order
        if order.state is OrderState.UNKNOWN and result.exhausted and self._options.resubmit:
            order = order.not_placed()
            await self._ledger.write(order)
        if order.state is OrderState.UNKNOWN:
            return
        self._doubt.remove(order)
        keys = (await self._ledger.devices_of_orders()).get(order.order_id, ())
        if order.batch_id is not None:
            self._move(len(keys), DeviceState.UNKNOWN, DeviceState.ORDERED)
            self._await(order.batch_id)
            self._tell(EventKind.FOUND, f"{order.subject}: {result.reason}", keys, order.batch_id)
        else:
            self._move(len(keys), DeviceState.UNKNOWN, DeviceState.PLANNED)
            entries = {entry.device.key: entry.device for entry in await self._ledger.entries({DeviceState.PLANNED})}
            # Who has left the list meanwhile is not ordered for.
            listed = {device.key for device in (*self._plan.devices, *self._plan.unknown)}
            if chunk := [entries[key] for key in keys if key in listed]:
                self._backlog.add_chunk(chunk)
            self._tell(EventKind.NOT_ORDERED, f"{order.subject}: {result.reason}", keys)

    def _move(self, count: int, before: DeviceState, after: DeviceState) -> None:
        self.counts[before] -= count
        self.counts[after] += count

    def _tell(self, kind: EventKind, text: str, devices: Sequence[str] = (), batch_id: int | None = None) -> None:
        event = Event(kind=kind, text=text, devices=tuple(devices), batch_id=batch_id, counts=dict(self.counts))
        self._events.put_nowait(event)


def _save(folders: Folders, batched: Batched, path: Path) -> dict[str, Outcome]:
    return save(folders, batched, Archive.from_file(path))
