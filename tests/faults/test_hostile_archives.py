"""Archives as no honest service sends them: each is refused with words that say why, or read without any harm.

All are made here, in code. Nothing may be written outside the folder that was named, and memory stays bounded.
"""

import base64
import http.server
import io
import json
import os
import stat
import struct
import subprocess
import sys
import textwrap
import threading
import time
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest
from asn1crypto import algos, cms, core, keys
from asn1crypto import pkcs12 as asn1
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509.oid import NameOID

from sectigo_async import Archive, InvalidCSRError, Secret, SectigoClient, SectigoError
from sectigo_async.errors import FileError, PkiError
from sectigo_async.files import make_directory
from sectigo_async.pki import load_key, read_items, read_requests, safe_name, write_private

PASSWORD = "secrtpasswrd"  # noqa: S105 - opens what the tests make
MIB = 1024 * 1024
PEAK = 8 * MIB
"""What reading any of these may take beside the archive itself."""
MANY = 2**31 - 1


@cache
def certificate(name: str = "gw7.example.com") -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    made = builder.not_valid_before(now).not_valid_after(now + timedelta(days=2)).sign(key, hashes.SHA256())
    return made, key


def pem(name: str = "gw7.example.com") -> bytes:
    return certificate(name)[0].public_bytes(serialization.Encoding.PEM)


def der() -> bytes:
    return certificate()[0].public_bytes(serialization.Encoding.DER)


@cache
def honest_p12() -> bytes:
    made, key = certificate()
    lock = (
        serialization.PrivateFormat.PKCS12.encryption_builder()
        .kdf_rounds(1000)
        .key_cert_algorithm(pkcs12.PBES.PBESv2SHA256AndAES256CBC)
        .hmac_hash(hashes.SHA256())
        .build(PASSWORD.encode())
    )
    return pkcs12.serialize_key_and_certificates(b"x", key, made, None, lock)


# --- ZIPs, byte by byte (APPNOTE.TXT sections 4.3.7, 4.3.12, 4.3.16) ---


@attrs.frozen(kw_only=True)
class Entry:
    """A member; what is not given is true."""

    name: bytes = b"gw7.pem"
    content: bytes = attrs.field(factory=pem)
    method: int = zipfile.ZIP_DEFLATED
    flags: int = 0x800
    mode: int = 0
    packed: bytes | None = None
    size: int | None = None
    packed_size: int | None = None
    crc: int | None = None
    local_name: bytes | None = None
    extra: bytes = b""
    at: int | None = None

    def data(self) -> bytes:
        if self.packed is not None:
            return self.packed
        if self.method != zipfile.ZIP_DEFLATED:
            return self.content
        packer = zlib.compressobj(9, zlib.DEFLATED, -15)
        return packer.compress(self.content) + packer.flush()

    def fields(self) -> bytes:
        crc = zlib.crc32(self.content) if self.crc is None else self.crc
        packed = len(self.data()) if self.packed_size is None else self.packed_size
        size = len(self.content) if self.size is None else self.size
        return struct.pack("<HHHHHIII", 20, self.flags, self.method, 0, 33, crc, packed, size)

    def local(self) -> bytes:
        name = self.name if self.local_name is None else self.local_name
        return b"PK\x03\x04" + self.fields() + struct.pack("<HH", len(name), 0) + name + self.data()

    def listed(self, offset: int) -> bytes:
        sizes = struct.pack("<HHHHHII", len(self.name), len(self.extra), 0, 0, 0, self.mode << 16, offset)
        return b"PK\x01\x02" + struct.pack("<H", 3 << 8 | 20) + self.fields() + sizes + self.name + self.extra


def craft(*entries: Entry, before: bytes = b"", after: bytes = b"", disks: bytes = bytes(4)) -> bytes:
    body, directory = bytearray(before), bytearray()
    for entry in entries:
        directory += entry.listed(len(body) if entry.at is None else entry.at)
        body += b"" if entry.at is not None else entry.local()
    counts = struct.pack("<HHIIH", len(entries) & 0xFFFF, len(entries) & 0xFFFF, len(directory), len(body), 0)
    return bytes(body + directory + b"PK\x05\x06" + disks + counts + after)


def named(name: str) -> bytes:
    return craft(Entry(name=name.encode()))


def both(one: str, other: str) -> bytes:
    names = (one, other)
    return craft(*(Entry(name=name.encode(), content=pem(f"gw{n}.example.com")) for n, name in enumerate(names)))


