"""What all models share: the reply as it came, and the document it makes."""

import enum
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import ClassVar

import attrs

from sectigo_async.errors import InvalidArgumentError

_HEX = re.compile(r"[0-9A-F]+")


def wire_name(field: str) -> str:
    """Return the wire's name of a model's field: `batch_id` is `batchId`."""
    head, *rest = field.split("_")
    return head + "".join(word.capitalize() for word in rest)


def normalise_serial_number(value: int | str) -> str:
    """Return a serial number as the service writes it: upper-case hex without prefix (api.md 4.10).

    Args:
        value: a number, or hex digits with or without `0x`, colons and blanks.

    Raises:
        InvalidArgumentError: the text is not hexadecimal, or the number is negative.
    """
    if isinstance(value, int):
        if value < 0:
            raise InvalidArgumentError("a serial number is not negative")
        return f"{value:X}"
    digits = re.sub(r"[\s:]", "", value).upper().removeprefix("0X")
    if not _HEX.fullmatch(digits):
        raise InvalidArgumentError(
            f"{value!r} is not a serial number", hint="write it in hexadecimal digits, as `find` shows it"
        )
    return digits.lstrip("0") or "0"


def parse_date(value: object) -> datetime | None:
    """Read a date of the service as an aware datetime; `None` where it cannot be read.

    ISO 8601 with or without a colon in the offset, no offset meaning UTC, or epoch milliseconds (api.md 4.9).
    """
    try:
        if isinstance(value, str):
            parsed = datetime.fromisoformat(value.strip())
            return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
        if isinstance(value, int) and not isinstance(value, bool):
            return datetime.fromtimestamp(value / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return None
    return None


def _plain(value: object) -> object:
    """Return `value` as JSON knows it."""
    if isinstance(value, Model):
        return value.document()
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, enum.Enum):
        return value.value
    return value


@attrs.frozen(kw_only=True)
class Model:
    """A reply of the service.

    Attributes:
        raw: the JSON object as it came: unknown fields and unreadable values are found here.
    """

    raw: Mapping[str, object] = attrs.field(factory=dict, repr=False, eq=False)

    _not_on_the_wire: ClassVar[frozenset[str]] = frozenset({"raw"})

    def document(self) -> dict[str, object]:
        """Return the JSON document: the known fields in their order, as they came, then the unknown ones."""
        known: dict[str, object] = {}
        for field in attrs.fields(type(self)):
            if field.name in self._not_on_the_wire:
                continue
            name = wire_name(field.name)
            known[name] = self.raw[name] if name in self.raw else _plain(getattr(self, field.name))
        return known | {name: value for name, value in self.raw.items() if name not in known}
