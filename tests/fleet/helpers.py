"""What tests of the fleet share."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

from sectigo_async.issuance import Device, Keys, Run
from sectigo_async.models import Order, OrderKind

RUN = Run(endpoint="https://iot.sectigo.com", username="ops", profile_id=42, keys=Keys.LOCAL)

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
