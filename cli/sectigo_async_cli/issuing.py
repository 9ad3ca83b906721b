"""What bulk runs share at the command line: their ledger, a view of how they go, and how they ended."""

import asyncio
import enum
import stat
import tempfile
import time
from collections import Counter, deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol

import typer

from sectigo_async import SectigoClient
from sectigo_async.errors import FileError, InvalidArgumentError
from sectigo_async.issuance import (
    DeviceList,
    DeviceState,
    Event,
    EventKind,
    LineProblem,
    Plan,
    Run,
    SqliteLedger,
    read_devices,
)
from sectigo_async_cli import exit_codes
from sectigo_async_cli.context import Settings
from sectigo_async_cli.run import noting, stopping
from sectigo_async_cli.stdin import read_stdin
from sectigo_async_cli.streams import flat, say, spinner

if TYPE_CHECKING:
    from rich.console import RenderableType

    from sectigo_async import Order

WORKERS_GO_ON = "the workers go on; the same command looks on again"
GOES_ON = "nothing is lost: the same command goes on where this one stopped"

_LARGEST_LIST = 64 * 1024 * 1024
_MOST_PROBLEMS = 100
_EVERY = 5.0
_TROUBLES = 5
_ROUTINE = {EventKind.ORDERED, EventKind.SAVED, EventKind.READY}
_BAD = {EventKind.REFUSED, EventKind.FAILED, EventKind.OUTCOME_UNKNOWN, EventKind.TROUBLE}
_FINAL = {DeviceState.DONE, DeviceState.VERIFY_FAILED, DeviceState.FAILED}
_STYLES = {
    DeviceState.DONE: "green",
    DeviceState.FAILED: "red",
    DeviceState.VERIFY_FAILED: "red",
    DeviceState.UNKNOWN: "yellow",
}

Counts = Mapping[DeviceState, int]


NAMES = {
    DeviceState.PLANNED: "planned",
    DeviceState.UNKNOWN: "unknown",
    DeviceState.ORDERED: "ordered",
    DeviceState.DONE: "done",
    DeviceState.VERIFY_FAILED: "verifyFailed",
    DeviceState.FAILED: "failed",
}
"""The states of devices, as documents name them."""


def in_words(counts: Counts) -> str:
    """Return how many devices are in which state, in a line."""
    told = [f"{counts[state]:,} {state.value}" for state in DeviceState if counts.get(state)]
    return ", ".join(told) or "no devices"


def exit_code(counts: Counts) -> int:
    """Return the exit code for how a run ended."""
    if counts.get(DeviceState.UNKNOWN):
        return exit_codes.OUTCOME_UNKNOWN
    if counts.get(DeviceState.PLANNED) or counts.get(DeviceState.ORDERED):
        return exit_codes.PENDING
    if counts.get(DeviceState.FAILED) or counts.get(DeviceState.VERIFY_FAILED):
        return exit_codes.PARTLY_DONE
    return exit_codes.DONE


class OnAmbiguous(enum.Enum):
    """What is done where nobody can tell whether an order was placed."""

    WAIT = "wait"
    RESUBMIT = "resubmit"


WhenAmbiguous = Annotated[
    OnAmbiguous,
    typer.Option(
        "--on-ambiguous",
        help="Where nobody can tell whether an order was placed: wait orders nothing again; resubmit does, after"
        " --settle, and may pay twice.",
    ),
]


async def read_list(file: str, encoding: str | None) -> DeviceList:
    """Read a list of devices; `-` is standard input.

    Raises:
        FileError: it cannot be read.
        InvalidArgumentError: the whole of it is no list.
    """
    name = "standard input" if file == "-" else file
    data = await read_stdin(_LARGEST_LIST) if file == "-" else await asyncio.to_thread(_content, file)
    return await asyncio.to_thread(read_devices, data, name=name, encoding=encoding)


def _content(file: str) -> bytes:
    problem = ""
    try:
        # What is no file, a terminal for example, may never end; a pipe of the shell does.
        if stat.S_ISDIR(Path(file).stat().st_mode):
            problem = f"{file} is a directory"
        else:
            with Path(file).open("rb") as opened:
                return opened.read(_LARGEST_LIST + 1)
    except OSError as error:
        problem = f"cannot read {file}: {error.strerror}"
    raise FileError(problem, hint="name a CSV or JSON Lines file with devices")


def tell_problems(problems: Sequence[LineProblem]) -> None:
    """Say what is wrong with lines of a list."""
    for problem in problems[:_MOST_PROBLEMS]:
        say(str(problem))
    if len(problems) > _MOST_PROBLEMS:
        say(f"and {len(problems) - _MOST_PROBLEMS:,} more lines like these")


def check_login(client: SectigoClient, run: Run) -> None:
    """See that a ledger is of who asks, and where they ask.

    Raises:
        InvalidArgumentError: it is not.
    """
    login = (client.config.endpoint, client.username or "")
    if login != (run.endpoint, run.username):
        raise InvalidArgumentError(
            f"the ledger is of {run.username} at {run.endpoint}, not of {login[1]} at {login[0]}",
            hint="sign in as who ordered",
        )


