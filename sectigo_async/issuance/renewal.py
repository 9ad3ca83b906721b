"""Renewal: which certificates of a bulk run expire soon, and how new ones take their place. Blocking.

The folder of a device holds its first certificate; each that is renewed gets a folder of its own in there,
`generation-2` and so on. The link `live` names the one in use, and is changed in one step. A renewal is ordered in a
directory of its own, with a ledger of its own, and moves from there once it passed every check.
"""

import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs

from sectigo_async.errors import FileError
from sectigo_async.files import file_errors, make_directory, sync_directory, write_private
from sectigo_async.issuance.devices import Device
from sectigo_async.issuance.folders import folder_of
from sectigo_async.issuance.ledger import Keys
from sectigo_async.issuance.ledger_file import DIRECTORY
from sectigo_async.issuance.records import RECORD, UNREADABLE, Record, read_record

LIVE = "live"
"""The link to the files in use, in the folder of a device."""

_NEXT = "live.next"
_REVOKED = "revoked"
_CHANGED = "changed"
_GENERATION = re.compile(r"generation-([1-9]\d{0,8})", re.ASCII)
_PUBLIC = frozenset({"cert.pem", "chain.pem", "fullchain.pem", RECORD})


@attrs.frozen(kw_only=True)
class Installed:
    """The certificate of a device that is in use.

    Attributes:
        folder: the folder of the device.
        generation: the folder of the certificate, which `live` names; the same one until it is renewed.
        endpoint: the service that issued it.
        profile_id: the profile, or the authority, that it was ordered under.
        keys: where its private key was made; `None` where a CSR was given, so that nobody here can make another.
        device: what its renewal is ordered with. The key of that is the serial number of the certificate, so that
            there is one renewal for it, wherever its folder is.
        serial_number: in upper-case hex.
        not_before: from when on it is valid (aware).
        not_after: until when (aware).
    """

    folder: Path
    generation: Path
    endpoint: str
    profile_id: int
    keys: Keys | None
    device: Device
    serial_number: str
    not_before: datetime
    not_after: datetime


@attrs.frozen(kw_only=True)
class Superseded:
    """A certificate that another one has taken the place of.

    Attributes:
        generation: its folder.
        common_name: its common name.
        endpoint: the service that issued it.
        profile_id: the profile, or the authority, that it was ordered under.
        serial_number: in upper-case hex.
        not_after: until when it is valid (aware).
        since: when the other one took its place (aware).
    """

    generation: Path
    common_name: str
    endpoint: str
    profile_id: int
    serial_number: str
    not_after: datetime
    since: datetime


