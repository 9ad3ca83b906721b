"""How a fleet grows with its workers, until the service is the limit; and what it takes.

`.venv/bin/python -m benchmarks.fleet [--devices 800] [--directory D]`

The workers are processes of `sectigo-async worker`, the ledger is in a PostgreSQL of the benchmark's own, the sandbox
serves in a process of its own, and all of them share the cores of this machine. Where PostgreSQL is not installed,
all of it is left out. In each setting 1, 2 and 4 workers do as many devices each, in orders of 100:

- waiting: the service issues an order some seconds after it was placed. Most of the time everybody waits for it, and
  what workers have under way adds up. The limit beside it is what this machine's sandbox signs at most.
- signer: the service, too, rests for some milliseconds for each certificate, one after another, as a slow signer
  does. Workers add up until that is the limit.
- cores: the service issues at once, in orders of 500. What limits is this machine.

The limit is that of the sandbox alone: one that issues without delay, but signs as slowly, gets CSRs from a client
that only uploads what was made beforehand. Everything is durable in a new directory, and PostgreSQL flushes each
commit. The clock runs from when the plan of the list is made to the moment of the last device.
"""

import argparse
import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from pathlib import Path
from uuid import uuid4

import attrs
from psycopg import sql

from benchmarks.figures import Figure
from benchmarks.issuance import Server, sandbox_process, signed_in, signing
from sectigo_async.fleet import Database, FleetRun, PostgresLedger, read_fleet
from sectigo_async.issuance import DeviceState, Keys, Options, Run, make_plan, read_devices
from sectigo_async.issuance.backlog import PILOT
from sectigo_async.sandbox import SandboxConfig
from tests.fleet.postgres import Postgres, places, running

WORKERS = (1, 2, 4)
EACH = 800

PROFILE = 42
PROGRAM = str(Path(sys.executable).with_name("sectigo-async"))
_AT_ONCE, _OPEN = 20, 4
WARM = 25
_PATIENCE = 120.0
_TURN = 0.2
_ADDS_UP = 0.85
_OF_THE_LIMIT = 0.8


@attrs.frozen(kw_only=True)
class Setting:
    """What a service is like, and how it is ordered from.

    Attributes:
        name: its name.
        delay: seconds from an order to its certificates.
        signing: seconds that it rests for each certificate, one after another.
        batch_size: CSRs in one order.
        each: devices for each worker.
    """

    name: str
    delay: float = 0.0
    signing: float = 0.0
    batch_size: int = 100
    each: int

    @property
    def is_of_cores(self) -> bool:
        """Whether the service makes nobody wait, so that the cores are the limit."""
        return not self.delay and not self.signing


@attrs.frozen(kw_only=True)
class Spent:
    """What a run took.

    Attributes:
        workers: how many workers there were.
        devices: for how many devices it was.
        seconds: how long it took.
        requests: requests to the service.
        transactions: transactions in PostgreSQL, those of who looks on included.
        stored: bytes by which the database grew.
        written: bytes of its write-ahead log.
        connections: connections that one worker had at most, on average.
        memory: the most memory of a worker, in MB.
        worker_cpu: CPU seconds of all workers.
        busy: cores that were busy, whoever used them.
    """

    workers: int
    devices: int
    seconds: float
    requests: int
    transactions: int
    stored: int
    written: int
    connections: float
    memory: float
    worker_cpu: float
    busy: float

    @property
    def rate(self) -> float:
        """Devices in a second."""
        return self.devices / self.seconds


