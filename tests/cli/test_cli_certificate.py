"""An account that signs in with a client certificate, against a simulator that demands it."""

import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from sectigo_async.sandbox import Sandbox

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Serve = Callable[..., AbstractContextManager[str]]


def test_signing_in_with_a_client_certificate(bare: Run, serve: Serve, tmp_path: Path) -> None:
    authority = Sandbox()
    (tmp_path / "my-ca.pem").write_bytes(authority.ca_pem())
    pem = authority.tls_pem("me.example.com")
    cut = pem.index(b"-----BEGIN CERTIFICATE")
    (tmp_path / "me.key").write_bytes(pem[:cut])
    (tmp_path / "me.key").chmod(0o600)
    (tmp_path / "me.pem").write_bytes(pem[cut:])
    options = ("--tls", "--ca-out", str(tmp_path / "ca.pem"), "--client-ca", str(tmp_path / "my-ca.pem"))
    account = {"SECTIGO_USERNAME": "demo", "SECTIGO_PASSWORD": "demo-password", "SECTIGO_CA_BUNDLE": "ca.pem"}

    with serve(*options) as url:
        without = bare("-e", url, "licenses", **account)
        certified = account | {"SECTIGO_CLIENT_CERT": "me.pem", "SECTIGO_CLIENT_KEY": "me.key"}
        signed_in = bare("-e", url, "auth", **certified)
        untrusted = bare("-e", url, "auth", **certified | {"SECTIGO_CA_BUNDLE": ""})

    assert without.returncode == 4
    assert "SECTIGO_CLIENT_CERT" in without.stderr
    assert signed_in.stdout == "user authenticated and credentials cached\n", signed_in.stderr
    assert signed_in.stderr == ""
    assert untrusted.returncode == 1
    assert "SECTIGO_CA_BUNDLE" in untrusted.stderr
