"""The files that leave the sandbox: PKCS#12 containers and the ZIP of a batch (api.md 4.7, 4.8)."""

import io
import re
import time
import zipfile
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PrivateFormat
from cryptography.hazmat.primitives.serialization.pkcs7 import serialize_certificates
from cryptography.hazmat.primitives.serialization.pkcs12 import PBES, serialize_key_and_certificates

from sectigo_async.sandbox.records import Issued

_KDF_ROUNDS: Final = 2048
_UNSAFE: Final = re.compile(r"[^\w.\- ]")
_MAX_NAME: Final = 200


def pkcs12(
    common_name: str,
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey,
    certificate: x509.Certificate,
    chain: Sequence[x509.Certificate],
    password: str,
) -> bytes:
    """Return a PKCS#12 container in the legacy encryption that the service's age suggests (api.md 4.8)."""
    encryption = (
        PrivateFormat.PKCS12.encryption_builder()
        .kdf_rounds(_KDF_ROUNDS)
        .key_cert_algorithm(PBES.PBESv1SHA1And3KeyTripleDESCBC)
        .hmac_hash(hashes.SHA1())  # noqa: S303 - PKCS#12's own choice of that time
        .build(password.encode())
    )
    return serialize_key_and_certificates(common_name.encode(), key, certificate, chain, encryption)


def forms(
    certificate: x509.Certificate, chain: Sequence[x509.Certificate], formats: Iterable[str]
) -> dict[str, bytes]:
    """Return a certificate in each of some `FORMATS`, by the suffix of the file."""
    return {f".{name}": FORMATS[name](certificate, chain) for name in formats}


def _pem(certificate: x509.Certificate, chain: Sequence[x509.Certificate]) -> bytes:
    return b"".join(one.public_bytes(Encoding.PEM) for one in (certificate, *chain))


def _crt(certificate: x509.Certificate, _: Sequence[x509.Certificate]) -> bytes:
    return certificate.public_bytes(Encoding.PEM)


def _cer(certificate: x509.Certificate, _: Sequence[x509.Certificate]) -> bytes:
    return certificate.public_bytes(Encoding.DER)


def _p7b(certificate: x509.Certificate, chain: Sequence[x509.Certificate]) -> bytes:
    return serialize_certificates([certificate, *chain], Encoding.DER)


FORMATS: Final[dict[str, Callable[[x509.Certificate, Sequence[x509.Certificate]], bytes]]] = {
    "pem": _pem,
    "crt": _crt,
    "cer": _cer,
    "p7b": _p7b,
}
"""The forms that a certificate for a CSR may have in an archive (api.md 4.7), by name and suffix."""


def pack(certificates: Iterable[Issued], created: float) -> bytes:
    """Return the ZIP of a batch: for each certificate a file of each form, named by its common name.

    Args:
        certificates: what the archive holds.
        created: wall time that the members are dated with.
    """
    date_time = time.gmtime(created)[:6]
    taken: set[str] = set()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for certificate in certificates:
            stem = _member_stem(certificate, taken)
            for suffix, content in certificate.files.items():
                archive.writestr(zipfile.ZipInfo(stem + suffix, date_time), content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def _member_stem(certificate: Issued, taken: set[str]) -> str:
    """Return a safe name that is not taken, with the service's " - 1" for duplicates (api.md 4.7)."""
    stem = _UNSAFE.sub("_", certificate.common_name).lstrip(".")[:_MAX_NAME] or "certificate"
    name, number = stem, 0
    while name.casefold() in taken:
        number += 1
        name = f"{stem} - {number}"
    taken.add(name.casefold())
    return name
