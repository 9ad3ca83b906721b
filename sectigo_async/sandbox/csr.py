"""Reading what was uploaded as CSRs: PEM text with one or many, or a ZIP of them (api.md 1a)."""

import io
import lzma
import re
import zipfile
import zlib
from collections.abc import Iterator
from typing import Final

import attrs
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import NameOID

from sectigo_async.sandbox.errors import ServiceError

MAX_REQUESTS: Final = 5_000
MAX_UPLOAD: Final = 32 * 1024 * 1024

_ZIP_TYPE: Final = "application/zip"
_TEXT_TYPES: Final = {"text/plain", "application/octet-stream", "application/x-x509-ca-cert"}
_ZIP_MAGIC: Final = b"PK\x03\x04"
_BEGIN: Final = re.compile(rb"-----BEGIN (?:NEW )?CERTIFICATE REQUEST-----")
_BLOCK: Final = re.compile(
    rb"-----BEGIN (NEW )?CERTIFICATE REQUEST-----[A-Za-z0-9+/=\s]+-----END \1?CERTIFICATE REQUEST-----"
)
# RuntimeError is what zipfile raises for encrypted members, OSError what bz2 raises for broken ones.
_BAD_ZIP: Final = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,
    OSError,
    RuntimeError,
    ValueError,
)
# UserWarning is how cryptography judges subject attributes of a wrong length; some turn warnings into errors.
_UNREADABLE: Final = (
    ValueError,
    TypeError,
    UserWarning,
    UnsupportedAlgorithm,
    KeyError,  # An unknown string type in a name, in older versions of cryptography.
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)


@attrs.frozen(kw_only=True)
class SigningRequest:
    """What a CSR asks for; its signature has been checked."""

    common_name: str
    subject: x509.Name
    alternative_names: x509.SubjectAlternativeName | None
    public_key: CertificatePublicKeyTypes

    @property
    def has_dns_name(self) -> bool:
        """Whether the CSR names a DNS name."""
        names = self.alternative_names
        return names is not None and bool(names.get_values_for_type(x509.DNSName))


def read_requests(content: bytes, content_type: str) -> tuple[SigningRequest, ...]:
    """Return the CSRs of an upload, or refuse it with 400.

    Args:
        content: the bytes of the `files` part.
        content_type: its media type, which decides how the bytes are read.
    """
    if content_type == _ZIP_TYPE:
        blocks = _blocks_of_zip(content)
    elif content_type in _TEXT_TYPES:
        if content.startswith(_ZIP_MAGIC):
            raise ServiceError(400, f"a ZIP file must be uploaded as {_ZIP_TYPE}, not as {content_type}")
        blocks = _blocks(content, "the uploaded file")
    else:
        raise ServiceError(400, f"Content type {content_type!r} is not supported for CSRs")
    if len(blocks) > MAX_REQUESTS:
        raise ServiceError(400, f"{len(blocks)} CSRs are more than the {MAX_REQUESTS} that one batch may have")
    return tuple(_parse(block, f"CSR {number} of {len(blocks)}") for number, block in enumerate(blocks, 1))


def _blocks(text: bytes, where: str) -> list[bytes]:
    blocks = [match[0] for match in _BLOCK.finditer(text)]
    if not blocks or len(blocks) != len(_BEGIN.findall(text)):
        raise ServiceError(400, f"{where} is not a CSR: PEM with BEGIN and END CERTIFICATE REQUEST is expected")
    return blocks


def _blocks_of_zip(content: bytes) -> list[bytes]:
    try:
        return [block for name, text in _members(content) for block in _blocks(text, f"ZIP member {name!r}")]
    except _BAD_ZIP as error:
        raise ServiceError(400, "the uploaded file is not a readable ZIP file") from error


def _members(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the CSR files of a ZIP, reading no more than the upload limit however far they inflate."""
    allowance = MAX_UPLOAD
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [info for info in archive.infolist() if info.filename.lower().endswith((".csr", ".pem"))]
        if not members:
            raise ServiceError(400, "the ZIP file has no .csr or .pem member")
        if len(members) > MAX_REQUESTS:
            raise ServiceError(400, f"the ZIP file has more than {MAX_REQUESTS} members")
        for info in members:
            with archive.open(info) as member:
                text = member.read(allowance + 1)
            allowance -= len(text)
            if allowance < 0:
                raise ServiceError(400, f"the ZIP file holds more than {MAX_UPLOAD} bytes")
            yield info.filename, text


def _parse(block: bytes, which: str) -> SigningRequest:
    try:
        csr = x509.load_pem_x509_csr(block)
        genuine = csr.is_signature_valid
        request = SigningRequest(
            common_name=_common_name(csr),
            subject=csr.subject,
            alternative_names=_alternative_names(csr),
            public_key=csr.public_key(),
        )
    except _UNREADABLE as error:
        raise ServiceError(400, f"{which} is not a CSR that can be read") from error
    if not genuine:
        raise ServiceError(400, f"{which} has an invalid signature")
    return request


def _common_name(csr: x509.CertificateSigningRequest) -> str:
    names = csr.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if names:
        return str(names[0].value)
    alternatives = _alternative_names(csr)
    dns_names = alternatives.get_values_for_type(x509.DNSName) if alternatives is not None else []
    return dns_names[0] if dns_names else ""


def _alternative_names(csr: x509.CertificateSigningRequest) -> x509.SubjectAlternativeName | None:
    try:
        return csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return None