def flipped(data: bytes, position: int, bits: int = 0xFF) -> bytes:
    return data[:position] + bytes([data[position] ^ bits]) + data[position + 1 :]


def air(count: int, size: int) -> bytes:
    """Return an archive of many members that are mostly nothing, each small enough, at 150 to 1."""
    entry = Entry(content=os.urandom(size // 160) + bytes(size - size // 160))
    ready = attrs.evolve(entry, packed=entry.data(), crc=zlib.crc32(entry.content))
    return craft(*(attrs.evolve(ready, name=b"%d.pem" % number) for number in range(count)))


def overlapping() -> bytes:
    """Return an archive whose first member quotes the header of the second, as the "better zip bomb" does."""
    inner = Entry(name=b"b.pem")
    outer = Entry(name=b"a.pem", content=inner.local(), method=zipfile.ZIP_STORED)
    return craft(outer, attrs.evolve(inner, at=30 + len(outer.name)))


def disguised_end() -> bytes:
    """Return an archive whose end record holds the mark of another one, which says that it is small."""
    empty = Entry(content=b"", method=zipfile.ZIP_STORED)
    return craft(*(attrs.evolve(empty, name=b"%d" % n) for n in range(21_000)), disks=b"PK\x05\x06")


def large_extra() -> bytes:
    extra = struct.pack("<HHQQ", 1, 16, 2**60, 2**60)
    return craft(Entry(extra=extra, size=0xFFFFFFFF, packed_size=0xFFFFFFFF))


def through_python(method: int, *names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name in names:
            archive.writestr(name, pem())
    return buffer.getvalue()


# --- PKCS#12, piece by piece (RFC 7292 section 4) ---


def pbes2(rounds: int, kdf: str = "pbkdf2") -> dict[str, Any]:
    salt = algos.Pbkdf2Salt("specified", b"saltsalt")
    parameters: Any = {"salt": salt, "iteration_count": rounds, "prf": {"algorithm": "sha256"}}
    if kdf != "pbkdf2":
        parameters = core.Null()
    derived = {"algorithm": kdf, "parameters": parameters}
    cipher = {"algorithm": "aes256_cbc", "parameters": bytes(16)}
    return {"algorithm": "pbes2", "parameters": {"key_derivation_func": derived, "encryption_scheme": cipher}}


def old(rounds: int) -> dict[str, Any]:
    return {"algorithm": "pkcs12_sha1_rc2_40", "parameters": {"salt": b"saltsalt", "iterations": rounds}}


def key_bag(algorithm: dict[str, Any]) -> Any:
    locked = keys.EncryptedPrivateKeyInfo({"encryption_algorithm": algorithm, "encrypted_data": bytes(64)})
    return {"bag_id": "pkcs8_shrouded_key_bag", "bag_value": locked}


def plain(*bags: Any) -> Any:
    return {"content_type": "data", "content": core.OctetString(asn1.SafeContents(list(bags)).dump())}


def sealed(algorithm: dict[str, Any], content: bytes = bytes(64)) -> Any:
    info = {
        "content_type": "data",
        "content_encryption_algorithm": algorithm,
        "encrypted_content": content,
    }
    data = cms.EncryptedData({"version": "v0", "encrypted_content_info": info})
    return {"content_type": "encrypted_data", "content": data}


def within(*bags: Any) -> Any:
    """Return a part that the password opens, with others in it that nobody sees before."""
    content = asn1.SafeContents(list(bags)).dump()
    padding = 16 - len(content) % 16
    derived = PBKDF2HMAC(hashes.SHA256(), 32, b"saltsalt", 1000).derive(PASSWORD.encode())
    encryptor = Cipher(algorithms.AES(derived), modes.CBC(bytes(16))).encryptor()
    return sealed(pbes2(1000), encryptor.update(content + bytes([padding]) * padding) + encryptor.finalize())


def p12(*parts: Any, rounds: int = 2048) -> bytes:
    inner = asn1.AuthenticatedSafe(list(parts)).dump()
    mac = {"digest_algorithm": {"algorithm": "sha1"}, "digest": bytes(20)}
    made: bytes = asn1.Pfx(
        {
            "version": "v3",
            "auth_safe": {"content_type": "data", "content": core.OctetString(inner)},
            "mac_data": {"mac": mac, "mac_salt": b"saltsalt", "iterations": rounds},
        }
    ).dump()
    return made


def for_a_certificate() -> bytes:
    kinds = [core.ObjectIdentifier(f"1.2.840.113549.1.7.{last}").dump() for last in (6, 3)]
    return p12(sealed(pbes2(1000))).replace(*kinds)


def element(tag: int, content: bytes) -> bytes:
    size = len(content).to_bytes(4, "big")
    return bytes([tag, 0x84]) + size + content


def nested(depth: int) -> bytes:
    content = b""
    for _ in range(depth):
        content = element(0x30, content)
    return element(0x30, b"\x02\x01\x03" + content)


def endless_identifier() -> bytes:
    return element(0x30, b"\x02\x01\x03" + element(0x30, element(0x06, b"\xff" * 900_000)))


def in_ber(content: bytes) -> bytes:
    """Return a PKCS#12 file as Java's BouncyCastle writes it: lengths that are not given, strings in pieces."""
    pfx = asn1.Pfx.load(content)
    inner = pfx["auth_safe"]["content"].native
    pieces = b"".join(element(0x04, inner[start : start + 100]) for start in range(0, len(inner), 100))
    kind = core.ObjectIdentifier("1.2.840.113549.1.7.1").dump()
    safe = b"\x30\x80" + kind + b"\xa0\x80" + b"\x24\x80" + pieces + bytes(6)
    done: bytes = b"\x30\x80\x02\x01\x03" + safe + pfx["mac_data"].dump() + bytes(2)
    return done


def locked_key(algorithm: dict[str, Any]) -> bytes:
    content = keys.EncryptedPrivateKeyInfo({"encryption_algorithm": algorithm, "encrypted_data": bytes(64)}).dump()
    text = base64.encodebytes(content)
    return b"-----BEGIN ENCRYPTED PRIVATE KEY-----\n" + text + b"-----END ENCRYPTED PRIVATE KEY-----\n"


@attrs.frozen
class Case:
    """An archive, and what becomes of it: words of the error, or how many certificates are read all the same."""

    name: str
    make: Callable[[], bytes]
    outcome: str | int


ELSEWHERE = "has a name that leads out of the archive"
UNSEEN = "has characters in its name that nobody can see"
ROUNDS = "asks for more than 5,000,000 iterations"

CASES = [
    # Names: what would do harm as a path or on a screen is refused; what would on some systems only is not, for no
    # name is ever used as one.
    *(
        Case(f"name {name!r}", lambda name=name: named(name), ELSEWHERE)  # type: ignore[misc]
        for name in (
            "../evil.pem",
            "a/../../../evil.pem",
            "..",
            "/etc/cron.d/evil.pem",
            "//host/share/evil.pem",
            "C:\\evil.pem",
            "C:evil.pem",
            "\\\\host\\share\\evil.pem",
            "..\\evil.pem",
        )
    ),
    *(
        Case(f"name {name!r}", lambda name=name: named(name), UNSEEN)  # type: ignore[misc]
        for name in ("gw7.pem\0.exe", "\0", "a\nb.pem", "\x1b[2J.pem", "\u202emep.exe", "a\u200bb.pem", "a\rb.pem")
    ),
    *(
        Case(f"name {name!r}", lambda name=name: named(name), 1)  # type: ignore[misc]
        for name in ("CON", "aux.pem", "NUL.pem", "com1.p12", "-rf.pem", "~root/.ssh/authorized_keys", "*", "$(id)")
    ),
    Case("no name", lambda: named(""), "a member has no name"),
    Case("a name of 60,000 letters", lambda: named("x" * 60_000), 1),
    Case("a name that is no UTF-8", lambda: craft(Entry(name=b"\xff\xfe.pem")), "cannot be read: 'utf-8' codec"),
    Case("one name twice", lambda: both("gw.pem", "gw.pem"), 2),
    Case("names that differ in case", lambda: both("gw.pem", "GW.PEM"), 2),
    Case("names that look the same", lambda: both("g\u00fc.pem", "gu\u0308.pem"), 2),
    Case("names with letters of another script", lambda: both("gateway.pem", "g\u0430teway.pem"), 2),
    # Certificates whose own names lead elsewhere: the folders are named by us.
    *(
        Case(f"common name {name!r}", lambda name=name: craft(Entry(content=pem(name))), 1)  # type: ignore[misc]
        for name in ("../../evil", "/etc/evil", "CON", "a\nb", "C:\\evil", "..", "\u202egnp.exe")
    ),
    # Members that are no files.
    Case("a symbolic link", lambda: craft(Entry(content=b"/etc/passwd", mode=stat.S_IFLNK | 0o777)), "is a link"),
    Case("a link to a folder, and a file in it", lambda: craft(
        Entry(name=b"d", content=b"/tmp", mode=stat.S_IFLNK | 0o777), Entry(name=b"d/x.pem")), "is a link"),
    Case("a pipe", lambda: craft(Entry(mode=stat.S_IFIFO | 0o600)), "is a link or a device"),
    Case("a device", lambda: craft(Entry(mode=stat.S_IFCHR | 0o600)), "is a link or a device"),
    Case("an executable for everyone", lambda: craft(Entry(mode=stat.S_IFREG | 0o7777)), 1),
    Case("folders only", lambda: craft(Entry(name=b"d/", content=b"")), "no certificate in the archive"),
    # Bombs.
    Case("1,000 times its size", lambda: craft(Entry(content=bytes(MIB))), "more than 200 times its size"),
    Case("a member of 64 MiB", lambda: craft(Entry(content=bytes(64 * MIB))), "larger than a certificate can be"),
    Case("a member of 2 MiB as it is", lambda: craft(Entry(content=os.urandom(2 * MIB), method=0)), "is larger than"),
    Case("70,000 members", lambda: through_python(0, *map(str, range(70_000))), "more members than certificates"),
    Case("21,000 members behind an end in the end", disguised_end, "more members than certificates"),
    Case("an archive in the archive", lambda: craft(Entry(name=b"a.zip", content=named("x"))), "an archive in the"),
    Case("archives in archives", lambda: craft(*(Entry(name=b"%d" % n, content=craft(Entry(content=named("x"))))
                                                for n in range(16))), "an archive in the archive"),
    Case("30,000 beginnings", lambda: craft(Entry(content=b"-----BEGIN CERTIFICATE-----\n" * 30_000, method=0)),
         "no certificate in the archive"),
    # Sizes that lie.
    Case("more than it says", lambda: craft(Entry(size=100)), "Bad CRC-32"),
    Case("more than it says, sum adjusted", lambda: craft(Entry(size=100, crc=zlib.crc32(pem()[:100]))),
         "no certificate in the archive"),
    Case("less than it says", lambda: craft(Entry(size=5000)), "says 5,000 bytes and holds"),
    Case("4 GiB, it says", lambda: craft(Entry(size=0xFFFFFFFE)), "says 4,294,967,294 bytes and holds"),
    Case("packed larger than the file", lambda: craft(Entry(packed_size=0x7FFFFFFF)), "overlaps what follows it"),
    Case("packed smaller than it is", lambda: craft(Entry(packed_size=40)), "cannot be read: "),
    Case("a wrong sum", lambda: craft(Entry(crc=0)), "Bad CRC-32"),
    Case("another name where it lies", lambda: craft(Entry(local_name=b"gw8.pem")), "File name in directory"),
    # Places that lie.
    Case("a quoted header", overlapping, "'a.pem' overlaps what follows it"),
    Case("one member listed 1,000 times", lambda: craft(Entry(), *(Entry(name=b"gw7.pem", at=0) for _ in range(999))),
         "overlaps what follows it"),
    Case("a place beyond the end", lambda: craft(Entry(), Entry(name=b"b", at=0x7FFFFFFF)), "overlaps what follows"),
    # Encryption, methods, ZIP64.
    Case("an encrypted member", lambda: craft(Entry(flags=0x1)), "is encrypted"),
    Case("a strongly encrypted member", lambda: craft(Entry(flags=0x41)), "is encrypted"),
    Case("patched data", lambda: craft(Entry(flags=0x20)), "patched data"),
    *(
        Case(f"method {method}", lambda method=method: craft(Entry(method=method)), "in an unusual way")  # type: ignore[misc]
        for method in (1, 6, 9, 93, 95, 97, 98, 99, 0xFFFF)
    ),
    Case("bzip2", lambda: through_python(zipfile.ZIP_BZIP2, "x"), "in an unusual way"),
    Case("lzma", lambda: through_python(zipfile.ZIP_LZMA, "x"), "in an unusual way"),
    Case("ZIP64 sizes of 2^60", large_extra, "overlaps what follows it"),
    Case("ZIP64 records", lambda: named("x")[:-22] + b"PK\x06\x06" + bytes(52) + b"PK\x06\x07" + bytes(16)
         + named("x")[-22:], "the records of a ZIP64 file"),
    Case("a ZIP64 field that is cut short", lambda: craft(Entry(extra=b"\x01\x00\x10\x00", size=0xFFFFFFFF)),
         "cannot be read: "),
    # Damage.
    Case("nothing", lambda: b"", "no ZIP, and no certificate"),
    Case("two letters", lambda: b"PK", "cannot be read: File is not a zip file"),
    Case("an empty archive", craft, "no certificate in the archive"),
    Case("half of it", lambda: (data := named("gw7.pem"))[: len(data) // 2], "cannot be read: File is not a zip"),
    Case("all but a byte", lambda: named("gw7.pem")[:-1], "cannot be read: "),
    Case("a web page", lambda: b"<html><body>502 Bad Gateway</body></html>", "no ZIP, and no certificate"),
    Case("a block of no kind", lambda: (data := named("gw7.pem"))[:37] + bytes([data[37] | 6]) + data[38:],
         "while decompressing"),
    Case("flipped bits in the data", lambda: flipped(named("gw7.pem"), 200), "cannot be read: "),
    Case("a flipped header", lambda: flipped(named("gw7.pem"), 30, 1), "File name in directory"),
    Case("more after its end", lambda: named("gw7.pem") + b"\r\n--boundary--\r\n", 1),
    Case("another archive after it", lambda: named("a.pem") + named("b.pem"), "something else stands before"),
    Case("a script before it", lambda: b"#!/bin/sh\nrm -rf /\n" + named("a.pem"), "no ZIP, and no certificate"),
    Case("something like a ZIP before it", lambda: b"PK\x03\x04 and more" + named("a.pem"), "something else stands"),
    # What is in the members.
    Case("a certificate of nothing", lambda: craft(Entry(content=b"-----BEGIN CERTIFICATE-----\nAAAA\n"
                                                         b"-----END CERTIFICATE-----\n")), "is damaged"),
    Case("DER that is cut short", lambda: craft(Entry(content=der()[:-20])), "is damaged"),
    Case("DER that says 4 GiB", lambda: craft(Entry(content=b"\x30\x84\xff\xff\xff\xff" + der())), "is damaged"),
    Case("PKCS#7 of nothing", lambda: craft(Entry(content=b"\x30\x0b\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x02")),
         "is damaged"),
    # PKCS#12 that would take minutes to open, and other ways to build one.
    Case("PKCS#12 as Java writes it", lambda: craft(Entry(content=in_ber(honest_p12()))), 1),
    Case("a check of 2^31 rounds", lambda: craft(Entry(content=p12(plain(), rounds=MANY))), ROUNDS),
    Case("a check of 2^80,000 rounds", lambda: craft(Entry(content=p12(plain(), rounds=1 << 80_000))), ROUNDS),
    Case("RC2 after 2^31 rounds", lambda: craft(Entry(content=p12(sealed(old(MANY))))), ROUNDS),
    Case("AES after 2^31 rounds", lambda: craft(Entry(content=p12(sealed(pbes2(MANY))))), ROUNDS),
    Case("a key after 2^31 rounds", lambda: craft(Entry(content=p12(plain(key_bag(pbes2(MANY)))))), ROUNDS),
    Case("an old key after 2^31 rounds", lambda: craft(Entry(content=p12(plain(key_bag(old(MANY)))))), ROUNDS),
    Case("2^31 rounds in what is locked", lambda: craft(Entry(content=p12(within(key_bag(pbes2(MANY)))))), ROUNDS),
    Case("300 layers of 20,000 rounds", lambda: craft(Entry(content=p12(*[sealed(pbes2(20_000))] * 300))), ROUNDS),
    Case("a bag in a bag, after 2^31 rounds", lambda: craft(Entry(content=p12(plain(
        {"bag_id": "safe_contents", "bag_value": asn1.SafeContents([key_bag(pbes2(MANY))])})))), ROUNDS),
    Case("scrypt", lambda: craft(Entry(content=p12(sealed(pbes2(1, "1.3.6.1.4.1.11591.4.11"))))), "not known here"),
    Case("a part for a certificate", lambda: craft(Entry(content=for_a_certificate())), "that no password opens"),
    Case("PKCS#12 10,000 deep", lambda: craft(Entry(content=nested(10_000), method=0)), "too many elements, or too"),
    Case("PKCS#12 of 60,000 elements", lambda: craft(Entry(method=0, content=element(
        0x30, b"\x02\x01\x03" + b"\x05\x00" * 60_000))), "too many elements, or too deep"),
    Case("an identifier of 900 kB", lambda: craft(Entry(content=endless_identifier(), method=0)),
         "an identifier without end"),
    Case("PKCS#12 that is cut short", lambda: craft(Entry(content=honest_p12()[:-30])), "damaged: it is cut short"),
    Case("PKCS#12 and more after it", lambda: craft(Entry(content=honest_p12() + b"\x05\x00")), "do not fit"),
    Case("PKCS#12 of nothing", lambda: craft(Entry(content=b"\x30\x03\x02\x01\x03")), "do not fit together"),
    Case("rounds below nothing", lambda: craft(Entry(content=p12(sealed(pbes2(-1))))), "damaged"),
    Case("a PEM key after 2^31 rounds", lambda: craft(Entry(content=locked_key(pbes2(MANY)))), ROUNDS),
    Case("a PEM key after scrypt", lambda: craft(Entry(content=locked_key(pbes2(1, "1.3.6.1.4.1.11591.4.11")))),
         "is not known here"),
]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _loaded() -> None:
    """Load what is loaded lazily, and let it not count as memory of the first case."""
    Archive(craft(Entry(content=honest_p12()))).open(password=PASSWORD)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Return the folder to write to, three below one that nothing may be written to."""
    folder = tmp_path / "home" / "certs" / "out"
    folder.mkdir(parents=True)
    (tmp_path / "home" / "precious").write_bytes(b"mine")
    return folder


def outside(top: Path, target: Path) -> dict[str, object]:
    """Return all that stands in a folder but not in another one within."""
    return {
        str(path.relative_to(top)): (path.lstat().st_mode, path.read_bytes() if path.is_file() else None)
        for path in top.rglob("*")
        if target not in path.parents
    }


def unpack(data: bytes, target: Path) -> list[str]:
    issued = Archive(data, "batch.zip").open(password=PASSWORD)
    for number, one in enumerate(issued):
        one.write_to(target / safe_name(f"{one.common_name}-{number}" if number else one.common_name))
    return [one.common_name for one in issued]


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in CASES])
def test_an_archive_that_no_honest_service_sends(case: Case, target: Path, tmp_path: Path) -> None:
    data = case.make()
    before = outside(tmp_path, target)
    names: list[str] = []
    told = hint = ""
    tracemalloc.start()
    started = time.process_time()
    try:
        names = unpack(data, target)
    except SectigoError as error:
        told, hint = str(error), error.hint
    finally:
        seconds = time.process_time() - started
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()

    if isinstance(case.outcome, int):
        assert (told, len(names)) == ("", case.outcome)
        assert {path.parent for path in target.iterdir()} == {target}
    else:
        assert case.outcome in told
        assert hint, "what to do next"
        assert not list(target.iterdir())
    assert outside(tmp_path, target) == before
    assert "\n" not in told
    assert told.isprintable()
    assert PASSWORD not in told
    assert peak < PEAK
    # Under tracemalloc all is several times slower.
    assert seconds < 10
    if case.outcome == ROUNDS:
        assert seconds < 0.5


def test_there_are_enough_cases() -> None:
    assert len(CASES) >= 40
    assert len({case.name for case in CASES}) == len(CASES)


def test_every_flipped_byte_is_an_error_or_no_harm(target: Path, tmp_path: Path) -> None:
    before = outside(tmp_path, target)
    for data in (craft(Entry(), Entry(name=b"b.p12", content=honest_p12())), honest_p12()):
        for position in range(0, len(data), 7):
            try:
                names = unpack(flipped(data, position), target)
            except SectigoError as error:
                assert str(error).isprintable()  # noqa: PT017 - most raise, some do no harm
            else:
                assert set(names) <= {"gw7.example.com"}
            assert outside(tmp_path, target) == before


def test_every_cut_is_an_error(target: Path) -> None:
    data = craft(Entry(content=honest_p12()))
    for end in range(0, len(data), 13):
        with pytest.raises(PkiError):
            unpack(data[:end], target)
    assert not list(target.iterdir())


def test_two_gigabytes_of_air_fit_into_little_memory(tmp_path: Path) -> None:
    """The honest limit, 256 MiB of members, is reached; nothing beyond is."""
    (tmp_path / "bomb.zip").write_bytes(air(2000, MIB))
    code = """
        import resource, sys
        from pathlib import Path
        from sectigo_async import Archive, ArchiveError
        resource.setrlimit(resource.RLIMIT_AS, (800 * 1024**2, 800 * 1024**2))
        try:
            Archive.from_file(Path(sys.argv[1])).open(password="x")
        except ArchiveError as error:
            print(error, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "bomb.zip")],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "unpacks to more than certificates can be ordered at once" in done.stdout
    assert int(done.stdout.split()[-1]) < 450


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: craft(Entry(name=b"x.csr", content=bytes(MIB))), "200 times its size"),
        (lambda: craft(Entry(name=b"x.csr", flags=1)), "encrypted"),
        (lambda: through_python(zipfile.ZIP_LZMA, "x.csr"), "unusual way"),
        (overlapping, "overlaps"),
        (lambda: named("x.csr")[:-30], "cannot be read"),
    ],
)
def test_an_archive_of_requests_is_read_with_the_same_care(make: Callable[[], bytes], words: str) -> None:
    with pytest.raises(InvalidCSRError, match=words) as caught:
        read_requests(make())

    assert caught.value.hint


@pytest.mark.parametrize("algorithm", [pbes2(MANY), old(MANY)])
def test_a_key_of_ones_own_is_opened_with_the_same_care(algorithm: dict[str, Any]) -> None:
    with pytest.raises(PkiError, match=ROUNDS):
        load_key(locked_key(algorithm), PASSWORD)
    with pytest.raises(PkiError, match=ROUNDS):
        read_items(Archive(p12(within(key_bag(algorithm)))), PASSWORD)


# --- What stands where files are written to ---


@pytest.mark.parametrize("mask", [0o000, 0o077, 0o777])
def test_modes_whatever_the_umask(tmp_path: Path, mask: int) -> None:
    (issued,) = Archive(craft(Entry(content=honest_p12()))).open(password=PASSWORD)
    if mask == 0o777 and os.geteuid() != 0:
        pytest.skip("only root could write then")
    before = os.umask(mask)
    try:
        issued.write_to(tmp_path / "a" / "b" / "c", password=PASSWORD)
    finally:
        os.umask(before)

    made = list((tmp_path / "a").rglob("*"))
    assert len(made) == 7
    assert {stat.S_IMODE(path.stat().st_mode) for path in made if path.is_file()} <= {0o600 & ~mask}
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "a", *made) if path.is_dir()} == {0o700 & ~mask}


