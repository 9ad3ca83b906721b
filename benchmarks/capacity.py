"""What a fleet takes: of PostgreSQL, of the service, of memory; for docs/fleet.md.

`.venv/bin/python -m benchmarks.capacity [--directory D]`

All is as in `benchmarks.fleet`. Memory is the most that a process ever had. It takes four minutes.
"""

import argparse
import asyncio
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psycopg

from benchmarks.fleet import PROFILE, PROGRAM, WARM, Hall, Setting, cluster, fleet, hall, memory_of, ready
from benchmarks.issuance import sandbox_process
from tests.fleet.postgres import Postgres

_TURN = 0.02
_IDLE = 60.0


def issue(place: Hall, devices: int) -> tuple[float, float, float]:
    """Return how long `issue` takes to put a list in, and the most memory in MB until then and until it has left."""
    listed = place.directory / "devices.csv"
    listed.write_text("\n".join(["common_name", *(f"gw{number}.example.com" for number in range(devices))]) + "\n")
    command = (PROGRAM, "issue", str(listed), "-p", str(PROFILE), "--out", str(place.keys))
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    started = time.monotonic()
    with subprocess.Popen(command, env=place.environ, **quiet) as process:  # type: ignore[call-overload] # noqa: S603
        while not is_put_in(place):
            if process.poll() is not None:
                raise SystemExit(f"issue ended with {process.returncode}")
            time.sleep(_TURN)
        seconds, memory = time.monotonic() - started, memory_of(process.pid)
        process.send_signal(signal.SIGINT)
        last = memory
        while process.poll() is None:
            last = max(last, memory_of(process.pid))
            time.sleep(_TURN)
    return seconds, memory, last


def is_put_in(place: Hall) -> bool:
    """Say whether there is work for workers."""
    with suppress(psycopg.errors.UndefinedTable), psycopg.connect(place.postgres.url(place.name)) as connection:
        row = connection.execute("SELECT options <> '' FROM sectigo_run").fetchone()
        return row is not None and bool(row[0])
    return False


def idle(postgres: Postgres, workers: int, directory: Path | None) -> tuple[float, float]:
    """Return the transactions in a second, and the connections of a worker, while there is nothing to do."""
    with (
        sandbox_process(WARM * workers) as server,
        hall(postgres, server, directory) as place,
        place.workers(workers),
    ):
        asyncio.run(ready(place, workers))
        # What a session did shows some seconds later.
        time.sleep(15)
        before, started = place.transactions(), time.monotonic()
        time.sleep(_IDLE)
        return (place.transactions() - before) / (time.monotonic() - started), place.connections() / workers


def capacity(postgres: Postgres, directory: Path | None) -> Iterator[tuple[str, str]]:
    """Yield what a fleet takes."""
    for devices in (10_000, 100_000):
        with sandbox_process(devices) as server, hall(postgres, server, directory) as place:
            seconds, memory, last = issue(place, devices)
            yield f"issue puts in {devices:,} devices", f"{seconds:.1f} s, {memory:.0f} MB"
            yield "its most memory, reports included", f"{last:.0f} MB"
            yield "its database", f"{place.stored() / 2**20:.0f} MiB"
    for workers in (1, 4):
        rate, connections = idle(postgres, workers, directory)
        yield f"transactions a second, {workers} idle", f"{rate:.1f}"
        yield "connections of each", f"{connections:.1f}"
    spent = fleet(postgres, Setting(name="at once", batch_size=500, each=10_000), 1, directory)
    yield "of 10,000 devices in orders of 500", f"{spent.rate:.0f} a second with 1 worker"
    yield "requests for each device", f"{spent.requests / spent.devices:.4f}"
    yield "transactions for each device", f"{spent.transactions / spent.devices:.3f}"
    yield "bytes in PostgreSQL for each device", f"{spent.stored / spent.devices:,.0f}"
    yield "bytes of write-ahead log for each", f"{spent.written / spent.devices:,.0f}"
    yield "connections of a worker at most", f"{spent.connections:.0f}"
    yield "most memory of a worker", f"{spent.memory:.0f} MB"
    yield "CPU of a worker for each device", f"{spent.worker_cpu / spent.devices * 1e3:.2f} ms"


def main() -> None:
    """Measure, and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--directory", type=Path, help="where the devices' folders are made, and removed again")
    asked = parser.parse_args()
    with cluster() as postgres:
        if postgres is not None:
            for name, value in capacity(postgres, asked.directory):
                print(f"{name:40} {value}", flush=True)


if __name__ == "__main__":
    main()
