"""What the documentation tells people to type works: each page is followed from top to bottom, in a home of its own.

A fence of `sh` or `python` is run. Of a `console` fence the lines after `$ ` are run, and the first words of what it
shows must come. Any other fence is only read. A comment on the line before a fence says what is special about it:

- `<!-- not run: WHY -->`
- `<!-- serves -->`: it starts the simulator that the rest of the page talks to. A page without one has a simulator
  that issues at once, and the variables that lead to it.
- `<!-- exits: 8 -->`: it ends with that exit code.
- `<!-- file: NAME -->`: it is the content of a file that the page needs.

Python that waits outside of a function has a `client` to wait with.
"""

import itertools
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs
import pytest
import typer.main

from sectigo_async_cli.app import app

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    str(path.relative_to(ROOT))
    for path in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md"))
    if path.name != "cli.md" and path.parent.name != "api"
)
FENCE = re.compile(r"^(?:<!-- ([^\n]*) -->\n)?^(`{3,})([a-z]*)\n(.*?)^\2$", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"(?<!`)`(sectigo-async [^`\n]+)`(?!`)")
PORT = "8831"
# Test processes that run at once begin at different ports.
_PORTS = itertools.count(10000 + os.getpid() % 9000)
EVERYWHERE = dict.fromkeys(("--json", "--table", "--csv", "--quiet", "--no-input"), False)
FRAGMENT = """\
import asyncio

from sectigo_async import SectigoClient


async def main() -> None:
    async with SectigoClient.from_env() as client:
{}

asyncio.run(main())
"""
SIMULATOR = "sectigo-async serve --issue-delay 0"
SIGNED_IN = f"""\
export SECTIGO_ENDPOINT=http://127.0.0.1:{PORT} SECTIGO_ENVIRONMENT=testing
export SECTIGO_USERNAME=demo SECTIGO_PASSWORD=demo-password
"""
PROLOGUE = """\
set -eu
simulator=
stop() { if [ -n "$simulator" ]; then kill $simulator 2>/dev/null || true; wait $simulator || true; fi; simulator=; }
trap stop EXIT
"""


@attrs.frozen
class Fence:
    """One fence of a page: its number, what the comment before it says, its language, and what stands in it."""

    number: int
    note: str
    language: str
    text: str

    @property
    def is_run(self) -> bool:
        return self.language in {"sh", "console", "python"} and not self.note.startswith("not run: ")

    @property
    def exits(self) -> int:
        return int(self.note.removeprefix("exits: ")) if self.note.startswith("exits: ") else 0

    def commands(self) -> list[tuple[str, list[str]]]:
        """Return what is typed, each with what is shown after it."""
        if self.language != "console":
            return [(self.text, [])]
        typed: list[tuple[str, list[str]]] = []
        for line in self.text.splitlines():
            if line.startswith("$ "):
                typed.append((line.removeprefix("$ "), []))
            elif typed and typed[-1][0].endswith("\\"):
                typed[-1] = (f"{typed[-1][0]}\n{line}", [])
            else:
                typed[-1][1].append(line)
        return typed


def fences_of(page: str) -> list[Fence]:
    text = (ROOT / page).read_text()
    return [Fence(number, one[1] or "", one[3], one[4]) for number, one in enumerate(FENCE.finditer(text), 1)]


def script_of(fences: list[Fence], folder: Path, port: str) -> str:
    """Return a program for bash that does what a page tells, and leaves in `folder` what each command writes."""
    fences = [attrs.evolve(fence, text=fence.text.replace(PORT, port)) for fence in fences]
    parts = [PROLOGUE]
    if not any(fence.note == "serves" for fence in fences):
        parts += [_start(f"{SIMULATOR} -a :{port}", folder / "simulator"), SIGNED_IN.replace(PORT, port)]
    for fence in fences:
        if fence.note.startswith("file: "):
            (folder.parent / "work" / fence.note.removeprefix("file: ")).write_text(fence.text)
        elif fence.note == "serves":
            command = fence.text.strip()
            parts.append(_start(command if port in command else f"{command} -a :{port}", folder / str(fence.number)))
        elif fence.is_run and fence.language == "python":
            program = folder / f"{fence.number}.py"
            program.write_text(_program(fence.text))
            parts.append(_run(f"python -W error {program}", folder / f"{fence.number}.0", fence.exits))
        elif fence.is_run:
            for index, (typed, _) in enumerate(fence.commands()):
                parts.append(_run(typed, folder / f"{fence.number}.{index}", fence.exits))
    return "".join(parts)


def _start(command: str, log: Path) -> str:
    return (
        f"stop\n{command} > {log} 2>&1 &\nsimulator=$!\n"
        f"until grep -q ://127 {log}; do kill -0 $simulator; sleep 0.05; done\n"
    )


