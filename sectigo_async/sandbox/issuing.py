"""From an accepted request to its outcome: a signed certificate, or a refusal. Runs in worker threads."""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import NameOID

from sectigo_async.sandbox.archives import forms, pkcs12
from sectigo_async.sandbox.ca import CertificateAuthority
from sectigo_async.sandbox.csr import SigningRequest
from sectigo_async.sandbox.profiles import Profile
from sectigo_async.sandbox.records import Issued, Outcome, Refused, Status

# In the order that subjects are conventionally written in.
_SUBJECT: Final = {
    "countryName": NameOID.COUNTRY_NAME,
    "stateOrProvinceName": NameOID.STATE_OR_PROVINCE_NAME,
    "localityName": NameOID.LOCALITY_NAME,
    "organizationName": NameOID.ORGANIZATION_NAME,
    "deviceType": NameOID.ORGANIZATIONAL_UNIT_NAME,
    "serialNumber": NameOID.SERIAL_NUMBER,
    "commonName": NameOID.COMMON_NAME,
}

# The service's own words (api.md 4.4).
_NO_DNS_NAME: Final = "BROKEN Error: Cert subject name error: SubjectAlternativeName dNSName value is missing"

_PROVOKED: Final = {
    "rejected": (Status.REJECTED, "REJECTED Error: the sandbox rejects common names that begin so"),
    "failed": (Status.FAILED, ""),
    "broken": (Status.BROKEN, "BROKEN Error: the sandbox breaks on common names that begin so"),
}


def issue_with_new_key(ca: CertificateAuthority, profile: Profile, params: Mapping[str, str]) -> Outcome:
    """Return the outcome of a single order whose key the service makes, as PKCS#12."""
    common_name = params["commonName"]
    if refused := _provoked(common_name):
        return refused
    key = profile.key_kind.generate()
    subject = x509.Name([x509.NameAttribute(oid, params[name]) for name, oid in _SUBJECT.items() if params.get(name)])
    dns_names = [x509.DNSName(line) for line in params.get("dNSName", "").split("\n") if line]
    names = x509.SubjectAlternativeName(dns_names) if dns_names else None
    certificate = ca.issue(subject, key.public_key(), names)
    return Issued(
        common_name=common_name,
        key_sha256=key_sha256(key.public_key()),
        serial=certificate.serial_number,
        files={".p12": pkcs12(common_name, key, certificate, [ca.issuing, ca.root], params["pkcs12Password"])},
    )


def issue_for_request(
    ca: CertificateAuthority, profile: Profile, request: SigningRequest, formats: Iterable[str]
) -> Outcome:
    """Return the outcome of one CSR, in the forms that are asked for."""
    fingerprint = key_sha256(request.public_key)
    if refused := _provoked(request.common_name, fingerprint):
        return refused
    if profile.requires_dns_name and not request.has_dns_name:
        return Refused(
            common_name=request.common_name,
            status=Status.BROKEN,
            reason=_NO_DNS_NAME,
            key_sha256=fingerprint,
        )
    certificate = ca.issue(request.subject, request.public_key, request.alternative_names)
    return Issued(
        common_name=request.common_name,
        key_sha256=fingerprint,
        serial=certificate.serial_number,
        files=forms(certificate, [ca.issuing, ca.root], formats),
    )


def key_sha256(public_key: CertificatePublicKeyTypes) -> str:
    """Return the SHA-256 of the key's SubjectPublicKeyInfo in DER, as hex."""
    spki = public_key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(spki).hexdigest()


def _provoked(common_name: str, fingerprint: str = "") -> Refused | None:
    provoked = _PROVOKED.get(common_name.partition(".")[0].lower())
    if provoked is None:
        return None
    status, reason = provoked
    return Refused(common_name=common_name, status=status, reason=reason, key_sha256=fingerprint)
