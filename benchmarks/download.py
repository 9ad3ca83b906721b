"""A download of 500 MB to disk, beside httpx's `aiter_raw` that writes the same.

`.venv/bin/python -m benchmarks.download [--megabytes 500]`

The server, in a process of its own, sends the same piece again and again. Each side runs in a process of its own,
too, so that its peak memory is its own. Both make the file durable. Ours sees that what came is a ZIP, keeps the disk
off the event loop, and puts the file in place whole; the peer writes each piece as it comes.
"""

import argparse
import asyncio
import io
import json
import multiprocessing
import os
import resource
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import attrs
import httpx

from benchmarks.figures import Figure
from sectigo_async import SectigoClient, pki

LEAST_RATE = 0.9
MOST_MEMORY = 16.0
"""MiB above the peer."""

_MIB = 1024 * 1024
_LOADED = pki.StagedFile
# Whoever comes first after a file was removed has the disk's trouble with that; the best of four counts.
_ORDER = ("ours", "stock", "stock", "ours", "ours", "stock", "stock", "ours")
_PATH = "/api/v1/batches/24/download"
_TOKENS = {"accessToken": "a.b.c", "refreshToken": "d.e.f"}


def _ending() -> bytes:
    """Return the end of a ZIP, which makes one of whatever stands before it."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("gw7.example.com.pem", b"a certificate")
    return file.getvalue()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, size: int) -> None:
    ending, piece = _ending(), bytes(_MIB)
    while head := await reader.readuntil(b"\r\n\r\n"):
        length = next(
            (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")), 0
        )
        await reader.readexactly(length)
        if b"/auth/" in head:
            body = json.dumps(_TOKENS).encode()
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
            continue
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (size * _MIB + len(ending)))
        for _ in range(size):
            writer.write(piece)
            await writer.drain()
        writer.write(ending)


def _serve(pipe: Connection, size: int) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await _answer(reader, writer, size)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def main() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        pipe.send(server.sockets[0].getsockname()[1])
        await asyncio.to_thread(pipe.recv)

    asyncio.run(main())


@contextmanager
def _server(size: int) -> Iterator[str]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, size), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{ours.recv()}"
    finally:
        ours.send("")
        process.join(5)
        process.kill()


async def _ours(url: str, directory: Path) -> float:
    async with SectigoClient(username="ops", password="a-password", endpoint=url) as client:  # noqa: S106 - of nobody
        await client.sign_in()
        started = time.perf_counter()
        await client.batches.download_to(24, directory, timeout=600)
        return time.perf_counter() - started


async def _stock(url: str, directory: Path) -> float:
    async with httpx.AsyncClient(timeout=600) as client:
        started = time.perf_counter()
        with (directory / "stock.zip").open("wb") as file:
            async with client.stream("GET", url + _PATH) as response:
                async for piece in response.aiter_raw():
                    file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        return time.perf_counter() - started


@attrs.frozen
class Download:
    """What a download took.

    Attributes:
        seconds: how long.
        memory: peak memory of the process, in MiB.
    """

    seconds: float
    memory: float


def _download(pipe: Connection, which: str, url: str, directory: Path) -> None:
    seconds = asyncio.run((_ours if which == "ours" else _stock)(url, directory))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    pipe.send(Download(seconds, peak))


def _in_a_process(which: str, url: str, place: Path | None) -> Download:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    with tempfile.TemporaryDirectory(dir=place) as directory:
        process = context.Process(target=_download, args=(theirs, which, url, Path(directory)))
        process.start()
        found = ours.recv()
        process.join()
    assert isinstance(found, Download)
    return found


def figures(size: int, directory: Path | None) -> list[Figure]:
    """Download, and return the figures."""
    found: dict[str, list[Download]] = {"ours": [], "stock": []}
    with _server(size) as url:
        for which in _ORDER:
            found[which].append(_in_a_process(which, url, directory))
    we, they = (
        Download(min(one.seconds for one in found[which]), max(one.memory for one in found[which]))
        for which in ("ours", "stock")
    )
    return [
        Figure(
            name=f"download of {size} MB to disk",
            target=f"at least {LEAST_RATE} times httpx aiter_raw",
            measured=f"{they.seconds / we.seconds:.2f} times ({size / we.seconds:,.0f} MB/s)",
            peer=f"{size / they.seconds:,.0f} MB/s",
            passed=they.seconds >= LEAST_RATE * we.seconds,
        ),
        Figure(
            name="its peak memory",
            target=f"at most {MOST_MEMORY:.0f} MiB above it",
            measured=f"{we.memory:.0f} MiB",
            peer=f"{they.memory:.0f} MiB",
            passed=we.memory <= they.memory + MOST_MEMORY,
        ),
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--megabytes", type=int, default=500)
    parser.add_argument("--directory", type=Path, help="where to")
    asked = parser.parse_args()
    for figure in figures(asked.megabytes, asked.directory):
        print(figure)


if __name__ == "__main__":
    main()
