"""How PKCS#12 files are protected: told, old ones read and written anew."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sectigo_async import Archive, ArchiveError, WrongPasswordError
from sectigo_async.errors import FileError
from sectigo_async.pki import Layer, load_key, rc2, read_items

PASSWORD = "pä€😀-secret"  # noqa: S105 - opens what the tests make
OLD = "RC2-40 and 3DES (PKCS#12-SHA-1 x 2,048), MAC SHA-1 x 2,048"
Openssl = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def exported(openssl: Openssl, tmp_path: Path) -> Callable[..., bytes]:
    """Make PKCS#12 files as openssl writes them."""
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")
    made = openssl(
        "req", "-x509", *curve, "-nodes", "-keyout", "k.pem", "-out", "c.pem", "-subj", "/CN=gw.example.com"
    )
    assert made.returncode == 0, made.stderr

    def export(*options: str, password: str = PASSWORD) -> bytes:
        done = openssl("pkcs12", "-export", "-inkey", "k.pem", "-in", "c.pem", "-passout", f"pass:{password}",
                       "-out", "made.p12", *options)  # fmt: skip
        assert done.returncode == 0, done.stderr
        return (tmp_path / "made.p12").read_bytes()

    return export


@pytest.mark.openssl
@pytest.mark.parametrize(
    ("options", "told", "old"),
    [
        ("-legacy", OLD, True),
        ("-legacy -certpbe PBE-SHA1-RC2-128 -keypbe PBE-SHA1-RC2-128", "RC2-128 (PKCS#12-SHA-1 x 2,048), MAC", True),
        ("-legacy -certpbe PBE-SHA1-2DES", "3DES with two keys and 3DES (PKCS#12-SHA-1 x 2,048)", True),
        ("-certpbe PBE-SHA1-3DES -keypbe PBE-SHA1-3DES", "3DES (PKCS#12-SHA-1 x 2,048), MAC SHA-256 x 2,048", True),
        ("", "AES-256 (PBKDF2-SHA-256 x 2,048), MAC SHA-256 x 2,048", True),
        ("-iter 10000", "AES-256 (PBKDF2-SHA-256 x 10,000), MAC SHA-256 x 10,000", False),
        ("-iter 20000 -certpbe AES-128-CBC -keypbe AES-192-CBC -macalg sha512", "AES-128 and AES-192 (PBKDF2", False),
        ("-iter 10000 -nomac", "no MAC", False),
        ("-certpbe NONE -keypbe NONE", "not encrypted, MAC SHA-256 x 2,048", False),
    ],
)  # fmt: skip
def test_every_protection_is_told_and_opened(
    exported: Callable[..., bytes], options: str, told: str, old: bool
) -> None:
    (issued,) = Archive(exported(*options.split())).open(password=PASSWORD)

    assert issued.key_match
    assert issued.protection is not None
    assert told in str(issued.protection)
    assert issued.protection.old is old


@pytest.mark.openssl
def test_an_old_file_is_read_told_and_written_anew(
    exported: Callable[..., bytes], openssl: Openssl, tmp_path: Path
) -> None:
    archive = Archive(exported("-legacy"), "old.p12")
    assert openssl("pkcs12", "-in", "made.p12", "-noout", "-passin", f"pass:{PASSWORD}").returncode != 0

    (issued,) = archive.open(password=PASSWORD)
    (locked,) = read_items(archive)
    assert str(issued.protection) == locked.document()["protection"] == OLD
    with pytest.raises(WrongPasswordError, match="not opened by this password"):
        archive.open(password="wrong")
    issued.write_to(tmp_path / "out", password=PASSWORD)
    issued.write_to(tmp_path / "out", password=PASSWORD)

    opened = openssl("pkcs12", "-in", "out/bundle.p12", "-info", "-nodes", "-passin", f"pass:{PASSWORD}")
    assert opened.returncode == 0, opened.stderr
    assert "AES-256-CBC, Iteration 600000, PRF hmacWithSHA256" in opened.stderr
    assert "MAC: sha256, Iteration 100000" in opened.stderr
    key = load_key(opened.stdout[opened.stdout.index("-----BEGIN PRIV") :].encode())
    assert key.private_numbers() == load_key((tmp_path / "k.pem").read_bytes()).private_numbers()
    (anew,) = Archive.from_file(tmp_path / "out/bundle.p12").open(password=PASSWORD)
    assert anew.protection is not None
    assert not anew.protection.old
    assert openssl("pkcs12", "-in", "out/bundle.p12", "-noout", "-passin", "pass:wrong").returncode != 0


