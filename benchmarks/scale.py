"""What a certificate costs in a bulk run, however many there are; and how long the run keeps its event loop.

`.venv/bin/python -m benchmarks.scale [--most 10000] [--chart docs/images/scale.svg]`

Each run is one of `benchmarks.issuance`: keys made here, everything durable. The cost is the CPU time of the client
for each device, which other programs on the machine change less than its rate. It is measured for more and more
devices in batches of 500, and for more and more orders at once, each for one device. The first run of all, which
loads what is needed, does not count.

Meanwhile a task that only sleeps for a millisecond looks how much longer that took: the longest is the stall of the
loop, which any other task of a service would have had to wait for.
"""

import argparse
import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from benchmarks.figures import Figure
from benchmarks.issuance import issuance, sandbox_process
from sectigo_async.issuance import Options

FLAT = 0.10
LONGEST_STALL = 0.05

_DEVICES = (100, 300, 1000, 3000, 10_000)
_TASKS = (1, 5, 20, 200)
_ONE_BY_ONE = 200
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


async def _run(count: int, options: Options, place: Path) -> tuple[float, float]:
    """Return the CPU seconds for each device, and the longest stall, of a run with so many."""
    with sandbox_process(count) as server:
        directory = Path(tempfile.mkdtemp(dir=place))
        names = [f"gw{number}.example.com" for number in range(count)]
        async with _stalls() as stalls:
            phases = await issuance(server, names, options, directory)
        return sum(phases.cpu.values()) / count, max(stalls)


def measure(most: int, place: Path) -> tuple[dict[int, float], dict[int, float], float]:
    """Return the cost by devices, the cost by orders at once, and the longest stall with 1,000 devices."""
    asyncio.run(_run(_DEVICES[0], Options(batch_size=500), place))
    by_devices: dict[int, float] = {}
    stall = 0.0
    for count in _DEVICES:
        if count <= most:
            by_devices[count], longest = asyncio.run(_run(count, Options(batch_size=500), place))
            stall = longest if count == _STALLED_AT else stall
    by_tasks = {
        tasks: asyncio.run(_run(_ONE_BY_ONE, Options(batch_size=1, at_once=tasks), place))[0]
        for tasks in _TASKS
        if most >= _STALLED_AT
    }
    return by_devices, by_tasks, stall


def figures(most: int, directory: Path | None, chart: Path | None = None) -> list[Figure]:
    """Measure, and return the figures."""
    # All of it is removed at the end: a file system may be slow for minutes after many files were removed.
    with tempfile.TemporaryDirectory(dir=directory) as place:
        by_devices, by_tasks, stall = measure(most, Path(place))
    if chart is not None:
        chart.write_text(_chart(by_devices, by_tasks), encoding="utf-8")
    return [
        _flat("CPU for a certificate, by devices", by_devices),
        _flat("CPU for a certificate, by orders at once", by_tasks),
        Figure(
            name=f"longest stall, {_STALLED_AT:,} devices",
            target=f"under {LONGEST_STALL * 1e3:.0f} ms",
            measured=f"{stall * 1e3:.0f} ms",
            peer="-",
            passed=stall < LONGEST_STALL,
        ),
    ]


def _flat(name: str, costs: Mapping[int, float]) -> Figure:
    (fewest, first), *_, (most, last) = costs.items()
    return Figure(
        name=name,
        target=f"within {FLAT:.0%} from {fewest:,} to {most:,}",
        measured=f"{last * 1e3:.2f} ms of {most:,}",
        peer=f"{first * 1e3:.2f} ms of {fewest:,}",
        passed=last <= first * (1 + FLAT),
    )


def _chart(by_devices: Mapping[int, float], by_tasks: Mapping[int, float]) -> str:
    """Return an SVG with a bar for each run."""
    rows = [(f"{count:,} devices", cost) for count, cost in by_devices.items()]
    rows += [(f"{tasks:,} order{'s' if tasks > 1 else ''} at once", cost) for tasks, cost in by_tasks.items()]
    widest = max(cost for _, cost in rows)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="640" height="{len(rows) * 26 + 40}" font-size="13">',
        '<text x="8" y="20">CPU of the client for a certificate, in milliseconds</text>',
    ]
    for number, (label, cost) in enumerate(rows):
        y = 34 + number * 26
        lines.append(f'<text x="150" y="{y + 14}" text-anchor="end">{label}</text>')
        lines.append(f'<rect x="158" y="{y}" width="{400 * cost / widest:.0f}" height="18" fill="#4a7ebb"/>')
        lines.append(f'<text x="{164 + 400 * cost / widest:.0f}" y="{y + 14}">{cost * 1e3:.2f}</text>')
    return "\n".join([*lines, "</svg>"]) + "\n"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--most", type=int, default=10_000, help="how many devices at most (1000 or more)")
    parser.add_argument("--directory", type=Path, help="where the devices' folders are made, and removed again")
    parser.add_argument("--chart", type=Path, help="where the chart is written")
    asked = parser.parse_args()
    for figure in figures(asked.most, asked.directory, asked.chart):
        print(figure)


if __name__ == "__main__":
    main()
