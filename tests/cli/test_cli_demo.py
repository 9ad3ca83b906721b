"""`sectigo-async demo`, and what openssl says of its work."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Start = Callable[..., "subprocess.Popen[str]"]
Openssl = Callable[..., "subprocess.CompletedProcess[str]"]

SERVER_KEYS = ("gw-1.example.com", "gw-2.example.com")
LOCAL_KEYS = ("node-1.example.com", "node-2.example.com", "node-3.example.com")


def good(result: "subprocess.CompletedProcess[str]") -> str:
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.openssl
def test_openssl_agrees_with_everything_in_the_folder(start: Start, openssl: Openssl, tmp_path: Path) -> None:
    process = start("demo")
    output, talk = process.communicate(timeout=50)
    assert process.returncode == 0, talk

    rows = json.loads(output)
    assert [row["commonName"] for row in rows] == [*SERVER_KEYS, *LOCAL_KEYS]
    assert [row["status"] for row in rows] == ["valid"] * 4 + ["revoked"]
    assert {row["checks"] for row in rows} == {"key, names, chain ok"}
    assert "simulator" in talk
    certs = tmp_path / "demo-certs"
    for file in certs.rglob("*"):
        assert file.stat().st_mode & 0o777 == (0o700 if file.is_dir() else 0o600), file
    for row in rows:
        name = row["commonName"]
        folder = f"demo-certs/{name}"
        good(
            openssl(
                "verify", "-CAfile", "demo-certs/root.pem", "-untrusted", f"{folder}/chain.pem", f"{folder}/cert.pem"
            )
        )
        serial = good(openssl("x509", "-in", f"{folder}/cert.pem", "-noout", "-serial"))
        assert serial.strip().removeprefix("serial=").lstrip("0") == row["serialNumber"]
        of_certificate = good(openssl("x509", "-in", f"{folder}/cert.pem", "-noout", "-pubkey"))
        assert of_certificate == good(openssl("pkey", "-in", f"{folder}/privkey.pem", "-pubout"))
        with_crl = openssl(
            *("verify", "-crl_check", "-CAfile", "demo-certs/root.pem", "-CRLfile", "demo-certs/crl.pem"),
            *("-untrusted", f"{folder}/chain.pem", f"{folder}/cert.pem"),
        )
        revoked = name == LOCAL_KEYS[-1]
        assert (with_crl.returncode != 0) is revoked, with_crl.stderr
        assert ("certificate revoked" in with_crl.stdout + with_crl.stderr) is revoked
    for name in SERVER_KEYS:
        bundle = ("pkcs12", "-in", f"demo-certs/{name}/bundle.p12", "-noout", "-passin")
        good(openssl(*bundle, f"file:demo-certs/{name}/bundle.p12.password"))
        assert openssl(*bundle, "pass:wrong").returncode != 0
        password = (certs / name / "bundle.p12.password").read_text().strip()
        assert password not in output + talk


def test_an_earlier_demo_is_replaced_and_nothing_else_ever_is(start: Start, tmp_path: Path) -> None:
    foreign = tmp_path / "mine"
    foreign.mkdir()
    (foreign / "precious").write_text("keep")
    (tmp_path / "link").symlink_to(foreign)
    (tmp_path / "file").write_text("keep")
    for out in (".", "mine", "link", "file", "/proc/nowhere"):
        process = start("demo", "--out", out)
        output, errors = process.communicate(timeout=30)
        assert (process.returncode, output) == (1, "")
        assert errors.count("\n") == 1
        assert "--out" in errors
    assert (foreign / "precious").read_text() == "keep"
    assert (tmp_path / "file").read_text() == "keep"

    for _ in range(2):
        process = start("demo", "--out", "new")
        process.communicate(timeout=50)
        assert process.returncode == 0
        assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
    assert len(list((tmp_path / "new").iterdir())) == 11
    for mine in ("my-notes.txt", "2024.zip", "gw-1.example.com/my.key"):
        (tmp_path / "new" / mine).write_text("keep")
        process = start("demo", "--out", "new")
        process.communicate(timeout=50)
        assert process.returncode == 1
        assert (tmp_path / "new" / mine).read_text() == "keep"
        (tmp_path / "new" / mine).unlink()
