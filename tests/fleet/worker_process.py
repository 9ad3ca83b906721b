"""A worker in a process that may be killed.

`python -m tests.fleet.worker_process SERVICE DATABASE DIRECTORY SECONDS`; the last is how often it gives
a sign of life.
"""

import asyncio
import sys
import time
from contextlib import aclosing
from pathlib import Path

from sectigo_async import SectigoClient
from sectigo_async.fleet import Database, Worker
from sectigo_async.sandbox import SandboxConfig


async def work(endpoint: str, database: str, directory: Path, heartbeat: float) -> None:
    """Work until it is killed."""
    login = SandboxConfig()
    async with SectigoClient(endpoint=endpoint, username=login.username, password=login.password) as client:
        worker = Worker(client, Database.at(database), directory, heartbeat=heartbeat)
        async with aclosing(worker.run()) as events:
            async for event in events:
                sys.stdout.write(f"{time.strftime('%X')} {event.kind.value}: {event.text}\n")
                sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(work(sys.argv[1], sys.argv[2], Path(sys.argv[3]), float(sys.argv[4])))
