"""Archives as the service delivers them: a ZIP of PKCS#12, PEM, DER or PKCS#7 files, told apart by content."""

import enum
import io
import re
import warnings
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterable
from datetime import datetime
from pathlib import Path

import attrs
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import pkcs7, pkcs12

from sectigo_async.errors import ArchiveError, FileError, WrongPasswordError
from sectigo_async.pki.certificates import IssuedCertificate, build_chain, check_chain, is_ca
from sectigo_async.pki.keys import PrivateKey, public_bytes
from sectigo_async.secrets import Secret

_MEMBERS = 20_000
_MEMBER_SIZE = 1024 * 1024
_TOTAL_SIZE = 256 * 1024 * 1024
_FILE_SIZE = 256 * 1024 * 1024
_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_PKCS7 = re.compile(rb"-----BEGIN (PKCS7|CMS)-----.+?-----END (PKCS7|CMS)-----", re.DOTALL)


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
        raw: the ZIP as it came.
    """

    raw: bytes = attrs.field(repr=False)

    @classmethod
    def from_file(cls, path: Path) -> "Archive":
        """Read an archive that was downloaded before.

        Raises:
            FileError: it cannot be read, or is larger than 256 MiB.
        """
        try:
            with path.open("rb") as file:
                data = file.read(_FILE_SIZE + 1)
        except OSError as error:
            problem = f"cannot read {path}: {error.strerror}"
        else:
            if len(data) <= _FILE_SIZE:
                return cls(data)
            problem = f"{path} is larger than {_FILE_SIZE // 1024**2} MiB"
        raise FileError(problem)

    def members(self) -> tuple[Member, ...]:
        """Return the files in it.

        Raises:
            ArchiveError: it is no ZIP, is damaged, encrypted, or unreasonably large.
        """
        found: list[Member] = []
        left = _TOTAL_SIZE
        try:
            with zipfile.ZipFile(io.BytesIO(self.raw)) as archive:
                infos = archive.infolist()
                if len(infos) > _MEMBERS:
                    raise _hostile(f"it has {len(infos):,} members")
                for info in infos:
                    if info.is_dir():
                        continue
                    with archive.open(info) as file:
                        content = file.read(_MEMBER_SIZE + 1)
                    left -= len(content)
                    if len(content) > _MEMBER_SIZE or left < 0:
                        raise _hostile(f"member {info.filename!r} is larger than a certificate can be")
                    found.append(Member(info.filename, content, _kind(content)))
        except (
            zipfile.BadZipFile,
            zlib.error,
            EOFError,
            NotImplementedError,
            RuntimeError,
            ValueError,
        ) as error:
            problem = str(error)
        else:
            return tuple(found)
        raise ArchiveError(f"the archive cannot be read: {problem}", hint="download it again")

    def open(
        self,
        *,
        password: str | Secret | None = None,
        keys: Iterable[PrivateKey] = (),
        trust: Iterable[x509.Certificate] | None = None,
        names: Collection[str] | None = None,
        at: datetime | None = None,
    ) -> tuple[IssuedCertificate, ...]:
        """Return the certificates in it, each with its key and what was checked about it.

        A check that fails is told in the result and raises nothing: what was paid for is never thrown away.
        Opening RSA keys takes 40 ms each: call it in a thread from async code.

        Args:
            password: opens the PKCS#12 files in it.
            keys: private keys to match with the certificates by their public half.
            trust: roots to check the chains against; without any, chains are "root not pinned".
            names: the names that were ordered; a certificate that names anything else does not match.
            at: the time to check for (aware); now when not given.

        Raises:
            ArchiveError: there is no certificate in it, or a file in it is damaged.
            WrongPasswordError: the password is missing or does not fit.
        """
        contents = [_read(member, password) for member in self.members()]
        pool = {certificate for content in contents for certificate in content.certificates}
        by_public_key = {public_bytes(key.public_key()): key for key in keys}
        by_public_key |= {public_bytes(c.key.public_key()): c.key for c in contents if c.key is not None}
        anchors = None if trust is None else list(trust)
        issued: dict[x509.Certificate, IssuedCertificate] = {}
        for content in contents:
            for certificate in content.certificates:
                if certificate in issued or (is_ca(certificate) and not _is_leaf(certificate, by_public_key)):
                    continue
                chain = build_chain(certificate, pool - {certificate})
                key = by_public_key.get(public_bytes(certificate.public_key()))
                issued[certificate] = IssuedCertificate(
                    certificate=certificate,
                    chain=chain,
                    key=key,
                    member=content.member,
                    key_match=key is not None if by_public_key else None,
                    name_match=_names_match(certificate, names),
                    chain_check=check_chain(certificate, chain, anchors, at=at),
                )
        if not issued:
            raise ArchiveError("there is no certificate in the archive")
        return tuple(issued.values())


def _hostile(problem: str) -> ArchiveError:
    return ArchiveError(f"the archive is refused: {problem}", hint="do not open it with another program")


def _kind(content: bytes) -> MemberKind:
    if b"-----BEGIN CERTIFICATE-----" in content:
        return MemberKind.PEM
    if _PKCS7.search(content):
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
class _Content:
    """What a member holds."""

    member: str
    certificates: tuple[x509.Certificate, ...] = ()
    key: PrivateKey | None = attrs.field(default=None, repr=False)


def _read(member: Member, password: str | Secret | None) -> _Content:
    if member.kind is MemberKind.PKCS12:
        return _read_pkcs12(member, password)
    if member.kind is MemberKind.OTHER:
        return _Content(member.name)
    readers: dict[MemberKind, Callable[[bytes], list[x509.Certificate]]] = {
        MemberKind.PEM: _load_pem,
        MemberKind.DER: lambda content: [x509.load_der_x509_certificate(content)],
        MemberKind.PKCS7: _load_pkcs7,
    }
    try:
        return _Content(member.name, tuple(readers[member.kind](member.content)))
    except (ValueError, UnsupportedAlgorithm) as error:
        problem = f"{member.name!r} is damaged: {error}"
    raise ArchiveError(problem, hint="download it again")


def _load_pem(content: bytes) -> list[x509.Certificate]:
    return [x509.load_pem_x509_certificate(match.group()) for match in _CERTIFICATE.finditer(content)]


def _load_pkcs7(content: bytes) -> list[x509.Certificate]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Java writes BER where DER is due; it is read all the same.
        if content.lstrip().startswith(b"-----"):
            return pkcs7.load_pem_pkcs7_certificates(content)
        return pkcs7.load_der_pkcs7_certificates(content)


def _read_pkcs12(member: Member, password: str | Secret | None) -> _Content:
    secret = Secret(password).reveal().encode() if password else None
    try:
        opened = pkcs12.load_pkcs12(member.content, secret)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        opened = None
    if opened is None:
        problem = "needs its password" if secret is None else "is not opened by this password, or is damaged"
        raise WrongPasswordError(
            f"{member.name!r} {problem}", hint="give the password that was chosen when the batch was ordered"
        )
    found = [opened.cert, *opened.additional_certs]
    key = opened.key if isinstance(opened.key, PrivateKey) else None
    return _Content(member.name, tuple(item.certificate for item in found if item is not None), key)


def _is_leaf(certificate: x509.Certificate, keys: Collection[bytes]) -> bool:
    """Say whether a certificate that may issue others is itself what was ordered: somebody holds its key."""
    return public_bytes(certificate.public_key()) in keys


def _names_match(certificate: x509.Certificate, names: Collection[str] | None) -> bool | None:
    if names is None:
        return None
    issued = IssuedCertificate(certificate=certificate)
    found = {name.lower() for name in (issued.common_name, *issued.dns_names) if name}
    return bool(found) and found <= {name.lower() for name in names}