@attrs.frozen
class Renewals:
    """The renewals of the certificates of a bulk run.

    Attributes:
        directory: where the folders of the devices are.
    """

    directory: Path

    def place(self, profile_id: int, keys: Keys) -> Path:
        """Return where renewals under a profile are ordered: the directory of their run, and of its ledger.

        Args:
            profile_id: the profile, or the authority.
            keys: where private keys are made.
        """
        return self._own / f"{profile_id}-{keys.value}"

    def places(self) -> list[Path]:
        """Return where renewals were ordered, each the directory of a run."""
        return sorted(self._own.glob("*-*/"))

    def in_use(self) -> tuple[list[Installed], list[str]]:
        """Return the certificates in use, the one that expires next first, and what is wrong with unreadable ones.

        Raises:
            FileError: the directory cannot be read.
        """
        found: list[Installed] = []
        problems: list[str] = []
        with file_errors(self.directory):
            folders = sorted(path for path in self.directory.iterdir() if (path / RECORD).is_file())
        for line, folder in enumerate(folders, 1):
            try:
                found.append(_installed(folder, line))
            except UNREADABLE as error:
                problems.append(f"{folder} cannot be renewed: {_words(error)}")
        return sorted(found, key=lambda one: one.not_after), problems

    def link(self, folder: Path) -> None:
        """Give the folder of a device its link, and end what a renewal that was cut short had begun.

        Raises:
            FileError: that cannot be done.
        """
        with file_errors(folder):
            if (folder / _NEXT).is_symlink():
                if (folder / _NEXT).exists():
                    self._switch(folder)
                else:
                    (folder / _NEXT).unlink()
            if not (folder / LIVE).is_symlink():
                number = _number_in_use(folder)
                (folder / LIVE).symlink_to("." if number == 1 else _generation(folder, number).name)
                sync_directory(folder)

    def install(self, place: Path, device: Device, folder: Path | None = None) -> Path | None:
        """Let a renewed certificate take the place of the one in use, with the owner and the modes of its files.

        Args:
            place: where it was ordered.
            device: what it was ordered with.
            folder: the folder of the device, where it has another name by now.

        Returns:
            The folder of the device; `None` where it was installed before.

        Raises:
            FileError: it cannot be installed; or the folder of the device is gone.
        """
        staged = place / folder_of(device)
        folder = folder or self.directory / device.name
        if not (staged / RECORD).is_file():
            return None
        if not (folder / RECORD).is_file() or not _holds(folder, device.key):
            raise FileError(
                f"{folder} is gone: the renewed certificate stays in {staged}",
                hint="put the folder back, or move the files to where you need them",
            )
        self.link(folder)
        with _file_errors(folder):
            before = _generation(folder, _number_in_use(folder))
            _keep_the_id(staged, before)
            _make_alike(staged, before)
            target = _generation(folder, 1 + max(_numbers(folder)))
            (folder / _NEXT).symlink_to(target.name)
            sync_directory(folder)
            staged.rename(target)
            sync_directory(staged.parent)
            self._switch(folder)
        return folder

    def changed(self) -> list[str]:
        """Return the folders of devices whose files in use changed, until `forget_changed`.

        Raises:
            FileError: that cannot be read.
        """
        path = self._own / _CHANGED
        with file_errors(path):
            return path.read_text(encoding="utf-8").splitlines() if path.exists() else []

    def forget_changed(self) -> None:
        """Take note that everything is done about what changed.

        Raises:
            FileError: that cannot be written.
        """
        path = self._own / _CHANGED
        with file_errors(path):
            path.unlink(missing_ok=True)

    def superseded(self, *, after: timedelta, now: datetime) -> tuple[list[Superseded], list[str]]:
        """Return the certificates whose place others took, and what cannot be read; none that is known to be revoked.

        Args:
            after: how long others have to have taken their place.
            now: the time (aware).

        Raises:
            FileError: the directory cannot be read.
        """
        found: list[Superseded] = []
        installed, problems = self.in_use()
        for one in installed:
            link = one.folder / LIVE
            if not link.is_symlink() or (since := _changed_at(link)) > now - after:
                continue
            for generation in _older(one):
                try:
                    old = read_record(generation)
                except UNREADABLE as error:
                    problems.append(f"{generation}: {error}")
                    continue
                if old.not_after > now and old.serial_number != one.serial_number:
                    found.append(_superseded(generation, old, since))
        return found, problems

    def note_revoked(self, one: Superseded) -> None:
        """Take note beside a certificate that it is revoked, so that it is not looked at again.

        Raises:
            FileError: that cannot be written.
        """
        write_private(one.generation / _REVOKED, b"", overwrite=True)

    @property
    def _own(self) -> Path:
        return self.directory / DIRECTORY / "renewal"

    def _switch(self, folder: Path) -> None:
        """Let the link lead to the next generation; that it changed is known before."""
        lines = dict.fromkeys([*self.changed(), str(folder.absolute())])
        make_directory(self._own)
        write_private(self._own / _CHANGED, "".join(f"{line}\n" for line in lines).encode(), overwrite=True)
        (folder / _NEXT).replace(folder / LIVE)
        sync_directory(folder)


def _installed(folder: Path, line: int) -> Installed:
    generation = _generation(folder, _number_in_use(folder))
    record = read_record(generation)
    return Installed(
        folder=folder,
        generation=generation,
        endpoint=record.endpoint,
        profile_id=record.profile_id,
        keys=record.keys,
        device=Device(
            key=record.serial_number.lower(),
            name=folder.name,
            common_name=record.common_name,
            dns_names=record.dns_names,
            parameters=record.parameters,
            line=line,
        ),
        serial_number=record.serial_number,
        not_before=record.not_before,
        not_after=record.not_after,
    )


