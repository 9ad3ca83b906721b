"""What a certificate costs in a bulk run, from 100 devices to 10,000; and how long the run keeps its event loop.

`.venv/bin/python -m benchmarks.scale [--most 10000]`

Each run is one of `benchmarks.issuance`: keys made here, batches of 500, everything durable. The cost is the CPU time
of the client for each device, which other programs on the machine change less than its rate. Meanwhile a task that
only sleeps for a millisecond looks how much longer that took: the longest is the stall of the loop, which any other
task of a service would have had to wait for.
"""

import argparse
import asyncio
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from benchmarks.figures import Figure
from benchmarks.issuance import issuance, sandbox_process

FLAT = 0.10
LONGEST_STALL = 0.05

_BATCH = 500
_STALLED_AT = 1000
_NAP = 0.001


@asynccontextmanager
async def _stalls() -> AsyncIterator[list[float]]:
    """Give a list of by how much naps were too long."""
    found: list[float] = []

    async def nap() -> None:
        while True:
            started = time.perf_counter()
            await asyncio.sleep(_NAP)
            found.append(time.perf_counter() - started - _NAP)

    napping = asyncio.create_task(nap())
    try:
        yield found
    finally:
        napping.cancel()


async def _run(count: int) -> tuple[float, float]:
    """Return the CPU seconds for each device, and the longest stall, of a run with so many."""
    with sandbox_process(count) as server, tempfile.TemporaryDirectory() as directory:
        names = [f"gw{number}.example.com" for number in range(count)]
        async with _stalls() as stalls:
            phases = await issuance(server, names, _BATCH, Path(directory))
        return sum(phases.cpu.values()) / count, max(stalls)


def figures(most: int) -> list[Figure]:
    """Measure, and return the figures."""
    counts = [count for count in (100, 1000, 3000, 10_000) if count <= most]
    found = {count: asyncio.run(_run(count)) for count in counts}
    costs = {count: cost for count, (cost, _) in found.items()}
    told = ", ".join(f"{cost * 1e3:.2f} ms of {count:,}" for count, cost in costs.items())
    first, last = costs[counts[0]], costs[counts[-1]]
    return [
        Figure(
            name="CPU for a certificate",
            target=f"flat within {FLAT:.0%}, up to {counts[-1]:,}",
            measured=told,
            peer=f"{first * 1e3:.2f} ms of {counts[0]}",
            passed=last <= first * (1 + FLAT),
        ),
        Figure(
            name=f"longest stall, {_STALLED_AT:,} devices",
            target=f"under {LONGEST_STALL * 1e3:.0f} ms",
            measured=f"{found[_STALLED_AT][1] * 1e3:.0f} ms",
            peer="-",
            passed=found[_STALLED_AT][1] < LONGEST_STALL,
        ),
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--most", type=int, default=10_000)
    for figure in figures(parser.parse_args().most):
        print(figure)


if __name__ == "__main__":
    main()
