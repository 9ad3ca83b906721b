"""Every command line of the Go CLI's manual, with one word changed, piped as scripts run it."""

import json
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., "subprocess.CompletedProcess[str]"]

BATCH = [
    "batchId",
    "orderNumber",
    "creationDate",
    "profile",
    "size",
    "status",
    "active",
    "batchName",
    "rejectReason",
    "generatorParametersValues",
    "userId",
    "downloadable",
    "rejectable",
]
AUTHORITY = [
    "id",
    "ecosystemId",
    "signerCertificateId",
    "ecosystemName",
    "balance",
    "enabled",
    "profileId",
    "profileName",
]
PARAMETER = [
    "name",
    "inputType",
    "required",
    "placeholder",
    "validationPattern",
    "message",
    "value",
    "title",
    "scopes",
    "dynamic",
]
TRISA_CONF = """\
[req]
distinguished_name = dn_req
req_extensions = v3ext_req
prompt = no
default_bits = 4096
[dn_req]
CN = example.com
O = Example
L = Berlin
ST = Berlin
C = DE
[v3ext_req]
basicConstraints = CA:FALSE
keyUsage = digitalSignature, keyEncipherment, nonRepudiation
extendedKeyUsage = clientAuth, serverAuth
subjectAltName = @alt_names
[alt_names]
DNS.1 = example.com
"""


def document(result: "subprocess.CompletedProcess[str]") -> Any:
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def text(result: "subprocess.CompletedProcess[str]") -> str:
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_auth(run: Run, tmp_path: Path) -> None:
    assert text(run("auth", "--cache")) == "no credentials cache file exists\n"
    assert text(run("auth", "--debug")) == "credentials are expired or invalid\n"
    assert text(run("auth")) == "user authenticated and credentials cached\n"

    path = Path(text(run("auth", "--cache")).rstrip("\n"))
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert "demo-password" not in path.read_text()
    assert path.is_relative_to(tmp_path)
    assert text(run("auth", "--debug")).startswith("credentials are valid until 20")
    assert text(run("auth", "-d")) == text(run("auth", "--debug"))
    assert text(run("auth", "-C")) == f"{path}\n"


def test_auth_shows_its_state_without_any_network(run: Run) -> None:
    nowhere = {"SECTIGO_ENDPOINT": "http://127.0.0.1:1"}

    assert text(run("auth", "--debug", **nowhere)) == "credentials are expired or invalid\n"
    assert text(run("auth", "--cache", **nowhere)) == "no credentials cache file exists\n"


def test_authorities(run: Run) -> None:
    listed = document(run("authorities"))

    assert [list(authority) for authority in listed] == [AUTHORITY] * len(listed)
    first = listed[0]
    assert (first["id"], first["ecosystemId"], first["ecosystemName"]) == (1, 100, "TRISA")
    assert (first["profileId"], first["profileName"], first["enabled"]) == (42, "TRISA Profile", True)
    with_balances = document(run("authorities", "-b"))
    assert all(list(authority) == [*AUTHORITY, "availableBalance"] for authority in with_balances)
    assert with_balances[0]["balance"] == first["balance"]


def test_licenses(run: Run) -> None:
    assert list(document(run("licenses"))) == ["ordered", "issued"]


def test_profiles(run: Run) -> None:
    listed = document(run("profiles"))
    detail = document(run("profiles", "-i", "42"))
    parameters = document(run("profile", "-i", "42", "--params"))

    assert list(listed[0]) == ["profileId", "algorithms", "ca"]
    assert list(detail) == ["profileName", "profileId", "rawProfileConfig", "name", "keyAlgorithmInfo"]
    assert [list(parameter) for parameter in parameters] == [PARAMETER] * len(parameters)
    assert {"commonName", "pkcs12Password"} <= {parameter["name"] for parameter in parameters}
    assert document(run("profiles", "--id", "42", "-p")) == parameters


def test_organization(run: Run) -> None:
    assert {"organizationId", "organizationName", "authorities", "orgStatus"} <= set(document(run("organization")))


def test_create_to_pem(run: Run, tmp_path: Path, openssl: Callable[..., "subprocess.CompletedProcess[str]"]) -> None:
    ordered = run("create", "-a", "42", "-d", "example.com", "-p", "secrtpasswrd", "-b", "example.com certs")
    batch = document(ordered)
    identity = str(batch["batchId"])

    assert list(batch) == BATCH
    assert (batch["profile"], batch["size"], batch["status"]) == ("TRISA Profile", 1, "CREATED")
    assert (batch["batchName"], batch["downloadable"]) == ("example.com certs", True)
    assert [line.split(":")[0] for line in ordered.stderr.splitlines()] == ["warning", f"ordered batch {identity}"]
    assert "secrtpasswrd" not in ordered.stdout + ordered.stderr
    assert list(document(run("batches", "-i", identity))) == BATCH
    assert text(run("batches", "-i", identity, "--status")) == "READY_FOR_DOWNLOAD\n"
    assert document(run("batches", "-i", identity, "-I")) == {"active": 0, "success": 1, "failed": 0}

    told = text(run("download", "-i", identity, "-o", "certs/")).splitlines()
    assert told[0] == f"downloaded batch {identity} to certs/{identity}.zip"
    with zipfile.ZipFile(tmp_path / "certs" / f"{identity}.zip") as archive:
        archive.extractall(tmp_path / "certs")
    legacy = ["pkcs12", "-in", "certs/example.com.p12", "-out", "certs/example.com.pem", "-nodes"]
    opened = openssl(*legacy, "-passin", "pass:secrtpasswrd")
    assert opened.returncode == 0, opened.stderr
    pem = (tmp_path / "certs/example.com.pem").read_text()
    assert "BEGIN CERTIFICATE" in pem
    assert "PRIVATE KEY" in pem


