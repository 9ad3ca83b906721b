"""On a terminal: tables that fit, nothing cut, and nothing that the terminal would obey."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path

import pytest

from sectigo_async_cli.streams import visible

PROGRAM = str(Path(sys.executable).with_name("sectigo-async"))
Terminal = Callable[..., str]


@pytest.fixture
def terminal(tmp_path: Path, server: str) -> Terminal:
    """Run a command on a terminal of some width and return what it shows, without colours."""

    def show(*arguments: str, columns: int, program: tuple[str, ...] = (PROGRAM,)) -> str:
        mine, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
        settings = {"SECTIGO_ENDPOINT": server, "SECTIGO_USERNAME": "demo", "SECTIGO_PASSWORD": "demo-password"}
        process = subprocess.Popen(
            [*program, *arguments],
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "TERM": "xterm-256color"} | settings,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        shown = b""
        while True:
            try:
                piece = os.read(mine, 65536)
            except OSError:  # The last one has closed the terminal.
                break
            if not piece:
                break
            shown += piece
        os.close(mine)
        assert process.wait(30) == 0, shown
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode()).replace("\r", "")

    return show


@pytest.mark.parametrize("columns", [80, 200])
def test_lists_are_tables_and_nothing_is_cut(terminal: Terminal, columns: int) -> None:
    shown = terminal("authorities", "-b", columns=columns)

    assert "{" not in shown
    assert "…" not in shown
    for word in ("Profile name", "Available", "TRISA End Entity Certificate", "117", "yes"):
        assert word in shown
    assert all(len(line) <= columns for line in shown.splitlines())


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_serial_numbers_stay_whole(terminal: Terminal, columns: int) -> None:
    shown = terminal("create", "-a", "42", "-d", f"tty{columns}.example.com", "-p", "secrtpasswrd", columns=columns)
    assert "batchName" in shown
    assert "{" not in shown

    shown = terminal("find", "-n", f"tty{columns}.example.com", columns=columns)

    assert re.search(r"\b[0-9A-F]{38,40}\b", shown)
    assert "ISSUED" in shown


def test_nothing_found_is_said(terminal: Terminal) -> None:
    assert terminal("find", "-n", "nobody.example.com", columns=80) == "none found\n"


HOSTILE = "a\x1b[2Jb\x1b]8;;http://evil\x07c\u202ed\u200be\x9bf[red]g[/red]"


def test_hostile_names_are_shown_not_obeyed(terminal: Terminal) -> None:
    script = "import sys; from sectigo_async_cli.output import Format, Output, say\n"
    script += "text = sys.argv[1].encode().decode('unicode_escape')\n"
    script += "emit = Output().emit; emit([{'name': text}], {'name': 'Name'}); emit({'name': text}); say(text)\n"
    script += "Output(format=Format.CSV).emit({'name': text})"

    shown = terminal(HOSTILE.encode("unicode_escape").decode(), columns=200, program=(sys.executable, "-c", script))

    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b\u202e]", shown)
    assert shown.count(r"\x1b[2Jb\x1b]8;;http://evil\x07c\u202ed\u200be\x9bf[red]g[/red]") == 4


@pytest.mark.parametrize("text", ["", "plain", "zwei Wörter", "日本"])
def test_ordinary_text_is_left_alone(text: str) -> None:
    assert visible(text) == text
