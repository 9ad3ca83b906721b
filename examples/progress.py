"""Certificates for two hundred devices, with progress, against a simulator that this program starts by itself.

Run it with `python examples/progress.py`; it needs `pip install 'sectigo-async[sandbox]'`. Against the service, leave
the simulator out and use `SectigoClient.from_env()`. Progress goes to stderr, the result to stdout. Ctrl-C orders
nothing more and fetches what is ready; run on the same directory again, it goes on where it stopped.
"""

import asyncio
import contextlib
import signal
import sys
import tempfile
from contextlib import aclosing
from pathlib import Path

from sectigo_async import SectigoClient
from sectigo_async.issuance import (
    DeviceState,
    Event,
    Issuance,
    Keys,
    Run,
    SqliteLedger,
    make_plan,
    read_devices,
    write_reports,
)
from sectigo_async.pki import load_certificates
from sectigo_async.sandbox import Sandbox, SandboxConfig, SandboxServer

DEVICES = b"common_name\n" + b"".join(b"gw%d.example.com\n" % number for number in range(200))
WIDTH = 30


def show(event: Event, total: int) -> None:
    """Draw how far it is: over and over on one line of a terminal, one line each anywhere else."""
    done = event.counts.get(DeviceState.DONE, 0)
    bar = ("#" * (WIDTH * done // total)).ljust(WIDTH, ".")
    line = f"[{bar}] {done}/{total} {event.text}"
    print(*["\r", line[:100].ljust(100)] if sys.stderr.isatty() else [line], end="", file=sys.stderr)
    print(end="" if sys.stderr.isatty() else "\n", file=sys.stderr, flush=True)


async def issue(client: SectigoClient, directory: Path, roots: Path) -> bool:
    """Issue for each device of the list that has no certificate yet; say whether all have one now."""
    run = Run(endpoint=client.config.endpoint, username=client.username or "", profile_id=42, keys=Keys.LOCAL)
    async with SqliteLedger.open(directory, run) as ledger:
        plan = await make_plan(client, ledger, directory, read_devices(DEVICES))
        trust = await asyncio.to_thread(load_certificates, roots)
        issuance = Issuance(client, ledger, directory, plan.without_problems(), trust=trust)
        with contextlib.suppress(NotImplementedError):  # Windows has no such handlers.
            asyncio.get_running_loop().add_signal_handler(signal.SIGINT, issuance.stop)
        async with aclosing(issuance.run()) as events:
            async for event in events:
                show(event, len(plan.devices))
        entries = await ledger.entries()
    await asyncio.to_thread(write_reports, directory, entries)
    done = sum(entry.state is DeviceState.DONE for entry in entries)
    print(f"{done} of {len(entries)} verified; each is told of in", directory / "results.csv")
    return done == len(entries)


async def main() -> bool:
    """Issue for all of the list."""
    sandbox = Sandbox(SandboxConfig(issue_delay=1))
    with tempfile.TemporaryDirectory() as directory:
        roots = Path(directory) / "roots.pem"
        roots.write_bytes(sandbox.ca_pem())
        async with (
            SandboxServer(sandbox) as server,
            SectigoClient(username="demo", password="demo-password", endpoint=server.url) as client,  # noqa: S106
        ):
            return await issue(client, Path(directory), roots)


if __name__ == "__main__":
    sys.exit(0 if asyncio.run(main()) else 1)
