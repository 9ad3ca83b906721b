"""A real certificate authority that nobody should trust: a root, an issuing CA, and their CRLs."""

from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sectigo_async.clock import Clock
from sectigo_async.sandbox.records import Revocation
from sectigo_async.sandbox.store import Store

_ROOT: Final = "root CA"
_ISSUING: Final = "issuing CA"
# Verifiers whose clocks are a little behind must not find a new certificate "not yet valid".
_BACKDATING: Final = timedelta(minutes=5)
_ROOT_LIFE: Final = timedelta(days=3650)
_ISSUING_LIFE: Final = timedelta(days=1825)
_LEAF_LIFE: Final = timedelta(days=398)
_CRL_LIFE: Final = timedelta(days=7)

# RFC 5280 5.3.1 in the numbers of the wire (api.md 1a); 0 is told by leaving the extension out.
_CRL_REASONS: Final = {
    1: x509.ReasonFlags.key_compromise,
    2: x509.ReasonFlags.ca_compromise,
    3: x509.ReasonFlags.affiliation_changed,
    4: x509.ReasonFlags.superseded,
    5: x509.ReasonFlags.cessation_of_operation,
    6: x509.ReasonFlags.certificate_hold,
    9: x509.ReasonFlags.privilege_withdrawn,
    10: x509.ReasonFlags.aa_compromise,
}


class CertificateAuthority:
    """The root, the issuing CA below it, and what they sign. Safe to use from worker threads.

    Args:
        clock: its wall clock dates everything signed.
        store: keeps the keys and certificates of both.
    """

    def __init__(self, clock: Clock, store: Store) -> None:
        self._clock = clock
        self._root_key = _read_key(store.keep("root key", _new_key))
        self._issuing_key = _read_key(store.keep("issuing key", _new_key))
        self.root: x509.Certificate = x509.load_der_x509_certificate(store.keep("root certificate", self._new_root))
        self.issuing: x509.Certificate = x509.load_der_x509_certificate(
            store.keep("issuing certificate", self._new_issuing)
        )
        self.root_pem: bytes = self.root.public_bytes(serialization.Encoding.PEM)
        self.chain_pem: bytes = self.issuing.public_bytes(serialization.Encoding.PEM) + self.root_pem

    def issue(
        self,
        subject: x509.Name,
        public_key: CertificatePublicKeyTypes,
        alternative_names: x509.SubjectAlternativeName | None,
    ) -> x509.Certificate:
        """Return a leaf certificate for TLS servers and clients."""
        not_after = min(self._now() + _LEAF_LIFE, self.issuing.not_valid_after_utc)
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        encipherment = isinstance(public_key, rsa.RSAPublicKey)
        builder = (
            self._builder(subject, self.issuing.subject, public_key, not_after)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(ca=False, encipherment=encipherment), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(_authority_key(self._issuing_key.public_key()), critical=False)
        )
        if alternative_names is not None:
            builder = builder.add_extension(alternative_names, critical=False)
        return builder.sign(self._issuing_key, hashes.SHA256())

    def tls_pem(self, host: str) -> bytes:
        """Return a new key, its certificate for `host` and localhost, and the issuing CA's, as PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = [x509.DNSName("localhost")]
        with suppress(ValueError):
            names.append(x509.IPAddress(ip_address(host)))
        if len(names) == 1 and host != "localhost":
            names.append(x509.DNSName(host))
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sectigo-async sandbox, not trusted: TLS")])
        certificate = self.issue(subject, key.public_key(), x509.SubjectAlternativeName(names))
        return b"".join(
            (
                key.private_bytes(
                    serialization.Encoding.PEM,
                    serialization.PrivateFormat.PKCS8,
                    serialization.NoEncryption(),
                ),
                certificate.public_bytes(serialization.Encoding.PEM),
                self.issuing.public_bytes(serialization.Encoding.PEM),
            )
        )

    def crl_pem(self, revoked: Mapping[int, Revocation], number: int) -> bytes:
        """Return the issuing CA's revocation list, then the root's empty one, as PEM.

        Args:
            revoked: revocations by serial number.
            number: the CRL number, which must never fall.
        """
        return self._crl(self.issuing, self._issuing_key, revoked, number) + self._crl(
            self.root, self._root_key, {}, 1
        )

    def _new_root(self) -> bytes:
        name, key = _ca_name(_ROOT), self._root_key.public_key()
        return (
            self._builder(name, name, key, self._now() + _ROOT_LIFE)
            .add_extension(x509.BasicConstraints(ca=True, path_length=1), critical=True)
            .add_extension(_key_usage(ca=True), critical=True)
            .sign(self._root_key, hashes.SHA256())
            .public_bytes(serialization.Encoding.DER)
        )

    def _new_issuing(self) -> bytes:
        key = self._issuing_key.public_key()
        return (
            self._builder(_ca_name(_ISSUING), _ca_name(_ROOT), key, self._now() + _ISSUING_LIFE)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(ca=True), critical=True)
            .add_extension(_authority_key(self._root_key.public_key()), critical=False)
            .sign(self._root_key, hashes.SHA256())
            .public_bytes(serialization.Encoding.DER)
        )

    def _builder(
        self,
        subject: x509.Name,
        issuer: x509.Name,
        public_key: CertificatePublicKeyTypes,
        not_after: datetime,
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(self._now() - _BACKDATING)
            .not_valid_after(not_after)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        )

    def _crl(
        self,
        issuer: x509.Certificate,
        key: ec.EllipticCurvePrivateKey,
        revoked: Mapping[int, Revocation],
        number: int,
    ) -> bytes:
        now = self._now()
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(issuer.subject)
            .last_update(now - _BACKDATING)
            .next_update(now + _CRL_LIFE)
            .add_extension(x509.CRLNumber(number), critical=False)
            .add_extension(_authority_key(key.public_key()), critical=False)
        )
        for serial, revocation in revoked.items():
            builder = builder.add_revoked_certificate(_revoked_entry(serial, revocation))
        return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.time(), UTC)


def _new_key() -> bytes:
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _read_key(der: bytes) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_der_private_key(der, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


def _ca_name(role: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "sectigo-async sandbox, not trusted"),
            x509.NameAttribute(NameOID.COMMON_NAME, f"sectigo-async sandbox, not trusted: {role}"),
        ]
    )


def _key_usage(*, ca: bool, encipherment: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=encipherment,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _authority_key(public_key: ec.EllipticCurvePublicKey) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(public_key)


def _revoked_entry(serial: int, revocation: Revocation) -> x509.RevokedCertificate:
    builder = (
        x509.RevokedCertificateBuilder()
        .serial_number(serial)
        .revocation_date(datetime.fromtimestamp(revocation.at, UTC))
    )
    if revocation.reason in _CRL_REASONS:
        builder = builder.add_extension(x509.CRLReason(_CRL_REASONS[revocation.reason]), critical=False)
    return builder.build()
