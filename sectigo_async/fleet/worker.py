"""A worker: it takes chunks of a run that is in PostgreSQL, and issues for their devices as one machine does."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import attrs
import psycopg
from procrastinate import App
from procrastinate.exceptions import ProcrastinateException

from sectigo_async.client import SectigoClient
from sectigo_async.clock import Clock, SystemClock
from sectigo_async.errors import (
    AuthenticationError,
    FileError,
    InvalidArgumentError,
    LedgerError,
    LedgerInUseError,
    NoReplyError,
    PkiError,
    RateLimitError,
    SectigoError,
    ServerError,
    ServiceError,
)
from sectigo_async.fleet.database import Connection, Database, has_tables
from sectigo_async.fleet.ledger import PostgresLedger, run_of
from sectigo_async.fleet.marks import MarkedSink, check_mark, mark_of
from sectigo_async.fleet.queue import QUEUE, hand_out, make_app, reclaim
from sectigo_async.fleet.share import (
    Outlook,
    check_sink,
    close,
    halt,
    leave_alone,
    look_again,
    outlook,
    standing,
    terms_of,
)
from sectigo_async.issuance.events import Event, EventKind
from sectigo_async.issuance.folders import Folders
from sectigo_async.issuance.ledger import DeviceState, Entry, Keys
from sectigo_async.issuance.options import Options
from sectigo_async.issuance.pace import Pace
from sectigo_async.issuance.plan import Plan, plan_what_is_left
from sectigo_async.issuance.runner import Issuance
from sectigo_async.issuance.sink import DirectorySink, Sink
from sectigo_async.threads import run_to_end

CHUNKS = 4
"""As many chunks a worker has at once: while one waits for the service, others are written."""

_MISSED = 3
"""A worker that missed as many heartbeats counts as gone."""

_BATCH = 500
_GRACE = 45.0
_SHORTEST, _LONGEST = 1.0, 30.0
_LEFT_ALONE = timedelta(seconds=60)
_LOOK_AGAIN = timedelta(seconds=15)
_TROUBLES = (LedgerError, NoReplyError, RateLimitError, ServerError)


class Worker:
    """Works at a run until it is told to stop; as many as wanted, on any hosts.

    Args:
        client: sends all of it; it is signed in as who put the list in.
        database: where the ledger is.
        directory: where the folders of the devices are, the same directory for all workers; and archives until their
            certificates are saved.
        sink: keeps the folders of the devices, where that is not `directory`.
        heartbeat: seconds between signs of life (1 to 20). A worker that is silent for three of them counts as gone:
            its chunks are given to others, once its lock is free.
        clock: time.

    Attributes:
        counts: how many devices of the run are in each state, as last seen.
    """

    def __init__(
        self,
        client: SectigoClient,
        database: Database,
        directory: Path,
        *,
        sink: Sink | None = None,
        heartbeat: float = 10.0,
        clock: Clock | None = None,
    ) -> None:
        self._client = client
        self._database = database
        self._directory = directory
        self._given = sink
        self._sink: Sink = sink or DirectorySink(directory.absolute())
        self._heartbeat = heartbeat
        self._clock = clock or SystemClock()
        self._events: asyncio.Queue[Event | None] = asyncio.Queue()
        self._running: set[Issuance] = set()
        self._jobs: set[asyncio.Task[Any]] = set()
        self._serving: asyncio.Task[None] | None = None
        self._stopped = asyncio.Event()
        self._fatal: SectigoError | None = None
        self._mark = ""
        self._told = ""
        self._pace = Pace(self._clock, 1)
        self.counts: Mapping[DeviceState, int] = Counter()

    def stop(self, reason: str = "interrupted") -> None:
        """Order nothing more. What is under way gets 30 seconds; the rest is left to other workers."""
        if self._stopped.is_set():
            return
        self._stopped.set()
        self._tell(EventKind.STOPPED, f"no more is ordered here: {reason}")
        for issuance in self._running:
            issuance.stop(reason)
        if self._serving is not None:
            self._serving.cancel()

    async def run(self) -> AsyncGenerator[Event, None]:
        """Work, and yield what happens, until `stop` is called. Left early, it stops at once, and loses nothing.

        Raises:
            AuthenticationError: no token can be had any more.
            FileError: keys cannot be kept here, or not where the others keep them.
            InvalidArgumentError: the run is of another login.
        """
        work = asyncio.create_task(self._work())
        work.add_done_callback(lambda _: self._events.put_nowait(None))
        try:
            while (event := await self._events.get()) is not None:
                yield event
            await work
        finally:
            for task in (*self._jobs, work):
                task.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.gather(work, return_exceptions=True)

    async def _work(self) -> None:
        self._mark = await run_to_end(mark_of, self._sink)
        pause = _SHORTEST
        while not self._stopped.is_set():
            try:
                if await self._is_ready():
                    pause = _SHORTEST
                    await self._serve()
                    continue
            except _TROUBLES as error:
                self._tell(EventKind.TROUBLE, str(error))
                pause = min(2 * pause, _LONGEST)
            await self._rest(pause)
        if self._fatal is not None:
            raise self._fatal

    async def _rest(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopped.wait()

    async def _is_ready(self) -> bool:
        """Say whether there is a run to work at; see that it may be worked at from here.

        Raises:
            FileError: its keys are kept elsewhere.
            InvalidArgumentError: it is of another login.
            AuthenticationError: no token can be had.
            LedgerError: the database is out of reach.
            NoReplyError, ServerError, RateLimitError: the service is.
        """
        async with self._database.session() as connection:
            with self._database.errors():
                if not await has_tables(connection) or await terms_of(connection) is None:
                    self._tell_once("nobody has put a list into the ledger yet; waiting for one")
                    return False
                run = await run_of(connection)
                login = (self._client.config.endpoint, self._client.username or "")
                if login != (run.endpoint, run.username):
                    raise InvalidArgumentError(
                        f"the run is of {run.username} at {run.endpoint}, not of {login[1]} at {login[0]}",
                        hint="sign in as who ordered",
                    )
                await check_sink(connection, self._mark, self._sink.where(""))
                await self._look(connection, arriving=1)
        # Who cannot sign in is not to take what others could do.
        await self._client.sign_in()
        keys = f"profile {run.profile_id} with keys {run.keys.value}"
        self._tell_once(f"at work at the run of {keys} by {run.username} at {run.endpoint}")
        return True

    async def _serve(self) -> None:
        """Do jobs until the database is out of reach, or somebody says stop."""
        every = max(1, min(5, round(self._heartbeat)))
        app = make_app(self._database, self._issue, self._tend, every)
        try:
            async with app.open_async():
                serving = self._serving = asyncio.create_task(self._do_jobs(app))
                await self._until_served(serving)
        except (ProcrastinateException, psycopg.Error, OSError) as error:
            cause = error.__cause__ or error
            self._tell(EventKind.TROUBLE, f"the database does not answer, and is asked again: {cause}")
            await self._rest(_SHORTEST)
        finally:
            self._serving = None

    async def _until_served(self, serving: "asyncio.Task[None]") -> None:
        """Wait until no more jobs are done; once somebody said stop, no longer than they were promised."""
        stopping = asyncio.create_task(self._stopped.wait())
        try:
            await asyncio.wait([serving, stopping], return_when=asyncio.FIRST_COMPLETED)
            # A database that hangs would keep it for ever.
            await asyncio.wait([serving], timeout=_GRACE + _SHORTEST if self._stopped.is_set() else None)
        finally:
            for task in (serving, stopping, *self._jobs):
                task.cancel()
            await asyncio.wait([serving, stopping], timeout=_SHORTEST)
        if serving.done() and not serving.cancelled():
            serving.result()

    async def _do_jobs(self, app: App) -> None:
        if self._stopped.is_set():
            return
        watching = asyncio.create_task(self._watch())
        try:
            await app.run_worker_async(
                queues=[QUEUE],
                concurrency=CHUNKS,
                install_signal_handlers=False,
                shutdown_graceful_timeout=_GRACE,
                delete_jobs="always",
                update_heartbeat_interval=self._heartbeat,
                stalled_worker_timeout=_MISSED * self._heartbeat,
                fetch_job_polling_interval=5.0,
            )
        finally:
            watching.cancel()
            await asyncio.wait([watching])

    async def _watch(self) -> None:
        """Look how the run stands, and how many share its limits."""
        while True:
            await asyncio.sleep(self._heartbeat / 2)
            try:
                async with self._database.session() as connection:
                    with self._database.errors():
                        await self._look(connection)
            except LedgerError as error:
                self._tell(EventKind.TROUBLE, str(error))

    async def _look(self, connection: Connection, *, arriving: int = 0) -> None:
        """Look how the run stands, and take a share of what all workers together may do.

        Args:
            connection: a session.
            arriving: how many workers are about to be counted.
        """
        stands = await standing(connection, timedelta(seconds=_MISSED * self._heartbeat))
        self.counts = stands.counts
        if (terms := await terms_of(connection)) is not None:
            workers = max(1, stands.workers + arriving)
            self._pace.most = max(1, terms.options.at_once // workers)
            self._pace.most_open = max(1, terms.options.most_open // workers // CHUNKS)

    async def _tend(self, app: App) -> None:
        """See that each chunk that something is to be done for has a job, also where a worker died with one."""
        await reclaim(app, _MISSED * self._heartbeat)
        # Out of reach, it is asked again soon.
        with suppress(LedgerError):
            async with self._database.session() as connection:
                with self._database.errors():
                    if (terms := await terms_of(connection)) is not None:
                        await hand_out(app, connection, terms)

    async def _issue(self, chunk: int) -> None:
        """Do what is to be done for a chunk; whatever happens, what is left of it stands in the ledger."""
        task = asyncio.current_task()
        assert task is not None
        self._jobs.add(task)
        task.add_done_callback(self._jobs.discard)
        try:
            async with PostgresLedger.open_chunk(self._database, chunk, clock=self._clock) as ledger:
                await self._issue_for(ledger, chunk)
        except LedgerInUseError:
            pass  # A worker that was taken for gone is still at it.
        except LedgerError as error:
            self._tell(EventKind.TROUBLE, f"chunk {chunk}: {error}")
        except (AuthenticationError, FileError) as error:
            # Another worker may be better off.
            self._fatal = self._fatal or error
            self.stop(str(error))

    async def _issue_for(self, ledger: PostgresLedger, chunk: int) -> None:
        known = await ledger.work(lambda connection: outlook(connection, chunk))
        archives = self._directory / ".sectigo-async" / "archives" / str(chunk)
        try:
            issuance = await self._issuance(ledger, known, archives)
            if self._stopped.is_set():
                return
            has_ordered = await self._carry_out(issuance)
        except (AuthenticationError, LedgerError):
            raise
        except _TROUBLES as error:
            # It may be in trouble for this host alone.
            self._pace.slower(error.retry_after if isinstance(error, ServiceError) else None)
            self._tell(EventKind.TROUBLE, f"chunk {chunk}: {error}")
            await ledger.work(lambda connection: leave_alone(connection, chunk, _LEFT_ALONE))
            return
        except Exception as error:  # noqa: BLE001 - a chunk that cannot be worked at is none to begin with for ever
            if isinstance(error, FileError):
                await run_to_end(check_mark, self._sink, self._mark)
            problem = f"chunk {chunk}: {error if isinstance(error, SectigoError) else repr(error)}"
            self._tell(EventKind.FAILED, problem)
            await ledger.work(lambda connection: close(connection, chunk, known.times_opened, problem))
            return
        if issuance.stopped:
            return
        await self._end(ledger, chunk, known, issuance)
        if has_ordered:
            # That may prove what became of orders in other chunks.
            await ledger.work(lambda connection: look_again(connection, chunk, _LOOK_AGAIN))
        if issuance.settles_in is None:
            with suppress(OSError):
                await asyncio.to_thread(archives.rmdir)

    async def _end(self, ledger: PostgresLedger, chunk: int, known: Outlook, issuance: Issuance) -> None:
        """Note what is to become of a chunk."""
        if issuance.halted:
            reason = issuance.halted
            if await ledger.work(lambda connection: halt(connection, reason)):
                self._tell(EventKind.STOPPED, f"no more is ordered: {reason}")
        elif (settles_in := issuance.settles_in) is not None:
            pause = min(timedelta(seconds=settles_in), _LEFT_ALONE)
            await ledger.work(lambda connection: leave_alone(connection, chunk, pause))
        else:
            await ledger.work(lambda connection: close(connection, chunk, known.times_opened))

    async def _issuance(self, ledger: PostgresLedger, known: Outlook, archives: Path) -> Issuance:
        """Return what is to be done for a chunk.

        Raises:
            FileError: what opens its certificates cannot be read here.
            SectigoError: the service does not say what it asks of a password.
        """
        # A directory that is not mounted any more is empty: keys made there would be lost to all others.
        await run_to_end(mark_of, self._sink, make=False)
        await ledger.work(lambda connection: check_sink(connection, self._mark, self._sink.where("")))
        sink = MarkedSink(self._given or DirectorySink(self._directory, known.terms.options.access), self._mark)
        unfinished = await ledger.entries({DeviceState.UNKNOWN, DeviceState.ORDERED})
        await run_to_end(_probe_keys, Folders(sink), ledger.run.keys, unfinished)
        return Issuance(
            self._client,
            ledger,
            self._directory,
            Plan() if known.is_halted else await plan_what_is_left(self._client, ledger),
            options=self._options(known),
            trust=known.terms.trust,
            sink=sink,
            archives=archives,
            pace=self._pace,
            leaves_doubts=True,
            clock=self._clock,
        )

    async def _carry_out(self, issuance: Issuance) -> bool:
        """Return whether an order was placed."""
        has_ordered = False
        self._running.add(issuance)
        try:
            async with aclosing(issuance.run()) as events:
                async for event in events:
                    has_ordered = has_ordered or event.kind is EventKind.ORDERED
                    self._events.put_nowait(attrs.evolve(event, counts=self.counts))
        finally:
            self._running.discard(issuance)
        return has_ordered

    def _options(self, known: Outlook) -> Options:
        """Return how to go about a chunk: with a share of what all workers may do."""
        options = known.terms.options
        size = options.batch_size
        if size is not None or known.has_succeeded or not options.pilot:
            size = min(size or _BATCH, self._pace.most_open or _BATCH)
        return attrs.evolve(options, batch_size=size, pilot=options.pilot and not known.has_succeeded)

    def _tell_once(self, text: str) -> None:
        if text != self._told:
            self._told = text
            self._tell(EventKind.FOUND, text)

    def _tell(self, kind: EventKind, text: str) -> None:
        self._events.put_nowait(Event(kind=kind, text=text, counts=self.counts))


def _probe_keys(folders: Folders, keys: Keys, entries: Iterable[Entry]) -> None:
    """See that what opens the certificates of devices can be read here.

    Raises:
        FileError: it cannot.
    """
    for entry in entries:
        if keys is Keys.SERVER:
            folders.known_password(entry.device)
            continue
        # One that is damaged, or gone, is so for every worker.
        with suppress(PkiError):
            folders.key_sha256(entry.device)
