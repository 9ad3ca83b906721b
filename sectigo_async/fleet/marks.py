"""The mark of a sink: what tells that all workers keep keys in the same place, and that it is still there."""

import secrets
from collections.abc import Iterable, Mapping

import attrs

from sectigo_async.errors import FileError
from sectigo_async.issuance.sink import Sink

MARK = ".sectigo-async/sink"
"""The name of the mark."""

OTHER_SINK = "give every worker, and `issue`, the same --out: a directory that all of their hosts share"


def mark_of(sink: Sink, *, make: bool = True) -> str:
    """Return what tells a sink from every other, and see that it can be written and read (blocking).

    Args:
        sink: the sink.
        make: whether to give it a mark where it has none.

    Raises:
        FileError: it cannot be written or read, or has lost its mark.
    """
    known = sink.read(MARK)
    if known is None:
        if not make:
            raise FileError(f"{sink.where(MARK)} is gone: what is kept there is out of reach", hint=OTHER_SINK)
        try:
            sink.write({MARK: secrets.token_hex(16).encode()})
        except FileError:
            if sink.read(MARK) is None:
                raise
        known = sink.read(MARK)
    if not known:
        raise FileError(f"what is written to {sink.where(MARK)} cannot be read there", hint=OTHER_SINK)
    # Whoever may only read would order, and then lose what comes.
    sink.write({MARK: known}, overwrite=True)
    return known.decode(errors="replace").strip()


@attrs.frozen
class MarkedSink:
    """A sink that takes nothing any more once it has lost its mark: what is mounted there may be gone.

    Attributes:
        sink: the sink.
        mark: its mark.
    """

    sink: Sink
    mark: str

    def read(self, name: str) -> bytes | None:
        """Return a file, or `None` where there is none."""
        return self.sink.read(name)

    def size(self, name: str) -> int | None:
        """Return the bytes of a file, or `None` where there is none."""
        return self.sink.size(name)

    def write(self, files: Mapping[str, bytes], *, overwrite: bool = False) -> None:
        """Write files; before and after, the sink must be the same."""
        check_mark(self.sink, self.mark)
        self.sink.write(files, overwrite=overwrite)
        check_mark(self.sink, self.mark)

    def tidy(self, folders: Iterable[str]) -> None:
        """Remove what a writer left half done."""
        self.sink.tidy(folders)

    def where(self, name: str) -> str:
        """Return where a file or a folder is, for people."""
        return self.sink.where(name)


def check_mark(sink: Sink, mark: str) -> None:
    """See that a sink is the one that it was (blocking).

    Raises:
        FileError: it is not, or cannot be read.
    """
    known = sink.read(MARK)
    if known is None or known.decode(errors="replace").strip() != mark:
        raise FileError(f"{sink.where(MARK)} is not what it was: what is kept there is out of reach", hint=OTHER_SINK)
