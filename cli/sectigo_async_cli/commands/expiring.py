"""Looking for certificates that expire: expiring."""

import asyncio
import os
import re
import stat
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer
from cryptography import x509

from sectigo_async.errors import FileError, PkiError
from sectigo_async.pki import Archive, Item, read_items
from sectigo_async_cli import exit_codes
from sectigo_async_cli.context import settings
from sectigo_async_cli.options import register as add
from sectigo_async_cli.run import busy, run
from sectigo_async_cli.streams import say
from sectigo_async_cli.targets import file_target

_MOST_NAMED = 3
_LARGEST_CERTIFICATE_FILE = 1024 * 1024
_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}
_LONGEST = timedelta(days=365 * 100)


def expiring(
    ctx: typer.Context,
    *,
    directories: Annotated[
        list[Path] | None, typer.Argument(metavar="DIR...", help="Directories, searched to the bottom, or files.")
    ] = None,
    within: Annotated[
        str, typer.Option("--within", help="How soon: hours, days or weeks, like 12h, 30d, 4w.")
    ] = "30d",
    check: Annotated[
        bool, typer.Option("--check", help="Exit with 1 if there are any, or if something could not be read.")
    ] = False,
) -> None:
    """List the certificates in some directories that expire soon, or have expired, the next one first.

    Example: sectigo-async expiring certs/ --within 30d --check
    """
    chosen = settings(ctx)
    limit = duration(within)

    async def job() -> None:
        places = directories or [await file_target(chosen, None, "Directory:", "DIR")]
        search = _Search(datetime.now(UTC) + limit)
        with busy(chosen, "reading certificates"):
            documents = await asyncio.to_thread(search.run, places)
        columns = {
            "commonName": "Common name",
            "notAfter": "Expires",
            "serialNumber": "Serial number",
            "file": "File",
        }
        chosen.output.emit(documents, columns)
        if search.locked:
            chosen.output.note(f"note: {search.locked} locked files were not looked into")
        if search.unreadable:
            some = ", ".join(map(str, search.unreadable[:_MOST_NAMED]))
            say(f"warning: not everything could be read ({len(search.unreadable)}): {some}")
        if check and (documents or search.unreadable):
            raise typer.Exit(exit_codes.FAILED)

    run(chosen, job)


def duration(text: str, option: str = "--within") -> timedelta:
    """Return the time that words like 12h, 30d or 4w mean.

    Raises:
        typer.BadParameter: they mean none.
    """
    found = re.fullmatch(r"(\d{1,6})\s*([hdw])", text.strip().lower(), re.ASCII)
    length = _UNITS[found[2]] * int(found[1]) if found else None
    if length is None or length > _LONGEST:
        raise typer.BadParameter(f"{text!r} is no time like 12h, 30d or 4w", param_hint=option)
    return length


class _Search:
    """Looks for certificates that expire.

    Args:
        before: those that expire up to then are found.

    Attributes:
        locked: how many files need a password.
        unreadable: what could not be read.
    """

    def __init__(self, before: datetime) -> None:
        self._before = before
        self.locked = 0
        self.unreadable: list[Path] = []

    def run(self, places: Sequence[Path]) -> list[dict[str, object]]:
        """Return a document for each certificate found, the one that expires next first.

        Raises:
            FileError: a place is not there.
        """
        found: dict[x509.Certificate, dict[str, object]] = {}
        for file in self._files(places):
            for item in self._items(file, named=file in places):
                self.locked += item.kind == "locked"
                if not isinstance(item.thing, x509.Certificate) or item.thing in found:
                    continue
                told = item.document()
                if not told["authority"] and item.thing.not_valid_after_utc <= self._before:
                    names = ("commonName", "serialNumber", "notAfter")
                    found[item.thing] = {name: told[name] for name in names} | {"file": str(file)}
        return sorted(found.values(), key=lambda document: str(document["notAfter"]))

    def _items(self, file: Path, *, named: bool) -> Sequence[Item]:
        """Return what a file holds; nothing where it is of another kind, which directories are full of."""
        try:
            about = file.stat()
            if not stat.S_ISREG(about.st_mode) or about.st_size > _LARGEST_CERTIFICATE_FILE:
                return ()
            archive = Archive.from_file(file)
        except (FileError, OSError):
            self.unreadable.append(file)
            return ()
        try:
            return read_items(archive)
        except PkiError:
            if named or b"-----BEGIN CERTIFICATE-----" in archive.raw:
                self.unreadable.append(file)
            return ()

    def _files(self, places: Sequence[Path]) -> Iterator[Path]:
        for place in places:
            if place.is_dir():
                for directory, _, names in os.walk(place, onerror=self._note):
                    yield from (Path(directory, name) for name in sorted(names))
            elif place.exists():
                yield place
            else:
                raise FileError(f"{place} is neither a directory nor a file", hint="name one that is there")

    def _note(self, error: OSError) -> None:
        self.unreadable.append(Path(error.filename))


def register(app: typer.Typer) -> None:
    """Add this command to `app`."""
    add(app, expiring)
