"""Certificate signing requests (PKCS#10)."""

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID

from sectigo_async.errors import ArchiveError, InvalidCSRError
from sectigo_async.pki import pem
from sectigo_async.pki.keys import PrivateKey
from sectigo_async.pki.zips import read_zip

_LABELS = ("CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST")
_LIMIT = 64 * 1024 * 1024
_LONGEST_NAME = 253
_LABEL = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_DNS_NAME = re.compile(rf"(\*\.)?{_LABEL}(\.{_LABEL})*")
_ATTRIBUTES = {
    "organizationName": NameOID.ORGANIZATION_NAME,
    "organizationalUnitName": NameOID.ORGANIZATIONAL_UNIT_NAME,
    "localityName": NameOID.LOCALITY_NAME,
    "stateOrProvinceName": NameOID.STATE_OR_PROVINCE_NAME,
    "countryName": NameOID.COUNTRY_NAME,
    "serialNumber": NameOID.SERIAL_NUMBER,
}


def make_csr(
    key: PrivateKey,
    common_name: str,
    *,
    dns_names: Sequence[str] = (),
    subject: Mapping[str, str] | None = None,
) -> bytes:
    """Make a request for a certificate and return it as PEM.

    Args:
        key: signs the request; the certificate will be for its public half.
        common_name: common name of the subject.
        dns_names: DNS names; `common_name` alone when not given. The service is known to refuse
            a request without one (api.md 4.4).
        subject: further parts of the subject: organizationName, organizationalUnitName, localityName,
            stateOrProvinceName, countryName, serialNumber.

    Raises:
        InvalidCSRError: a name cannot stand in a request.
    """
    names = list(dns_names) or [common_name]
    for name in names:
        if not is_dns_name(name):
            raise InvalidCSRError(
                f"no request for {common_name!r}: {name!r} is not a DNS name",
                hint="write it in letters, digits, hyphens and dots, one with other letters as xn--...",
            )
    try:
        attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
        attributes += [x509.NameAttribute(_ATTRIBUTES[name], text) for name, text in (subject or {}).items()]
        builder = x509.CertificateSigningRequestBuilder(
            subject_name=x509.Name(attributes),
        ).add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    except KeyError as error:
        problem = f"{error.args[0]!r} is not a part of the subject; use one of {', '.join(_ATTRIBUTES)}"
    except ValueError as error:
        problem = f"no request for {common_name!r}: {error}"
    raise InvalidCSRError(problem)


def is_dns_name(text: str) -> bool:
    """Say whether a text can be a DNS name of a certificate (RFC 5280 section 4.2.1.6), a wildcard included."""
    return len(text) <= _LONGEST_NAME and _DNS_NAME.fullmatch(text) is not None


def read_requests(data: bytes) -> tuple[x509.CertificateSigningRequest, ...]:
    """Read every request in `data`: PEM text with one or many, one in DER form, or a ZIP of .csr and .pem files.

    Raises:
        InvalidCSRError: there is none, or one is damaged.
    """
    texts = _members(data) if data.startswith(b"PK\x03\x04") else [_pem_of(data)]
    found = [block for text in texts for block in pem.blocks(text, *_LABELS)]
    begun = sum(text.count(f"-----BEGIN {label}-----".encode()) for text in texts for label in _LABELS)
    if begun > len(found):
        raise InvalidCSRError(
            "a request is cut short: it has a BEGIN line and no END line", hint="copy the whole of it"
        )
    if not found:
        raise InvalidCSRError(
            "there is no certificate signing request in it",
            hint="a request is PEM text that starts with -----BEGIN CERTIFICATE REQUEST-----",
        )
    return tuple(_parse(block, number) for number, block in enumerate(found, start=1))


def _pem_of(data: bytes) -> bytes:
    """Return a request in DER form as PEM, and anything else as it is."""
    if data.startswith(b"\x30"):
        with suppress(Exception):  # cryptography raises whatever its backend meets in hostile input
            return x509.load_der_x509_csr(data).public_bytes(serialization.Encoding.PEM)
    return data


def _parse(block: bytes, number: int) -> x509.CertificateSigningRequest:
    hint = "make it anew, for example with openssl req -new"
    try:
        request = x509.load_pem_x509_csr(block)
        signed = request.is_signature_valid
        _ = (common_name(request.subject), dns_names(request))  # Read lazily; here is where it may fail.
    except Exception as error:  # noqa: BLE001 - cryptography raises whatever its backend meets in hostile input
        problem = f"request {number} is damaged: {error}"
    else:
        if signed:
            return request
        problem = f"request {number} is damaged: its signature does not fit its key"
    raise InvalidCSRError(problem, hint=hint)


def _members(data: bytes) -> list[bytes]:
    try:
        found = read_zip(data, total=_LIMIT, wanted=lambda name: name.lower().endswith((".csr", ".pem")))
    except ArchiveError as error:
        problem, hint = str(error), error.hint
    else:
        return [content for _, content in found]
    raise InvalidCSRError(problem, hint=hint)


def dns_names(request: x509.CertificateSigningRequest | x509.Certificate) -> tuple[str, ...]:
    """Return the DNS names of a request or certificate."""
    try:
        names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType, ValueError):
        return ()
    return tuple(names.get_values_for_type(x509.DNSName))


def common_name(subject: x509.Name) -> str:
    """Return the common name, or nothing where there is none."""
    found = subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if found else ""


def common_names(requests: Iterable[x509.CertificateSigningRequest]) -> tuple[str, ...]:
    """Return the common name of each request, or words that there is none."""
    return tuple(common_name(request.subject) or "(no common name)" for request in requests)


def name_of(request: x509.CertificateSigningRequest) -> str:
    """Return what to look for a request's certificate by: its common name, or its first DNS name, or nothing."""
    return common_name(request.subject) or next(iter(dns_names(request)), "")


def requests_pem(requests: Iterable[x509.CertificateSigningRequest]) -> bytes:
    """Return `requests` as one PEM text, and nothing else."""
    return b"".join(request.public_bytes(serialization.Encoding.PEM) for request in requests)


def without_dns_name(requests: Sequence[x509.CertificateSigningRequest]) -> tuple[str, ...]:
    """Return the common names of the requests that name no DNS name.

    The service accepts such a request, and its batch is known to end `BROKEN` (api.md 4.4).
    """
    return common_names([request for request in requests if not dns_names(request)])
