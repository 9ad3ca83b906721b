"""Files that hold keys and certificates: 0600 from the start, whole or not at all, never overwritten by chance."""

import errno
import filecmp
import functools
import hashlib
import os
import re
import secrets
import sys
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import attrs

from sectigo_async.errors import FileError, InvalidArgumentError

_OTHER = "{} is there already, with other content"
_ELSEWHERE = "move it away, or choose another directory"
_REPLACE = f"{_ELSEWHERE}, or replace it: --force, in Python overwrite=True"
_STAGED = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{12}\.tmp")
_MANY = 16
_DISK_FAILS = {errno.EIO, errno.ENOSPC, errno.EDQUOT}
_DEVICE_NAMES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


def safe_name(name: str) -> str:
    """Return a file name for `name` that no file system and no shell takes for anything else.

    Two names that differ, other than in case, get different file names.
    """
    plain = re.sub(r"[^a-z0-9._-]", "_", name.lower()).lstrip(".-")[:120]
    if plain and plain == name.lower() and not _DEVICE_NAMES.fullmatch(plain):
        return plain
    return f"{plain or 'unnamed'}-{hashlib.sha256(name.lower().encode()).hexdigest()[:12]}"


def _for_no_others(_: object, __: object, mode: int) -> None:
    if mode & 0o7137 or mode & 0o600 != 0o600:  # noqa: PLR2004 - as chmod reads them
        raise InvalidArgumentError(
            f"mode {mode:04o} is none for keys", hint="use 0600, or 0640 for a group that may read them"
        )


@attrs.frozen(kw_only=True)
class Access:
    """Who may read the files that are written; their owner always may, the world never.

    Attributes:
        mode: 0600, or 0640 for a group, too.
        group: id of that group; the one that the system gives new files when not given.
    """

    mode: int = attrs.field(default=0o600, validator=_for_no_others)
    group: int | None = None

    @property
    def of_directories(self) -> int:
        """The mode of a directory for such files."""
        return 0o750 if self.mode & 0o040 else 0o700

    def give(self, handle: int, mode: int) -> None:
        """Give a file or directory that was just made this access, whatever the umask was."""
        if self.group is not None:
            os.chown(handle, -1, self.group)
        if self != PRIVATE:
            os.chmod(handle, mode)


PRIVATE = Access()
"""For the owner alone."""


def make_directory(path: Path, access: Access = PRIVATE) -> bool:
    """Make a directory for private files, 0700, where there is none; say whether it was made.

    Args:
        path: the directory.
        access: who may read in it, where that is not its owner alone.

    Raises:
        FileError: it cannot be made.
    """
    return make_directories([path], access) > 0


def make_directories(paths: Iterable[Path], access: Access = PRIVATE) -> int:
    """Make directories as `make_directory` does; return how many were made.

    Args:
        paths: the directories.
        access: who may read in them, where that is not their owner alone.

    Raises:
        FileError: one cannot be made.
    """
    made: list[Path] = []
    for path in paths:
        try:
            _make(path, access, made)
        except FileExistsError:
            problem, hint = f"{path} is not a directory", "move it out of the way, or name another"
        except OSError as error:
            problem, hint = f"cannot make the directory {path}: {error.strerror}", "name one that you may write to"
        else:
            continue
        raise FileError(problem, hint=hint)
    for parent in {path.parent for path in made}:
        with file_errors(parent):
            sync_directory(parent)
    return len(made)


def _make(path: Path, access: Access, made: list[Path]) -> None:
    """Make a directory, and those above it: `parents=True` would make them for everyone."""
    try:
        path.mkdir(mode=access.of_directories)
    except FileNotFoundError:
        _make(path.parent, access, made)
        try:
            path.mkdir(mode=access.of_directories)
        except FileExistsError:
            return  # Another made it at the same moment.
    except FileExistsError:
        if not path.is_dir():
            raise
        return
    if access != PRIVATE:
        _give(path, access)
    made.append(path)


def _give(directory: Path, access: Access) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        access.give(handle, access.of_directories)
    finally:
        os.close(handle)