@asynccontextmanager
async def open_ledger(client: SectigoClient, out: Path, run: Run, *, only_look: bool) -> AsyncIterator[SqliteLedger]:
    """Take the ledger in `out`; for a mere look where there is none, one that leaves no trace."""
    floor = await floor_of(client)
    if only_look and not SqliteLedger.exists(out):
        with tempfile.TemporaryDirectory() as place:
            async with SqliteLedger.open(Path(place), run) as ledger:
                yield ledger
        return
    async with SqliteLedger.open(out, run, floor=floor) as ledger:
        yield ledger


async def floor_of(client: SectigoClient) -> int:
    """Return the id of a batch that is older than any order to come; 0 where none is known."""
    return max((order.batch_id or 0 for order in await client.batches.orders()), default=0)


class Going(Protocol):
    """A run that goes on, here or on several machines."""

    counts: Counter[DeviceState]
    halted: str

    @property
    def parked(self) -> "tuple[Order, ...]": ...  # noqa: D102

    @property
    def stopped(self) -> bool: ...  # noqa: D102

    def stop(self, reason: str = "interrupted") -> None: ...  # noqa: D102

    def run(self) -> AsyncGenerator[Event, None]: ...  # noqa: D102


async def watch(chosen: Settings, issuance: Going, plan: Plan, *, note: str = GOES_ON) -> None:
    """Let a run go, and show how.

    Args:
        chosen: whether and where.
        issuance: the run.
        plan: what it is going to do.
        note: what to say to whoever interrupts it.
    """
    view = View(chosen, plan)
    with noting(note), stopping(issuance.stop), view.shown():
        async with aclosing(issuance.run()) as events:
            async for event in events:
                view.take(event)
    view.end()


class View:
    """Shows how a run goes.

    Args:
        chosen: whether and where.
        plan: what it is going to do.
    """

    def __init__(self, chosen: Settings, plan: Plan) -> None:
        self._chosen = chosen
        self._live = chosen.talks_to_a_terminal and not chosen.output.quiet
        self._balance = plan.balance
        self._to_order = len(plan.devices)
        self._started = time.monotonic()
        self._first: int | None = None
        self._counts: Counts = {}
        self._told = 0.0
        self._troubles: deque[str] = deque(maxlen=_TROUBLES)
        self._untold = ""

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show it while the block runs."""
        if not self._live:
            yield
            return
        from rich.console import Console
        from rich.live import Live

        # What others say meanwhile stands above it.
        console = Console(stderr=True, highlight=False)
        with (
            spinner.hushed(),
            Live(console=console, get_renderable=self._drawn, transient=True, refresh_per_second=4),
        ):
            yield

    def take(self, event: Event) -> None:
        """Show something that happened."""
        before, self._counts = self._counts, event.counts
        if self._first is None:
            self._first = sum((before or event.counts).get(state, 0) for state in _FINAL)
        if event.kind is EventKind.TROUBLE:
            self._untold = flat(event.text)
        if self._live:
            if event.kind in _BAD:
                self._troubles.append(flat(event.text))
            return
        now = time.monotonic()
        if event.kind in _ROUTINE or event.kind is EventKind.TROUBLE:
            if now - self._told < _EVERY:
                return
            self._told = now
            told = in_words(event.counts)
            if event.kind is EventKind.TROUBLE:
                told, self._untold = f"{self._untold}; {told}", ""
            self._chosen.output.note(told)
        elif event.kind in _BAD:
            say(event.text)
        else:
            self._chosen.output.note(event.text)

    def end(self) -> None:
        """Say what was in the way last, where something is left to do and it was not said before."""
        if self._untold and exit_code(self._counts) in {exit_codes.PENDING, exit_codes.OUTCOME_UNKNOWN}:
            say(self._untold)

    def _drawn(self) -> "RenderableType":
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 2))
        for state in DeviceState:
            if count := self._counts.get(state):
                table.add_row(Text(state.value), Text(f"{count:,}", style=_STYLES.get(state, ""), justify="right"))
        lines = [Text(self._pace())]
        lines += [Text(line, style="yellow", overflow="ellipsis", no_wrap=True) for line in self._troubles]
        return Group(table, *lines)

    def _pace(self) -> str:
        """Return how fast it goes, how long it may take, and what is left to order."""
        total = sum(self._counts.values())
        final = sum(self._counts.get(state, 0) for state in _FINAL)
        seconds = time.monotonic() - self._started
        made = final - (self._first or 0)
        parts = [f"{final:,} of {total:,} devices after {_duration(seconds)}"]
        if made and seconds > 1:
            rate = made / seconds
            parts += [f"{rate:,.1f} a second", f"about {_duration((total - final) / rate)} to go"]
        if self._balance is not None:
            spent = self._to_order - self._counts.get(DeviceState.PLANNED, self._to_order)
            parts.append(f"{max(0, self._balance - max(0, spent)):,} licences left")
        return ", ".join(parts)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
