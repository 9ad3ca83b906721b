"""How PKCS#12 files (RFC 7292) and locked keys are protected, found out before anything tries to open them.

Opening them derives keys as often as the file says, in one step that nothing can interrupt: a file that asks for 2^31
rounds would hold the whole process for minutes. So the rounds are counted first, those of layers within layers too.
"""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, TypeVar

import attrs
from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import BlockCipherAlgorithm, Cipher, algorithms, modes

from sectigo_async.errors import ArchiveError
from sectigo_async.pki import rc2

if TYPE_CHECKING:
    from asn1crypto import algos, core

T = TypeVar("T")

MOST_ITERATIONS = 5_000_000
"""The rounds that one file may ask for in all: a second or two, and thrice what careful programs choose today."""
FEWEST_ITERATIONS = 10_000
"""What is fewer is old: NIST asks for as many since 2017 (SP 800-63B section 5.1.1.2)."""

_AGAIN = "download it again"
_MAC_ITERATIONS = 100_000
_DEEPEST = 32
_MOST_ELEMENTS = 10_000
_LONGEST_OID = 64
_HASHES = {"sha1": "SHA-1", "sha224": "SHA-224", "sha256": "SHA-256", "sha384": "SHA-384", "sha512": "SHA-512"}


@attrs.frozen
class Layer:
    """A key that is derived from the password, and what it is for.

    Attributes:
        algorithm: the cipher, e.g. `AES-256`, `3DES` or `RC2-40`; for the check of the password, the hash.
        kdf: how the key is derived, e.g. `PBKDF2-SHA-256` or `PKCS#12-SHA-1`.
        iterations: how often that is repeated.
    """

    algorithm: str
    kdf: str
    iterations: int

    @property
    def old(self) -> bool:
        """Whether it is easier to break than what programs write today."""
        weak = not self.algorithm.startswith(("AES", "SHA-2", "SHA-3", "SHA-5")) or "SHA-1" in self.kdf
        return weak or self.iterations < FEWEST_ITERATIONS


@attrs.frozen
class Protection:
    """How a PKCS#12 file is protected.

    Attributes:
        layers: what encrypts its parts, in the order they stand; those within others only where it was opened.
        mac: what tells a wrong password and a change of the file, or `None`.
    """

    layers: tuple[Layer, ...]
    mac: Layer | None

    @property
    def old(self) -> bool:
        """Whether it is encrypted in a way that is easier to break than what programs write today.

        That is RC2, 3DES, SHA-1, or fewer than 10,000 iterations, in any part of it.
        """
        return bool(self.layers) and any(layer.old for layer in (*self.layers, self.mac) if layer is not None)

    def __str__(self) -> str:
        ciphers: dict[str, list[str]] = {}
        for layer in dict.fromkeys(self.layers):
            ciphers.setdefault(f"{layer.kdf} x {layer.iterations:,}", []).append(layer.algorithm)
        told = [f"{' and '.join(names)} ({key})" for key, names in ciphers.items()] or ["not encrypted"]
        mac = "no MAC" if self.mac is None else f"MAC {self.mac.algorithm} x {self.mac.iterations:,}"
        return ", ".join([*told, mac])


@attrs.frozen
class _Scheme:
    """How one part is encrypted.

    Attributes:
        layer: the same, for people.
        derive: makes key and initialization vector of a password.
        decrypt: makes plain text of key, initialization vector and content.
    """

    layer: Layer
    derive: Callable[[str | None], tuple[bytes, bytes]]
    decrypt: Callable[[bytes, bytes, bytes], bytes]


def _block_cipher(algorithm: Callable[[bytes], BlockCipherAlgorithm]) -> Callable[[bytes, bytes, bytes], bytes]:
    def decrypt(key: bytes, initial: bytes, data: bytes) -> bytes:
        decryptor = Cipher(algorithm(key), modes.CBC(initial)).decryptor()
        return decryptor.update(data) + decryptor.finalize()

    return decrypt


def _two_keys(key: bytes) -> TripleDES:
    return TripleDES(key + key[:8])


