"""What became of the devices of a run, as files for a spreadsheet, which `read_devices` reads back."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from sectigo_async.files import PRIVATE, Access, discard_staged, file_errors, write_private
from sectigo_async.issuance.devices import Device
from sectigo_async.issuance.folders import Folders
from sectigo_async.issuance.ledger import DeviceState, Entry
from sectigo_async.issuance.sink import DirectorySink

RESULTS = "results.csv"
"""Every device of a run."""
ERRORS = "errors.csv"
"""The devices of a run that are in want of a certificate that is right."""

_OF_AN_ERROR = ("error",)
_OF_A_RESULT = ("batch_id", "serial_number", "not_after", "folder", "warning")
_FAILED = frozenset({DeviceState.FAILED, DeviceState.VERIFY_FAILED})
_RUNS_IN_A_SPREADSHEET = ("=", "+", "-", "@", "\t", "\r", "\n")


def write_reports(directory: Path, entries: Sequence[Entry], *, access: Access = PRIVATE) -> None:
    """Write `results.csv`, and `errors.csv` where a device failed, to the directory of a run (blocking).

    Args:
        directory: where to.
        entries: the devices, as the ledger has them.
        access: who may read the files.

    Raises:
        FileError: they cannot be written.
    """
    folders = Folders(DirectorySink(directory, access))
    discard_staged(directory, {RESULTS, ERRORS})
    write_private(directory / RESULTS, _csv(entries, folders, errors=False), overwrite=True, access=access)
    bad = [entry for entry in entries if entry.state in _FAILED]
    if bad:
        write_private(directory / ERRORS, _csv(bad, folders, errors=True), overwrite=True, access=access)
        return
    with file_errors(directory / ERRORS):
        (directory / ERRORS).unlink(missing_ok=True)


def _csv(entries: Sequence[Entry], folders: Folders, *, errors: bool) -> bytes:
    """Return devices as CSV; what a list of devices says stands first, under the same names."""
    devices = [entry.device for entry in entries]
    parameters = sorted({name for device in devices for name in device.parameters})
    given = ["common_name", "dns_names", *parameters]
    given = [*(["id"] if any(map(_has_id, devices)) else []), *given]
    given += ["csr"] if any(device.csr for device in devices) else []
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow([*given, "state", *(_OF_AN_ERROR if errors else _OF_A_RESULT)])
    for entry in entries:
        cells = _given(entry.device, given)
        if errors:
            cells += [entry.state.value, entry.error]
        else:
            until = entry.not_after.isoformat() if entry.not_after else ""
            folder = folders.of(entry.device) if entry.serial_number else ""
            batch_id = "" if entry.batch_id is None else str(entry.batch_id)
            cells += [entry.state.value, batch_id, entry.serial_number, until, folder, entry.warning]
        writer.writerow(map(_harmless, cells))
    # The mark at the start has Excel read it as UTF-8.
    return text.getvalue().encode("utf-8-sig")


def _has_id(device: Device) -> bool:
    return device.name != device.common_name


def _given(device: Device, names: Iterable[str]) -> list[str]:
    said = {
        "id": device.name if _has_id(device) else "",
        "common_name": device.common_name,
        "dns_names": " ".join(device.dns_names),
        "csr": device.csr or "",
    }
    return [{**device.parameters, **said}.get(name, "") for name in names]


def _harmless(text: str) -> str:
    """Return text that a spreadsheet shows, and does not run."""
    return f"'{text}" if text.lstrip(" ").startswith(_RUNS_IN_A_SPREADSHEET) else text
