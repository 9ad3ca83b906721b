"""Makes the pictures in docs/images from real runs, in a pseudo-terminal, against a simulator: `make reference`."""

import asyncio
import os
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pexpect
import pyte
from rich.console import Console
from rich.text import Text

from sectigo_async.sandbox import Sandbox, SandboxConfig, SandboxServer

IMAGES = Path(__file__).with_name("images")
COLUMNS, LINES = 104, 60
DOWN = "\x1b[B"

Keys = Sequence[tuple[str, str]]
PICTURES: dict[str, Sequence[tuple[str, Keys]]] = {
    "create": [
        (
            "sectigo-async create --out certs",
            [
                ("Profile to order under", f"{DOWN}{DOWN}\r"),
                ("Device Name", "gateway-7\r"),
                ("DNS Names", "gw7.example.com\r"),
                ("PKCS#12 Password", "\r"),
                ("Device Serial Number", "SN-0007\r"),
                ("Device Type", "gateway\r"),
                ("Order this?", "y"),
            ],
        ),
    ],
    "tables": [
        ("sectigo-async authorities --balances", []),
        ("sectigo-async find -n gateway-7", []),
        ("sectigo-async expiring certs --within 60w", []),
    ],
}


class Terminal:
    """A terminal that a program writes to, and what is seen of it."""

    def __init__(self) -> None:
        self._screen = pyte.Screen(COLUMNS, LINES)
        self._stream = pyte.Stream(self._screen)

    def write(self, text: str) -> None:
        """Take what a program writes."""
        self._stream.feed(text)

    def flush(self) -> None:
        """Do nothing: all is written at once."""

    def lines(self) -> list[Text]:
        """Return what is seen, with its colours."""
        rows = [self._screen.buffer[row] for row in range(LINES)]
        texts = []
        for row in rows:
            line = Text()
            for column in range(COLUMNS):
                char = row[column]
                line.append(char.data, f"{'bold ' if char.bold else ''}{_colour(char.fg)}")
            line.rstrip()
            texts.append(line)
        while texts and not texts[-1]:
            texts.pop()
        return texts


def _colour(name: str) -> str:
    if re.fullmatch("[0-9a-f]{6}", name):
        return f"#{name}"
    return {"default": "", "brown": "yellow"}.get(name, name)


def run(terminal: Terminal, command: str, keys: Keys, folder: Path, url: str) -> None:
    """Run a command and answer its questions."""
    terminal.write(f"\x1b[1m$ {command}\x1b[0m\r\n")
    settings = {"SECTIGO_ENDPOINT": url, "SECTIGO_USERNAME": "demo", "SECTIGO_PASSWORD": "demo-password"}
    child: pexpect.spawn[str] = pexpect.spawn(
        command,
        env={
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(folder),
            "TERM": "xterm-256color",
            "PROMPT_TOOLKIT_NO_CPR": "1",
        }
        | settings,
        cwd=folder,
        encoding="utf-8",
        dimensions=(LINES, COLUMNS),
    )
    child.logfile_read = terminal
    for question, answer in keys:
        child.expect_exact(question)
        child.send(answer)
    child.expect(pexpect.EOF)
    child.close()
    if child.exitstatus:
        raise SystemExit(f"{command}: exit code {child.exitstatus}")


def draw(name: str, folder: Path, url: str) -> None:
    """Make one picture."""
    terminal = Terminal()
    for command, keys in PICTURES[name]:
        run(terminal, command, keys, folder, url)
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        console = Console(record=True, width=COLUMNS, file=nowhere, force_terminal=True, color_system="truecolor")
        for line in terminal.lines():
            console.print(line, soft_wrap=True)
        console.save_svg(str(IMAGES / f"{name}.svg"), title="sectigo-async")


async def main() -> None:
    """Make all pictures."""
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        async with SandboxServer(Sandbox(SandboxConfig(issue_delay=1))) as server:
            for name in PICTURES:
                await asyncio.to_thread(draw, name, Path(folder), server.url)


if __name__ == "__main__":
    asyncio.run(main())