class StagedFile:
    """A file in the making beside its final place: `commit` puts it there in one step, `discard` leaves no trace.

    Args:
        target: where it shall stand.
        access: who may read it, where that is not its owner alone.

    Attributes:
        path: where it stands until then.
    """

    def __init__(self, target: Path, access: Access = PRIVATE) -> None:
        self.target = target
        self._access = access
        self.path: Path = target.with_name(f".{target.name[:100]}.{secrets.token_hex(6)}.tmp")
        self.file: BinaryIO | None = None
        self._is_there = False

    def open(self) -> BinaryIO:
        """Make the file, 0600, and return it for writing.

        Raises:
            FileError: it cannot be made.
        """
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        try:
            handle = os.open(self.path, flags, 0o600)
            self._is_there = True
            self.file = os.fdopen(handle, "wb")
            self._access.give(self.file.fileno(), self._access.mode)
        except OSError as error:
            problem = f"cannot write to {self.target.parent}: {error.strerror}"
        else:
            return self.file
        raise FileError(problem, hint="name a directory that exists and that you may write to")

    def commit(self, *, overwrite: bool = False, hint: str = _REPLACE) -> None:
        """Put the file in its place, durably.

        A file of the same content that stands there already is left alone.

        Args:
            overwrite: whether a file of other content that stands there may be replaced.
            hint: what to do where it may not.

        Raises:
            FileError: another file stands there and `overwrite` is off, or the disk fails.
        """
        try:
            with _disk_errors(self.target):
                self.end(sync=True)
                self.place(overwrite=overwrite, hint=hint)
                sync_directory(self.target.parent)
        finally:
            self.discard()

    def end(self, *, sync: bool) -> None:
        """Close the file, durably or not.

        Raises:
            OSError: it cannot be written.
        """
        assert self.file is not None
        self.file.flush()
        if sync:
            os.fsync(self.file.fileno())
        self.file.close()

    def place(self, *, overwrite: bool, hint: str) -> None:
        """Put the file in its place; who calls it makes that durable.

        Raises:
            FileError: another file stands there and `overwrite` is off.
            OSError: the disk fails.
        """
        if overwrite:
            self.path.replace(self.target)
            self._is_there = False
        elif not self._take_free_place():
            same = self.target.is_file() and filecmp.cmp(self.path, self.target, shallow=False)
            if not same:
                raise FileError(_OTHER.format(self.target), hint=hint)

    def _take_free_place(self) -> bool:
        """Move the file to its place if nothing stands there; of two processes, one wins."""
        try:
            os.link(self.path, self.target)
        except FileExistsError:
            return False
        except OSError:
            # A file system without hard links: an empty file of our own claims the place.
            try:
                self.target.open("xb").close()
            except FileExistsError:
                return False
            try:
                self.path.replace(self.target)
            except OSError:
                self.target.unlink()
                raise
        return True

    def discard(self) -> None:
        """Remove the file; nothing happens where it is gone."""
        with suppress(OSError):
            if self.file is not None:
                self.file.close()
        if self._is_there:
            self._is_there = False
            with suppress(OSError):
                self.path.unlink()


def discard_staged(directory: Path, names: Container[str] | None = None) -> None:
    """Remove the files in the making that a process left in a directory when it was killed.

    Args:
        directory: where; nothing happens where there is none. Nobody may be writing to it meanwhile.
        names: of the files that they were to become; any, when not given.

    Raises:
        FileError: they cannot be removed.
    """
    with file_errors(directory):
        for path in directory.iterdir() if directory.is_dir() else ():
            staged = _STAGED.fullmatch(path.name)
            if staged is not None and (names is None or staged["name"] in names):
                path.unlink(missing_ok=True)


def sync_directory(path: Path) -> None:
    """Make durable which files are in a directory."""
    if os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # Some network file systems cannot, and sync by themselves; a disk that fails is another matter.
        if error.errno in _DISK_FAILS:
            raise
    finally:
        os.close(handle)


def exists(file: Path) -> bool:
    """Say whether something stands there.

    Raises:
        FileError: that cannot be found out.
    """
    with file_errors(file):
        try:
            file.lstat()
        except FileNotFoundError:
            return False
        return True