def test_create_without_a_password_keeps_one_before_it_orders(run: Run, tmp_path: Path) -> None:
    arguments = ("create", "-a", "42", "-d", "gw9.example.com")
    ordered = run(*arguments)
    kept = tmp_path / "gw9.example.com.p12.password"

    assert document(ordered)["batchName"].startswith("gw9-example-com-")
    password = kept.read_text().rstrip("\n")
    assert len(password) >= 22
    assert kept.stat().st_mode & 0o777 == 0o600
    assert kept.name in ordered.stderr
    assert password not in ordered.stdout + ordered.stderr
    again = run(*arguments)
    assert again.returncode == 1
    assert "--password-out" in again.stderr
    assert document(run(*arguments, "--password-out", "other"))["size"] == 1
    assert kept.read_text().rstrip("\n") == password


def test_create_with_a_subject(run: Run) -> None:
    subject = ("-c", "DE", "-s", "Berlin", "-l", "Berlin", "--organization", "Example")

    batch = document(run("create", "-a", "85", "-d", "gw10.example.com", "-p", "secrtpasswrd", *subject))

    assert batch["profile"] == "TRISA End Entity Certificate"


@pytest.mark.openssl
def test_csr_made_by_openssl_to_certificate(
    run: Run, tmp_path: Path, openssl: Callable[..., "subprocess.CompletedProcess[str]"]
) -> None:
    (tmp_path / "trisa.conf").write_text(TRISA_CONF)
    made = openssl(
        *("req", "-new", "-newkey", "rsa:4096", "-nodes", "-sha384", "-config", "trisa.conf"),
        *("-keyout", "example.com.key", "-out", "example.com.csr"),
    )
    assert made.returncode == 0, made.stderr

    batch = document(run("upload", "-p", "42", "example.com.csr"))

    assert list(batch) == BATCH
    assert "example.com" not in batch["batchName"]
    assert run("download", "-i", str(batch["batchId"])).returncode == 0
    assert (tmp_path / f"{batch['batchId']}.zip").stat().st_mode & 0o777 == 0o600


def test_find_and_revoke(run: Run) -> None:
    document(run("create", "-a", "42", "-d", "gw11.example.com", "-p", "secrtpasswrd"))
    found = document(run("find", "-n", "gw11.example.com"))

    assert list(found) == ["totalCount", "items"]
    (item,) = found["items"]
    assert list(item) == ["deviceId", "commonName", "serialNumber", "creationDate", "status"]
    revoked = run("revoke", "-p", "42", "-r", "cessation of operation", "-s", item["serialNumber"].lower())
    assert (revoked.returncode, revoked.stdout) == (0, "")
    (item,) = document(run("find", "-s", item["serialNumber"]))["items"]
    assert item["status"] == "REVOKED"
    assert document(run("find", "-n", "nobody.example.com"))["items"] == []


def test_options_instead_of_the_environment(run: Run, server: str) -> None:
    nothing = dict.fromkeys(["SECTIGO_ENDPOINT", "SECTIGO_ENVIRONMENT", "SECTIGO_USERNAME", "SECTIGO_PASSWORD"], "")

    for endpoint, environment in (("-e", "-E"), ("--endpoint", "--env"), ("--url", "--environment")):
        result = run(
            *("-u", "demo", "-p", "demo-password", endpoint, server, environment, "testing", "-P", "42", "licenses"),
            **nothing,
        )
        assert list(document(result)) == ["ordered", "issued"]
        assert result.stderr.startswith("warning: a password on the command line")
        assert "demo-password" not in result.stderr


def test_profile_given_once_for_all_commands(run: Run) -> None:
    batch = document(run("-P", "42", "create", "-d", "gw12.example.com", "-p", "secrtpasswrd"))

    assert batch["profile"] == "TRISA Profile"


def test_commands_share_one_sign_in(run: Run, server: str) -> None:
    import httpx

    def logins() -> int:
        return int(httpx.get(f"{server}/_sandbox/stats", trust_env=False).json()["logins"])

    run("auth")
    before = logins()
    for _ in range(3):
        document(run("licenses"))

    assert logins() == before