def _run(command: str, log: Path, exits: int) -> str:
    step = f"echo {log.name}\n"
    block = f"{{\n{command}\n}} > {log} 2>&1"
    if not exits:
        return f"{step}{block}\n"
    return f"{step}set +e\n{block}\ncode=$?\nset -e\n[ $code = {exits} ]\n"


def _program(code: str) -> str:
    try:
        compile(code, "snippet", "exec")
    except SyntaxError:
        return FRAGMENT.format(textwrap.indent(code, " " * 8))
    return code


def follow(page: str, home: Path) -> None:
    """Do what a page tells."""
    fences = fences_of(page)
    for fence in fences:
        assert fence.language, f"{page}: fence {fence.number} names no language:\n{fence.text}"
    if not any(fence.is_run for fence in fences):
        return
    folder = home / ".snippets"
    for made in (folder, home / "work"):
        made.mkdir(parents=True)
    port = str(_free_port())
    script = folder / "script"
    script.write_text(script_of(fences, folder, port))
    process = subprocess.Popen(
        ["/bin/bash", str(script)],
        cwd=home / "work",
        env={"HOME": str(home), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "LANG": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        steps, _ = process.communicate(timeout=100)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    if process.returncode:
        step = [line for line in steps.splitlines() if (folder / line).is_file()]
        log = (folder / step[-1]).read_text() if step else steps
        raise AssertionError(f"{page}: fence {step[-1:]} fails with exit code {process.returncode}:\n{log}")
    for fence in fences:
        for index, (typed, shown) in enumerate(fence.commands() if fence.is_run else ()):
            written = (folder / f"{fence.number}.{index}").read_text() if shown else ""
            came = " ".join(written.replace(port, PORT).split())
            for line in shown:
                words = " ".join(line.split()[:2])
                assert words in came or words == "...", f"{page}: {typed} does not show {line!r}, but:\n{written}"


def _free_port() -> int:
    """Return a port that nobody is given who asks for any: a page starts its simulator there more than once."""
    while True:
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port := next(_PORTS)))
            return port


@pytest.fixture(scope="module")
def followed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator["dict[str, Future[None]]"]:
    """Follow some pages at once: most of the time, a page waits for a program to start."""
    tests = [item for item in request.session.items if isinstance(item, pytest.Function)]
    chosen = [
        str(one.callspec.params["page"])
        for one in tests
        if one.originalname == test_a_page_works_as_it_stands.__name__
    ]
    with ThreadPoolExecutor(3) as pool:
        yield {page: pool.submit(follow, page, tmp_path_factory.mktemp("page") / "home") for page in chosen}


@pytest.mark.openssl
@pytest.mark.timeout(120)
@pytest.mark.parametrize("page", PAGES)
def test_a_page_works_as_it_stands(
    page: str, followed: "dict[str, Future[None]]", request: pytest.FixtureRequest
) -> None:
    if any(fence.is_run and "openssl " in fence.text for fence in fences_of(page)):
        request.getfixturevalue("openssl")
    followed[page].result()


def commands_named_in(page: str) -> Iterator[str]:
    """Yield every command line of ours that a page shows, run or not."""
    text = (ROOT / page).read_text()
    yield from (found[1] for found in INLINE.finditer(text))
    for fence in FENCE.finditer(text):
        for line in fence[4].replace("\\\n", " ").splitlines():
            found = re.search(r"(?:^|[ (|;=]|/bin/)sectigo-async( .*)", line)
            if found:
                yield f"sectigo-async{found[1]}"


@pytest.mark.parametrize("page", PAGES)
def test_commands_and_options_that_a_page_names_exist(page: str) -> None:
    group: Any = typer.main.get_command(app)
    for line in commands_named_in(page):
        try:
            words = shlex.split(re.split(r" [|;&>#] ?|\)|\]", line)[0], comments=True)[1:]
        except ValueError:
            continue  # A command line that goes on elsewhere.
        here, known, is_value = group, _options(group), False
        for word in words:
            if is_value:
                is_value = False
            elif word.startswith("-"):
                name, _, value = word.partition("=")
                assert name in known, f"{page}: {line}"
                is_value = known[name] and not value
            elif word in getattr(here, "commands", {}):
                here = here.commands[word]
                known = EVERYWHERE | _options(here)


def _options(command: Any) -> dict[str, bool]:
    """Return the options of a command, and whether each takes a value."""
    known = {"--help": False, "-": False}
    for one in command.params:
        takes_value = not getattr(one, "is_flag", False)
        known |= dict.fromkeys((*one.opts, *one.secondary_opts), takes_value)
    return known
