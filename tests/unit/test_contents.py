"""What a file holds, and the files that a certificate is written to."""

import io
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509.oid import NameOID

from sectigo_async import Archive, ArchiveError, IssuedCertificate, WrongPasswordError
from sectigo_async.errors import FileError
from sectigo_async.pki import PrivateKey, generate_key, key_pem, load_key, make_csr, read_items

PASSWORD = "secrtpasswrd"  # noqa: S105 - of a simulator


def certificate(key: PrivateKey, name: str) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(0xABC)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )


@pytest.fixture
def issued() -> IssuedCertificate:
    key = generate_key()
    return IssuedCertificate(certificate=certificate(key, "gw.example.com"), key=key)


def zipped(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def locked(key: PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(PASSWORD.encode()),
    )


def test_items_of_every_kind(issued: IssuedCertificate) -> None:
    assert issued.key is not None
    data = zipped(
        pem=issued.certificate_pem(),
        bundle=issued.to_pkcs12(PASSWORD),
        csr=make_csr(issued.key, "gw.example.com"),
        key=key_pem(issued.key),
        locked=locked(issued.key),
        notes=b"read me",
    )

    closed = [(item.member, item.kind) for item in read_items(Archive(data))]
    opened = [(item.member, item.kind) for item in read_items(Archive(data), PASSWORD)]

    assert closed == [
        *(("pem", "certificate"), ("bundle", "locked"), ("csr", "request"), ("key", "private key")),
        ("locked", "locked"),
    ]
    assert [kind for member, kind in opened if member == "bundle"] == ["certificate", "private key"]
    assert ("locked", "private key") in opened
    with pytest.raises(WrongPasswordError):
        read_items(Archive(data), "wrong")


def test_what_is_told(issued: IssuedCertificate) -> None:
    assert issued.key is not None
    (told,) = (item.document() for item in read_items(Archive(issued.certificate_pem(), "cert.pem")))
    (asked,) = (item.document() for item in read_items(Archive(make_csr(issued.key, "gw.example.com"), "gw.csr")))
    (key,) = (item.document() for item in read_items(Archive(key_pem(issued.key), "key.pem")))

    assert told["file"] == "cert.pem"
    assert (told["commonName"], told["serialNumber"], told["key"]) == ("gw.example.com", "ABC", "EC P-256")
    assert told["notAfter"] == issued.not_after.isoformat()
    assert (asked["kind"], asked["dnsNames"]) == ("request", ["gw.example.com"])
    assert key == {"file": "key.pem", "kind": "private key", "key": "EC P-256"}


@pytest.mark.parametrize("data", [b"", b"hello", zipped(notes=b"read me"), b"\x00" * 100])
def test_a_file_of_another_kind(data: bytes) -> None:
    with pytest.raises(ArchiveError):
        read_items(Archive(data))


def test_archives_of_one_file(issued: IssuedCertificate) -> None:
    der = issued.certificate.public_bytes(serialization.Encoding.DER)
    for data in (issued.certificate_pem(), der, issued.to_pkcs12(PASSWORD)):
        (found,) = Archive(data).open(password=PASSWORD)
        assert found.certificate == issued.certificate


def test_a_key_in_the_archive_is_matched(issued: IssuedCertificate) -> None:
    assert issued.key is not None
    data = zipped(**{"a.pem": issued.certificate_pem(), "a.key": locked(issued.key)})

    (found,) = Archive(data).open(password=PASSWORD)

    assert found.key_match
    assert found.key is not None
    with pytest.raises(ArchiveError, match="no certificate"):
        Archive(key_pem(issued.key)).open()


def test_files_of_a_certificate(issued: IssuedCertificate, tmp_path: Path) -> None:
    assert issued.key is not None
    issued.write_to(tmp_path, password=PASSWORD, combined=True)

    names = {"privkey.pem", "cert.pem", "chain.pem", "fullchain.pem", "bundle.p12", "combined.pem"}
    assert {path.name for path in tmp_path.iterdir()} == names
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
    combined = (tmp_path / "combined.pem").read_bytes()
    assert combined == issued.certificate_pem() + key_pem(issued.key)
    assert key_pem(load_key(combined)) == key_pem(issued.key)
    held = pkcs12.load_pkcs12((tmp_path / "bundle.p12").read_bytes(), PASSWORD.encode())
    assert held.cert is not None
    assert held.cert.certificate == issued.certificate

    before = (tmp_path / "bundle.p12").read_bytes()
    issued.write_to(tmp_path, password=PASSWORD, combined=True)
    assert (tmp_path / "bundle.p12").read_bytes() == before, "what is there already is left alone"
    with pytest.raises(FileError):
        issued.write_to(tmp_path, password="another")
    issued.write_to(tmp_path, password="another", overwrite=True)
    assert (tmp_path / "bundle.p12").read_bytes() != before
