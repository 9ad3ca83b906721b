"""The queue of a fleet: Procrastinate's jobs, one for each chunk of devices that something is to be done for.

What is to be done stands in the ledger; the queue only hands it out. So a job that is lost, or done twice, is made
good by `tend`: each chunk that is open gets a job, unless it has one.
"""

import json
import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import LiteralString

import attrs
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from procrastinate import App, PsycopgConnector
from procrastinate.exceptions import AlreadyEnqueued, ConnectorException
from procrastinate.jobs import Status

from sectigo_async.files import Access
from sectigo_async.fleet.database import Connection, Database, bound_waits
from sectigo_async.issuance.backlog import PILOT
from sectigo_async.issuance.ledger import Keys
from sectigo_async.issuance.options import Options
from sectigo_async.issuance.plan import Plan

QUEUE = "sectigo-async"
ISSUE = "sectigo_async.issue_chunk"
TEND = "sectigo_async.tend"

_MOST_JOBS = 200
_CHUNK = 500
_CHUNK_OF_SINGLES = 100
_URGENT = 10

# Each chunk that is open, unless:
# - it has a job, or is to be left alone for now;
# - no more is ordered, and nothing of it is to be fetched or looked for;
# - nothing has succeeded yet, and it is not the first: little is ordered until something has;
# - an order of another chunk is of unknown outcome and has not settled, and nothing else is left to order: sent
#   later, what is left proves what became of that order.
_DUE = """
SELECT chunks.chunk FROM sectigo_chunks chunks
LEFT JOIN procrastinate_jobs jobs ON jobs.queueing_lock = 'sectigo-async chunk ' || chunks.chunk
WHERE chunks.is_open AND chunks.not_before <= now() AND jobs.id IS NULL
AND ((SELECT halted = '' FROM sectigo_run) OR EXISTS (SELECT FROM sectigo_devices devices
    WHERE devices.chunk = chunks.chunk AND devices.state IN ('ordered', 'outcome unknown')))
AND (NOT %(pilot)s OR EXISTS (SELECT FROM sectigo_devices WHERE state = 'done')
    OR chunks.chunk = (SELECT min(chunk) FROM sectigo_chunks WHERE is_open))
AND (%(resubmit)s
    OR NOT EXISTS (SELECT FROM sectigo_orders orders WHERE state = 'unknown' AND orders.chunk <> chunks.chunk
        AND sent_at > now() - make_interval(secs => %(settle)s))
    OR NOT EXISTS (SELECT FROM sectigo_devices d WHERE d.chunk = chunks.chunk AND state = 'planned' AND is_listed)
    OR EXISTS (SELECT FROM sectigo_devices d WHERE d.chunk <> chunks.chunk AND state = 'planned' AND is_listed))
ORDER BY chunks.chunk
LIMIT greatest(0, %(most)s - (SELECT count(*) FROM procrastinate_jobs WHERE queue_name = %(queue)s))
"""


@attrs.frozen(kw_only=True)
class Terms:
    """How a run goes about it, for every worker alike.

    Attributes:
        options: that.
        trust: roots that the certificates must lead to; `None` where chains are not checked.
    """

    options: Options
    trust: tuple[x509.Certificate, ...] | None = None

    def document(self) -> str:
        """Return them as they stand in the database; there is no secret among them."""
        roots = self.trust and [one.public_bytes(Encoding.PEM).decode() for one in self.trust]
        return json.dumps({"options": attrs.asdict(self.options), "trust": roots})

    @classmethod
    def from_document(cls, text: str) -> "Terms":
        """Return the terms that `document` returned."""
        document = json.loads(text)
        access = Access(**document["options"].pop("access"))
        roots = document["trust"]
        return cls(
            options=Options(**document["options"], access=access),
            trust=None if roots is None else tuple(x509.load_pem_x509_certificate(one.encode()) for one in roots),
        )


def make_app(
    database: Database,
    issue: Callable[[int], Awaitable[None]],
    tend: Callable[[App], Awaitable[None]],
    every: int,
) -> App:
    """Return an app for the jobs of a fleet, which is to be opened.

    Args:
        database: where the queue is.
        issue: does what is to be done for a chunk.
        tend: looks what is to be done.
        every: seconds between two looks (1 to 60); one worker makes each.
    """
    connector = PsycopgConnector(
        conninfo=database.conninfo, min_size=1, max_size=4, timeout=15, configure=bound_waits
    )
    app = App(connector=connector)

    @app.task(name=ISSUE, queue=QUEUE)
    async def issue_chunk(chunk: int) -> None:
        await issue(chunk)

    @app.periodic(cron=f"* * * * * */{every}")
    @app.task(name=TEND, queue=QUEUE, queueing_lock="sectigo-async tend", priority=_URGENT)
    async def tend_chunks(timestamp: int) -> None:  # noqa: ARG001 - Procrastinate names it
        await tend(app)

    return app