def _numbers(folder: Path) -> list[int]:
    """Return the numbers of the generations of a device; the first lies in its folder itself."""
    return [1] + [int(found[1]) for path in folder.iterdir() if (found := _GENERATION.fullmatch(path.name))]


def _generation(folder: Path, number: int) -> Path:
    return folder if number == 1 else folder / f"generation-{number}"


def _number_in_use(folder: Path) -> int:
    link = folder / LIVE
    if not link.is_symlink():
        if link.exists():
            raise ValueError(f"{LIVE} is no link")
        # A copy without links lost it: what took the place of the others last is in use, unless it is revoked.
        sound = [number for number in _numbers(folder) if _is_sound(_generation(folder, number))]
        return max(sound, default=1)
    target = os.path.normpath(link.readlink())
    if target == ".":
        return 1
    found = _GENERATION.fullmatch(target)
    if found is None:
        raise ValueError(f"the link {LIVE} leads to {target!r}, which is no generation: turn it to one")
    if not (folder / target / RECORD).is_file():
        raise ValueError(f"the link {LIVE} leads to {target}, which is gone: turn it to one that is there")
    return int(found[1])


def _holds(folder: Path, key: str) -> bool:
    """Say whether a certificate that a renewal takes the place of lies in the folder of a device."""
    for number in _numbers(folder):
        try:
            if read_record(_generation(folder, number)).serial_number.lower() == key:
                return True
        except UNREADABLE:
            continue
    return False


def _is_sound(generation: Path) -> bool:
    return (generation / RECORD).is_file() and not (generation / _REVOKED).exists()


def _words(error: Exception) -> str:
    return f"{error.strerror}: {error.filename}" if isinstance(error, OSError) and error.strerror else str(error)


def _changed_at(link: Path) -> datetime:
    return datetime.fromtimestamp(link.lstat().st_mtime, UTC)


def _superseded(generation: Path, old: Record, since: datetime) -> Superseded:
    return Superseded(
        generation=generation,
        common_name=old.common_name,
        endpoint=old.endpoint,
        profile_id=old.profile_id,
        serial_number=old.serial_number,
        not_after=old.not_after,
        since=since,
    )


def _older(one: Installed) -> Sequence[Path]:
    """Return the generations before the one in use that are not known to be revoked."""
    numbers = sorted(number for number in _numbers(one.folder) if number < _number_in_use(one.folder))
    generations = [_generation(one.folder, number) for number in numbers]
    return [path for path in generations if _is_sound(path)]


def _keep_the_id(staged: Path, before: Path) -> None:
    """Write down the id that the device has, not that of its renewal."""
    kept = attrs.evolve(read_record(staged), device_id=read_record(before).device_id)
    write_private(staged / RECORD, kept.content(), overwrite=True)


def _make_alike(new: Path, old: Path) -> None:
    """Give files the owner and the mode that the former ones have, secret ones none for the world."""
    for path in (*new.iterdir(), new):
        model = old if path == new else old / path.name
        if not model.exists():
            model = old / "cert.pem"
        about, now = model.stat(), path.stat()
        if (about.st_uid, about.st_gid) != (now.st_uid, now.st_gid):
            os.chown(path, about.st_uid, about.st_gid)
        mode = stat.S_IMODE(about.st_mode)
        if path != new and path.name not in _PUBLIC:
            mode &= 0o770
        if mode != stat.S_IMODE(now.st_mode):
            path.chmod(mode)


@contextmanager
def _file_errors(folder: Path) -> Iterator[None]:
    """Turn what is wrong with a folder into a `FileError`."""
    try:
        with file_errors(folder):
            yield
    except (ValueError, TypeError, RecursionError) as error:
        problem = f"{folder}: {error}"
    else:
        return
    raise FileError(problem, hint="mend it, and run the same command again")
