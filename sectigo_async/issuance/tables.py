"""Lists as people have them, CSV of any dialect or JSON Lines, as records of named texts. Every byte is hostile."""

import codecs
import csv
import json
import re
from collections.abc import Iterator, Sequence

import attrs

from sectigo_async.errors import InvalidArgumentError
from sectigo_async.text import one_line

LONGEST_CELL = 64 * 1024
_SECRET_WORDS = (b"password", b"passwort", b"kennwort", b"passphrase", b"secret", b"geheim")
_LARGEST = 64 * 1024 * 1024
_MOST_COLUMNS = 1000
_MOST_DELIMITERS = 2 * LONGEST_CELL
_DELIMITERS = ";,\t"
_AROUND = 100

# What surrounds a cell and is not meant: blanks of all kinds, and marks that nobody sees.
BLANKS = " \t\n\r\v\f\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u200b\u200e\u200f"
BLANKS += "\u202f\u205f\u2060\u3000\ufeff"
_PROTECTED = re.compile(rf"\A'(?=[{BLANKS}]*[=+\-@]|[\t\n])")

_SPREADSHEETS = (
    (b"PK\x03\x04", "an Excel or LibreOffice file (.xlsx, .ods)"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an Excel file (.xls)"),
)
_NOT_FOR_FILES = frozenset({"idna", "punycode", "raw-unicode-escape", "undefined", "unicode-escape"})
_SEPARATOR = re.compile(r'"?sep=([^\w\s"]|\t)"? *(?:\n|\Z)', re.IGNORECASE)
_LINE_BREAK = re.compile(rb"\r\n?|\n")

Value = str | tuple[str, ...]


@attrs.frozen(kw_only=True)
class Record:
    """One record of a list.

    Attributes:
        line: the line of the file that it starts in, from 1.
        names: the names of its values.
        values: as many as there are names, without what surrounds them; a tuple where JSON has a list of texts.
        problem: why it cannot be read; then it has no values.
    """

    line: int
    names: tuple[str, ...] = ()
    values: tuple[Value, ...] = ()
    problem: str = ""


@attrs.frozen(kw_only=True)
class Table:
    """A list before its names mean anything.

    Attributes:
        header: the names in the header of a CSV; none for JSON Lines, whose records have names of their own.
        delimiter: what separates the cells of a CSV.
        records: the records, empty ones included; a generator, to be read once.
    """

    header: tuple[str, ...] | None
    delimiter: str
    records: Iterator[Record]


def trim(text: str) -> str:
    """Return a text without the blanks and unseen marks around it."""
    return text.strip(BLANKS)


def quoted(text: str, longest: int = 80) -> str:
    """Return foreign text in quotation marks, fit for a message."""
    return repr(one_line(text, longest))


def decode(data: bytes, *, name: str, encoding: str | None) -> str:
    """Return the text of a list, its line breaks as newlines.

    Args:
        data: the whole file.
        name: what to call it in errors.
        encoding: how it is encoded; by its byte order mark when not given, and UTF-8 without one.

    Raises:
        InvalidArgumentError: it is too large, a spreadsheet, encoded in another way, or no text at all.
    """
    if len(data) > _LARGEST:
        raise InvalidArgumentError(
            f"{name} is larger than {_LARGEST // 1024**2} MiB", hint="split it into lists of its first and last lines"
        )
    for magic, words in _SPREADSHEETS:
        if data.startswith(magic):
            raise InvalidArgumentError(
                f"{name} is {words}, which cannot be read here",
                hint='save it as "CSV UTF-8 (delimited)" in Excel, or as "Text CSV" in LibreOffice',
            )
    text = _decode_utf(data, name) if encoding is None else _decode_as(data, encoding, name)
    if "\0" in text:
        raise _zero_bytes(name)
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def _zero_bytes(name: str) -> InvalidArgumentError:
    return InvalidArgumentError(
        f"{name} has zero bytes in it, so it is no text, or text in another encoding",
        hint='save it as "CSV UTF-8"; name the encoding if it is UTF-16 without a mark: --encoding utf-16-le '
        '(in Python encoding="utf-16-le")',
    )


def _decode_utf(data: bytes, name: str) -> str:
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return _decode_as(data, "utf-16", name)
    if b"\0" in data:
        raise _zero_bytes(name)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        at = error.start
    line = len(_LINE_BREAK.findall(data[:at])) + 1
    raise InvalidArgumentError(
        f"{name} is not UTF-8: line {line} would be {_preview(data, at)} as Windows writes it (cp1252)",
        hint='if that reads well, name the encoding: --encoding cp1252 (in Python encoding="cp1252"); '
        'otherwise save the list as "CSV UTF-8"',
    )


def _preview(data: bytes, at: int) -> str:
    """Return the line around a byte as cp1252 has it, or that one letter where the line may hold a password."""
    start = max(data.rfind(b"\n", 0, at), data.rfind(b"\r", 0, at)) + 1
    ends = [end for end in (data.find(b"\n", at), data.find(b"\r", at)) if end >= 0]
    line = data[start : min(ends, default=len(data))]
    if any(word in (data[:LONGEST_CELL] + line).lower() for word in _SECRET_WORDS):
        return f"... {quoted(data[at : at + 1].decode('cp1252', 'replace'))} ..."
    at -= start
    return quoted(line[max(at - _AROUND, 0) : at + _AROUND].decode("cp1252", "replace"), 2 * _AROUND)


def _decode_as(data: bytes, encoding: str, name: str) -> str:
    shown = quoted(encoding, 40)
    problem, hint = f"there is no encoding {shown}", "use utf-8, utf-16, cp1252 or another one that Python knows"
    try:
        known = codecs.lookup(encoding).name
        if known not in _NOT_FOR_FILES:
            return data.decode(known)
    except UnicodeDecodeError as error:
        problem = f"{name} is not encoded as {shown}: {error.reason} at byte {error.start + 1}"
        hint = 'name the encoding that it was saved in, or save it as "CSV UTF-8" and name none'
    except (LookupError, ValueError):
        pass
    raise InvalidArgumentError(problem, hint=hint)


def read_table(text: str, *, name: str) -> Table:
    """Tell JSON Lines from CSV, and read it.

    Args:
        text: what `decode` returned.
        name: what to call it in errors.

    Raises:
        InvalidArgumentError: there is nothing in it, or no header that can be read.
    """
    if trim(text[:LONGEST_CELL]).startswith("{"):
        return Table(header=None, delimiter="", records=_json_records(text))
    return _csv_table(text, name)


def _csv_table(text: str, name: str) -> Table:
    at, line, delimiters = 0, 1, _DELIMITERS
    if chosen := _SEPARATOR.match(text):
        at, line, delimiters = chosen.end(), 2, chosen[1]
    # The header decides: the delimiter that finds a name we know, and the most names.
    found = [(delimiter, _header(text, at, line, delimiter)) for delimiter in delimiters]
    delimiter, header = max(found, key=lambda pair: _likeness(pair[1]))
    if header is None:
        raise InvalidArgumentError(
            f"{name} is empty", hint="its first line names the columns, for example common_name;dns_names"
        )
    if header.problem:
        raise InvalidArgumentError(
            f"the header of {name} cannot be read: {header.problem}", hint="correct its first line"
        )
    return Table(header=header.names, delimiter=delimiter, records=_csv_records(text, at, line, delimiter, header))


def _header(text: str, at: int, line: int, delimiter: str) -> Record | None:
    """Return the header, with its names, as one delimiter makes it; nothing where there is none."""
    for number, cells, problem in _rows(text, at, line, delimiter):
        if problem:
            return Record(line=number, problem=problem)
        if len(cells) > _MOST_COLUMNS:
            return Record(line=number, problem=f"it has more than {_MOST_COLUMNS} columns")
        names = [_clean(cell) for cell in cells]
        if any(names):
            return Record(line=number, names=tuple(names))
    return None


def _likeness(header: Record | None) -> tuple[int, int]:
    """Return how much a header looks like one: it has a name we know, or would if it were not broken, or has none."""
    if header is None:
        return 0, 0
    if header.problem:
        return 2, 0
    known = {fold_name(name) for name in header.names} & {"common_name", "commonname", "cn", "csr"}
    return 3 if known else 1, len(header.names)


def fold_name(name: str) -> str:
    """Return the name of a column as it is compared with those that mean something here."""
    return name.casefold().replace(" ", "_")


def _csv_records(text: str, at: int, line: int, delimiter: str, header: Record) -> Iterator[Record]:
    width = len(header.names)
    for number, cells, problem in _rows(text, at, line, delimiter):
        if number == header.line:
            continue
        if problem:
            yield Record(line=number, problem=problem)
            continue
        if not cells:
            yield Record(line=number)
            continue
        values = [_clean(cell) for cell in cells]
        if any(values[width:]):
            more = f"it has {len(values)} cells, and the header names {width}"
            yield Record(line=number, problem=f"{more}; put a cell with {delimiter!r} in it in quotation marks")
            continue
        values = values[:width] + [""] * (width - len(values))
        yield Record(line=number, names=header.names, values=tuple(values))


def _clean(cell: str) -> str:
    """Return a cell without what surrounds it, and without the apostrophe that keeps it from running in Excel."""
    return trim(_PROTECTED.sub("", trim(cell)))


@attrs.frozen
class _Grammar:
    """How far a record and its good cells reach: the csv module alone cannot say where a quotation mark opens."""

    record: re.Pattern[str]
    good_cells: re.Pattern[str]

    @classmethod
    def of(cls, delimiter: str) -> "_Grammar":
        end = re.escape(delimiter)
        # Possessive throughout, so that no text makes it try twice.
        cell = rf'(?: *+"[^"]*+(?:""[^"]*+)*+"[ \xa0]*+|(?! *+")[^{end}\n]*+)'
        return cls(re.compile(rf"(?:{cell}{end})*+{cell}(?=\n|\Z)"), re.compile(rf"(?:{cell}{end})*+ *+"))


def _rows(text: str, at: int, line: int, delimiter: str) -> Iterator[tuple[int, Sequence[str], str]]:
    """Yield each record as the line it starts in, its cells, and what is wrong with it instead."""
    grammar = _Grammar.of(delimiter)
    while at < len(text):
        end = text.find("\n", at)
        end = len(text) if end < 0 else end
        if text.find('"', at, end) >= 0:
            found = grammar.record.match(text, at)
            if found is None:
                opens = grammar.good_cells.match(text, at)
                assert opens is not None  # It matches nothing at all, if need be.
                line += text.count("\n", at, opens.end())
                yield line, (), _quote_problem(text, opens.end(), line)
                # Whether the mark was one too many nobody knows: what stands in the next line is read, too.
                end = text.find("\n", opens.end())
                if end < 0:
                    return
                at, line = end + 1, line + 1
                continue
            end = found.end()
        yield line, *_cells(text[at:end], delimiter)
        line += text.count("\n", at, end) + 1
        at = end + 1


def _quote_problem(text: str, opens: int, line: int) -> str:
    closed = re.compile(r'"[^"]*+(?:""[^"]*+)*+"').match(text, opens)
    if closed is None:
        return "a quotation mark opens here that is never closed"
    last = line + text.count("\n", opens, closed.end())
    where = "here" if last == line else f"here and is closed in line {last} only"
    return f"a quotation mark opens {where}, and text stands behind its end; inside a cell, write it twice"


def _cells(record: str, delimiter: str) -> tuple[Sequence[str], str]:
    if not record.strip(delimiter + BLANKS):
        return (), ""
    if record.count(delimiter) > _MOST_DELIMITERS:
        return (), f"it has more than {_MOST_DELIMITERS} cells"
    try:
        rows = list(csv.reader([record], delimiter=delimiter, skipinitialspace=True))
    except csv.Error:  # The module has a limit of its own, which belongs to the whole process.
        return (), f"a cell is longer than {LONGEST_CELL // 1024} KiB"
    return (rows[0] if rows else ()), ""


class _Object(tuple[tuple[str, object], ...]):
    """The names and values of a JSON object in their order, repeats included."""

    __slots__ = ()


def _json_records(text: str) -> Iterator[Record]:
    for number, line in enumerate(text.removesuffix("\n").split("\n"), start=1):
        content = trim(line)
        yield _json_record(number, content) if content else Record(line=number)


def _json_record(line: int, text: str) -> Record:
    try:
        # Integers stay as written, however long they are.
        found = json.loads(text, object_pairs_hook=_Object, parse_int=str)
    except json.JSONDecodeError as error:
        return Record(line=line, problem=f"it is no JSON object of its own: {error.msg} at character {error.colno}")
    except RecursionError:
        return Record(line=line, problem="it is no JSON object that a list can have: it is nested too deeply")
    if not isinstance(found, _Object):
        return Record(line=line, problem="it is no JSON object; each line has one, {...}")
    values: list[Value] = []
    for name, value in found:
        if isinstance(value, str):
            values.append(trim(value))
        elif isinstance(value, list) and all(isinstance(item, str) for item in value):
            values.append(tuple(trim(item) for item in value if trim(item)))
        else:
            return Record(line=line, problem=f"{quoted(name)}: write the value as a text, in quotation marks")
    return Record(line=line, names=tuple(trim(name) for name, _ in found), values=tuple(values))
