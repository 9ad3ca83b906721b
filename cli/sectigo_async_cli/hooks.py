"""Programs of other people that are run after something happened."""

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress

_LIMIT = 300.0


async def run_hook(words: Sequence[str], data: bytes, *, limit: float = _LIMIT) -> str:
    """Run a program without a shell, and without what this one signs in with; return what went wrong, if anything.

    Args:
        words: the program and its arguments.
        data: what it reads from standard input.
        limit: seconds that it has; then it is ended, with all that it started.
    """
    environment = {name: value for name, value in os.environ.items() if not name.upper().startswith("SECTIGO_")}
    try:
        process = await asyncio.create_subprocess_exec(
            *words,
            stdin=asyncio.subprocess.PIPE,
            # Standard output is for the data of this command.
            stdout=sys.stderr.fileno(),
            env=environment,
            start_new_session=True,
        )
    except OSError as error:
        return f"cannot be run: {error.strerror}"
    try:
        async with asyncio.timeout(limit):
            await process.communicate(data)
    except TimeoutError:
        return f"did not end in {limit:g} s"
    finally:
        if process.returncode is None:
            with suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL) if hasattr(os, "killpg") else process.kill()
            await process.wait()
    return "" if process.returncode == 0 else f"failed with exit code {process.returncode}"