def check_directory(directory: Path) -> None:
    """See that files can be written to a directory, or to the one that it is to be made in.

    Raises:
        FileError: they cannot.
    """
    while not exists(directory) and directory.parent != directory:
        directory = directory.parent
    if not directory.is_dir():
        raise FileError(f"{directory} is not a directory", hint="name another")
    staged = StagedFile(directory / "probe")
    try:
        staged.open()
    finally:
        staged.discard()


def refuse_other(path: Path, content: bytes) -> None:
    """Raise an error if a file of other content stands there.

    Raises:
        FileError: it does, or cannot be read.
    """
    with file_errors(path):
        # What is no file, a pipe for example, may never end.
        same = _holds(path, content) if path.is_file() else not exists(path)
    if not same:
        raise FileError(_OTHER.format(path), hint=_REPLACE)


def _holds(path: Path, content: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(content) + 1) == content


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    """Turn what the disk says against writing `path` into a `FileError`."""
    try:
        yield
    except OSError as error:
        problem = f"cannot write {path}: {error.strerror}"
    else:
        return
    raise FileError(problem, hint="see that there is room, and that the directory is yours to write to")


@contextmanager
def file_errors(path: Path) -> Iterator[None]:
    """Turn what the operating system says against using `path` into a `FileError`."""
    try:
        yield
    except OSError as error:
        problem = f"cannot use {path}: {error.strerror or error}"
    else:
        return
    raise FileError(problem, hint="see that it is there, and that it is yours to read and write")


def write_private(path: Path, data: bytes, *, overwrite: bool = False, access: Access = PRIVATE) -> None:
    """Write `data` to `path`, 0600, durably, whole or not at all.

    Args:
        path: where to.
        data: what.
        overwrite: whether a file of other content that stands there may be replaced.
        access: who may read it, where that is not its owner alone.

    Raises:
        FileError: it cannot be written, or another file stands there and `overwrite` is off.
    """
    write_all_private({path: data}, overwrite=overwrite, access=access)


def write_all_private(files: Mapping[Path, bytes], *, overwrite: bool = False, access: Access = PRIVATE) -> None:
    """Write files as `write_private` does. Each is whole on the disk before any of them has its name.

    Many are made durable with the file system that they are on: to flush each by itself takes far longer.

    Args:
        files: what to write, by where to.
        overwrite: whether files of other content that stand there may be replaced.
        access: who may read them, where that is not their owner alone.

    Raises:
        FileError: one cannot be written, or another file stands there and `overwrite` is off.
    """
    together = len(files) >= _MANY and _syncfs() is not None
    directories = {path.parent for path in files}
    staged: list[StagedFile] = []
    try:
        for path, data in files.items():
            one = StagedFile(path, access)
            staged.append(one)
            file = one.open()
            with _disk_errors(path):
                file.write(data)
                one.end(sync=not together)
        if together:
            _sync_file_systems(directories)
        for one in staged:
            with _disk_errors(one.target):
                one.place(overwrite=overwrite, hint=_ELSEWHERE)
        if together:
            _sync_file_systems(directories)
            return
        for directory in directories:
            with _disk_errors(directory):
                sync_directory(directory)
    finally:
        for one in staged:
            one.discard()


@functools.cache
def _syncfs() -> Callable[[int], int] | None:
    """Return what makes a whole file system durable, where there is such a call: syncfs(2) of Linux."""
    import ctypes

    return getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None) if sys.platform == "linux" else None


def _sync_file_systems(directories: Iterable[Path]) -> None:
    """Make durable all that was written to the file systems that directories are on."""
    import ctypes

    syncfs = _syncfs()
    assert syncfs is not None
    one_of_each: dict[int, Path] = {}
    for directory in directories:
        with _disk_errors(directory):
            one_of_each.setdefault(directory.stat().st_dev, directory)
    for directory in one_of_each.values():
        with _disk_errors(directory):
            handle = os.open(directory, os.O_RDONLY)
            try:
                if syncfs(handle) != 0:
                    number = ctypes.get_errno()
                    raise OSError(number, os.strerror(number))
            finally:
                os.close(handle)