# The name for people, the length of the key, and the cipher.
_PBES1: Mapping[str, tuple[str, int, Callable[[bytes, bytes, bytes], bytes]]] = {
    "pkcs12_sha1_tripledes_3key": ("3DES", 24, _block_cipher(TripleDES)),
    "pkcs12_sha1_tripledes_2key": ("3DES with two keys", 16, _block_cipher(_two_keys)),
    "pkcs12_sha1_rc2_128": ("RC2-128", 16, rc2.decrypt_cbc),
    "pkcs12_sha1_rc2_40": ("RC2-40", 5, rc2.decrypt_cbc),
}
_PBES2: Mapping[str, tuple[str, int, Callable[[bytes, bytes, bytes], bytes]]] = {
    "aes256_cbc": ("AES-256", 32, _block_cipher(algorithms.AES)),
    "aes192_cbc": ("AES-192", 24, _block_cipher(algorithms.AES)),
    "aes128_cbc": ("AES-128", 16, _block_cipher(algorithms.AES)),
    "tripledes_3key": ("3DES", 24, _block_cipher(TripleDES)),
}
_OLDEST = {"pbes1_md5_des": "MD5", "pbes1_sha1_des": "SHA-1", "pbes1_md5_rc2": "MD5", "pbes1_sha1_rc2": "SHA-1"}


class Pkcs12:
    """A PKCS#12 file, looked at and not opened.

    Args:
        name: what to call it in errors.
        content: its bytes.

    Raises:
        ArchiveError: it is damaged, protected in a way that is not known here, or asks for more rounds than any
            honest one.
    """

    def __init__(self, name: str, content: bytes) -> None:
        self._name = repr(name)
        self._layers: list[Layer] = []
        self._mac: Layer | None = None
        self._sealed: list[tuple[_Scheme, bytes]] = []
        _guarded(self._name, lambda: self._look(content))

    @property
    def protection(self) -> Protection:
        """How it is protected, as far as it has been looked into."""
        return Protection(tuple(self._layers), self._mac)

    def fits(self, password: str | None) -> bool:
        """Say whether a password opens the encrypted parts, and count the layers within them.

        Raises:
            ArchiveError: as for the class.
        """
        return _guarded(self._name, lambda: all(self._look_into(*part, password) for part in tuple(self._sealed)))

    def _look(self, content: bytes) -> None:
        from asn1crypto import pkcs12

        _check_shape(content)
        pfx = pkcs12.Pfx.load(content, strict=True)
        if pfx["auth_safe"]["content_type"].native != "data":
            raise _Refused("is sealed with a certificate instead of a password")
        if pfx["mac_data"].native is not None:
            self._mac = self._count(_mac(pfx["mac_data"]))
        inner = pfx["auth_safe"]["content"].native
        _check_shape(inner)
        for part in pkcs12.AuthenticatedSafe.load(inner, strict=True):
            match part["content_type"].native:
                case "data":
                    self._bags(part["content"].native)
                case "encrypted_data":
                    info = part["content"]["encrypted_content_info"]
                    scheme = _scheme(info["content_encryption_algorithm"])
                    self._layers.append(self._count(scheme.layer))
                    self._sealed.append((scheme, info["encrypted_content"].native))
                case _:
                    raise _Refused("holds a part that no password opens")

    def _look_into(self, scheme: _Scheme, content: bytes, password: str | None) -> bool:
        # Programs differ in what no password is: nothing, or the end of an empty text.
        for attempt in (password,) if password else (None, ""):
            plain = _unpad(scheme.decrypt(*scheme.derive(attempt), content))
            if plain is None:
                continue
            before = len(self._layers)
            self._bags(plain)
            # Looked into once more, with another password, a part is still the same.
            within = [layer for layer in self._layers[before:] if layer not in self._layers[:before]]
            self._layers[before:] = within
            return True
        return False

    def _bags(self, content: bytes) -> None:
        from asn1crypto import pkcs12

        _check_shape(content)
        todo = list(pkcs12.SafeContents.load(content, strict=True))
        while todo:
            bag = todo.pop()
            match bag["bag_id"].native:
                case "safe_contents":
                    todo.extend(bag["bag_value"])
                case "pkcs8_shrouded_key_bag":
                    scheme = _scheme(bag["bag_value"]["encryption_algorithm"])
                    self._layers.append(self._count(scheme.layer))

    def _count(self, layer: Layer) -> Layer:
        _check_iterations(layer.iterations + sum(each.iterations for each in self._all()))
        return layer

    def _all(self) -> Iterable[Layer]:
        return (*self._layers, *([self._mac] if self._mac is not None else []))