@attrs.frozen
class Hall:
    """What all workers share.

    Attributes:
        postgres: the cluster.
        name: the name of the database.
        server: the sandbox.
        directory: where keys are kept.
    """

    postgres: Postgres
    name: str
    server: Server
    directory: Path

    @property
    def database(self) -> Database:
        """The database."""
        return Database.at(self.postgres.url(self.name))

    @property
    def environ(self) -> dict[str, str]:
        """The environment of commands."""
        config = SandboxConfig()
        return os.environ | {
            "HOME": str(self.directory),
            "XDG_RUNTIME_DIR": str(self.directory),
            "SECTIGO_ENDPOINT": self.server.url,
            "SECTIGO_USERNAME": config.username,
            "SECTIGO_PASSWORD": config.password,
            "SECTIGO_LEDGER": self.postgres.url(self.name),
        }

    @property
    def keys(self) -> Path:
        """Where keys are kept."""
        return self.directory / "out"

    def one(self, query: str) -> int:
        """Return the number that a query answers; `{}` in it is the name of the database."""
        statement = sql.SQL(query).format(sql.Literal(self.name))
        ((number,),) = self.postgres.execute(statement)
        return int(number or 0)

    def transactions(self) -> int:
        """Return how many transactions were committed in the database."""
        return self.one("SELECT xact_commit FROM pg_stat_database WHERE datname = {}")

    def stored(self) -> int:
        """Return how large the database is."""
        return self.one("SELECT pg_database_size({})")

    def written(self) -> int:
        """Return how much was written to the write-ahead log."""
        return self.one("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn")

    def connections(self) -> int:
        """Return how many connections the workers have."""
        query = "SELECT count(*) FROM pg_stat_activity WHERE datname = {} AND application_name = 'worker'"
        return self.one(query)

    @contextmanager
    def workers(self, count: int) -> Iterator[list[int]]:
        """Start workers, and give their process ids; stop them in the end."""
        processes: list[subprocess.Popen[bytes]] = []
        with (self.directory / "workers.log").open("ab") as log:
            try:
                for _ in range(count):
                    processes.append(  # noqa: PERF401 - what was started is stopped, whatever happens
                        subprocess.Popen(  # noqa: S603 - fixed arguments
                            (PROGRAM, "worker", "--out", str(self.keys)),
                            env=self.environ | {"PGAPPNAME": "worker"},
                            stdin=subprocess.DEVNULL,
                            stdout=log,
                            stderr=log,
                        )
                    )
                yield [process.pid for process in processes]
            finally:
                stop(processes)

    async def put_in(self, names: Sequence[str], options: Options) -> float:
        """Issue for each name, and return how long that took."""
        listed = read_devices("\n".join(["common_name", *names]).encode())
        run = Run(endpoint=self.server.url, username=SandboxConfig().username, profile_id=PROFILE, keys=Keys.LOCAL)
        async with signed_in(self.server) as client, PostgresLedger.open(self.database, run) as ledger:
            plan = await make_plan(client, ledger, self.keys, listed)
            started = time.time()
            fleet = FleetRun(self.database, ledger, self.keys, plan, options=options, trust=[self.server.root])
            async with aclosing(fleet.run()) as events:
                async for _ in events:
                    pass
            entries = [entry for entry in await ledger.entries() if entry.device.name in set(names)]
        if any(entry.state is not DeviceState.DONE for entry in entries) or len(entries) != len(names):
            raise SystemExit(f"not all devices are done: {dict(fleet.counts)} {fleet.halted}")
        return max(entry.updated for entry in entries).timestamp() - started


@contextmanager
def hall(postgres: Postgres, server: Server, place: Path | None) -> Iterator[Hall]:
    """Make a new database, and a new directory."""
    name = f"fleet_{uuid4().hex}"
    postgres.execute(sql.SQL("CREATE DATABASE {} OWNER owner").format(sql.Identifier(name)))
    with tempfile.TemporaryDirectory(dir=place) as directory:
        (Path(directory) / "out").mkdir(mode=0o700)
        try:
            yield Hall(postgres, name, server, Path(directory))
        finally:
            postgres.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Ask processes to end, and see that they do."""
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def cluster() -> Iterator[Postgres | None]:
    """Start a PostgreSQL; where none is installed, give none, and say so."""
    tools = [shutil.which(tool, path=places()) for tool in ("initdb", "postgres", "pg_ctl")]
    if None in tools or not Path("/proc/self/status").exists():
        print("PostgreSQL on Linux is needed; the fleet is left out", file=sys.stderr)
        yield None
        return
    with running(*map(str, tools)) as postgres:
        yield postgres


def memory_of(pid: int) -> float:
    """Return the most memory that a process ever had, in MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0


