"""Issued certificates, and what can be said about them."""

import enum
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import attrs
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509 import verification

from sectigo_async.errors import ArchiveError, FileError, InvalidArgumentError
from sectigo_async.files import make_directory, refuse_other, write_private
from sectigo_async.pki.csr import common_name, dns_names
from sectigo_async.pki.keys import PrivateKey, describe_key, key_pem
from sectigo_async.pki.protection import Pkcs12, Protection, with_strong_mac
from sectigo_async.pki.zips import MEMBER_SIZE
from sectigo_async.secrets import Secret

NO_PATH = "no path to a trusted root"
"""How the detail of a `ChainCheck` begins that failed for want of a root."""
NOT_VALID = "the certificate is not valid at this time"
"""The detail of a `ChainCheck` that failed by its dates."""

_LONGEST_CHAIN = 8
_MOST_OF_ONE_NAME = 16
_ROUNDS = 600_000


def load_certificates(path: Path) -> list[x509.Certificate]:
    """Return the certificates in a PEM file, for example the roots to check chains against (blocking).

    Args:
        path: the file; what stands between the certificates is skipped.

    Returns:
        One or more, in the order of the file.

    Raises:
        FileError: it cannot be read, or holds no certificate.
    """
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        problem = f"cannot read {path}: {error.strerror or error}"
    except ValueError:
        problem = f"{path} holds no certificates in PEM form"
    raise FileError(problem, hint="give a PEM file with one certificate or more")


class ChainStatus(enum.Enum):
    """What is known about a certificate's chain."""

    VERIFIED = "verified"
    NOT_PINNED = "root not pinned"
    FAILED = "failed"


@attrs.frozen
class ChainCheck:
    """What checking a chain found.

    Attributes:
        status: the verdict; `NOT_PINNED` where no root was given to check against.
        detail: why it failed, or nothing.
    """

    status: ChainStatus
    detail: str = ""