def check_key(block: bytes) -> None:
    """See that an `ENCRYPTED PRIVATE KEY` of PEM (RFC 5958 section 3) can be opened in bounded time.

    Raises:
        ArchiveError: it cannot, or is damaged.
    """

    def look() -> None:
        from asn1crypto import keys

        der = base64.b64decode(b"".join(block.split()[4:-4]))
        _check_shape(der)
        algorithm = keys.EncryptedPrivateKeyInfo.load(der, strict=True)["encryption_algorithm"]
        if algorithm["algorithm"].native in _OLDEST:
            _check_iterations(algorithm["parameters"]["iterations"].native)
        else:
            _check_iterations(_scheme(algorithm).layer.iterations)

    _guarded("the private key", look)


def with_strong_mac(content: bytes, password: str) -> bytes:
    """Return a PKCS#12 file with the check of its password made anew, with 100,000 rounds of SHA-256.

    The library that writes these files takes 2,048 there and offers no choice; whoever guesses passwords would guess
    by this check, however strong the encryption is.
    """
    from asn1crypto import pkcs12

    pfx = pkcs12.Pfx.load(content, strict=True)
    salt = secrets.token_bytes(16)
    key = _derive_pkcs12("sha256", password, salt, _MAC_ITERATIONS, purpose=3, length=32)
    pfx["mac_data"] = {
        "mac": {
            "digest_algorithm": {"algorithm": "sha256"},
            "digest": hmac.digest(key, pfx["auth_safe"]["content"].native, "sha256"),
        },
        "mac_salt": salt,
        "iterations": _MAC_ITERATIONS,
    }
    done: bytes = pfx.dump()
    return done


class _Refused(Exception):
    """What is wrong with a file, in words that follow its name, and what to do."""

    def __init__(self, problem: str, hint: str = "do not open it with another program") -> None:
        super().__init__(problem)
        self.hint = hint


def _unknown(algorithm: str) -> _Refused:
    return _Refused(f"is protected with {algorithm}, which is not known here", "write it anew with openssl")


def _guarded(name: str, look: Callable[[], T]) -> T:
    try:
        return look()
    except _Refused as refused:
        problem, hint = f"{name} {refused}", refused.hint
    except Exception:  # noqa: BLE001 - asn1crypto raises whatever it meets in hostile input
        problem, hint = f"{name} is damaged: its parts do not fit together", _AGAIN
    raise ArchiveError(problem, hint=hint)


def _check_iterations(iterations: int) -> None:
    if iterations > MOST_ITERATIONS:
        raise _Refused(f"asks for more than {MOST_ITERATIONS:,} iterations to open it, which no honest one does")


def _unpad(plain: bytes) -> bytes | None:
    """Return what was encrypted, or `None` for what a wrong password makes of it."""
    length = plain[-1]
    if plain[-length:] != bytes([length]) * length or not plain.startswith(b"\x30"):
        return None
    try:
        _check_shape(plain[:-length])
    except (_Refused, IndexError):
        return None
    return plain[:-length]


def _check_shape(data: bytes) -> None:
    """Refuse DER and BER that a parser would take long for: deep, of many elements, or of endless identifiers."""
    ends: list[int] = []
    position = seen = 0
    while position < len(data):
        while ends and position == ends[-1]:
            ends.pop()
        tag, length = data[position], data[position + 1]
        position += 2
        seen += 1
        if tag == length == 0:  # The end of an element whose length was not given.
            if not ends or ends.pop() >= 0:
                raise _Refused("is damaged: an element ends that did not begin", _AGAIN)
            continue
        if length > 0x80:  # noqa: PLR2004 - more bytes of length follow
            size = length & 0x7F
            length = int.from_bytes(data[position : position + size], "big")
            position += size
        elif length == 0x80:  # noqa: PLR2004 - no length is given
            length = -1 - position
        position = _enter(tag, position, length, ends)
        if seen > _MOST_ELEMENTS or len(ends) > _DEEPEST:
            raise _Refused("is built in a way that no honest one is: too many elements, or too deep")
    if position != len(data):
        raise _Refused("is damaged: it is cut short", _AGAIN)


def _enter(tag: int, position: int, length: int, ends: list[int]) -> int:
    """Return where the next element begins: in this one, or after it."""
    if tag & 0x1F == 0x1F or (tag == 0x06 and length > _LONGEST_OID):  # noqa: PLR2004 - long tags, identifiers
        raise _Refused("is built in a way that no honest one is: an identifier without end")
    if tag & 0x20:
        ends.append(position + length)
        return position
    if length < 0:
        raise _Refused("is damaged: an element has no length", _AGAIN)
    return position + length