@pytest.mark.parametrize("name", ["cert.pem", "privkey.pem", "bundle.p12"])
@pytest.mark.parametrize("kind", ["file", "link", "dangling link", "folder", "pipe", "endless device"])
def test_what_stands_in_the_way_is_left_alone(tmp_path: Path, name: str, kind: str) -> None:
    (issued,) = Archive(craft(Entry(content=honest_p12()))).open(password=PASSWORD)
    precious = tmp_path / "precious"
    precious.write_bytes(b"mine")
    there = tmp_path / "out" / name
    make_directory(there.parent)
    plants: dict[str, Callable[[], object]] = {
        "file": lambda: there.write_bytes(b"other"),
        "link": lambda: there.symlink_to(precious),
        "dangling link": lambda: there.symlink_to(tmp_path / "nowhere"),
        "folder": there.mkdir,
        "pipe": lambda: os.mkfifo(there),
        "endless device": lambda: there.symlink_to("/dev/zero"),
    }
    plants[kind]()
    mode = there.lstat().st_mode

    with pytest.raises(FileError, match="is there already, with other content") as caught:
        issued.write_to(there.parent, password=PASSWORD)

    assert ("--force" in caught.value.hint) is (name != "privkey.pem")
    assert there.lstat().st_mode == mode
    assert precious.read_bytes() == b"mine"
    assert not (tmp_path / "nowhere").exists()
    assert not list(there.parent.glob(".*")), "nothing half done is left"


