"""Reading multipart uploads as strictly as the service: one that is not closed is an error (api.md 1a)."""

from typing import Final

import attrs
from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from sectigo_async.sandbox.errors import ServiceError

_MALFORMED: Final = "Failed to parse multipart request: it is malformed or not closed"


@attrs.frozen
class Part:
    """One part: its media type (empty when not given) and its bytes.

    The file name is left out because the service does not use it (api.md 1a).
    """

    content_type: str
    content: bytes = attrs.field(repr=False)


def parse_multipart(content_type: str, body: bytes) -> dict[str, Part]:
    """Return the parts by name, or refuse with the service's 500 for a malformed body."""
    media_type, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if media_type != b"multipart/form-data" or not boundary:
        raise ServiceError(500, "Current request is not a multipart request")
    collector = _Collector()
    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": collector.on_part_begin,
                "on_header_begin": collector.on_header_begin,
                "on_header_field": collector.on_header_field,
                "on_header_value": collector.on_header_value,
                "on_header_end": collector.on_header_end,
                "on_part_data": collector.on_part_data,
                "on_part_end": collector.on_part_end,
                "on_end": collector.on_end,
            },
        )
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise ServiceError(500, _MALFORMED) from error
    if not collector.closed:
        raise ServiceError(500, _MALFORMED)
    return collector.parts


class _Collector:
    """Gathers the parts that the parser reports piecemeal."""

    def __init__(self) -> None:
        self.parts: dict[str, Part] = {}
        self.closed = False
        self._headers: dict[bytes, bytes] = {}
        self._field = self._value = b""
        self._content = bytearray()

    def on_part_begin(self) -> None:
        self._headers = {}
        self._content = bytearray()

    def on_header_begin(self) -> None:
        self._field = self._value = b""

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def on_header_end(self) -> None:
        self._headers[self._field.lower()] = self._value

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._content += data[start:end]

    def on_part_end(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition"))
        name = options.get(b"name", b"").decode(errors="replace")
        content_type, _ = parse_options_header(self._headers.get(b"content-type"))
        if name in self.parts:
            raise ServiceError(400, f"Part {name!r} is present more than once")
        self.parts[name] = Part(content_type.decode(errors="replace"), bytes(self._content))

    def on_end(self) -> None:
        self.closed = True
