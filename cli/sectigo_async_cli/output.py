"""Output: data to stdout, as tables for people and as JSON in a pipe; talk to stderr."""

import errno
import json
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

Document = Mapping[str, object]


def visible(text: object) -> str:
    """Return server text with control, bidi and zero-width characters written out, fit for a terminal."""
    return "".join(
        char if char.isprintable() or char == "\n" else char.encode("unicode_escape").decode() for char in str(text)
    )


def say(text: str) -> None:
    """Write one line of talk to stderr."""
    # Talk that nobody can hear must not keep data from being written.
    with suppress(OSError, ValueError, AttributeError):
        sys.stderr.write(visible(" ".join(text.split("\n"))) + "\n")
        sys.stderr.flush()


def print_text(text: str) -> None:
    """Write one line of data to stdout.

    Raises:
        OSError: it cannot be written.
    """
    if sys.stdout is None:  # Closed by whoever started this program.
        raise OSError(errno.EBADF, "standard output is closed")
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def give_up_stdout() -> None:
    """Let what is still buffered go nowhere, or the interpreter would complain of it at its end."""
    with suppress(OSError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def emit(
    documents: Document | Sequence[Document],
    columns: Mapping[str, str] | None = None,
    *,
    rows: Sequence[Document] | None = None,
) -> None:
    """Write documents: tables on a terminal, the JSON that the Go CLI prints in a pipe.

    Args:
        documents: one document, or a list of them.
        columns: for a list, the keys to show on a terminal and their headings.
        rows: the list to show on a terminal, where it is only a part of the document.

    Raises:
        OSError: it cannot be written.
    """
    if sys.stdout is None or not sys.stdout.isatty():
        utf8 = sys.stdout is None or sys.stdout.encoding.lower().replace("-", "") == "utf8"
        print_text(json.dumps(documents, indent=2, ensure_ascii=not utf8))
    elif rows is not None:
        _print_table(rows, columns or {})
    elif isinstance(documents, Mapping):
        _print_record(documents)
    else:
        _print_table(documents, columns or {})


def _cell(value: object) -> str:
    match value:
        case None | "":
            return "-"
        case bool():
            return "yes" if value else "no"
        case list():
            return ", ".join(_cell(item) for item in value) or "-"
        case dict():
            return visible(json.dumps(value, ensure_ascii=False))
        case _:
            return visible(value)


def _print_record(document: Document) -> None:
    from rich.console import Console
    from rich.padding import Padding

    Console().print(Padding(_record(document, {name: name for name in document}), (1, 2)))


def _record(document: Document, headings: Mapping[str, str]) -> "Table":
    """Return one document as lines of name and value."""
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, heading in headings.items():
        table.add_row(heading, Text(_cell(document.get(name))))
    return table


def _print_table(documents: Sequence[Document], columns: Mapping[str, str]) -> None:
    """Print a table, or one record after the other where the terminal is too narrow for it."""
    from rich import box
    from rich.console import Console
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    if not documents:
        say("none found")
        return
    table = Table(box=box.SIMPLE_HEAD)
    for name, heading in columns.items():
        numbers = all(type(document.get(name)) is int for document in documents)
        table.add_column(heading, no_wrap=True, justify="right" if numbers else "left")
    for document in documents:
        table.add_row(*(Text(_cell(document.get(name))) for name in columns))
    console = Console()
    if Console(width=10_000).measure(table).maximum <= console.width:
        console.print(table)
        return
    for document in documents:
        console.print(Padding(_record(document, columns), (1, 2, 0, 2)))
    console.print()