def cpu_of(pid: int) -> float:
    """Return the CPU seconds of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def busy() -> float:
    """Return the CPU seconds of all that ever ran on this machine."""
    times = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    idle = times[3] + times[4]
    return (sum(times[:8]) - idle) / os.sysconf("SC_CLK_TCK")


@asynccontextmanager
async def peak(look: Callable[[], int]) -> AsyncIterator[list[int]]:
    """Give what was seen of a number that changes."""
    seen = [0]

    async def watch() -> None:
        while True:
            seen.append(await asyncio.to_thread(look))
            await asyncio.sleep(_TURN)

    watching = asyncio.create_task(watch())
    try:
        yield seen
    finally:
        watching.cancel()


async def ready(place: Hall, workers: int) -> None:
    """Have some devices done, and wait until all workers are at work."""
    names = [f"warm{number}.example.com" for number in range(WARM * workers)]
    await place.put_in(names, Options(batch_size=WARM))
    late = time.monotonic() + _PATIENCE
    while (await read_fleet(place.database)).standing.workers < workers:
        if time.monotonic() > late:
            raise SystemExit((place.directory / "workers.log").read_text())
        await asyncio.sleep(_TURN)


def fleet(postgres: Postgres, setting: Setting, workers: int, directory: Path | None) -> Spent:
    """Have so many workers issue, and return what that took."""
    # The first chunk is a small one, whatever the orders: with it, as many chunks as there would be otherwise.
    devices = setting.each * workers - max(0, setting.batch_size - PILOT)
    names = [f"gw{number}.example.com" for number in range(devices)]
    options = Options(
        batch_size=setting.batch_size,
        at_once=_AT_ONCE * workers,
        most_open=_OPEN * setting.batch_size * workers,
    )
    with (
        sandbox_process(2 * devices + WARM * workers, delay=setting.delay, signing=setting.signing) as server,
        hall(postgres, server, directory) as place,
    ):
        with place.workers(workers) as pids:
            asyncio.run(ready(place, workers))
            before = (server.requests(), place.transactions(), place.stored(), place.written())
            worker_cpu, began, cores = sum(map(cpu_of, pids)), time.monotonic(), busy()

            async def measure() -> tuple[float, int]:
                async with peak(place.connections) as seen:
                    return await place.put_in(names, options), max(seen)

            seconds, connections = asyncio.run(measure())
            cores = (busy() - cores) / (time.monotonic() - began)
            worker_cpu = sum(map(cpu_of, pids)) - worker_cpu
            memory = max(map(memory_of, pids))
            requests, stored, written = server.requests(), place.stored(), place.written()
        # What a session did shows when it has ended.
        time.sleep(1)
        transactions = place.transactions()
    return Spent(
        workers=workers,
        devices=devices,
        seconds=seconds,
        requests=requests - before[0],
        transactions=transactions - before[1],
        stored=stored - before[2],
        written=written - before[3],
        connections=connections / workers,
        memory=memory,
        worker_cpu=worker_cpu,
        busy=cores,
    )


def limit(setting: Setting) -> float:
    """Return how many CSRs the sandbox alone signs in a second at most."""
    count = 1000 if setting.signing else 10_000
    names = [f"gw{number}.example.com" for number in range(count)]
    with sandbox_process(2 * count, signing=setting.signing) as server:
        return count / asyncio.run(signing(server, names, setting.batch_size))


def settings(each: int) -> tuple[Setting, ...]:
    """Return the settings, with so many devices for each worker."""
    return (
        Setting(name="waiting", delay=10, each=each),
        Setting(name="signer", delay=1, signing=0.005, each=3 * each // 2),
        Setting(name="cores", batch_size=500, each=3 * each),
    )


QUICK = (Setting(name="waiting", delay=2, batch_size=25, each=100),)
"""Says little but that the benchmark works."""


def figures(chosen: Sequence[Setting], workers: Sequence[int], directory: Path | None) -> Iterator[Figure]:
    """Measure, and yield the figures; none where there is no PostgreSQL."""
    with cluster() as postgres:
        if postgres is None:
            return
        for setting in chosen:
            most, first = limit(setting), 0.0
            for count in workers:
                spent = fleet(postgres, setting, count, directory)
                first = first or spent.rate
                yield _figure(setting, spent, first, most)


def _figure(setting: Setting, spent: Spent, first: float, most: float) -> Figure:
    added = _ADDS_UP * spent.workers * first
    what = f"fleet, {setting.name}: {spent.workers} worker{'s' if spent.workers > 1 else ''}"
    if setting.is_of_cores:
        target, passed = "as much as the cores give", True
    elif added < _OF_THE_LIMIT * most:
        target, passed = f"at least {_ADDS_UP:g} times one worker, each", spent.rate >= added
    else:
        target, passed = f"at least {_OF_THE_LIMIT:g} times the limit", spent.rate >= _OF_THE_LIMIT * most
    return Figure(
        name=what,
        target=target,
        measured=f"{spent.rate / first:.2f} times ({spent.rate:,.0f} a second), {spent.busy:.1f} cores busy",
        peer=f"limit {most:,.0f} a second",
        passed=passed,
    )


def main() -> None:
    """Measure, and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=EACH, help="devices for each worker, where orders are of 100")
    parser.add_argument("--directory", type=Path, help="where the devices' folders are made, and removed again")
    asked = parser.parse_args()
    for figure in figures(settings(asked.devices), WORKERS, asked.directory):
        print(figure, flush=True)


if __name__ == "__main__":
    main()
