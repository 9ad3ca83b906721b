"""How long it takes to start: the library beside `import httpx`, the command line beside `python -c pass`.

`.venv/bin/python -m benchmarks.startup`

Each is a process of its own; rounds of all alternate, and the median counts. The command that asks the service talks
to a sandbox on this machine, and finds a token of an earlier call.
"""

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import typer

from benchmarks.figures import Figure
from sectigo_async.sandbox import Sandbox, SandboxConfig, SandboxServer

_ROUNDS = 9
_PYTHON = (sys.executable, "-c")
_PROGRAM = str(Path(sys.executable).with_name("sectigo-async"))
_COMMANDS = {
    "pass": (*_PYTHON, "pass"),
    "import httpx": (*_PYTHON, "import httpx"),
    "import sectigo_async": (*_PYTHON, "import sectigo_async"),
    "from sectigo_async import SectigoClient": (*_PYTHON, "from sectigo_async import SectigoClient"),
    "--version": (_PROGRAM, "--version"),
    "--help": (_PROGRAM, "--help"),
    "batches -i 24 --json": (_PROGRAM, "batches", "-i", "24", "--json"),
}
# What is measured, what it is measured against, and how many times as long it may take.
_TARGETS = (
    ("import sectigo_async", "import httpx", 1.5),
    ("from sectigo_async import SectigoClient", "import httpx", 1.5),
    ("--version", "pass", 3.0),
    ("--help", "pass", 7.0),
    ("batches -i 24 --json", "pass", 22.0),
)


def _measure(environ: dict[str, str]) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in _COMMANDS}
    for _ in range(_ROUNDS):
        for name, command in _COMMANDS.items():
            started = time.perf_counter()
            subprocess.run(command, env=environ, check=True, capture_output=True)  # noqa: S603 - fixed arguments
            times[name].append(time.perf_counter() - started)
    return {name: statistics.median(some) for name, some in times.items()}


async def _with_sandbox() -> dict[str, float]:
    config = SandboxConfig(issue_delay=0)
    with tempfile.TemporaryDirectory() as home:
        async with SandboxServer(Sandbox(config)) as server:
            environ = os.environ | {
                "HOME": home,
                "XDG_RUNTIME_DIR": home,
                "SECTIGO_ENDPOINT": server.url,
                "SECTIGO_USERNAME": config.username,
                "SECTIGO_PASSWORD": config.password,
            }
            order = (_PROGRAM, "create", "-a", "42", "-d", "gw7.example.com", "--password-out", f"{home}/password")
            await asyncio.to_thread(
                subprocess.run, order, env=environ, check=True, capture_output=True, stdin=subprocess.DEVNULL
            )
            return await asyncio.to_thread(_measure, environ)


def figures() -> list[Figure]:
    """Measure, and return the figures."""
    times = asyncio.run(_with_sandbox())
    return [
        Figure(
            name=name,
            target=f"at most {most:g} times {'python -c pass' if peer == 'pass' else peer}",
            measured=f"{times[name] / times[peer]:.1f} times ({times[name] * 1e3:.0f} ms)",
            peer=f"{times[peer] * 1e3:.0f} ms",
            passed=times[name] <= most * times[peer],
        )
        for name, peer, most in _TARGETS
    ]


if __name__ == "__main__":
    print(f"Python {sys.version.split()[0]}, Typer {typer.__version__}")
    for figure in figures():
        print(figure)
