"""What tests of the fleet share."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import attrs
import psycopg

from sectigo_async.fleet import Database, FleetRun, PostgresLedger
from sectigo_async.fleet.share import close, outlook
from sectigo_async.issuance import Device, DeviceState, Keys, Options, Plan, Run
from sectigo_async.issuance.ledger import OPEN
from sectigo_async.models import Order, OrderKind

RUN = Run(endpoint="https://iot.sectigo.com", username="ops", profile_id=42, keys=Keys.LOCAL)

S = DeviceState
_SENT = datetime(2026, 3, 1, 12, tzinfo=UTC)


def device(name: str, **more: object) -> Device:
    """Return a device of which nothing matters but its name."""
    given: dict[str, object] = {"key": name.casefold(), "name": name, "common_name": name, "line": 2} | more
    return Device(**given)  # type: ignore[arg-type]


def order(number: int, **more: object) -> Order:
    """Return an order; those with higher numbers were sent later."""
    given: dict[str, object] = {
        "order_id": f"order-{number}",
        "kind": OrderKind.UPLOAD,
        "profile_id": RUN.profile_id,
        "common_names": ("a",),
        "key_sha256": frozenset({f"{number:064x}"}),
        "sent_at": _SENT + timedelta(seconds=number),
        "after": 23,
    }
    return Order(**given | more)  # type: ignore[arg-type]


def with_schema(url: str, *schemas: str) -> str:
    """Return the URL of one schema of a database, or of a search path."""
    # A blank in what an option is set to ends it, unless it is escaped.
    path = ",".join(f'"{schema}"' for schema in schemas).replace(" ", "\\ ")
    return f"{url}?options={quote(f'-csearch_path={path}', safe='')}"


@asynccontextmanager
async def pooler(port: int) -> AsyncIterator[int]:
    """Stand before a server as a connection pooler does: what it says of the session is not the server's."""

    serving: set[asyncio.Task[None]] = set()

    async def serve(from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        from_server, to_server = await asyncio.open_connection("127.0.0.1", port)

        async def ask() -> None:
            while data := await from_client.read(65536):
                to_server.write(data)
            to_server.write_eof()

        asking = asyncio.create_task(ask())
        try:
            while True:
                head = await from_server.readexactly(5)
                body = await from_server.readexactly(int.from_bytes(head[1:]) - 4)
                # BackendKeyData: which process answers, and what it takes to cancel a statement.
                if head.startswith(b"K"):
                    body = (int.from_bytes(body[:4]) + 1).to_bytes(4) + body[4:]
                to_client.write(head + body)
        except asyncio.IncompleteReadError:
            await asking
        finally:
            for writer in (to_client, to_server):
                writer.close()
                await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
        await asyncio.wait(serving)


def named(count: int) -> list[Device]:
    """Return as many devices, `gw0000` first."""
    return [device(f"gw{number:04}") for number in range(count)]


@attrs.frozen
class Fleet:
    """A ledger in a database, as whoever puts lists in and workers see it.

    Attributes:
        url: the database.
        directory: where keys are kept.
    """

    url: str
    directory: Path

    @property
    def database(self) -> Database:
        """Where the ledger is."""
        return Database.at(self.url)

    async def put_in(
        self, *devices: Device, keys: Keys = Keys.LOCAL, options: Options | None = None, retry: bool = False
    ) -> None:
        """Put a list in, as `issue` does."""
        async with self.whole(keys) as ledger:
            known = {entry.device.key: entry for entry in await ledger.entries()}
            is_open = [one for one in devices if one.key not in known or known[one.key].state in OPEN]
            failed = {} if retry else {key: one for key, one in known.items() if one.state is S.FAILED}
            plan = Plan(
                devices=tuple(one for one in is_open if one.key not in failed),
                changed=tuple(one for one in is_open if one.key in known and known[one.key].device != one),
                failed=tuple(failed[one.key] for one in devices if one.key in failed),
                unknown=tuple(one for one in devices if one.key in known and known[one.key].state is S.UNKNOWN),
            )
            await FleetRun(self.database, ledger, self.directory, plan, options=options)._put_in()

    def whole(self, keys: Keys = Keys.LOCAL) -> AbstractAsyncContextManager[PostgresLedger]:
        """Take the whole ledger, as `issue` does; wait for nobody."""
        return PostgresLedger.open(self.database, attrs.evolve(RUN, keys=keys), patience=0)

    @asynccontextmanager
    async def chunks(self, *numbers: int) -> AsyncIterator[Sequence[PostgresLedger]]:
        """Take chunks, as workers do."""
        async with PostgresLedger.open_chunk(self.database, numbers[0]) as first:
            if not numbers[1:]:
                yield [first]
                return
            async with self.chunks(*numbers[1:]) as others:
                yield [first, *others]

    async def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Return what a query finds, in a session of its own."""
        async with await psycopg.AsyncConnection.connect(self.url, autocommit=True) as connection:
            return await (await connection.execute(query.encode())).fetchall()

    async def cut(self) -> list[list[str]]:
        """Return which devices are in which chunk, the first chunk first."""
        query = "SELECT array_agg(key ORDER BY position) FROM sectigo_devices WHERE chunk IS NOT NULL GROUP BY chunk"
        return [row[0] for row in await self.rows(f"{query} ORDER BY chunk")]

    async def everything(self) -> list[list[tuple[Any, ...]]]:
        """Return all that stands in the ledger."""
        tables = ("sectigo_run", "sectigo_chunks", "sectigo_orders", "sectigo_devices")
        return [await self.rows(f"TABLE {table} ORDER BY 1") for table in tables]


async def end(worker: PostgresLedger, chunk: int) -> None:
    """Note that nothing more is to be done for a chunk."""
    known = await worker.work(lambda connection: outlook(connection, chunk))
    await worker.work(lambda connection: close(connection, chunk, known.times_opened))
