"""Archives as the service delivers them: a ZIP of PKCS#12, PEM, DER or PKCS#7 files, told apart by content.

Such a file outside a ZIP is read as an archive of one.
"""

import enum
import logging
import stat
import warnings
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from datetime import datetime
from functools import lru_cache
from pathlib import Path

import attrs
from cryptography import x509
from cryptography.hazmat.primitives.serialization import pkcs7, pkcs12

from sectigo_async.errors import ArchiveError, FileError, PkiError, WrongPasswordError
from sectigo_async.pki import pem
from sectigo_async.pki.certificates import IssuedCertificate, Issuers, find_path, is_ca
from sectigo_async.pki.csr import common_name, dns_names
from sectigo_async.pki.keys import KEY_LABELS, PrivateKey, load_key, public_bytes
from sectigo_async.pki.protection import Pkcs12, Protection
from sectigo_async.pki.zips import MEMBER_SIZE, hostile, read_zip
from sectigo_async.secrets import Secret

_TOTAL_SIZE = 256 * 1024 * 1024
_FILE_SIZE = 256 * 1024 * 1024
_PKCS7 = ("PKCS7", "CMS")

_log = logging.getLogger("sectigo_async.pki")


class MemberKind(enum.Enum):
    """What a member of an archive is, by its content."""

    PKCS12 = "PKCS#12"
    PEM = "PEM"
    DER = "DER"
    PKCS7 = "PKCS#7"
    OTHER = "other"


@attrs.frozen
class Member:
    """One file in an archive.

    Attributes:
        name: as the archive has it; hostile, so for display only, never for a path.
        content: its bytes.
        kind: what it is, by its content.
    """

    name: str
    content: bytes = attrs.field(repr=False)
    kind: MemberKind


@attrs.frozen
class Archive:
    """The archive of a batch.

    Attributes:
        raw: the ZIP as it came, or one file of those that it may hold.
        name: what to call such a file; for display only.
    """

    raw: bytes = attrs.field(repr=False)
    name: str = "the file"

    @classmethod
    def from_file(cls, path: Path) -> "Archive":
        """Read an archive that was downloaded before.

        Raises:
            FileError: it is no file, cannot be read, or is larger than 256 MiB.
        """
        try:
            # Opening a pipe would wait for its other end.
            if not stat.S_ISREG(path.stat().st_mode):
                raise FileError(f"{path} is not a file", hint="name a file")
            with path.open("rb") as file:
                data = file.read(_FILE_SIZE + 1)
        except OSError as error:
            problem = f"cannot read {path}: {error.strerror}"
        else:
            if len(data) <= _FILE_SIZE:
                return cls(data, path.name)
            problem = f"{path} is larger than {_FILE_SIZE // 1024**2} MiB"
        raise FileError(problem)

    def members(self) -> tuple[Member, ...]:
        """Return the files in it. Two may have the same name: no name of theirs is used for more than to show it.

        Raises:
            ArchiveError: it is neither a ZIP nor a file that one may hold, is damaged, or no honest service sends
                it: too large, overlapping, encrypted, nested, with links, with names that lead elsewhere.
        """
        if not self.raw.startswith(b"PK") and (kind := _kind(self.raw)) is not MemberKind.OTHER:
            if len(self.raw) > MEMBER_SIZE:
                raise hostile(f"{self.name!r} is larger than a certificate can be")
            return (Member(self.name, self.raw, kind),)
        if not self.raw.startswith(b"PK"):
            raise ArchiveError(
                f"{self.name!r} is no ZIP, and no certificate, key, PKCS#12 or PKCS#7 file",
                hint="it may be a file of another kind, or damaged",
            )
        found = read_zip(self.raw, total=_TOTAL_SIZE, wanted=_is_named_honestly)
        return tuple(Member(name, content, _kind(content)) for name, content in found)

    def open(
        self,
        *,
        password: str | Secret | None = None,
        keys: Iterable[PrivateKey] = (),
        trust: Iterable[x509.Certificate] | None = None,
        names: Collection[str] | None = None,
        at: datetime | None = None,
        problems: list[PkiError] | None = None,
    ) -> tuple[IssuedCertificate, ...]:
        """Return the certificates in it, each with its key and what was checked about it.

        A check that fails is told in the result and raises nothing: what was paid for is never thrown away. A
        file that cannot be read, beside others that can, is named in a warning of the logger `sectigo_async.pki`.
        Opening RSA keys takes 40 ms each: call it in a thread from async code.

        Args:
            password: opens the PKCS#12 files in it.
            keys: private keys to match with the certificates by their public half.
            trust: roots to check the chains against; without any, chains are "root not pinned".
            names: the names that were ordered; a certificate that names anything else does not match.
            at: the time to check for (aware); now when not given.
            problems: where given, what could not be read beside the rest is added to it, instead of being warned of.

        Raises:
            ArchiveError: no certificate in it can be read.
            WrongPasswordError: the same, because the password is missing or does not fit.
        """
        contents, found = _read_all(self.members(), password)
        certificates = [certificate for content in contents for certificate in content.certificates]
        issuers = Issuers(dict.fromkeys(certificates))
        by_public_key = {public_bytes(key.public_key()): key for content in contents for key in content.keys}
        by_public_key |= {public_bytes(key.public_key()): key for key in keys}
        anchors = None if trust is None else list(trust)
        only_issuers = all(is_ca(certificate) for certificate in certificates)
        issued: list[IssuedCertificate] = []
        seen: set[x509.Certificate] = set()
        for content in contents:
            for certificate in content.certificates:
                if certificate in seen:
                    continue
                seen.add(certificate)
                key = by_public_key.get(public_bytes(certificate.public_key()))
                # A certificate that may issue others is what was ordered only where somebody holds its key,
                # or where there is nothing else.
                if is_ca(certificate) and key is None and not only_issuers:
                    continue
                check, path = find_path(certificate, issuers.all(), anchors, at=at)
                issuers.know(path)
                issued.append(
                    IssuedCertificate(
                        certificate=certificate,
                        chain=issuers.chain(certificate),
                        key=key,
                        member=content.member,
                        protection=content.protection,
                        key_match=key is not None if by_public_key else None,
                        name_match=_names_match(certificate, names),
                        chain_check=check,
                    )
                )
        if issued:
            if problems is not None:
                problems.extend(found)
            else:
                for problem in found:
                    _log.warning("%s", problem)
            return tuple(issued)
        raise next(iter(found), _nothing())


