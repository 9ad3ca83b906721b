"""ZIP files of strangers, read in bounded time and memory. Nothing in them names a place on this disk.

What an honest one never holds is refused, not repaired: members that overlap, are encrypted, are links or archives
themselves, whose sizes are lies, or which are mostly air.
"""

import io
import re
import stat
import zipfile
from collections.abc import Callable, Sequence

from sectigo_async.errors import ArchiveError

MEMBER_SIZE = 1024 * 1024
"""The most bytes of a member: hundreds of certificates."""

_MEMBERS = 20_000
_RATIO = 200
_AIR = 64 * 1024
_ENTRY = b"PK\x01\x02"
_LOCAL_HEADER = 30
_LONGEST_END = 22 + (1 << 16) + 20
_ZIP64 = re.compile(rb"PK\x06\x07.{16}PK\x05\x06", re.DOTALL)
_ENCRYPTED = 0x1 | 0x40


def hostile(problem: str) -> ArchiveError:
    """Return the error for what no honest service sends."""
    return ArchiveError(f"the archive is refused: {problem}", hint="do not open it with another program")


def read_zip(data: bytes, *, total: int, wanted: Callable[[str], bool]) -> list[tuple[str, bytes]]:
    """Return name and content of the files in a ZIP. Two may have the same name.

    Args:
        data: the ZIP.
        total: the most bytes of all files together.
        wanted: says by its name, as the ZIP has it, whether to read a file; it may raise an error.

    Raises:
        ArchiveError: the ZIP is damaged, or no honest one.
    """
    # Counted in the bytes themselves: every other number in a ZIP may be a lie.
    if data.count(_ENTRY) > _MEMBERS:
        raise hostile("it has more members than certificates can be ordered at once")
    if _ZIP64.search(data, max(0, len(data) - _LONGEST_END)):
        raise hostile("it has the records of a ZIP64 file, which certificates are too small for")
    reader = _Reader(total)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            infos = archive.infolist()
            _check_places(infos, archive.start_dir)
            chosen = [info for info in infos if wanted(info.orig_filename) and not info.is_dir()]
            return [(info.filename, reader.read(archive, info)) for info in chosen]
    except ArchiveError:
        raise
    except Exception as error:  # noqa: BLE001 - zipfile raises whatever its decoders meet in hostile input
        problem = str(error) or "it is cut short"
    raise ArchiveError(f"the archive cannot be read: {problem}", hint="download it again")


class _Reader:
    """Reads members within limits that hold for all of them together.

    Args:
        left: how many bytes that is.
    """

    def __init__(self, left: int) -> None:
        self._left = left

    def read(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
        _check_kind(info)
        with archive.open(info) as file:
            content = file.read(min(MEMBER_SIZE, self._left) + 1)
        self._left -= len(content)
        if len(content) > MEMBER_SIZE:
            raise hostile(f"member {info.filename!r} is larger than a certificate can be")
        if len(content) > _AIR + _RATIO * info.compress_size:
            raise hostile(f"member {info.filename!r} unpacks to more than {_RATIO} times its size")
        if self._left < 0:
            raise hostile("it unpacks to more than certificates can be ordered at once")
        if len(content) != info.file_size:
            raise hostile(f"member {info.filename!r} says {info.file_size:,} bytes and holds {len(content):,}")
        if content.startswith(b"PK\x03\x04"):
            raise hostile(f"member {info.filename!r} is an archive in the archive")
        return content


def _check_kind(info: zipfile.ZipInfo) -> None:
    if info.flag_bits & _ENCRYPTED:
        raise hostile(f"member {info.filename!r} is encrypted")
    if info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise hostile(f"member {info.filename!r} is compressed in an unusual way")
    if stat.S_IFMT(info.external_attr >> 16) not in {0, stat.S_IFREG, stat.S_IFDIR}:
        raise hostile(f"member {info.filename!r} is a link or a device")


def _check_places(infos: Sequence[zipfile.ZipInfo], directory: int) -> None:
    """Refuse members that share bytes: a small archive can hold endless ones that way."""
    placed = sorted(infos, key=lambda info: info.header_offset)
    if placed and placed[0].header_offset != 0:
        raise hostile("something else stands before its first member")
    ends = [info.header_offset for info in placed[1:]] + [directory]
    for info, end in zip(placed, ends, strict=False):
        if info.header_offset + _LOCAL_HEADER + info.compress_size > end:
            raise hostile(f"member {info.filename!r} overlaps what follows it")
