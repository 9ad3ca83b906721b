"""Every figure that is promised, each beside its peer in one run: `make bench`.

`.venv/bin/python -m benchmarks.bench [--quick] [--directory D]`

With --quick it takes about a minute, and its figures say little but that the benchmarks work. Issuing makes many
files: name a --directory on a disk that is at rest, and where not many files were removed in the last minutes.
"""

import argparse
import os
import platform
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import cryptography
import httpx
import typer

from benchmarks import download, fleet, issuance, scale, startup, transport, waiting
from benchmarks.figures import Figure

_CHART = Path(__file__).parents[1] / "docs" / "images" / "scale.svg"


def groups(*, quick: bool, directory: Path | None) -> Iterator[tuple[str, Callable[[], Iterable[Figure]]]]:
    """Yield what is measured, and how."""
    yield "Calls", lambda: transport.figures(0.6 if quick else 9)
    yield "Start", startup.figures
    yield "Waiting", waiting.figures
    yield "Download", lambda: download.figures(50 if quick else 500, directory)
    yield "Bulk issuance", lambda: issuance.figures(500 if quick else 10_000, 500, directory)[0]
    yield "Scale", lambda: scale.figures(1000 if quick else 10_000, directory, None if quick else _CHART)
    chosen = fleet.QUICK if quick else fleet.settings(fleet.EACH)
    yield "Fleet", lambda: fleet.figures(chosen, fleet.WORKERS[: 2 if quick else None], directory)


def main() -> None:
    """Measure, and print the table in Markdown."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--directory", type=Path, help="a directory on a disk that is otherwise at rest")
    asked = parser.parse_args()
    versions = f"httpx {httpx.__version__}, cryptography {cryptography.__version__}, Typer {typer.__version__}"
    print(f"Python {sys.version.split()[0]}, {versions}, {platform.system()}, {os.cpu_count()} cores\n")
    print("| | Figure | Target | Measured | Peer | |\n|---|---|---|---|---|---|")
    for name, measure in groups(quick=asked.quick, directory=asked.directory):
        for figure in measure():
            verdict = "pass" if figure.passed else "**falls short**"
            cells = (name, figure.name, figure.target, figure.measured, figure.peer, verdict)
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
