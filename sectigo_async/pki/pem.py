"""Blocks of PEM (RFC 7468) in a text, found in one pass."""

from collections.abc import Iterator


def blocks(text: bytes, *labels: str) -> Iterator[bytes]:
    """Yield the blocks with one of `labels` in the order they stand, each from BEGIN to END."""
    marks = [(f"-----BEGIN {label}-----".encode(), f"-----END {label}-----".encode()) for label in labels]
    position = 0
    while True:
        starts = [(text.find(begin, position), end) for begin, end in marks]
        found = min(((start, end) for start, end in starts if start >= 0), default=None)
        if found is None:
            return
        start, end = found
        stop = text.find(end, start)
        if stop < 0:
            return
        position = stop + len(end)
        yield text[start:position]