def test_a_link_planted_where_the_file_is_made_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"mine")
    monkeypatch.setattr("secrets.token_hex", lambda _: "guessed")
    (tmp_path / ".key.guessed.tmp").symlink_to(precious)

    with pytest.raises(FileError, match="cannot write to"):
        write_private(tmp_path / "key", b"secret")

    assert precious.read_bytes() == b"mine"
    assert not (tmp_path / "key").exists()


def test_the_folder_is_synchronised_after_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    real = os.fsync

    def fsync(handle: int) -> None:
        synced.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    write_private(tmp_path / "key", b"secret")

    assert synced == ["file", "folder"]


# --- The same through the client and the command line ---

DISPOSITIONS = [
    'attachment; filename="../../.bashrc"',
    "attachment; filename*=UTF-8''..%2F..%2Fevil.sh",
    'attachment; filename="/etc/cron.d/evil"',
    'attachment; filename="C:\\\\evil.exe"',
    f'attachment; filename="{"x" * 10_000}"',
    'attachment; filename="a\tb"; filename="c"',
    "\u00fc;;;===",
]
TOKENS = {"accessToken": "a.b.c", "refreshToken": "a.b.c"}


@pytest.mark.parametrize("header", DISPOSITIONS)
async def test_the_suggested_name_names_nothing(header: str, target: Path, tmp_path: Path) -> None:
    archive = craft(Entry(content=honest_p12()))
    before = outside(tmp_path, target)

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/auth/pwd":
            return httpx.Response(200, json=TOKENS)
        return httpx.Response(200, content=archive, headers=[(b"content-disposition", header.encode())])

    async with SectigoClient(
        username="ops", password=Secret("canary-93b1"), transport=httpx.MockTransport(answer)
    ) as client:
        path = await client.batches.download_to(24, target)
        again = await client.batches.download_to(24, target)
        archive = named("other")
        with pytest.raises(FileError, match="other content") as caught:
            await client.batches.download_to(24, target)
        replaced = await client.batches.download_to(24, target, overwrite=True)

    assert path == again == replaced == target / "24.zip"
    assert path.read_bytes() == archive
    assert "--force" in caught.value.hint
    assert [file.name for file in target.iterdir()] == ["24.zip"]
    assert outside(tmp_path, target) == before