@pytest.mark.openssl
def test_an_old_bundle_in_the_place_of_the_new_one_is_not_taken_for_it(
    exported: Callable[..., bytes], tmp_path: Path
) -> None:
    (issued,) = Archive(exported("-legacy")).open(password=PASSWORD)
    (tmp_path / "bundle.p12").write_bytes(exported("-legacy"))

    with pytest.raises(FileError, match=r"bundle\.p12 is there already"):
        issued.write_to(tmp_path, password=PASSWORD)


@pytest.mark.openssl
@pytest.mark.parametrize("options", ["-certpbe PBE-SHA1-3DES -keypbe PBE-SHA1-3DES", ""])
def test_a_file_with_an_empty_password(exported: Callable[..., bytes], options: str) -> None:
    data = exported(*options.split(), password="")

    for password in (None, "another"):
        (issued,) = Archive(data).open(password=password)
        assert issued.key_match


@pytest.mark.openssl
@pytest.mark.parametrize(
    "options", ["-legacy -certpbe PBE-SHA1-RC4-128", "-certpbe camellia-256-cbc", "-macalg sm3 -certpbe aes-256-cbc"]
)
def test_what_is_not_known_is_refused(exported: Callable[..., bytes], options: str) -> None:
    with pytest.raises(ArchiveError, match="which is not known here") as caught:
        Archive(exported(*options.split())).open(password=PASSWORD)

    assert "openssl" in caught.value.hint


@pytest.mark.openssl
def test_the_command_line_tells_of_old_encryption(exported: Callable[..., bytes], tmp_path: Path) -> None:
    exported("-legacy")
    (tmp_path / "password").write_text(PASSWORD)
    (tmp_path / "password").chmod(0o600)

    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        program = str(Path(sys.executable).with_name("sectigo-async"))
        return subprocess.run([program, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False)

    inspected = run("inspect", "made.p12")
    unpacked = run("unpack", "made.p12", "-o", "out", "--password-file", "password")
    anew = run("inspect", "out/gw.example.com/bundle.p12", "--password-file", "password")
    quiet = run("--quiet", "unpack", "made.p12", "-o", "out", "--password-file", "password")

    assert json.loads(inspected.stdout)[0]["protection"] == OLD
    assert "note: 'made.p12' has old encryption" in inspected.stderr
    assert "unpack made.p12 --password-file" in inspected.stderr
    assert json.loads(unpacked.stdout)[0]["protection"] == OLD
    assert "note: 'made.p12' came with old encryption, RC2-40" in unpacked.stderr
    assert "bundle.p12" in unpacked.stderr
    assert json.loads(anew.stdout)[0]["protection"] == "AES-256 (PBKDF2-SHA-256 x 600,000), MAC SHA-256 x 100,000"
    assert "old" not in anew.stderr
    assert (quiet.returncode, quiet.stderr) == (0, "")
    assert "secret" not in inspected.stderr + unpacked.stderr


@pytest.mark.parametrize(
    ("layer", "old"),
    [
        (Layer("AES-256", "PBKDF2-SHA-256", 10_000), False),
        (Layer("AES-256", "PBKDF2-SHA-256", 9_999), True),
        (Layer("AES-256", "PBKDF2-SHA-1", 600_000), True),
        (Layer("3DES", "PBKDF2-SHA-256", 600_000), True),
        (Layer("SHA-1", "PKCS#12-SHA-1", 600_000), True),
        (Layer("SHA-512", "PKCS#12-SHA-512", 600_000), False),
    ],
)
def test_what_is_old(layer: Layer, old: bool) -> None:
    assert layer.old is old


@pytest.mark.parametrize(("key", "cipher"), [("88bca90e90875a7f0f79c384627bafb2", "2269552ab0f85ca6")])
def test_rc2_by_the_example_of_its_standard(key: str, cipher: str) -> None:
    assert rc2.decrypt_cbc(bytes.fromhex(key), bytes(8), bytes.fromhex(cipher)) == bytes(8)