@attrs.frozen(kw_only=True)
class IssuedCertificate:
    """A certificate from an archive, with what was checked about it.

    Attributes:
        certificate: the certificate.
        chain: its issuers as far as the archive holds them, nearest first, without the root.
        key: the private key, where the archive or the caller had it.
        member: name of the archive's member it came from; for display only.
        protection: how that was protected, where it is PKCS#12. One that is `old` is written anew, with today's
            encryption, by `write_to(password=...)` and `to_pkcs12`.
        key_match: whether `key` belongs to it; `None` where no key was at hand to compare.
        name_match: whether it names nothing but what was expected; `None` where nothing was said.
        chain_check: whether it leads to a root that was given.
    """

    certificate: x509.Certificate = attrs.field(repr=lambda value: value.subject.rfc4514_string())
    chain: tuple[x509.Certificate, ...] = attrs.field(default=(), repr=False)
    key: PrivateKey | None = attrs.field(default=None, repr=False)
    member: str = ""
    protection: Protection | None = None
    key_match: bool | None = None
    name_match: bool | None = None
    chain_check: ChainCheck = ChainCheck(ChainStatus.NOT_PINNED)

    @property
    def common_name(self) -> str:
        """The subject's common name."""
        return common_name(self.certificate.subject)

    @property
    def dns_names(self) -> tuple[str, ...]:
        """The DNS names it is for."""
        return dns_names(self.certificate)

    @property
    def serial_number(self) -> str:
        """The serial number as the service writes it: upper-case hex."""
        return f"{self.certificate.serial_number:X}"

    @property
    def not_after(self) -> datetime:
        """Until when it is valid (aware)."""
        return self.certificate.not_valid_after_utc

    @property
    def key_description(self) -> str:
        """What kind of key it is for, e.g. `EC P-256`."""
        return describe_key(self.certificate.public_key())

    @property
    def sound(self) -> bool:
        """Whether no check failed. A check that was not made does not count."""
        failed = self.chain_check.status is ChainStatus.FAILED
        return self.key_match is not False and self.name_match is not False and not failed

    def certificate_pem(self) -> bytes:
        """Return the certificate as PEM."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def chain_pem(self) -> bytes:
        """Return its issuers as PEM, nearest first, without the root."""
        return b"".join(issuer.public_bytes(serialization.Encoding.PEM) for issuer in self.chain)

    def write_to(
        self,
        directory: Path,
        *,
        password: str | Secret | None = None,
        combined: bool = False,
        overwrite: bool = False,
    ) -> None:
        """Write `cert.pem`, `chain.pem`, `fullchain.pem` and, with a key, `privkey.pem`, all 0600 (blocking).

        Args:
            directory: where to; made 0700 if it is missing.
            password: with a key, write `bundle.p12` too, for this password and as `to_pkcs12` makes it.
            combined: write `combined.pem` too: certificate, chain and key in one, as
                `openssl pkcs12 -nodes` makes it.
            overwrite: whether files of other content may be replaced. A key is never replaced.

        Raises:
            FileError: a file cannot be written, or another stands there.
        """
        make_directory(directory)
        key = b"" if self.key is None else key_pem(self.key)
        files = {
            "cert.pem": self.certificate_pem(),
            "chain.pem": self.chain_pem(),
            "fullchain.pem": self.certificate_pem() + self.chain_pem(),
        }
        if combined:
            files["combined.pem"] = files["fullchain.pem"] + key
        if not overwrite:
            # A key beside a certificate of another is worse than neither.
            for name, content in files.items():
                refuse_other(directory / name, content)
        if key:
            write_private(directory / "privkey.pem", key)
        for name, content in files.items():
            write_private(directory / name, content, overwrite=overwrite)
        bundle = directory / "bundle.p12"
        # It is another one each time, for the salts in it.
        if key and password and not self._is_in(bundle, password):
            made = self.to_pkcs12(password)
            if not overwrite:
                refuse_other(bundle, made)
            write_private(bundle, made, overwrite=overwrite)

    def _is_in(self, bundle: Path, password: str | Secret) -> bool:
        """Say whether a PKCS#12 file holds this certificate with its chain and key, under today's encryption."""
        secret = Secret(password).reveal()
        try:
            if not bundle.is_file():
                return False
            with bundle.open("rb") as opened:
                content = opened.read(MEMBER_SIZE)
            file = Pkcs12(bundle.name, content)
            if file.protection.old or not file.fits(secret):
                return False
            held = pkcs12.load_pkcs12(content, secret.encode())
        except (OSError, ValueError, ArchiveError):
            return False
        certificates = [one.certificate for one in (held.cert, *held.additional_certs) if one is not None]
        key = held.key if isinstance(held.key, PrivateKey) else None
        return (
            certificates == [self.certificate, *self.chain]
            and key is not None
            and (self.key is not None and key_pem(key) == key_pem(self.key))
        )

    def to_pkcs12(self, password: str | Secret) -> bytes:
        """Return key, certificate and chain as PKCS#12 with today's encryption (blocking, 0.2 s).

        That is PBES2 with AES-256, its key by 600,000 rounds of PBKDF2 with SHA-256.

        Args:
            password: opens it; not empty.

        Raises:
            ValueError: there is no private key, or the password is empty.
        """
        if self.key is None:
            msg = "there is no private key to put into a PKCS#12 file"
            raise ValueError(msg)
        secret = Secret(password).reveal()
        encryption = (
            serialization.PrivateFormat.PKCS12.encryption_builder()
            .kdf_rounds(_ROUNDS)
            .key_cert_algorithm(pkcs12.PBES.PBESv2SHA256AndAES256CBC)
            .hmac_hash(hashes.SHA256())
            .build(secret.encode())
        )
        made = pkcs12.serialize_key_and_certificates(
            self.common_name.encode() or None, self.key, self.certificate, list(self.chain), encryption
        )
        return with_strong_mac(made, secret)


def is_ca(certificate: x509.Certificate) -> bool:
    """Say whether a certificate may issue others."""
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return False


def issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Say whether `issuer` signed `certificate`."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


