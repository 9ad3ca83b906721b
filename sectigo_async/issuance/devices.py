"""The devices of a bulk run, from a list as people have it: CSV as Excel writes it, or JSON Lines.

Nothing of a list is ordered before all of it was read: what is wrong is told at once, with its lines.
"""

import enum
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

import attrs
import idna

from sectigo_async.errors import InvalidArgumentError
from sectigo_async.issuance.tables import (
    BLANKS,
    LONGEST_CELL,
    Record,
    Table,
    Value,
    decode,
    fold_name,
    quoted,
    read_table,
    trim,
)

_LONGEST_NAME = 253
# Controls, halves of characters, and marks that change what a text looks like or that nobody sees.
_UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\xad\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ud800-\udfff\ufeff]")
_SHORTENED_NUMBER = re.compile(r"[+-]?\d+(?:[.,]\d+)?E[+-]\d{1,3}", re.IGNORECASE)
# Formulas that went wrong, in the languages that Excel speaks: #REF!, #BEZUG!, #N/A, #NV; and ### for no room.
_FAILED_FORMULA = re.compile(r"#[¡¿]?\w[\w/]*+[!?]|#N/[A-Z]|#NV|#{3,}+")

_OURS = frozenset({"state", "error", "batch_id", "serial_number", "not_after", "folder", "line", "warning"})
# What tells a report of ours from a list in which one of these is a parameter.
_OF_A_REPORT = (frozenset({"state", "batch_id", "not_after", "folder"}), frozenset({"state", "error"}))


@attrs.frozen(kw_only=True)
class Device:
    """One line of a bulk run.

    Attributes:
        key: tells it from every other: its id or its common name, as `device_key` returns it; empty where only the
            CSR knows.
        name: its id or its common name as written, for people and for the name of its folder.
        common_name: the common name as written; empty where only the CSR knows.
        dns_names: DNS names as A-labels in lower case, in the order given; the common name where none were given
            and it can be one.
        parameters: every further value, by the name that the profile has for it.
        csr: path of its certificate signing request, as written.
        request: that request as PEM, once it was read; empty where the key is made for it.
        line: the line of the file that it starts in, from 1.
    """

    key: str
    name: str
    common_name: str
    dns_names: tuple[str, ...] = ()
    # One of them may be a password.
    parameters: Mapping[str, str] = attrs.field(factory=dict, repr=lambda given: f"<{', '.join(map(repr, given))}>")
    csr: str | None = None
    request: str = ""

    def to_json(self) -> str:
        """Return it as ledgers keep it."""
        return json.dumps(attrs.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Device":
        """Return the device that `to_json` returned.

        Raises:
            ValueError, TypeError, KeyError: it is no such text.
        """
        document = json.loads(text)
        return cls(**document | {"dns_names": tuple(document["dns_names"])})

    line: int


@attrs.frozen(kw_only=True)
class LineProblem:
    """What is wrong with one line of a list.

    Attributes:
        line: the line of the file, from 1.
        message: what is wrong, and what to do where that is not plain.
    """

    line: int
    message: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.message}"


@attrs.frozen(kw_only=True)
class DeviceList:
    """What a list says.

    Attributes:
        devices: those that can be read, in the order of the list.
        problems: everything that is wrong with it, by line.
        empty_lines: how many lines have nothing in them.
    """

    devices: tuple[Device, ...]
    problems: tuple[LineProblem, ...]
    empty_lines: int


def read_devices(data: bytes, *, name: str = "the list", encoding: str | None = None) -> DeviceList:
    """Read a list of devices: CSV with a header, or one JSON object a line (blocking).

    Columns: `common_name`, `dns_names`, `id`, `csr` (a path); every other is a parameter of the profile. Those that
    our own reports add are ignored, so that a report is a list, too.

    Args:
        data: the whole file.
        name: what to call it in errors.
        encoding: how it is encoded; by its byte order mark when not given, and UTF-8 without one.

    Raises:
        InvalidArgumentError: the whole of it cannot be read.
    """
    table = read_table(decode(data, name=name, encoding=encoding), name=name)
    columns = None if table.header is None else _columns_of(table.header, name)
    reading = _Reading(table)
    for record in table.records:
        reading.take(record, columns)
    if not reading.devices and not reading.problems:
        raise InvalidArgumentError(f"{name} has no devices in it", hint="write one on each line below the header")
    return DeviceList(
        devices=tuple(reading.devices),
        problems=tuple(sorted(reading.problems, key=lambda problem: problem.line)),
        empty_lines=reading.empty_lines,
    )


