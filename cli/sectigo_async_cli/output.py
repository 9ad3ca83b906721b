"""Output: data to stdout, as tables for people and as JSON in a pipe; talk to stderr.

Text of the service, of files and of file names may be hostile: it reaches a terminal as plain text alone, with all
that is not printable written out, and a spreadsheet as text that it does not run.
"""

import csv
import enum
import io
import json
import re
import shutil
import sys
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import attrs

from sectigo_async_cli.streams import flat, is_terminal, print_text, say, spinner, visible

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table
    from rich.text import Text

Document = Mapping[str, object]

_TIMES = frozenset({"creationDate", "notBefore", "notAfter", "sentAt", "validUntil"})
_STATES = {
    "status": {
        "green": {"READY_FOR_DOWNLOAD", "ISSUED", "ok"},
        "yellow": {"CREATED", "PROCESSING", "COLLECTED", "pending", "note"},
        "red": {"FAILED", "REJECTED", "BROKEN", "ABORTED", "REVOKED", "failed"},
    },
    "state": {"green": {"ordered"}, "yellow": {"unknown"}},
    "chain": {"green": {"verified"}, "yellow": {"root not pinned"}, "red": {"failed"}},
}
_RUNS_IN_A_SPREADSHEET = ("=", "+", "-", "@", "\t", "\r", "\n")


class Format(enum.Enum):
    """How data is written."""

    AUTO = "auto"
    """Tables on a terminal, what the Go CLI prints in a pipe."""
    TABLE = "table"
    JSON = "json"
    CSV = "csv"


@attrs.frozen(kw_only=True)
class Output:
    """How a command writes what it has to say.

    Attributes:
        format: how data is written.
        quiet: whether notes and progress are left out; warnings and errors never are.
    """

    format: Format = Format.AUTO
    quiet: bool = False

    @property
    def chosen(self) -> bool:
        """Whether somebody chose the format."""
        return self.format is not Format.AUTO

    def note(self, text: str) -> None:
        """Write a line of talk that `--quiet` leaves out."""
        if not self.quiet:
            say(text)

    def emit(
        self,
        documents: Document | Sequence[Document],
        columns: Mapping[str, str] | None = None,
        *,
        rows: Sequence[Document] | None = None,
        text: str | None = None,
        prose: Collection[str] = (),
    ) -> None:
        """Write documents.

        Args:
            documents: one document, or a list of them.
            columns: for a list, the keys to show in a table and their headings.
            rows: the list to show in a table, where that is not the documents themselves.
            text: what the Go CLI prints in a pipe, where that is no document.
            prose: the keys whose values a table may break into lines.

        Raises:
            OutputError: it cannot be written.
        """
        form = self.format
        if form is Format.AUTO:
            form = Format.TABLE if is_terminal() else Format.JSON
            if text is not None and form is Format.JSON:
                print_text(visible(text))
                return
        if form is Format.JSON:
            print_text(_json(documents))
        elif form is Format.CSV:
            listed = documents if not isinstance(documents, Mapping) else [documents] if rows is None else rows
            print_text(_csv(listed, columns))
        elif rows is not None:
            self._print_table(rows, columns or {}, prose)
        elif isinstance(documents, Mapping):
            self._print_record(documents, columns)
        else:
            self._print_table(documents, columns or {}, prose)

    def emit_next(self, document: Document, *, first: bool) -> bool:
        """Write one of the documents that come one after the other: a line of JSON, or of CSV under one header.

        Returns:
            Whether somebody reads it.

        Raises:
            OutputError: it cannot be written.
        """
        if self.format is Format.CSV:
            return print_text(_csv([document], None, header=first))
        if self.format is Format.TABLE or (self.format is Format.AUTO and is_terminal()):
            self.emit(document)
            return True
        return print_text(_json(document, indent=None))

    def _print_record(self, document: Document, columns: Mapping[str, str] | None) -> None:
        from rich.padding import Padding

        _show(Padding(record(document, columns), (1, 2)))

    def _print_table(self, documents: Sequence[Document], columns: Mapping[str, str], prose: Collection[str]) -> None:
        """Print a table, or one record after the other where the terminal is too narrow for it."""
        from rich.console import Group
        from rich.padding import Padding

        if not documents:
            self.note("none found")
            return
        table = _table(documents, columns, prose)
        console = _console()
        if prose or _wide_console().measure(table).maximum <= console.width:
            _show(table)
        else:
            _show(Group(*(Padding(record(document, columns), (1, 2, 0, 2)) for document in documents), ""))


