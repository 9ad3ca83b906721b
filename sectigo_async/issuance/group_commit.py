"""One thread that writes to an SQLite database, and commits what several tasks want written at once."""

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import attrs

T = TypeVar("T")

Work = Callable[[sqlite3.Connection], T]

_AT_ONCE = 1000


@attrs.frozen
class _Job:
    work: Work[Any]
    loop: asyncio.AbstractEventLoop
    outcome: "asyncio.Future[Any]"


class GroupCommit:
    """Runs work on a database, in a thread of its own, in the order in which it comes.

    What waits when a transaction begins goes into it together: a disk is flushed once for many. Each piece of work is
    whole or not at all by itself, and done for good when `run` returns.

    Args:
        connect: opens the database; called in the thread that is to use it.
    """

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self._connect = connect
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="sectigo_async ledger", daemon=True)
        self._closed = False
        self._thread.start()

    async def run(self, work: Work[T]) -> T:
        """Return what `work` returns, once it is committed. Cancelled, it is done all the same.

        Raises:
            sqlite3.Error: the database cannot be used.
        """
        if self._closed:
            raise sqlite3.ProgrammingError("the database is closed")
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[T] = loop.create_future()
        self._jobs.put(_Job(work, loop, outcome))
        return await outcome

    def close(self) -> None:
        """Do what was asked for, then close the database (blocking)."""
        if not self._closed:
            self._closed = True
            self._jobs.put(None)
            self._thread.join()

    def _serve(self) -> None:
        database: sqlite3.Connection | None = None
        more = True
        while more:
            jobs, more = self._next()
            try:
                database = database or self._connect()
                outcomes = _transaction(database, [job.work for job in jobs])
            except BaseException as error:  # noqa: BLE001 - whoever waits decides what to do with it
                outcomes = [(None, error)] * len(jobs)
            for loop in {job.loop for job in jobs}:
                told = [
                    (job.outcome, *outcome) for job, outcome in zip(jobs, outcomes, strict=True) if job.loop is loop
                ]
                with suppress(RuntimeError):  # The loop may have ended meanwhile.
                    loop.call_soon_threadsafe(_tell, told)
        if database is not None:
            with suppress(sqlite3.Error):
                database.close()

    def _next(self) -> tuple[list[_Job], bool]:
        """Return the jobs that wait, at least one unless this is the end, and whether there may be more."""
        job = self._jobs.get()
        jobs: list[_Job] = []
        while job is not None:
            jobs.append(job)
            if len(jobs) == _AT_ONCE:
                return jobs, True
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return jobs, True
        return jobs, False


def _tell(told: list[tuple["asyncio.Future[Any]", Any, BaseException | None]]) -> None:
    for outcome, result, error in told:
        if outcome.done():
            continue
        if error is not None:
            outcome.set_exception(error)
        else:
            outcome.set_result(result)


def _transaction(database: sqlite3.Connection, works: list[Work[Any]]) -> list[tuple[Any, BaseException | None]]:
    """Do all works in one transaction, each whole or not at all."""
    outcomes: list[tuple[Any, BaseException | None]] = []
    if not works:
        return outcomes
    database.execute("BEGIN IMMEDIATE")
    try:
        for work in works:
            database.execute("SAVEPOINT work")
            try:
                outcomes.append((work(database), None))
            except sqlite3.Error:
                raise  # A full disk, or a damaged file: nothing in this transaction can be trusted.
            except Exception as error:  # noqa: BLE001 - whoever asked for it decides what to do with it
                database.execute("ROLLBACK TO work")
                outcomes.append((None, error))
            database.execute("RELEASE work")
        database.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            database.execute("ROLLBACK")
        raise
    return outcomes