@pytest.fixture
def served() -> Iterator[Callable[[bytes], str]]:
    """Serve an archive as batch 24; give the URL."""
    servers: list[http.server.ThreadingHTTPServer] = []

    def serve(archive: bytes) -> str:
        class Handler(http.server.BaseHTTPRequestHandler):
            def _answer(self) -> None:
                self.rfile.read(int(self.headers.get("content-length", 0)))
                body = json.dumps(TOKENS).encode() if self.path == "/auth/pwd" else archive
                self.send_response(200)
                self.send_header("content-disposition", DISPOSITIONS[0])
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = _answer  # noqa: N815 - names of http.server

            def log_message(self, *_: object) -> None: ...

        servers.append(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever).start()
        return f"http://127.0.0.1:{servers[-1].server_port}"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def command(folder: Path, *arguments: str, **settings: str) -> "subprocess.CompletedProcess[str]":
    program = str(Path(sys.executable).with_name("sectigo-async"))
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder.parent / "home-of-nobody"), **settings}
    return subprocess.run(
        [program, *arguments],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


HOSTILE = [
    pytest.param(named("../../evil.pem"), ELSEWHERE, id="elsewhere"),
    pytest.param(craft(Entry(content=b"/etc/passwd", mode=stat.S_IFLNK | 0o777)), "is a link", id="link"),
    pytest.param(overlapping(), "overlaps", id="overlap"),
    pytest.param(craft(Entry(content=p12(within(key_bag(pbes2(MANY)))))), ROUNDS, id="rounds"),
]


@pytest.mark.parametrize(("data", "words"), HOSTILE)
def test_the_command_line_refuses_it_and_writes_nothing_else(
    data: bytes, words: str, served: Callable[[bytes], str], target: Path, tmp_path: Path
) -> None:
    (target.parent / "password").write_text(PASSWORD)
    (target.parent / "password").chmod(0o600)
    (target.parent / "batch.zip").write_bytes(data)
    before = outside(tmp_path, target)

    for arguments in (("unpack", "../batch.zip"), ("inspect", "../batch.zip"), ("download", "-i", "24", "--extract")):
        done = command(
            target,
            *arguments,
            "--password-file",
            "../password",
            SECTIGO_ENDPOINT=served(data),
            SECTIGO_USERNAME="ops",
            SECTIGO_PASSWORD="canary-93b1",
        )
        assert done.returncode == 1, done.stderr
        assert done.stdout == ""
        assert words in done.stderr
        assert done.stderr.count("\n") == 1
        assert "Traceback" not in done.stderr
        assert not {PASSWORD, "canary-93b1"} & set(done.stderr.split())

    # What was paid for is kept, whatever is wrong with it.
    assert [path.name for path in target.iterdir()] == ["24.zip"]
    left = {name: what for name, what in outside(tmp_path, target).items() if "home-of-nobody" not in name}
    assert left == before


def test_the_command_line_replaces_what_is_there_by_force_alone(target: Path) -> None:
    (target / "batch.zip").write_bytes(named("x"))
    there = target / "gw7.example.com" / "cert.pem"
    there.parent.mkdir()
    there.write_bytes(b"other")

    refused = command(target, "unpack", "batch.zip")
    forced = command(target, "unpack", "batch.zip", "--force")
    again = command(target, "unpack", "batch.zip")

    assert refused.returncode == 1
    assert "cert.pem is there already, with other content" in refused.stderr
    assert "--force" in refused.stderr
    assert (forced.returncode, again.returncode) == (0, 0)
    assert there.read_bytes() == pem()
