"""Blocks of PEM (RFC 7468) in a text, found in one pass."""

import re
from collections.abc import Iterator


def blocks(text: bytes, *labels: str) -> Iterator[bytes]:
    """Yield the blocks with one of `labels` in the order they stand, each from BEGIN to END."""
    names = "|".join(re.escape(label) for label in labels).encode()
    begin = re.compile(rb"-----BEGIN (" + names + rb")-----")
    position = 0
    while found := begin.search(text, position):
        end = b"-----END " + found.group(1) + b"-----"
        stop = text.find(end, found.end())
        if stop < 0:
            return
        position = stop + len(end)
        yield text[found.start() : position]
