"""What a script does that issues for a list of devices, in a process that may be killed.

`python -m tests.chaos.driver` takes jobs from standard input, one a line, and tells how each ended. It forks a child
for each, which is quicker than a new interpreter.
"""

import asyncio
import json
import os
import sys
import time
from contextlib import aclosing
from pathlib import Path
from typing import Any

import attrs
import filelock  # noqa: F401 - imported before the fork, for all children
from cryptography import x509

from sectigo_async import SectigoClient, SectigoError
from sectigo_async.issuance import (
    DeviceState,
    Issuance,
    Keys,
    Options,
    Run,
    SqliteLedger,
    make_plan,
    read_devices,
    write_reports,
)
from sectigo_async.sandbox import SandboxConfig
from tests.chaos.fail_points import FailPoints

DONE, FAILED, OUTCOME_UNKNOWN, PENDING = 0, 1, 6, 8
PROFILE = 117
SPEED = 60.0
"""How much faster time is for the client."""
SETTLE = 5.0
"""Seconds of the client's. The harness waits until the sandbox is idle before it starts the next process."""

_OLDER_BATCH = 1


@attrs.frozen(kw_only=True)
class Job:
    """One process.

    Attributes:
        url: the sandbox.
        root: its root certificate, as PEM.
        directory: where the folders of the devices are.
        devices: the list.
        keys: `local` or `server`; `naive` orders with server keys and no ledger, again after any error.
        batch_size: how many devices go into an order.
        origin: when the client's time was the machine's.
        resubmit: whether what nobody knows the outcome of is ordered again.
        kill_at: the fail point to die at; 0 for none.
    """

    url: str
    root: str
    directory: str
    devices: str
    keys: str
    batch_size: int
    origin: float
    resubmit: bool = False
    kill_at: int = 0


@attrs.frozen(kw_only=True)
class Ending:
    """How a process ended.

    Attributes:
        code: its exit code; negative where a signal ended it.
        points: how many fail points it passed, where it lived to tell.
        told: what it said.
    """

    code: int
    points: int = 0
    told: str = ""

    @property
    def killed(self) -> bool:
        """Whether it died at a fail point."""
        return self.code < 0


class QuickClock:
    """Time that passes faster, and goes on where the process before left it.

    Args:
        origin: when it was that of the machine.
    """

    def __init__(self, origin: float) -> None:
        self._origin = origin

    def time(self) -> float:
        return self._origin + (time.time() - self._origin) * SPEED

    def monotonic(self) -> float:
        return time.monotonic() * SPEED

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / SPEED)


async def issue(job: Job) -> int:
    """Issue as the command line does, and return its exit code."""
    clock = QuickClock(job.origin)
    directory = Path(job.directory)
    run = Run(endpoint=job.url, username=SandboxConfig().username, profile_id=PROFILE, keys=Keys(job.keys))
    options = Options(batch_size=job.batch_size, settle=SETTLE, resubmit=job.resubmit, timeout=None)
    async with (
        _client(job, clock) as client,
        SqliteLedger.open(directory, run, floor=_OLDER_BATCH, clock=clock) as ledger,
    ):
        plan = await make_plan(client, ledger, directory, read_devices(job.devices.encode()))
        trust = x509.load_pem_x509_certificates(job.root.encode())
        issuance = Issuance(client, ledger, directory, plan, options=options, trust=trust, clock=clock)
        try:
            async with aclosing(issuance.run()) as events:
                async for _ in events:
                    pass
        finally:
            await asyncio.to_thread(write_reports, directory, await ledger.entries())
    counts = {state: count for state, count in issuance.counts.items() if count}
    if counts.get(DeviceState.UNKNOWN):
        return OUTCOME_UNKNOWN
    if counts.get(DeviceState.PLANNED) or counts.get(DeviceState.ORDERED):
        return PENDING
    return DONE if set(counts) == {DeviceState.DONE} else FAILED


async def order_naively(job: Job) -> int:
    """Order for each device that no order has succeeded for, again after any error, as a simple script would."""
    directory = Path(job.directory)
    directory.mkdir(exist_ok=True)
    done = directory / "done"
    ordered = done.read_text().split() if done.exists() else []
    async with _client(job, QuickClock(job.origin)) as client:
        for device in read_devices(job.devices.encode()).devices:
            if device.common_name in ordered:
                continue
            placed = False
            while not placed:
                try:
                    params = {"commonName": device.common_name, "pkcs12Password": "secrtpasswrd", **device.parameters}
                    await client.batches.create(authority_id=PROFILE, params=params)
                    placed = True
                except SectigoError:
                    pass
            ordered.append(device.common_name)
            done.write_text(" ".join(ordered))
    return DONE


def _client(job: Job, clock: QuickClock) -> SectigoClient:
    account = SandboxConfig()
    return SectigoClient(username=account.username, password=account.password, endpoint=job.url, clock=clock)


def _child(job: Job, pipe: int) -> None:
    """Do a job, tell of it, and end the process."""
    points = FailPoints(job.kill_at)
    points.install()
    told = ""
    try:
        code = asyncio.run(order_naively(job) if job.keys == "naive" else issue(job))
    except BaseException as error:  # noqa: BLE001 - told to the harness
        code, told = FAILED, f"{type(error).__name__}: {error}"
    os.write(pipe, json.dumps({"points": points.passed, "told": told[:1000]}).encode())
    os._exit(code)


def _run(job: Job) -> Ending:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        _child(job, writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        told: dict[str, Any] = json.loads(pipe.read() or b"{}")
    _, status = os.waitpid(child, 0)
    return Ending(code=os.waitstatus_to_exitcode(status), **told)


def main() -> None:
    """Do jobs until there are no more."""
    for line in sys.stdin:
        print(json.dumps(attrs.asdict(_run(Job(**json.loads(line))))), flush=True)


if __name__ == "__main__":
    main()
