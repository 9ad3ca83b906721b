"""Private keys."""

import enum
import hashlib
from contextlib import suppress
from typing import TypeAlias

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

from sectigo_async.errors import PkiError
from sectigo_async.pki.pem import blocks
from sectigo_async.pki.protection import check_key
from sectigo_async.secrets import Secret

KEY_LABELS = ("PRIVATE KEY", "ENCRYPTED PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY")
"""What the PEM blocks of private keys are called (RFC 7468 sections 10, 11, and older forms)."""

PrivateKey: TypeAlias = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


class KeyAlgorithm(enum.Enum):
    """Kinds of keys that can be made here."""

    P256 = "P-256"
    P384 = "P-384"
    RSA_2048 = "RSA-2048"
    RSA_3072 = "RSA-3072"
    RSA_4096 = "RSA-4096"


def generate_key(algorithm: KeyAlgorithm = KeyAlgorithm.P256) -> PrivateKey:
    """Make a private key. RSA takes from 0.05 to some seconds: call it in a thread from async code.

    Args:
        algorithm: its kind and, for RSA, its size in bits.

    Returns:
        The key, in memory alone: `write_private` keeps it.
    """
    match algorithm:
        case KeyAlgorithm.P256:
            return ec.generate_private_key(ec.SECP256R1())
        case KeyAlgorithm.P384:
            return ec.generate_private_key(ec.SECP384R1())
        case _:
            return rsa.generate_private_key(65537, int(algorithm.value.removeprefix("RSA-")))


def key_pem(key: PrivateKey) -> bytes:
    """Return `key` as unencrypted PKCS#8 PEM: bytes that are a secret, and are not masked."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def load_key(pem: bytes, password: str | Secret | None = None) -> PrivateKey:
    """Read a private key from PEM (blocking: one that is encrypted derives a key first).

    Args:
        pem: PKCS#8 or the older forms of OpenSSL; the first key in it counts.
        password: opens it, where it is encrypted.

    Raises:
        ArchiveError: its protection is damaged, not known here, or asks for more rounds than any honest one.
        PkiError: it is no EC or RSA key, or the password does not fit.
    """
    secret = Secret(password).reveal().encode() if password else None
    if secret is not None:
        for block in blocks(pem, "ENCRYPTED PRIVATE KEY"):
            check_key(block)
    key: object = None
    with suppress(ValueError, TypeError, UnsupportedAlgorithm):
        key = serialization.load_pem_private_key(pem, secret)
    if not isinstance(key, PrivateKey):
        msg = "not an EC or RSA private key in PEM form, or its password does not fit"
        raise PkiError(msg)
    return key


def describe_key(key: PublicKeyTypes) -> str:
    """Return what kind of key this is, e.g. `EC P-256` or `RSA 2048`."""
    match key:
        case ec.EllipticCurvePublicKey():
            names = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}
            return f"EC {names.get(key.curve.name, key.curve.name)}"
        case rsa.RSAPublicKey():
            return f"RSA {key.key_size}"
        case dsa.DSAPublicKey():
            return "DSA"
        case ed25519.Ed25519PublicKey():
            return "Ed25519"
        case ed448.Ed448PublicKey():
            return "Ed448"
        case _:
            return type(key).__name__


def public_bytes(key: PublicKeyTypes) -> bytes:
    """Return the SubjectPublicKeyInfo in DER form: what makes two keys the same."""
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def key_sha256(key: PublicKeyTypes) -> str:
    """Return the SHA-256 of the SubjectPublicKeyInfo as hex, as `Order.key_sha256` has it."""
    return hashlib.sha256(public_bytes(key)).hexdigest()
