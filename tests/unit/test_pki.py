"""Keys, requests, archives and chains."""

import io
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest.mock import Mock

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import pkcs7, pkcs12
from cryptography.x509.oid import NameOID

from sectigo_async import Archive, Secret
from sectigo_async.errors import ArchiveError, InvalidArgumentError, InvalidCSRError, PkiError, WrongPasswordError
from sectigo_async.pki import (
    ChainStatus,
    KeyAlgorithm,
    MemberKind,
    check_chain,
    describe_key,
    generate_key,
    key_pem,
    load_key,
    make_csr,
    read_requests,
    without_dns_name,
)
from sectigo_async.pki import archive as archive_module
from sectigo_async.pki import certificates as certificates_module

NOW = datetime.now(UTC)
DER = serialization.Encoding.DER
PEM = serialization.Encoding.PEM


class Signed:
    """A certificate and its key."""

    def __init__(
        self,
        name: str,
        issuer: "Signed | None" = None,
        *,
        ca: bool = True,
        days: int = 30,
        san: tuple[str, ...] = (),
        key: ec.EllipticCurvePrivateKey | None = None,
        may_sign: bool | None = None,
    ) -> None:
        self.key = key or ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer.certificate.subject if issuer else subject)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW - timedelta(days=60))
            .not_valid_after(NOW + timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca, None), critical=True)
        )
        if san:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([x509.DNSName(each) for each in san]), critical=False
            )
        if may_sign is not None:
            usage = dict.fromkeys(
                ["content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "crl_sign"], False
            )
            builder = builder.add_extension(
                x509.KeyUsage(
                    digital_signature=True, key_cert_sign=may_sign, encipher_only=False, decipher_only=False, **usage
                ),
                critical=True,
            )
        self.certificate: x509.Certificate = builder.sign((issuer or self).key, hashes.SHA256())

    def encoded(self, form: serialization.Encoding) -> bytes:
        return self.certificate.public_bytes(form)


@pytest.fixture(scope="module")
def root() -> Signed:
    return Signed("root")


@pytest.fixture(scope="module")
def issuer(root: Signed) -> Signed:
    return Signed("issuer", root)


@pytest.fixture(scope="module")
def leaf(issuer: Signed) -> Signed:
    return Signed("gw7.example.com", issuer, ca=False, san=("gw7.example.com", "alt.example.com"))


@pytest.fixture
def zipped() -> Callable[..., Archive]:
    def make(**members: bytes) -> Archive:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
            for name, content in members.items():
                file.writestr(name.replace("__", "."), content)
        return Archive(buffer.getvalue())

    return make


def legacy_p12(leaf: Signed, password: bytes, *issuers: Signed) -> bytes:
    old = (
        serialization.PrivateFormat.PKCS12.encryption_builder()
        .kdf_rounds(2000)
        .key_cert_algorithm(pkcs12.PBES.PBESv1SHA1And3KeyTripleDESCBC)
        .hmac_hash(hashes.SHA1())  # noqa: S303 - what the service writes
        .build(password)
    )
    chain = [each.certificate for each in issuers]
    return pkcs12.serialize_key_and_certificates(b"x", leaf.key, leaf.certificate, chain, old)


@pytest.mark.parametrize("algorithm", [KeyAlgorithm.P256, KeyAlgorithm.P384, KeyAlgorithm.RSA_2048])
def test_keys_are_made_written_and_read_again(algorithm: KeyAlgorithm) -> None:
    key = generate_key(algorithm)
    pem = key_pem(key)

    assert pem.startswith(b"-----BEGIN PRIVATE KEY-----")
    assert load_key(pem).private_numbers() == key.private_numbers()
    assert describe_key(key.public_key()).replace(" ", "-").removeprefix("EC-") == algorithm.value


@pytest.mark.parametrize("pem", [b"", b"not pem", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----"])
def test_what_is_no_key(pem: bytes) -> None:
    with pytest.raises(PkiError):
        load_key(pem)


def test_csr_carries_names_and_subject() -> None:
    key = generate_key()
    subject = {"organizationName": "Acme", "countryName": "DE"}

    (request,) = read_requests(make_csr(key, "gw7.example.com", dns_names=["a.example.com"], subject=subject))

    assert request.is_signature_valid
    assert request.subject.rfc4514_string() == "C=DE,O=Acme,CN=gw7.example.com"
    names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["a.example.com"]
    assert without_dns_name([request]) == ()


@pytest.mark.parametrize(
    ("name", "subject"), [("gw7", {"countryName": "Germany"}), ("gw7", {"shoeSize": "43"}), ("ü.example.com", {})]
)
def test_names_that_cannot_stand_in_a_csr(name: str, subject: dict[str, str]) -> None:
    with pytest.raises(InvalidCSRError):
        make_csr(generate_key(), name, subject=subject)


def test_requests_are_read_from_one_text_and_from_a_zip(zipped: Callable[..., Archive]) -> None:
    first, second = make_csr(generate_key(), "a.example.com"), make_csr(generate_key(), "b.example.com")

    together = read_requests(b"chatter\r\n" + first + b"\n" + second.replace(b"\n", b"\r\n"))
    apart = read_requests(zipped(a__csr=first, b__pem=second, readme__txt=b"not one").raw)

    assert [request.public_bytes(DER) for request in together] == [request.public_bytes(DER) for request in apart]


def test_requests_that_are_damaged(zipped: Callable[..., Archive]) -> None:
    good = make_csr(generate_key(), "a.example.com")
    (request,) = read_requests(good)
    der = bytearray(request.public_bytes(DER))
    der[-5] ^= 1
    import base64

    forged = (
        b"-----BEGIN CERTIFICATE REQUEST-----\n"
        + base64.encodebytes(bytes(der))
        + b"-----END CERTIFICATE REQUEST-----\n"
    )
    for data in (b"", b"hello", good[:100], forged, good + forged, zipped(a__csr=b"nothing").raw, b"PK\x03\x04 no"):
        with pytest.raises(InvalidCSRError):
            read_requests(data)


def test_members_are_told_apart_by_content_not_by_name(
    zipped: Callable[..., Archive], leaf: Signed, issuer: Signed
) -> None:
    bundle = [leaf.certificate, issuer.certificate]
    archive = zipped(
        a__txt=legacy_p12(leaf, b"pw"),
        b__p12=leaf.encoded(PEM),
        c__pem=leaf.encoded(DER),
        d__crt=pkcs7.serialize_certificates(bundle, DER),
        e__cer=pkcs7.serialize_certificates(bundle, PEM),
        f__p12=b"surprise",
        g__der=b"",
    )

    kinds = {member.name[0]: member.kind for member in archive.members()}

    assert kinds == {
        "a": MemberKind.PKCS12,
        "b": MemberKind.PEM,
        "c": MemberKind.DER,
        "d": MemberKind.PKCS7,
        "e": MemberKind.PKCS7,
        "f": MemberKind.OTHER,
        "g": MemberKind.OTHER,
    }


@pytest.mark.parametrize("form", ["p12", "pem", "der", "p7b", "p7b-pem"])
def test_every_format_gives_the_certificate_its_chain_and_its_key(
    zipped: Callable[..., Archive], root: Signed, issuer: Signed, leaf: Signed, form: str
) -> None:
    bundle = [root.certificate, issuer.certificate, leaf.certificate]
    content = {
        "p12": {"x": legacy_p12(leaf, b"pw", issuer, root)},
        "pem": {"x": b"\n".join(each.encoded(PEM) for each in (root, leaf, issuer))},
        "der": {"x": leaf.encoded(DER), "y": issuer.encoded(DER), "z": root.encoded(DER)},
        "p7b": {"x": pkcs7.serialize_certificates(bundle, DER)},
        "p7b-pem": {"x": pkcs7.serialize_certificates(bundle, PEM)},
    }[form]

    (issued,) = zipped(**content).open(
        password=Secret("pw"), keys=[leaf.key], trust=[root.certificate], names={"gw7.example.com", "alt.example.com"}
    )

    assert issued.certificate == leaf.certificate
    assert issued.chain == (issuer.certificate,)
    assert issued.key_match is True
    assert issued.name_match is True
    assert issued.chain_check.status is ChainStatus.VERIFIED
    assert issued.sound
    assert issued.serial_number == f"{leaf.certificate.serial_number:X}"


def test_one_certificate_in_several_formats_is_one(
    zipped: Callable[..., Archive], leaf: Signed, issuer: Signed
) -> None:
    archive = zipped(a=leaf.encoded(PEM), b=legacy_p12(leaf, b"pw", issuer), c=leaf.encoded(DER))

    (issued,) = archive.open(password="pw")

    assert issued.key is not None
    assert issued.key_match is True
    assert issued.chain == (issuer.certificate,)


def test_without_a_root_the_chain_is_not_pinned_and_its_own_root_does_not_count(
    zipped: Callable[..., Archive], root: Signed, issuer: Signed, leaf: Signed
) -> None:
    archive = zipped(x=legacy_p12(leaf, b"pw", issuer, root))
    stranger = Signed("root")

    (unpinned,) = archive.open(password="pw")
    (wrong,) = archive.open(password="pw", trust=[stranger.certificate])

    assert unpinned.chain_check.status is ChainStatus.NOT_PINNED
    assert wrong.chain_check.status is ChainStatus.FAILED
    assert not wrong.sound
    assert unpinned.name_match is None


def test_checks_that_fail_are_told_and_the_certificate_is_still_there(
    zipped: Callable[..., Archive], leaf: Signed
) -> None:
    (issued,) = zipped(x=leaf.encoded(PEM)).open(keys=[generate_key()], names=["other.example.com"])

    assert issued.key_match is False
    assert issued.name_match is False
    assert not issued.sound
    assert issued.certificate_pem() == leaf.encoded(PEM)


def test_chains_that_must_not_hold(root: Signed, issuer: Signed, leaf: Signed) -> None:
    anchors = [root.certificate]
    under_leaf = Signed("fake.example.com", leaf, ca=False)
    expired = Signed("old.example.com", issuer, ca=False, days=-1)
    old_issuer = Signed("issuer", root, days=-1)
    under_old = Signed("x.example.com", old_issuer, ca=False)

    verdicts = [
        check_chain(under_leaf.certificate, [leaf.certificate, issuer.certificate], anchors),
        check_chain(expired.certificate, [issuer.certificate], anchors),
        check_chain(under_old.certificate, [old_issuer.certificate], anchors),
        check_chain(leaf.certificate, [], anchors),
        check_chain(Signed("self.example.com", ca=False).certificate, [], anchors),
        check_chain(leaf.certificate, [Signed("issuer").certificate], anchors),
        check_chain(leaf.certificate, [issuer.certificate], anchors, at=NOW + timedelta(days=365)),
    ]

    assert {check.status for check in verdicts} == {ChainStatus.FAILED}
    assert all(check.detail for check in verdicts)


@pytest.mark.parametrize("password", [None, "wrong", ""])
def test_wrong_password(zipped: Callable[..., Archive], leaf: Signed, password: str | None) -> None:
    with pytest.raises(WrongPasswordError, match="x"):
        zipped(x=legacy_p12(leaf, b"pw")).open(password=password)


def test_archives_that_are_damaged_empty_or_hostile(zipped: Callable[..., Archive], leaf: Signed) -> None:
    good = zipped(x=leaf.encoded(PEM)).raw
    flipped = bytearray(good)
    flipped[60] ^= 0xFF
    hostile = [
        b"",
        b"PK",
        b"not a zip at all",
        good[: len(good) // 2],
        bytes(flipped),
        zipped().raw,
        zipped(x=b"no certificate").raw,
        zipped(x=b"\x00" * (2 * 1024 * 1024)).raw,
        zipped(x=b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----").raw,
    ]
    for data in hostile:
        with pytest.raises(ArchiveError):
            Archive(data).open()


def test_files_are_written_for_this_user_alone_and_modern_pkcs12_is_made(
    zipped: Callable[..., Archive], leaf: Signed, issuer: Signed, tmp_path: Path
) -> None:
    (issued,) = zipped(x=legacy_p12(leaf, b"pw", issuer)).open(password="pw")

    issued.write_to(tmp_path / "new")
    bundle = pkcs12.load_pkcs12(issued.to_pkcs12(Secret("new-password")), b"new-password")

    assert bundle.cert is not None
    assert bundle.cert.certificate == leaf.certificate
    folder = tmp_path / "new"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {file.name: file.stat().st_mode & 0o777 for file in folder.iterdir()} == dict.fromkeys(
        ["cert.pem", "chain.pem", "fullchain.pem", "privkey.pem"], 0o600
    )
    assert (folder / "fullchain.pem").read_bytes() == leaf.encoded(PEM) + issuer.encoded(PEM)
    assert load_key((folder / "privkey.pem").read_bytes()).private_numbers() == leaf.key.private_numbers()


def test_repr_shows_no_key(zipped: Callable[..., Archive], leaf: Signed) -> None:
    archive = zipped(x=legacy_p12(leaf, b"pw"))
    (issued,) = archive.open(password="pw")

    assert "PRIVATE" not in f"{archive!r} {issued!r} {archive.members()!r}"
    assert "gw7.example.com" in repr(issued)


def test_an_intermediate_that_two_roots_signed_is_verified_against_either(
    zipped: Callable[..., Archive], root: Signed
) -> None:
    other = Signed("other root")
    one = Signed("cross", root)
    two = Signed("cross", other, key=one.key)
    leaf = Signed("gw7.example.com", one, ca=False, san=("gw7.example.com",))
    for order in ((one, two), (two, one)):
        archive = zipped(x=b"".join(each.encoded(PEM) for each in (leaf, *order)))
        for anchor in (root, other):
            (issued,) = archive.open(trust=[anchor.certificate])
            assert issued.chain_check.status is ChainStatus.VERIFIED


@pytest.mark.parametrize(("may_sign", "status"), [(True, ChainStatus.VERIFIED), (False, ChainStatus.FAILED)])
def test_an_issuer_must_be_allowed_to_sign_certificates(root: Signed, may_sign: bool, status: ChainStatus) -> None:
    issuer = Signed("issuer", root, may_sign=may_sign)
    leaf = Signed("gw7.example.com", issuer, ca=False)

    assert check_chain(leaf.certificate, [issuer.certificate], [root.certificate]).status is status


def test_a_time_without_zone_is_refused(leaf: Signed) -> None:
    with pytest.raises(InvalidArgumentError):
        check_chain(leaf.certificate, [], None, at=datetime(2026, 1, 1))  # noqa: DTZ001


def test_one_file_that_cannot_be_read_does_not_hide_the_others(
    zipped: Callable[..., Archive], leaf: Signed, caplog: pytest.LogCaptureFixture
) -> None:
    other = Signed("other.example.com", ca=False)
    damaged = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"

    (issued,) = zipped(a=damaged, b=legacy_p12(other, b"unknown"), c=leaf.encoded(PEM)).open()

    assert issued.certificate == leaf.certificate
    assert "'a' is damaged" in caplog.text
    assert "'b' needs its password" in caplog.text


def test_a_bundle_without_a_password_is_opened_whatever_password_is_given(
    zipped: Callable[..., Archive], leaf: Signed
) -> None:
    plain = pkcs12.serialize_key_and_certificates(
        b"x", leaf.key, leaf.certificate, None, serialization.NoEncryption()
    )

    assert zipped(x=plain).open(password="pw")[0].key_match


def test_pkcs7_under_its_other_label_and_after_other_text(zipped: Callable[..., Archive], leaf: Signed) -> None:
    text = pkcs7.serialize_certificates([leaf.certificate], PEM)

    for content in (text.replace(b"PKCS7", b"CMS"), b"subject=x\r\n" + text):
        (issued,) = zipped(x=content).open()
        assert issued.certificate == leaf.certificate


def test_time_and_memory_for_hostile_input_are_bounded(zipped: Callable[..., Archive]) -> None:
    begins = b"-----BEGIN CERTIFICATE-----\n" * 30_000
    requests = b"-----BEGIN CERTIFICATE REQUEST-----\n" * 30_000
    with pytest.raises(ArchiveError):
        zipped(x=begins).open()
    with pytest.raises(InvalidCSRError):
        read_requests(requests)

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for number in range(70_000):
            file.writestr(f"{number:0>100}", b"")
    with pytest.raises(ArchiveError, match="more members"):
        Archive(buffer.getvalue()).open()


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_unusual_compression_is_refused(leaf: Signed, method: int) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        file.writestr("x", leaf.encoded(PEM))

    with pytest.raises(ArchiveError, match="unusual"):
        Archive(buffer.getvalue()).open()


def test_a_thousand_certificates_are_opened_in_one_pass(zipped: Callable[..., Archive], issuer: Signed) -> None:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "same.example.com")])
    key = ec.generate_private_key(ec.SECP256R1())
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject)
        .public_key(key.public_key())
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(days=1))
    )
    leaves = [builder.serial_number(1000 + n).sign(issuer.key, hashes.SHA256()) for n in range(1000)]
    text = b"".join(leaf.public_bytes(PEM) for leaf in leaves) + issuer.encoded(PEM)

    opened = zipped(x=text[: len(text) // 2], y=text[len(text) // 2 :]).open()

    assert len(opened) >= 999


def test_what_many_certificates_share_is_read_once_and_no_signature_is_checked_twice(
    zipped: Callable[..., Archive], root: Signed, issuer: Signed, monkeypatch: pytest.MonkeyPatch
) -> None:
    leaves = [Signed(f"gw{number}.example.com", issuer, ca=False) for number in range(20)]
    archive = zipped(**{f"gw{n}": leaf.encoded(PEM) + issuer.encoded(PEM) for n, leaf in enumerate(leaves)})
    read, checked = Mock(side_effect=archive_module._usable), Mock(side_effect=certificates_module.issued_by)
    monkeypatch.setattr(archive_module, "_usable", read)
    monkeypatch.setattr(certificates_module, "issued_by", checked)
    archive_module._load_block.cache_clear()

    issued = archive.open(trust=[root.certificate])

    assert [one.chain for one in issued] == [(issuer.certificate,)] * 20
    assert {one.chain_check.status for one in issued} == {ChainStatus.VERIFIED}
    assert (read.call_count, checked.call_count) == (21, 0)


def test_a_forged_certificate_among_good_ones_of_its_issuer_is_found(
    zipped: Callable[..., Archive], root: Signed, issuer: Signed
) -> None:
    forger = Signed("issuer", root)
    good, forged = Signed("good", issuer, ca=False), Signed("forged", forger, ca=False)
    archive = zipped(**{str(n): one.encoded(PEM) + issuer.encoded(PEM) for n, one in enumerate((good, forged, good))})

    first, second = archive.open(trust=[root.certificate])

    assert (first.chain_check.status, second.chain_check.status) == (ChainStatus.VERIFIED, ChainStatus.FAILED)
    assert (first.chain, second.chain) == ((issuer.certificate,), ())


def test_sixteen_thousand_requests_are_found_in_one_pass() -> None:
    from sectigo_async.pki import pem

    one = make_csr(generate_key(), "a.example.com")

    assert sum(1 for _ in pem.blocks(one * 16_000, "CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST")) == 16_000


def test_an_authority_that_was_ordered_is_found_without_its_key(
    zipped: Callable[..., Archive], root: Signed, issuer: Signed
) -> None:
    (issued,) = zipped(x=issuer.encoded(DER)).open(trust=[root.certificate])

    assert issued.certificate == issuer.certificate
    assert issued.chain_check.status is ChainStatus.VERIFIED


def test_zip64_records_are_refused() -> None:
    end = b"PK\x06\x07" + bytes(16) + b"PK\x05\x06" + bytes(18)

    with pytest.raises(ArchiveError, match="ZIP64"):
        Archive(b"PK\x03\x04" + bytes(100) + end).open()
