"""Programs of other people: what they get, and what becomes of them."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from sectigo_async_cli.hooks import run_hook


async def test_a_hook_reads_what_changed_and_gets_no_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECTIGO_PASSWORD", "hidden")
    monkeypatch.setenv("PLAIN", "seen")
    told = tmp_path / "told"
    code = f"import os, sys; open({str(told)!r}, 'w').write(sys.stdin.read() + repr(dict(os.environ)))"

    assert await run_hook([sys.executable, "-c", code], b"a\nb\n") == ""

    assert told.read_text().startswith("a\nb\n")
    assert "seen" in told.read_text()
    assert "SECTIGO" not in told.read_text()


async def test_a_hook_that_does_not_end_is_ended_with_all_that_it_started() -> None:
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(600)'])"

    assert await run_hook([sys.executable, "-c", code], b"", limit=0.5) == "did not end in 0.5 s"

    await _gone("time.sleep(600)")


async def test_a_hook_of_a_command_that_is_interrupted_is_ended() -> None:
    task = asyncio.create_task(run_hook([sys.executable, "-c", "import time; time.sleep(601)"], b""))
    while not [line for line in _processes() if "time.sleep(601)" in line]:
        await asyncio.sleep(0.01)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task

    await _gone("time.sleep(601)")


async def test_a_hook_that_fails_or_cannot_be_run_is_told(tmp_path: Path) -> None:
    (tmp_path / "no program").write_bytes(b"\0")
    (tmp_path / "no program").chmod(0o700)

    assert await run_hook([sys.executable, "-c", "raise SystemExit(7)"], b"") == "failed with exit code 7"
    assert (await run_hook([str(tmp_path / "no program")], b"")).startswith("cannot be run: ")


async def _gone(words: str) -> None:
    """See that no process has these words; one that was killed may take a moment to go."""
    async with asyncio.timeout(5):
        while [line for line in _processes() if words in line]:
            await asyncio.sleep(0.01)


def _processes() -> list[str]:
    """Return the command lines of the processes of this machine that are neither gone nor this one's."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        if place.name != str(os.getpid()):
            try:
                found.append((place / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:
                continue
    return found