async def reclaim(app: App, silence: float) -> None:
    """Take away the jobs of workers that are gone; their chunks get others.

    Args:
        app: the app, open.
        silence: seconds for which a worker that is gone gave no sign of life.
    """
    for job in await app.job_manager.get_stalled_jobs(queue=QUEUE, seconds_since_heartbeat=silence):
        # It may have come back, and have ended the job just now.
        with suppress(ConnectorException):
            await app.job_manager.finish_job(job, Status.FAILED, delete_job=True)


async def hand_out(app: App, connection: Connection, terms: Terms) -> None:
    """Give each chunk a job that something is to be done for, and that has none."""
    values = {
        "pilot": terms.options.pilot and terms.options.batch_size is None,
        "resubmit": terms.options.resubmit,
        "settle": terms.options.settle,
        "most": _MOST_JOBS,
        "queue": QUEUE,
    }
    for (chunk,) in await (await connection.execute(_DUE, values)).fetchall():
        job = app.configure_task(ISSUE, queueing_lock=f"sectigo-async chunk {chunk}", queue=QUEUE)
        # Another may look at the same moment.
        with suppress(AlreadyEnqueued):
            await job.defer_async(chunk=chunk)


async def put_in(connection: Connection, keys: Keys, plan: Plan, terms: Terms) -> None:
    """Have workers do what a plan says, whose devices are in the ledger by now; inside a transaction."""
    listed = [device.key for device in (*plan.devices, *plan.unknown)]
    listed += [entry.device.key for entry in plan.failed]
    await connection.execute(
        "UPDATE sectigo_devices devices SET is_listed = NOT is_listed WHERE state = ANY(%s)"
        " AND is_listed <> EXISTS (SELECT FROM unnest(%s::text[]) AS listed (key) WHERE listed.key = devices.key)",
        [["planned", "failed", "outcome unknown"], listed],
    )
    largest = min(terms.options.batch_size or _CHUNK, terms.options.most_open)
    await _cut_fresh(connection, largest if keys is Keys.LOCAL else _CHUNK_OF_SINGLES)
    await _cut_adopted(connection)
    await connection.execute(
        "UPDATE sectigo_chunks chunks SET is_open = true, times_opened = times_opened + 1, not_before = now(),"
        " problem = '' WHERE EXISTS (SELECT FROM sectigo_devices devices WHERE devices.chunk = chunks.chunk"
        " AND (state IN ('outcome unknown', 'ordered', 'verify failed') OR (state = 'planned' AND is_listed)))"
    )
    await connection.execute("UPDATE sectigo_run SET halted = '', options = %s", [terms.document()])


async def _cut_fresh(connection: Connection, size: int) -> None:
    """Cut into chunks what is to be ordered and in none yet; the first is small, since little is ordered at first."""
    fresh = "FROM sectigo_devices WHERE chunk IS NULL AND state = 'planned' AND is_listed"
    count = await _number(connection, f"SELECT count(*) {fresh}")
    first = min(PILOT, size)
    before = await _add_chunks(connection, math.ceil(max(0, count - first) / size) + 1 if count else 0)
    await connection.execute(
        "UPDATE sectigo_devices devices SET chunk = %(before)s +"
        " CASE WHEN number <= %(first)s THEN 1 ELSE 2 + (number - %(first)s - 1) / %(size)s END"
        f" FROM (SELECT position, row_number() OVER (ORDER BY position) AS number {fresh}) AS fresh"
        " WHERE fresh.position = devices.position",
        {"before": before, "first": first, "size": size},
    )


async def _cut_adopted(connection: Connection) -> None:
    """Cut into chunks what was ordered without this ledger; the devices of one order stay together."""
    adopted = "FROM sectigo_orders WHERE chunk IS NULL AND cardinality(devices) > 0"
    count = await _number(connection, f"SELECT count(*) {adopted}")
    before = await _add_chunks(connection, math.ceil(count / PILOT))
    await connection.execute(
        "UPDATE sectigo_orders orders SET chunk = %(before)s + 1 + (position - 1) / %(size)s"
        f" FROM (SELECT order_id, row_number() OVER (ORDER BY number) AS position {adopted}) AS adopted"
        " WHERE adopted.order_id = orders.order_id",
        {"before": before, "size": PILOT},
    )
    await connection.execute(
        "UPDATE sectigo_devices devices SET chunk = orders.chunk FROM sectigo_orders orders"
        " WHERE devices.chunk IS NULL AND devices.order_id = orders.order_id"
    )


async def _add_chunks(connection: Connection, count: int) -> int:
    """Add chunks, and return the number before the first of them."""
    before = await _number(connection, "SELECT coalesce(max(chunk), 0) FROM sectigo_chunks")
    await connection.execute(
        "INSERT INTO sectigo_chunks (chunk) SELECT generate_series(%s::bigint, %s::bigint)",
        [before + 1, before + count],
    )
    return before


async def _number(connection: Connection, query: LiteralString) -> int:
    row = await (await connection.execute(query)).fetchone()
    assert row is not None
    return int(row[0])
