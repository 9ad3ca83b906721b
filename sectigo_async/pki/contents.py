"""What a file holds, told for people and scripts: certificates, requests, keys, in a ZIP or not."""

from collections.abc import Iterable
from contextlib import suppress
from typing import TypeAlias

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from sectigo_async.errors import ArchiveError, InvalidCSRError, WrongPasswordError
from sectigo_async.pki.archive import Archive, Member, MemberKind, read_member
from sectigo_async.pki.certificates import is_ca
from sectigo_async.pki.csr import common_name, dns_names, read_requests
from sectigo_async.pki.keys import PrivateKey, describe_key
from sectigo_async.pki.protection import Pkcs12, Protection
from sectigo_async.secrets import Secret

Thing: TypeAlias = x509.Certificate | x509.CertificateSigningRequest | PrivateKey


@attrs.frozen(kw_only=True)
class Item:
    """One thing that a file holds.

    Attributes:
        member: the file it is in; hostile, so for display only.
        thing: the certificate, request or private key; `None` for what needs a password, or cannot be used here.
        kind_of_unknown: what to call it then.
        protection: how the PKCS#12 file is protected that it is in, or is.
    """

    member: str
    thing: Thing | None = attrs.field(default=None, repr=False)
    kind_of_unknown: str = "locked"
    protection: Protection | None = None

    @property
    def kind(self) -> str:
        """What it is: `certificate`, `request`, `private key`, `locked`, or `unusable private key`."""
        match self.thing:
            case x509.Certificate():
                return "certificate"
            case x509.CertificateSigningRequest():
                return "request"
            case None:
                return self.kind_of_unknown
            case _:
                return "private key"

    def document(self) -> dict[str, object]:
        """Return what can be said about it as JSON knows it; of a private key, only what kind it is."""
        told: dict[str, object] = {"file": self.member, "kind": self.kind}
        if self.protection is not None:
            told["protection"] = str(self.protection)
        match self.thing:
            case x509.Certificate() as certificate:
                return told | {
                    "commonName": common_name(certificate.subject),
                    "dnsNames": list(dns_names(certificate)),
                    "serialNumber": f"{certificate.serial_number:X}",
                    "notBefore": certificate.not_valid_before_utc.isoformat(),
                    "notAfter": certificate.not_valid_after_utc.isoformat(),
                    "key": describe_key(certificate.public_key()),
                    "authority": is_ca(certificate),
                    "subject": certificate.subject.rfc4514_string(),
                    "issuer": certificate.issuer.rfc4514_string(),
                    "sha256": certificate.fingerprint(hashes.SHA256()).hex(":").upper(),
                }
            case x509.CertificateSigningRequest() as request:
                return told | {
                    "commonName": common_name(request.subject),
                    "dnsNames": list(dns_names(request)),
                    "key": describe_key(request.public_key()),
                    "subject": request.subject.rfc4514_string(),
                }
            case None:
                return told
            case key:
                return told | {"key": describe_key(key.public_key())}


def read_items(archive: Archive, password: str | Secret | None = None) -> tuple[Item, ...]:
    """Return what is in a file: PEM, DER, PKCS#12, PKCS#7, requests, or a ZIP of them (blocking).

    Args:
        archive: the file, as `Archive.from_file` reads it.
        password: opens PKCS#12 files and private keys in it; without one they are told as locked.

    Raises:
        ArchiveError: there is nothing in it that is known, or it is damaged.
        InvalidCSRError: a request in it is damaged.
        WrongPasswordError: the password does not fit.
    """
    alone = _der(archive.raw)
    if alone is not None:
        return (Item(member=archive.name, thing=alone),)
    if not archive.raw.startswith(b"PK") and b"CERTIFICATE REQUEST-----" in archive.raw:
        members: Iterable[Member] = (Member(archive.name, archive.raw, MemberKind.PEM),)
    else:
        members = archive.members()
    items = [item for member in members for item in _items(member, password)]
    if items:
        return tuple(items)
    raise ArchiveError(
        f"{archive.name!r} holds no certificate, request or key", hint="it may be a file of another kind"
    )


def _der(data: bytes) -> Thing | None:
    """Return the request or private key that a DER file is, which the service sends none of."""
    if not data.startswith(b"\x30"):
        return None
    with suppress(Exception):  # cryptography raises whatever its backend meets in hostile input
        return x509.load_der_x509_csr(data)
    with suppress(Exception):
        key = serialization.load_der_private_key(data, None)
        return key if isinstance(key, PrivateKey) else None
    return None


def _items(member: Member, password: str | Secret | None) -> list[Item]:
    try:
        content = read_member(member, password)
    except WrongPasswordError:
        if password:
            raise
        protection = Pkcs12(member.name, member.content).protection if member.kind is MemberKind.PKCS12 else None
        return [Item(member=member.name, protection=protection)]
    things: list[Thing] = [*content.certificates, *content.keys]
    if b"CERTIFICATE REQUEST-----" in member.content:
        try:
            things += read_requests(member.content)
        except InvalidCSRError as error:
            problem = f"{member.name!r}: {error}"
        else:
            problem = ""
        if problem:
            raise InvalidCSRError(problem)
    items = [Item(member=member.name, thing=thing, protection=content.protection) for thing in things]
    if isinstance(content.problem, WrongPasswordError) and password:
        raise content.problem
    if content.problem is None:
        return items
    locked = isinstance(content.problem, WrongPasswordError)
    return [*items, Item(member=member.name, kind_of_unknown="locked" if locked else "unusable private key")]