class Issuers:
    """Certificates that may issue others, to build chains from.

    Args:
        certificates: where they are picked from.
    """

    def __init__(self, certificates: Iterable[x509.Certificate]) -> None:
        self._by_subject: dict[x509.Name, list[x509.Certificate]] = {}
        self._signed: set[tuple[x509.Certificate, x509.Certificate]] = set()
        for certificate in certificates:
            if is_ca(certificate) and certificate.subject != certificate.issuer:
                self._by_subject.setdefault(certificate.subject, []).append(certificate)

    def chain(self, certificate: x509.Certificate) -> tuple[x509.Certificate, ...]:
        """Return the issuers of `certificate`, nearest first, without a self-signed root."""
        chain: list[x509.Certificate] = []
        current = certificate
        while len(chain) < _LONGEST_CHAIN:
            candidates = self._by_subject.get(current.issuer, [])[:_MOST_OF_ONE_NAME]
            fresh = (other for other in candidates if other not in chain)
            issuer = next((other for other in fresh if self._signed_by(current, other)), None)
            if issuer is None:
                break
            chain.append(issuer)
            current = issuer
        return tuple(chain)

    def know(self, path: Sequence[x509.Certificate]) -> None:
        """Take note of a path whose signatures were checked, the issued first: they need not be checked again."""
        self._signed.update(pairwise(path))

    def _signed_by(self, certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
        return (certificate, issuer) in self._signed or issued_by(certificate, issuer)

    def all(self) -> list[x509.Certificate]:
        """Return all of them, for a check that may have to try several paths."""
        return [issuer for same in self._by_subject.values() for issuer in same[:_MOST_OF_ONE_NAME]]


def _must_be_ca(
    _policy: verification.Policy, _certificate: x509.Certificate, constraints: x509.BasicConstraints
) -> None:
    if not constraints.ca:
        msg = "an issuer that is not a certificate authority"
        raise ValueError(msg)


def _must_sign_certificates(
    _policy: verification.Policy, _certificate: x509.Certificate, usage: x509.KeyUsage | None
) -> None:
    if usage is not None and not usage.key_cert_sign:
        msg = "an issuer whose key may not sign certificates"
        raise ValueError(msg)


def _policy(anchors: Sequence[x509.Certificate], at: datetime) -> verification.ClientVerifier:
    # Device certificates need not follow the rules of the web: of issuers it is asked that they are authorities,
    # of certificates only that the signatures, dates and names of the path hold.
    authority = (
        verification.ExtensionPolicy.permit_all()
        .require_present(x509.BasicConstraints, verification.Criticality.AGNOSTIC, _must_be_ca)
        .may_be_present(x509.KeyUsage, verification.Criticality.AGNOSTIC, _must_sign_certificates)
    )
    return (
        verification.PolicyBuilder()
        .store(verification.Store(list(anchors)))
        .time(at)
        .extension_policies(ca_policy=authority, ee_policy=verification.ExtensionPolicy.permit_all())
        .build_client_verifier()
    )


def check_chain(
    certificate: x509.Certificate,
    intermediates: Iterable[x509.Certificate],
    trust: Iterable[x509.Certificate] | None,
    *,
    at: datetime | None = None,
) -> ChainCheck:
    """Check that `certificate` leads to one of the roots in `trust`.

    The operating system's roots, and any root that came with the certificate, do not count.

    Args:
        certificate: what to check.
        intermediates: issuers that may stand between.
        trust: the roots to trust; without any the answer is `NOT_PINNED`.
        at: the time to check for (aware); now when not given.

    Raises:
        InvalidArgumentError: `at` has no time zone.
    """
    return find_path(certificate, intermediates, trust, at=at)[0]


def find_path(
    certificate: x509.Certificate,
    intermediates: Iterable[x509.Certificate],
    trust: Iterable[x509.Certificate] | None,
    *,
    at: datetime | None = None,
) -> tuple[ChainCheck, Sequence[x509.Certificate]]:
    """Check as `check_chain` does, and return the path to the root, too, where there is one; `certificate` is first.

    Raises:
        InvalidArgumentError: `at` has no time zone.
    """
    anchors = list(trust or ())
    moment = at or datetime.now(UTC)
    if moment.tzinfo is None:
        raise InvalidArgumentError("the time to check for has no time zone", hint="give an aware datetime")
    if not anchors:
        return ChainCheck(ChainStatus.NOT_PINNED), ()
    if not certificate.not_valid_before_utc <= moment <= certificate.not_valid_after_utc:
        return ChainCheck(ChainStatus.FAILED, NOT_VALID), ()
    try:
        path = _policy(anchors, moment).verify(certificate, list(intermediates)).chain
    except (verification.VerificationError, ValueError) as error:
        return ChainCheck(ChainStatus.FAILED, f"{NO_PATH}: {error}"), ()
    return ChainCheck(ChainStatus.VERIFIED), path