def _nothing() -> ArchiveError:
    return ArchiveError(
        "there is no certificate in the archive", hint="it may hold keys or requests alone, or be damaged"
    )


def _is_named_honestly(name: str) -> bool:
    """Return true, or refuse a name that would do harm as a path or on a screen; here it is neither.

    Names that would do so on some systems only, or look like others, are left alone: a host may be called `aux`.
    """
    if not name:
        raise hostile("a member has no name")
    if not name.isprintable():
        raise hostile(f"member {name!r} has characters in its name that nobody can see")
    if name.startswith("/") or "\\" in name or name[1:2] == ":" or ".." in name.split("/"):
        raise hostile(f"member {name!r} has a name that leads out of the archive")
    return True


def _kind(content: bytes) -> MemberKind:
    if any(f"-----BEGIN {label}-----".encode() in content for label in ("CERTIFICATE", *KEY_LABELS)):
        return MemberKind.PEM
    if any(True for _ in pem.blocks(content, *_PKCS7)):
        return MemberKind.PKCS7
    if not content.startswith(b"\x30"):
        return MemberKind.OTHER
    # All three DER forms are one SEQUENCE; what its first element is tells them apart:
    # PKCS#12 starts with INTEGER 3, PKCS#7 with an OBJECT IDENTIFIER, a certificate with a SEQUENCE.
    length = content[1] if len(content) > 1 else 0
    header = 2 + (length & 0x7F if length & 0x80 else 0)
    first = content[header : header + 3]
    if first == b"\x02\x01\x03":
        return MemberKind.PKCS12
    return {0x06: MemberKind.PKCS7, 0x30: MemberKind.DER}.get(first[0] if first else 0, MemberKind.OTHER)


@attrs.frozen
class Content:
    """What a member holds: certificates and private keys; `problem` tells of a key that cannot be used."""

    member: str
    protection: Protection | None = None
    certificates: tuple[x509.Certificate, ...] = ()
    keys: tuple[PrivateKey, ...] = attrs.field(default=(), repr=False)
    problem: ArchiveError | WrongPasswordError | None = None


def _read_all(
    members: Iterable[Member], password: str | Secret | None
) -> tuple[list[Content], list[ArchiveError | WrongPasswordError]]:
    contents: list[Content] = []
    problems: list[ArchiveError | WrongPasswordError] = []
    for member in members:
        try:
            content = read_member(member, password)
            contents.append(content)
            if content.problem is not None:
                problems.append(content.problem)
        except (ArchiveError, WrongPasswordError) as error:
            problems.append(error)
    return contents, problems