def _json(value: object, *, indent: int | None = 2) -> str:
    utf8 = sys.stdout is None or (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    text = json.dumps(value, indent=indent, ensure_ascii=not utf8)
    # JSON's own escapes say the same, and no terminal obeys them.
    return re.sub(r"[^\n -~]", lambda found: found[0] if found[0].isprintable() else json.dumps(found[0])[1:-1], text)


def _csv(rows: Sequence[Document], columns: Mapping[str, str] | None, *, header: bool = True) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row)) or list(columns or {})
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    if header:
        writer.writerow([_csv_cell(name) for name in names])
    for row in rows:
        writer.writerow([_csv_cell(row.get(name)) for name in names])
    return buffer.getvalue().removesuffix("\n")


def _csv_cell(value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case int() | float():
            return str(value)
        case list() | tuple() if all(isinstance(item, str) for item in value):
            text = visible(" ".join(value))
        case list() | tuple() | dict():
            text = visible(json.dumps(value, ensure_ascii=False))
        case _:
            text = visible(value)
    return f"'{text}" if text.lstrip(" ").startswith(_RUNS_IN_A_SPREADSHEET) else text


def _cell(name: str, value: object, *, both: bool) -> "Text":
    """Return a value as a cell: states in colour, times as people tell them, with the moment too if `both`."""
    from rich.text import Text

    if name in _TIMES and (told := _time(value, both=both)):
        return Text(told)
    text = _plain(value)
    style = next((style for style, words in _STATES.get(name, {}).items() if text in words), "")
    return Text(text, style=style)


def _plain(value: object) -> str:
    match value:
        case None | "":
            return "-"
        case bool():
            return "yes" if value else "no"
        case list() | tuple():
            return ", ".join(_plain(item) for item in value) or "-"
        case dict():
            return visible(json.dumps(value, ensure_ascii=False))
        case _:
            return visible(value)


def _time(value: object, *, both: bool) -> str:
    import humanize

    from sectigo_async.models import parse_date

    moment = parse_date(value)
    if moment is None:
        return ""
    with suppress(OverflowError, ValueError, OSError):
        relative = humanize.naturaltime(moment, when=datetime.now(UTC))
        return f"{relative} ({moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC)" if both else relative
    return ""


def record(document: Document, columns: Mapping[str, str] | None = None) -> "Table":
    """Return one document as lines of name and value."""
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, heading in (columns or {name: name for name in document}).items():
        table.add_row(flat(heading), _cell(name, document.get(name), both=True))
    return table


def _table(documents: Sequence[Document], columns: Mapping[str, str], prose: Collection[str]) -> "Table":
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    for name, heading in columns.items():
        numbers = all(type(document.get(name)) is int for document in documents)
        table.add_column(heading, no_wrap=name not in prose, overflow="fold", justify="right" if numbers else "left")
    for document in documents:
        table.add_row(*(_cell(name, document.get(name), both=False) for name in columns))
    return table


def _wide_console() -> "Console":
    from rich.console import Console

    return Console(width=10_000, height=10_000)  # With one alone, rich takes 80 columns for a dumb terminal.


def _console() -> "Console":
    """Return the console of stdout; where it is no terminal, one in which nothing has to be cut."""
    from rich.console import Console

    if not is_terminal():
        return _wide_console()
    size = shutil.get_terminal_size()
    return Console(markup=False, highlight=False, width=size.columns, height=size.lines)


def _show(what: "RenderableType") -> None:
    with spinner.hushed():
        console = _console()
        with console.capture() as captured:
            console.print(what)
        print_text("\n".join(line.rstrip() for line in captured.get().split("\n")).removesuffix("\n"))
