"""The certificates themselves: judged by openssl and cryptography, found, revoked (api.md 1a, 4)."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization.pkcs12 import load_pkcs12
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sectigo_async.sandbox import Sandbox
from sectigo_async.testing import FakeClock

FIND = "/api/v1/certificates/find"
REVOKE = "/api/v1/certificates/{}/revoke"
SUBJECT = {
    "organizationName": "Example Ltd",
    "localityName": "Menlo Park",
    "stateOrProvinceName": "California",
    "countryName": "US",
}


async def _issue(upload: Callable[..., Any], make_csr: Callable[..., bytes], clock: FakeClock) -> None:
    """Fill batch 24 with certificates for one.example.com and two.example.com, by profile 42."""
    await upload(make_csr("one.example.com") + make_csr("two.example.com"))
    clock.advance(2)


@pytest.fixture
async def find(
    client: httpx.AsyncClient, upload: Callable[..., Any], make_csr: Callable[..., bytes], clock: FakeClock
) -> Callable[..., Any]:
    """Search among two issued certificates."""
    await _issue(upload, make_csr, clock)

    async def search(**terms: str) -> list[dict[str, Any]]:
        reply = await client.post(FIND, json=terms)
        assert reply.status_code == 200
        document = reply.json()
        assert document["totalCount"] == len(document["items"])
        items: list[dict[str, Any]] = document["items"]
        return items

    return search


@pytest.fixture
def revoke(client: httpx.AsyncClient) -> Callable[..., Any]:
    async def send(serial: str, *, reason: object = 0, profile: int = 42) -> httpx.Response:
        return await client.post(REVOKE.format(profile), json={"reasonCode": reason, "serialNumber": serial})

    return send


async def test_a_leaf_is_what_a_tls_certificate_should_be(
    upload: Callable[..., Any], make_csr: Callable[..., bytes], download: Callable[..., Any], clock: FakeClock
) -> None:
    await _issue(upload, make_csr, clock)
    leaf, issuing, root = x509.load_pem_x509_certificates((await download(24))["one.example.com.pem"])
    extensions = leaf.extensions
    assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert set(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == {
        ExtendedKeyUsageOID.SERVER_AUTH,
        ExtendedKeyUsageOID.CLIENT_AUTH,
    }
    assert extensions.get_extension_for_class(x509.KeyUsage).value.digital_signature
    own = extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    assert own == x509.SubjectKeyIdentifier.from_public_key(leaf.public_key())
    above = extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    assert above.key_identifier == issuing.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc == timedelta(days=398, minutes=5)
    for authority in (issuing, root):
        name = authority.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
        assert "sectigo-async sandbox, not trusted" in str(name)


async def test_a_leaf_never_outlives_its_issuer(
    *,
    upload: Callable[..., Any],
    download: Callable[..., Any],
    make_csr: Callable[..., bytes],
    clock: FakeClock,
    client: httpx.AsyncClient,
    credentials: dict[str, str],
) -> None:
    clock.advance(4.9 * 365 * 86400)
    tokens = (await client.post("/auth/pwd", json=credentials)).json()
    client.headers["authorization"] = f"Bearer {tokens['accessToken']}"
    await upload(make_csr("late.example.com"))
    clock.advance(2)
    leaf, issuing, _ = x509.load_pem_x509_certificates((await download(24))["late.example.com.pem"])
    assert leaf.not_valid_after_utc == issuing.not_valid_after_utc


async def test_pkcs12_holds_key_leaf_and_chain(
    create: Callable[..., Any], download: Callable[..., Any], params: dict[str, str], clock: FakeClock
) -> None:
    order = params | SUBJECT | {"dNSName": "example.com\nwww.example.com"}
    await create(order, authority=85)
    clock.advance(2)
    members = await download(24)
    assert list(members) == ["example.com.p12"]
    container = load_pkcs12(members["example.com.p12"], b"secrtpasswrd")
    assert isinstance(container.key, ec.EllipticCurvePrivateKey)
    assert container.cert is not None
    assert container.cert.friendly_name == b"example.com"
    leaf = container.cert.certificate
    assert leaf.public_key() == container.key.public_key()
    assert leaf.subject.rfc4514_string() == "CN=example.com,O=Example Ltd,L=Menlo Park,ST=California,C=US"
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["example.com", "www.example.com"]
    chain = [item.certificate for item in container.additional_certs]
    leaf.verify_directly_issued_by(chain[0])
    assert len(chain) == 2
    with pytest.raises(ValueError, match="password"):
        load_pkcs12(members["example.com.p12"], b"wrong-password")


async def test_profile_42_makes_rsa_keys(
    create: Callable[..., Any], download: Callable[..., Any], params: dict[str, str], clock: FakeClock
) -> None:
    await create(params, authority=1)
    clock.advance(2)
    key = load_pkcs12((await download(24))["example.com.p12"], b"secrtpasswrd").key
    assert isinstance(key, rsa.RSAPrivateKey)
    assert key.key_size == 2048


async def test_a_device_s_own_parameters_are_in_its_subject(
    create: Callable[..., Any], download: Callable[..., Any], device: dict[str, str], clock: FakeClock
) -> None:
    await create(device | {"deviceType": "gateway"})
    clock.advance(2)
    container = load_pkcs12((await download(24))["gateway-7.p12"], b"secrtpasswrd")
    assert container.cert is not None
    leaf = container.cert.certificate
    assert leaf.subject.get_attributes_for_oid(NameOID.SERIAL_NUMBER)[0].value == "SN-0007"
    with pytest.raises(x509.ExtensionNotFound):
        leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)


async def test_find_by_name_and_by_serial(find: Callable[..., Any]) -> None:
    (item,) = await find(commonName="ONE.example.com")
    assert list(item) == ["deviceId", "commonName", "serialNumber", "creationDate", "status"]
    assert isinstance(item["deviceId"], str)
    assert item["commonName"] == "one.example.com"
    assert item["status"] == "ISSUED"
    serial = item["serialNumber"]
    assert serial == f"{int(serial, 16):X}"
    assert await find(serialNumber=serial) == [item]
    assert await find(serialNumber=f"00{serial.lower()}", commonName="one.example.com") == [item]
    assert await find(serialNumber=serial, commonName="two.example.com") == []
    assert await find(commonName="example.com") == []
    assert await find(serialNumber="0") == []


@pytest.mark.parametrize("terms", [{}, {"commonName": ""}, {"commonName": "", "serialNumber": None}])
async def test_find_without_terms_is_400(
    client: httpx.AsyncClient, assert_error: Callable[..., str], terms: dict[str, str]
) -> None:
    assert "required" in assert_error(await client.post(FIND, json=terms), 400)


async def test_find_wants_text(client: httpx.AsyncClient, assert_error: Callable[..., str]) -> None:
    assert_error(await client.post(FIND, json={"serialNumber": 12345}), 400)


async def test_only_what_is_issued_is_found(
    client: httpx.AsyncClient, create: Callable[..., Any], device: dict[str, str]
) -> None:
    await create(device)
    reply = await client.post(FIND, json={"commonName": "gateway-7"})
    assert reply.json() == {"totalCount": 0, "items": []}


async def test_revoking_shows_in_find_and_crl(
    find: Callable[..., Any], revoke: Callable[..., Any], sandbox: Sandbox
) -> None:
    one, two = [(await find(commonName=name))[0] for name in ("one.example.com", "two.example.com")]
    assert (await revoke(one["serialNumber"], reason=5)).status_code == 200
    assert (await revoke(two["serialNumber"].lower(), profile=1)).status_code == 200
    assert (await find(commonName="one.example.com"))[0]["status"] == "REVOKED"
    crl = x509.load_pem_x509_crl(sandbox.crl_pem())
    entry = crl.get_revoked_certificate_by_serial_number(int(one["serialNumber"], 16))
    assert entry is not None
    reason = entry.extensions.get_extension_for_class(x509.CRLReason).value.reason
    assert reason is x509.ReasonFlags.cessation_of_operation
    unspecified = crl.get_revoked_certificate_by_serial_number(int(two["serialNumber"], 16))
    assert unspecified is not None
    assert not list(unspecified.extensions)


async def test_crl_numbers_grow(find: Callable[..., Any], revoke: Callable[..., Any], sandbox: Sandbox) -> None:
    def number() -> int:
        crl = x509.load_pem_x509_crl(sandbox.crl_pem())
        return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number

    before = number()
    await revoke((await find(commonName="one.example.com"))[0]["serialNumber"])
    assert number() > before


@pytest.mark.parametrize("reason", [0, 1, 2, 3, 4, 5, 6, 9, 10])
async def test_every_reason_can_be_given(find: Callable[..., Any], revoke: Callable[..., Any], reason: int) -> None:
    serial = (await find(commonName="one.example.com"))[0]["serialNumber"]
    assert (await revoke(serial, reason=reason)).status_code == 200


@pytest.mark.parametrize("reason", [7, 11, -1, "1", None, True])
async def test_other_reasons_are_400(
    revoke: Callable[..., Any], assert_error: Callable[..., str], reason: object
) -> None:
    assert "reasonCode" in assert_error(await revoke("ABC", reason=reason), 400)


async def test_what_cannot_be_revoked(
    find: Callable[..., Any], revoke: Callable[..., Any], assert_error: Callable[..., str]
) -> None:
    serial = (await find(commonName="one.example.com"))[0]["serialNumber"]
    for other in (85, 2, 77):
        assert "not found" in assert_error(await revoke(serial, profile=other), 404)
    for unknown in ("12345", "0", "xyz"):
        assert "not found" in assert_error(await revoke(unknown), 404)
    assert "not on hold" in assert_error(await revoke(serial, reason=8), 400)
    assert (await revoke(serial)).status_code == 200
    assert "already revoked" in assert_error(await revoke(serial), 400)


async def test_a_hold_can_be_lifted(find: Callable[..., Any], revoke: Callable[..., Any]) -> None:
    serial = (await find(commonName="one.example.com"))[0]["serialNumber"]
    assert (await revoke(serial, reason=6)).status_code == 200
    assert (await find(serialNumber=serial))[0]["status"] == "REVOKED"
    assert (await revoke(serial, reason=8)).status_code == 200
    assert (await find(serialNumber=serial))[0]["status"] == "ISSUED"


@pytest.mark.openssl
async def test_openssl_accepts_the_chain_until_it_is_revoked(
    *,
    find: Callable[..., Any],
    revoke: Callable[..., Any],
    download: Callable[..., Any],
    sandbox: Sandbox,
    openssl: Callable[..., Any],
    tmp_path: Path,
) -> None:
    leaf, issuing, _ = x509.load_pem_x509_certificates((await download(24))["one.example.com.pem"])
    (tmp_path / "leaf.pem").write_bytes(leaf.public_bytes(serialization.Encoding.PEM))
    (tmp_path / "issuing.pem").write_bytes(issuing.public_bytes(serialization.Encoding.PEM))
    (tmp_path / "root.pem").write_bytes(sandbox.ca_pem())

    def verify(*options: str) -> Any:
        (tmp_path / "crl.pem").write_bytes(sandbox.crl_pem())
        return openssl("verify", "-CAfile", "root.pem", "-untrusted", "issuing.pem", *options, "leaf.pem")

    strict = ("-x509_strict", "-purpose", "sslserver", "-verify_hostname", "one.example.com")
    with_crl = ("-CRLfile", "crl.pem")
    for options in (strict, (*with_crl, "-crl_check"), (*with_crl, "-crl_check_all")):
        result = verify(*options)
        assert result.returncode == 0, result.stderr
    await revoke((await find(commonName="one.example.com"))[0]["serialNumber"], reason=1)
    for option in ("-crl_check", "-crl_check_all"):
        result = verify(*with_crl, option)
        assert result.returncode != 0
        assert "certificate revoked" in result.stderr


@pytest.mark.openssl
async def test_openssl_opens_the_pkcs12_without_its_legacy_provider(
    *,
    create: Callable[..., Any],
    download: Callable[..., Any],
    params: dict[str, str],
    clock: FakeClock,
    openssl: Callable[..., Any],
    tmp_path: Path,
) -> None:
    await create(params, authority=42)
    clock.advance(2)
    (tmp_path / "example.com.p12").write_bytes((await download(24))["example.com.p12"])
    arguments = ("pkcs12", "-in", "example.com.p12", "-noout", "-info", "-passin")
    result = openssl(*arguments, "pass:secrtpasswrd")
    assert result.returncode == 0, result.stderr
    assert "pbeWithSHA1And3-KeyTripleDES-CBC" in result.stderr
    assert "sha1" in result.stderr.lower()
    assert openssl(*arguments, "pass:wrong-password").returncode != 0


@pytest.mark.openssl
async def test_a_csr_made_by_openssl_is_accepted(
    upload: Callable[..., Any],
    download: Callable[..., Any],
    clock: FakeClock,
    openssl: Callable[..., Any],
    tmp_path: Path,
) -> None:
    result = openssl(
        *("req", "-new", "-newkey", "rsa:2048", "-nodes", "-sha384", "-keyout", "key.pem", "-out", "a.csr"),
        *("-subj", "/C=US/O=Example Ltd/CN=example.com", "-addext", "subjectAltName=DNS:example.com"),
    )
    assert result.returncode == 0, result.stderr
    assert (await upload((tmp_path / "a.csr").read_bytes(), content_type="application/octet-stream")).is_success
    clock.advance(2)
    leaf = x509.load_pem_x509_certificates((await download(24))["example.com.pem"])[0]
    assert leaf.extensions.get_extension_for_class(x509.KeyUsage).value.key_encipherment