def device_key(text: str) -> str:
    """Return what an id or a common name is compared by: as a DNS name where it can be one, else case-folded."""
    name = trim(text)
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())
    return _dns_name(name) or folded


def _dns_name(text: str) -> str | None:
    """Return a DNS name as A-labels in lower case, or nothing where a text can be none."""
    from sectigo_async.pki import is_dns_name

    if len(text) > _LONGEST_NAME:
        return None
    try:
        labels = idna.uts46_remap(text, std3_rules=False).lower().split(".")
        # Label by label: `idna` knows neither the wildcard nor the underscore, which certificates do.
        name = ".".join(label if label.isascii() else idna.alabel(label).decode() for label in labels)
    except (ValueError, IndexError):
        return None
    return name if is_dns_name(name) else None


class _Kind(enum.Enum):
    COMMON_NAME = "the common name"
    DNS_NAMES = "the DNS names"
    ID = "the id"
    CSR = "the path of the CSR"
    PARAMETER = "a parameter"
    OURS = "a column of our reports"
    NAMELESS = "a column without a name"


_KINDS = {
    "common_name": _Kind.COMMON_NAME,
    "commonname": _Kind.COMMON_NAME,
    "cn": _Kind.COMMON_NAME,
    "dns_names": _Kind.DNS_NAMES,
    "dnsname": _Kind.DNS_NAMES,
    "san": _Kind.DNS_NAMES,
    "sans": _Kind.DNS_NAMES,
    "id": _Kind.ID,
    "csr": _Kind.CSR,
    "": _Kind.NAMELESS,
}


@attrs.frozen
class _Column:
    kind: _Kind
    name: str
    shown: str


def _columns(names: Iterable[str]) -> tuple[_Column, ...]:
    names = list(names)
    is_report = any(told <= set(names) for told in _OF_A_REPORT)
    return tuple(
        _Column(
            # The names of our reports are exact: a parameter may be called State.
            _Kind.OURS if is_report and name in _OURS else _KINDS.get(fold_name(name), _Kind.PARAMETER),
            name,
            quoted(name) if name else f"column {number}",
        )
        for number, name in enumerate(names, start=1)
    )


def _columns_of(header: Sequence[str], name: str) -> tuple[_Column, ...]:
    """Return the columns of a CSV.

    Raises:
        InvalidArgumentError: the header cannot be that of a list of devices.
    """
    columns = _columns(header)
    if {column.kind for column in columns}.isdisjoint({_Kind.COMMON_NAME, _Kind.CSR}):
        # Without a header this is a device, with all its secrets: the first cell is enough to know it again.
        raise InvalidArgumentError(
            f"{name} has no column common_name; its first line starts with {columns[0].shown}",
            hint="name the columns in the first line, for example common_name;dns_names, or write one JSON object "
            "on each line",
        )
    faults = _name_faults(columns)
    if faults:
        raise InvalidArgumentError(
            f"the header of {name} is wrong: {'; '.join(faults)}", hint="give every column one name of its own"
        )
    return columns


def _name_faults(columns: Iterable[_Column]) -> list[str]:
    faults: list[str] = []
    first: dict[object, _Column] = {}
    for column in columns:
        if len(column.name) > _LONGEST_NAME or _UNSEEN.search(column.name):
            faults.append(f"{column.shown} cannot be the name of a column")
        if column.kind in {_Kind.OURS, _Kind.NAMELESS}:
            continue
        sense = column.kind
        known = first.setdefault(
            unicodedata.normalize("NFC", column.name.casefold()) if sense is _Kind.PARAMETER else sense, column
        )
        if known is column:
            continue
        if known.name == column.name:
            faults.append(f"{column.shown} stands there twice")
        elif sense is _Kind.PARAMETER:
            faults.append(f"{known.shown} and {column.shown} differ in upper and lower case only")
        else:
            faults.append(f"{known.shown} and {column.shown} are both {sense.value}")
    return faults