def read_member(member: Member, password: str | Secret | None) -> Content:
    """Return what a member holds; nothing where it is of no kind that is known.

    Raises:
        ArchiveError: it is damaged, or protected in a way that no honest file is.
        WrongPasswordError: the password is missing or does not fit.
    """
    if member.kind is MemberKind.PKCS12:
        return _read_pkcs12(member, password)
    if member.kind is MemberKind.OTHER:
        return Content(member.name)
    keys, unusable = _pem_keys(member, password) if member.kind is MemberKind.PEM else ((), None)
    readers: dict[MemberKind, Callable[[bytes], list[x509.Certificate]]] = {
        MemberKind.PEM: _load_pem,
        MemberKind.DER: lambda content: [_usable(x509.load_der_x509_certificate(content))],
        MemberKind.PKCS7: _load_pkcs7,
    }
    try:
        return Content(member.name, None, tuple(readers[member.kind](member.content)), keys, unusable)
    except Exception as error:  # noqa: BLE001 - cryptography raises whatever its backend meets in hostile input
        problem = f"{member.name!r} is damaged: {error}"
    raise ArchiveError(problem, hint="download it again")


def _pem_keys(
    member: Member, password: str | Secret | None
) -> tuple[tuple[PrivateKey, ...], ArchiveError | WrongPasswordError | None]:
    """Return the private keys in a PEM file that can be used, and why another one cannot."""
    keys = []
    unusable: ArchiveError | WrongPasswordError | None = None
    for block in pem.blocks(member.content, *KEY_LABELS):
        locked = b"ENCRYPTED" in block
        if locked and not password:
            unusable = WrongPasswordError(f"the private key in {member.name!r} needs its password")
            continue
        try:
            keys.append(load_key(block, password if locked else None))
        except ArchiveError as error:
            unusable = ArchiveError(f"{member.name!r}: {error}", hint=error.hint)
        except PkiError as error:
            unusable = WrongPasswordError(f"{member.name!r}: {error}") if locked else _of_another_kind(member)
    return tuple(keys), unusable


def _of_another_kind(member: Member) -> ArchiveError:
    return ArchiveError(
        f"the private key in {member.name!r} is neither EC nor RSA, or is damaged", hint="take it out with openssl"
    )


def _load_pem(content: bytes) -> list[x509.Certificate]:
    return [_load_block(block) for block in pem.blocks(content, "CERTIFICATE")]


@lru_cache(maxsize=32)
def _load_block(block: bytes) -> x509.Certificate:
    # Their issuers come with each of hundreds of certificates.
    return _usable(x509.load_pem_x509_certificate(block))


def _load_pkcs7(content: bytes) -> list[x509.Certificate]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Java writes BER where DER is due; it is read all the same.
        for block in pem.blocks(content, *_PKCS7):
            return list(map(_usable, pkcs7.load_pem_pkcs7_certificates(block.replace(b" CMS-", b" PKCS7-"))))
        return list(map(_usable, pkcs7.load_der_pkcs7_certificates(content)))


def _read_pkcs12(member: Member, password: str | Secret | None) -> Content:
    secret = Secret(password).reveal() if password else None
    looked_at = Pkcs12(member.name, member.content)
    opened = None
    # A file without a password is opened even where one is given for others.
    for attempt in dict.fromkeys((secret, None)):
        if not looked_at.fits(attempt):
            continue
        with suppress(Exception), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            opened = pkcs12.load_pkcs12(member.content, attempt.encode() if attempt else None)
            break
    if opened is None:
        problem = "needs its password" if secret is None else "is not opened by this password, or is damaged"
        raise WrongPasswordError(
            f"{member.name!r} {problem}", hint="give the password that was chosen when the batch was ordered"
        )
    found = [item.certificate for item in (opened.cert, *opened.additional_certs) if item is not None]
    keys = (opened.key,) if isinstance(opened.key, PrivateKey) else ()
    unusable = None if keys or opened.key is None else _of_another_kind(member)
    try:
        return Content(member.name, looked_at.protection, tuple(map(_usable, found)), keys, unusable)
    except Exception as error:  # noqa: BLE001 - as in `read_member`
        problem = f"{member.name!r} is damaged: {error}"
    raise ArchiveError(problem, hint="download it again")


def _usable(certificate: x509.Certificate) -> x509.Certificate:
    """Read what a certificate holds, which is otherwise read lazily: here is where it may fail."""
    public_bytes(certificate.public_key())
    _ = (certificate.subject.rfc4514_string(), certificate.issuer, list(certificate.extensions))
    _ = (common_name(certificate.subject), dns_names(certificate), is_ca(certificate))
    return certificate


def _names_match(certificate: x509.Certificate, names: Collection[str] | None) -> bool | None:
    if names is None:
        return None
    issued = IssuedCertificate(certificate=certificate)
    found = {name.lower() for name in (issued.common_name, *issued.dns_names) if name}
    return bool(found) and found <= {name.lower() for name in names}
