"""Where the keys, passwords and certificates of a run are kept. Blocking."""

import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

import attrs

from sectigo_async.errors import FileError
from sectigo_async.files import (
    PRIVATE,
    Access,
    discard_staged,
    file_errors,
    make_directories,
    write_all_private,
)

_LARGEST = 64 * 1024 * 1024


class Sink(Protocol):
    """Keeps files by names like `gateway-7/privkey.pem`: a folder, a slash, and a file.

    What is written is durable, and to be read by everybody who has the sink, when the method returns. Methods block:
    they are called in threads, and several at once; two never write to one folder at once.
    """

    def read(self, name: str) -> bytes | None:
        """Return a file, or `None` where there is none.

        Raises:
            FileError: it cannot be read, which says nothing about whether there is one.
        """
        ...

    def size(self, name: str) -> int | None:
        """Return the bytes of a file, or `None` where there is none.

        Raises:
            FileError: that cannot be found out.
        """
        ...

    def write(self, files: Mapping[str, bytes], *, overwrite: bool = False) -> None:
        """Write files, in the order given, each whole or not at all.

        Args:
            files: what to write, by its name.
            overwrite: whether files of other content that are there may be replaced.

        Raises:
            FileError: one cannot be written, or is there with other content and `overwrite` is off.
        """
        ...

    def tidy(self, folders: Iterable[str]) -> None:
        """Remove what a writer left half done in folders when it was killed; nobody is writing there.

        Raises:
            FileError: it cannot be removed.
        """
        ...

    def where(self, name: str) -> str:
        """Return where a file or a folder is, for people."""
        ...


@attrs.frozen
class DirectorySink:
    """A directory as a `Sink`, on a disk or shared by several hosts.

    Attributes:
        directory: where.
        access: who may read what is written to it.
    """

    directory: Path
    access: Access = PRIVATE

    def read(self, name: str) -> bytes | None:
        """Return a file, or `None` where there is none."""
        path = self.directory / name
        with file_errors(path):
            try:
                about = path.stat()
            except (FileNotFoundError, NotADirectoryError):
                return None
            # What is no file, a pipe for example, may never end.
            if stat.S_ISREG(about.st_mode) and about.st_size <= _LARGEST:
                return path.read_bytes()
        raise FileError(f"{path} is no file, or too large", hint="move it away, and put the right one there")

    def size(self, name: str) -> int | None:
        """Return the bytes of a file, or `None` where there is none."""
        path = self.directory / name
        with file_errors(path):
            try:
                return path.stat().st_size
            except (FileNotFoundError, NotADirectoryError):
                return None

    def write(self, files: Mapping[str, bytes], *, overwrite: bool = False) -> None:
        """Write files, 0600 unless others may read them, in the order given, each whole or not at all."""
        paths = {self.directory / name: content for name, content in files.items()}
        make_directories({path.parent for path in paths}, self.access)
        write_all_private(paths, overwrite=overwrite, access=self.access)

    def tidy(self, folders: Iterable[str]) -> None:
        """Remove the files in the making that a killed process left in folders."""
        for folder in folders:
            discard_staged(self.directory / folder)

    def where(self, name: str) -> str:
        """Return the path of a file or a folder."""
        return str(self.directory / name)