class _Reading:
    """Makes devices of records, and remembers what was wrong with the others.

    Args:
        table: where the records are from.
    """

    def __init__(self, table: Table) -> None:
        self.devices: list[Device] = []
        self.problems: list[LineProblem] = []
        self.empty_lines = 0
        self._first: dict[str, int] = {}
        marks = "," if table.delimiter == ";" else ",;"
        self._between_names = re.compile(f"[{BLANKS}{marks}]+")

    def take(self, record: Record, columns: tuple[_Column, ...] | None) -> None:
        """Read one record; its own names say what is in it where `columns` does not."""
        if record.problem:
            self._tell(record, record.problem)
        elif not any(record.values):
            self.empty_lines += 1
        elif columns is not None:
            self._read(record, columns)
        else:
            columns = _columns(record.names)
            faults = _name_faults(columns)
            for fault in faults:
                self._tell(record, fault)
            if not faults:
                self._read(record, columns)

    def _tell(self, record: Record, message: str) -> None:
        self.problems.append(LineProblem(line=record.line, message=message))

    def _read(self, record: Record, columns: tuple[_Column, ...]) -> None:
        before = len(self.problems)
        special: dict[_Kind, Value] = {}
        parameters: dict[str, str] = {}
        faulty: set[_Kind] = set()
        for column, value in zip(columns, record.values, strict=True):
            if not value or column.kind is _Kind.OURS:
                continue
            fault = _fault(column, value)
            if fault:
                faulty.add(column.kind)
                self._tell(record, f"{column.shown}: {fault}")
            elif column.kind is _Kind.PARAMETER:
                parameters[column.name] = str(value)
            else:
                special[column.kind] = value
        common_name, own_id = str(special.get(_Kind.COMMON_NAME, "")), str(special.get(_Kind.ID, ""))
        csr = str(special.get(_Kind.CSR, "")) or None
        if not common_name and not csr and faulty.isdisjoint({_Kind.COMMON_NAME, _Kind.CSR}):
            self._tell(record, "it has no common name")
        key = "" if faulty & {_Kind.ID, _Kind.COMMON_NAME} else device_key(own_id or common_name)
        self._look_for_twins(record, key, own_id or common_name)
        dns_names = self._dns_names(record, special.get(_Kind.DNS_NAMES, ()))
        if not dns_names and common_name:
            only = _dns_name(common_name)
            dns_names = (only,) if only else ()
        if len(self.problems) == before:
            self.devices.append(
                Device(
                    key=key,
                    name=own_id or common_name,
                    common_name=common_name,
                    dns_names=dns_names,
                    parameters=parameters,
                    csr=csr,
                    line=record.line,
                )
            )

    def _look_for_twins(self, record: Record, key: str, name: str) -> None:
        first = self._first.setdefault(key, record.line) if key else record.line
        if first != record.line:
            self._tell(
                record,
                f"{quoted(name)} is the same device as that of line {first}, whatever its case or spelling; "
                "delete one of the two lines, or give them ids of their own",
            )

    def _dns_names(self, record: Record, value: Value) -> tuple[str, ...]:
        given = self._between_names.split(value) if isinstance(value, str) else value
        names: dict[str, None] = {}
        for text in filter(None, given):
            name = _dns_name(text)
            if name is None:
                self._tell(
                    record,
                    f"{quoted(text)} cannot be a DNS name; write it in letters, digits, hyphens and dots, without "
                    "https://, a port, or a dot at its end",
                )
            else:
                names[name] = None
        return tuple(names)


def _fault(column: _Column, value: Value) -> str | None:
    """Say what is wrong with a value, in so far as its characters tell."""
    if column.kind is _Kind.NAMELESS:
        return "it has a value, and the header has no name for it"
    text = value
    if isinstance(text, tuple):
        if column.kind is not _Kind.DNS_NAMES:
            return "write the value as a text, in quotation marks"
        text = "\n".join(text)
    if len(text) > LONGEST_CELL:
        return f"it is longer than {LONGEST_CELL // 1024} KiB"
    # DNS names may stand on lines of their own.
    unseen = _UNSEEN.search(text.replace("\n", " ").replace("\t", " ") if column.kind is _Kind.DNS_NAMES else text)
    if unseen:
        return f"it has the character U+{ord(unseen[0]):04X} in it, which is not meant to be there; delete it"
    shown = "the value" if "password" in column.name.lower() else quoted(text)
    if _SHORTENED_NUMBER.fullmatch(text):
        return f"{shown} is a number that a spreadsheet shortened; format the column as text and enter it again"
    if _FAILED_FORMULA.fullmatch(text) and text == text.upper():
        return f"{shown} is a formula of a spreadsheet that went wrong; correct it there"
    return None