def _mac(data: "core.Sequence") -> Layer:
    """Return how the password is checked: RFC 7292 appendix B, or PBMAC1 (RFC 9579)."""
    from asn1crypto import algos

    algorithm = data["mac"]["digest_algorithm"]
    if algorithm["algorithm"].dotted == "1.2.840.113549.1.5.14":
        parameters = algos.Pbmac1Params.load(algorithm["parameters"].dump())
        kdf, iterations = _pbkdf2(parameters["key_derivation_func"])[:2]
        return Layer(_hash(parameters["message_auth_scheme"]), f"PBKDF2-{_HASHES[kdf]}", iterations)
    name = _hash(algorithm)
    return Layer(name, f"PKCS#12-{name}", data["iterations"].native)


def _hash(algorithm: "core.Sequence") -> str:
    name = algorithm["algorithm"].native
    if name not in _HASHES:
        raise _unknown(name)
    return _HASHES[name]


def _scheme(algorithm: "algos.EncryptionAlgorithm") -> _Scheme:
    """Return how a part is encrypted.

    Raises:
        _Refused: in a way that cannot be bounded.
    """
    name = algorithm["algorithm"].native
    if name in _PBES1:
        told, length, decrypt = _PBES1[name]
        salt, iterations = algorithm["parameters"]["salt"].native, algorithm["parameters"]["iterations"].native

        def derive(password: str | None) -> tuple[bytes, bytes]:
            return (
                _derive_pkcs12("sha1", password, salt, iterations, purpose=1, length=length),
                _derive_pkcs12("sha1", password, salt, iterations, purpose=2, length=8),
            )

        return _Scheme(Layer(told, "PKCS#12-SHA-1", iterations), derive, decrypt)
    if name != "pbes2":
        raise _unknown(name)
    kdf, rounds, pepper = _pbkdf2(algorithm["parameters"]["key_derivation_func"])
    cipher = algorithm["parameters"]["encryption_scheme"]
    if cipher["algorithm"].native not in _PBES2:
        raise _unknown(cipher["algorithm"].native)
    told, size, decrypt = _PBES2[cipher["algorithm"].native]
    initial = cipher["parameters"].native
    return _Scheme(
        Layer(told, f"PBKDF2-{_HASHES[kdf]}", rounds),
        lambda password: (hashlib.pbkdf2_hmac(kdf, (password or "").encode(), pepper, rounds, size), initial),
        decrypt,
    )


def _pbkdf2(algorithm: "algos.KdfAlgorithm") -> tuple[str, int, bytes]:
    """Return hash, iterations and salt."""
    if algorithm["algorithm"].native != "pbkdf2":
        raise _unknown(algorithm["algorithm"].native)
    parameters = algorithm["parameters"]
    _hash(parameters["prf"])
    return parameters["prf"]["algorithm"].native, parameters["iteration_count"].native, parameters["salt"].native


def _derive_pkcs12(
    name: str, password: str | None, salt: bytes, iterations: int, *, purpose: int, length: int
) -> bytes:
    """Return a key, or an initialization vector, as PKCS#12 derives it, of no more bytes than two hashes have.

    Source: RFC 7292 appendix B.2.
    """
    block = hashlib.new(name).block_size
    text = b"" if password is None else (password + "\0").encode("utf-16-be")
    filled = bytearray(_fill(salt, block) + _fill(text, block))
    key = b""
    while True:
        digest = hashlib.new(name, bytes([purpose]) * block + filled).digest()
        step = getattr(hashlib, name)
        for _ in range(iterations - 1):
            digest = step(digest).digest()
        key += digest
        if len(key) >= length:
            return key[:length]
        added = int.from_bytes(_fill(digest, block), "big") + 1
        for start in range(0, len(filled), block):
            number = int.from_bytes(filled[start : start + block], "big") + added
            filled[start : start + block] = (number % (1 << 8 * block)).to_bytes(block, "big")


def _fill(data: bytes, block: int) -> bytes:
    """Return `data` repeated to whole blocks."""
    size = -(-len(data) // block) * block
    return (data * (size // len(data) + 1))[:size] if data else b""
