"""`issue.json`: what the certificate in a folder was ordered with. It holds no secret. Blocking."""

import json
import stat
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import attrs
from cryptography import x509

from sectigo_async.issuance.ledger import Keys

T = TypeVar("T")

RECORD = "issue.json"
"""Its name. Where it stands, the other files do."""

UNREADABLE = (OSError, ValueError, TypeError, RecursionError)
"""What `read_record` raises."""

_LARGEST = 1024 * 1024
_BEYOND = 2**63
_GIVEN = "csr"


@attrs.frozen(kw_only=True)
class Record:
    """What a certificate was ordered with.

    Attributes:
        endpoint: the service that issued it.
        profile_id: the profile, or the authority, that it was ordered under.
        keys: where its private key was made; `None` where a CSR was given.
        common_name: its common name, as ordered.
        dns_names: its DNS names, as ordered.
        parameters: every further parameter.
        batch_id: the batch that it came in.
        serial_number: in upper-case hex.
        not_before: from when on it is valid (aware).
        not_after: until when (aware).
        device_id: the id of its device; empty where its common name does for one.
    """

    endpoint: str
    profile_id: int
    keys: Keys | None
    common_name: str
    dns_names: tuple[str, ...]
    parameters: Mapping[str, str]
    batch_id: int
    serial_number: str
    not_before: datetime
    not_after: datetime
    device_id: str = ""

    def content(self) -> bytes:
        """Return the file."""
        document: dict[str, object] = {
            "endpoint": self.endpoint,
            "profile_id": self.profile_id,
            "keys": _GIVEN if self.keys is None else self.keys.value,
            "common_name": self.common_name,
            "dns_names": list(self.dns_names),
            "parameters": dict(self.parameters),
            "batch_id": self.batch_id,
            "serial_number": self.serial_number,
            "not_after": self.not_after.isoformat(),
        }
        if self.device_id:
            document["id"] = self.device_id
        return json.dumps(document, indent=2, ensure_ascii=False).encode() + b"\n"


def read_record(folder: Path) -> Record:
    """Read what the certificate in a folder was ordered with, and see that it is the one beside it.

    Raises:
        OSError: either cannot be read.
        ValueError, TypeError, RecursionError: either is not what was written there.
    """
    return parse_record(_content(folder / RECORD), _content(folder / "cert.pem"))


def parse_record(content: bytes, pem: bytes) -> Record:
    """Return what a certificate was ordered with, by what `Record.content` returned.

    Args:
        content: that.
        pem: the certificate.

    Raises:
        ValueError, TypeError, RecursionError: either is not what was written, or they are of different certificates.
    """
    certificate = x509.load_pem_x509_certificate(pem)
    document = json.loads(content)
    if not isinstance(document, dict):
        raise TypeError(f"{RECORD} holds no object")
    serial_number = f"{certificate.serial_number:X}"
    if document.get("serial_number") != serial_number:
        raise ValueError(f"{RECORD} and cert.pem are of different certificates")
    keys = _of(document, "keys", str)
    return Record(
        endpoint=_of(document, "endpoint", str),
        profile_id=_id(document, "profile_id"),
        keys=None if keys == _GIVEN else Keys(keys),
        common_name=_of(document, "common_name", str),
        dns_names=tuple(map(_text, _of(document, "dns_names", list))),
        parameters={name: _text(value) for name, value in _of(document, "parameters", dict).items()},
        batch_id=_id(document, "batch_id"),
        serial_number=serial_number,
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        device_id=_of(document, "id", str) if "id" in document else "",
    )


def _content(path: Path) -> bytes:
    about = path.stat()
    # What is no file, a pipe for example, may never end.
    if not stat.S_ISREG(about.st_mode) or about.st_size > _LARGEST:
        raise ValueError(f"{path.name} is no file, or too large")
    return path.read_bytes()


def _of(document: Mapping[str, object], name: str, kind: type[T]) -> T:
    value = document.get(name)
    if not isinstance(value, kind):
        raise TypeError(f"{name} in {RECORD} is none")
    return value


def _id(document: Mapping[str, object], name: str) -> int:
    value = _of(document, name, int)
    if isinstance(value, bool) or not 0 <= value < _BEYOND:
        raise ValueError(f"{name} in {RECORD} is none")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{RECORD} holds what is no text")
    return value
