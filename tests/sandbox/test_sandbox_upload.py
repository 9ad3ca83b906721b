"""Uploading CSRs: what is read, what is refused, and what comes back (api.md 1a, 4)."""

import hashlib
import io
import zipfile
from base64 import b64encode
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from sectigo_async.sandbox import Sandbox, SandboxConfig, csr
from sectigo_async.testing import FakeClock

UPLOAD = "/api/v1/batches/upload"
ZIP = "application/zip"


def _zip(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


async def test_one_csr_becomes_a_chain(
    upload: Callable[..., Any],
    download: Callable[..., Any],
    make_csr: Callable[..., bytes],
    clock: FakeClock,
    sandbox: Sandbox,
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    reply = await upload(make_csr("example.com", sans=["example.com", "www.example.com"], key=key))
    assert reply.status_code == 200
    clock.advance(2)
    members = await download(24)
    assert list(members) == ["example.com.pem"]
    leaf, issuing, root = x509.load_pem_x509_certificates(members["example.com.pem"])
    assert leaf.public_key() == key.public_key()
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["example.com", "www.example.com"]
    leaf.verify_directly_issued_by(issuing)
    issuing.verify_directly_issued_by(root)
    assert root == x509.load_pem_x509_certificate(sandbox.ca_pem())
    spki = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    assert sandbox.stats()["orders_by_key"] == {hashlib.sha256(spki).hexdigest(): 1}


async def test_the_batch_name_is_invented(upload: Callable[..., Any], make_csr: Callable[..., bytes]) -> None:
    names = [(await upload(make_csr("example.com"))).json()["batchName"] for _ in range(2)]
    assert names[0] != names[1]
    assert all(name.startswith("csr-batch-") for name in names)


@pytest.mark.parametrize("content_type", ["text/plain", "application/octet-stream", "application/x-x509-ca-cert"])
async def test_many_csrs_in_one_text(
    *,
    upload: Callable[..., Any],
    download: Callable[..., Any],
    make_csr: Callable[..., bytes],
    clock: FakeClock,
    client: httpx.AsyncClient,
    content_type: str,
) -> None:
    names = ["a.example.com", "b.example.com", "A.example.com", "a.example.com"]
    text = b"noise before\n" + b"\n".join(make_csr(name) for name in names)
    reply = await upload(text, content_type=content_type)
    assert reply.json()["size"] == 4
    assert (await client.get("/api/v1/authorities/1/balanceavailable")).json() == 996
    clock.advance(2)
    assert list(await download(24)) == [
        "a.example.com.pem",
        "b.example.com.pem",
        "A.example.com - 1.pem",
        "a.example.com - 2.pem",
    ]


async def test_a_zip_of_csrs(
    upload: Callable[..., Any], download: Callable[..., Any], make_csr: Callable[..., bytes], clock: FakeClock
) -> None:
    content = _zip(
        {
            "one.csr": make_csr("a.example.com"),
            "folder/two.PEM": make_csr("b.example.com"),
            "readme.txt": b"not read",
        }
    )
    assert (await upload(content, content_type=ZIP)).json()["size"] == 2
    clock.advance(2)
    assert set(await download(24)) == {"a.example.com.pem", "b.example.com.pem"}


async def test_certificates_appear_one_by_one(
    client: httpx.AsyncClient, upload: Callable[..., Any], make_csr: Callable[..., bytes], clock: FakeClock
) -> None:
    await upload(b"".join(make_csr(f"{number}.example.com") for number in range(3)))
    seen = []
    for _ in range(5):
        info = (await client.get("/api/v1/batches/24/processing_info")).json()
        seen.append((info["active"], info["success"]))
        clock.advance(0.5)
    assert seen == [(3, 0), (3, 0), (2, 1), (1, 2), (0, 3)]


async def test_member_names_cannot_leave_a_folder(
    upload: Callable[..., Any], download: Callable[..., Any], make_csr: Callable[..., bytes], clock: FakeClock
) -> None:
    names = ["../../etc/passwd", "*.example.com", "C:\\x\ny", ".."]
    reply = await upload(b"".join(make_csr(name, sans=["example.com"]) for name in names))
    assert reply.status_code == 200
    clock.advance(2)
    assert list(await download(24)) == ["_.._etc_passwd.pem", "_.example.com.pem", "C__x_y.pem", "certificate.pem"]


async def test_a_csr_without_a_dns_name_breaks_the_batch_later(
    client: httpx.AsyncClient, upload: Callable[..., Any], make_csr: Callable[..., bytes], clock: FakeClock
) -> None:
    assert (await upload(make_csr("example.com", sans=[]))).json()["status"] == "CREATED"
    clock.advance(2)
    detail = (await client.get("/api/v1/batches/24")).json()
    assert detail["status"] == "BROKEN"
    assert (
        detail["rejectReason"]
        == "BROKEN Error: Cert subject name error: SubjectAlternativeName dNSName value is missing"
    )


async def test_a_profile_without_required_dns_names_takes_such_a_csr(
    client: httpx.AsyncClient, upload: Callable[..., Any], make_csr: Callable[..., bytes], clock: FakeClock
) -> None:
    await upload(make_csr("gateway-7", sans=[]), profile=117)
    clock.advance(2)
    assert (await client.get("/api/v1/batches/24")).json()["status"] == "READY_FOR_DOWNLOAD"


async def test_partial_success(
    client: httpx.AsyncClient,
    upload: Callable[..., Any],
    download: Callable[..., Any],
    make_csr: Callable[..., bytes],
    clock: FakeClock,
) -> None:
    csrs = [make_csr("no-san.example.com", sans=[]), make_csr("good.example.com"), make_csr("failed.example.com")]
    await upload(b"".join(csrs))
    clock.advance(2)
    detail = (await client.get("/api/v1/batches/24")).json()
    assert (detail["status"], detail["rejectReason"]) == ("READY_FOR_DOWNLOAD", "")
    info = (await client.get("/api/v1/batches/24/processing_info")).json()
    assert info == {"active": 0, "success": 1, "failed": 2}
    assert list(await download(24)) == ["good.example.com.pem"]
    assert (await client.get("/api/v1/devices")).json() == {"ordered": 3, "issued": 1}


@pytest.mark.parametrize("config", [SandboxConfig(balance=2)])
async def test_a_batch_larger_than_the_balance_is_refused(
    client: httpx.AsyncClient,
    upload: Callable[..., Any],
    make_csr: Callable[..., bytes],
    assert_error: Callable[..., str],
) -> None:
    reply = await upload(b"".join(make_csr(f"{number}.example.com") for number in range(3)))
    assert "insufficient balance" in assert_error(reply, 400)
    assert (await client.get("/api/v1/authorities/1/balanceavailable")).json() == 2


async def test_what_is_no_csr_is_400(
    upload: Callable[..., Any], make_csr: Callable[..., bytes], assert_error: Callable[..., str], sandbox: Sandbox
) -> None:
    pem = make_csr("example.com")
    for content in (b"", b"hello", b"\x00\xff" * 50, sandbox.ca_pem(), pem[:-40], pem + pem[:-40]):
        assert "is not a CSR" in assert_error(await upload(content), 400)
    mangled = pem[:60] + b"AAAA" + pem[64:]
    assert "CSR 2 of 2" in assert_error(await upload(pem + mangled), 400)
    assert sandbox.stats()["orders"] == 0


async def test_a_csr_with_a_forged_signature_is_400(
    upload: Callable[..., Any], make_csr: Callable[..., bytes], assert_error: Callable[..., str]
) -> None:
    genuine = x509.load_pem_x509_csr(make_csr("example.com")).public_bytes(serialization.Encoding.DER)
    forged = x509.load_der_x509_csr(genuine.replace(b"example.com", b"examp1e.com"))
    message = assert_error(await upload(forged.public_bytes(serialization.Encoding.PEM)), 400)
    assert "invalid signature" in message


async def test_a_csr_of_another_version_is_400(
    upload: Callable[..., Any], make_csr: Callable[..., bytes], assert_error: Callable[..., str]
) -> None:
    genuine = x509.load_pem_x509_csr(make_csr("example.com")).public_bytes(serialization.Encoding.DER)
    body = b64encode(genuine.replace(b"\x02\x01\x00", b"\x02\x01\x05", 1)).decode()
    pem = f"-----BEGIN CERTIFICATE REQUEST-----\n{body}\n-----END CERTIFICATE REQUEST-----\n"
    assert "not a CSR that can be read" in assert_error(await upload(pem.encode()), 400)


async def test_a_zip_is_judged_by_its_content_type(
    upload: Callable[..., Any], make_csr: Callable[..., bytes], assert_error: Callable[..., str]
) -> None:
    pem = make_csr("example.com")
    content = _zip({"a.csr": pem})
    assert ZIP in assert_error(await upload(content), 400)
    assert "readable ZIP" in assert_error(await upload(pem, content_type=ZIP), 400)
    assert "readable ZIP" in assert_error(await upload(content[:-30], content_type=ZIP), 400)
    damaged = content[:50] + b"\xff\xff\xff" + content[53:]
    assert "readable ZIP" in assert_error(await upload(damaged, content_type=ZIP), 400)
    assert "no .csr" in assert_error(await upload(_zip({"a.txt": pem}), content_type=ZIP), 400)
    assert "'a.pem'" in assert_error(await upload(_zip({"a.pem": b"x"}), content_type=ZIP), 400)
    assert "not supported" in assert_error(await upload(pem, content_type="image/png"), 400)


async def test_uploads_are_bounded(
    upload: Callable[..., Any],
    make_csr: Callable[..., bytes],
    assert_error: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pem = make_csr("example.com")
    bomb = _zip({"a.csr": b"\n" * (csr.MAX_UPLOAD + 1)})
    assert "holds more than" in assert_error(await upload(bomb, content_type=ZIP), 400)
    monkeypatch.setattr(csr, "MAX_REQUESTS", 2)
    assert "3 CSRs are more" in assert_error(await upload(pem * 3), 400)
    crowd = _zip({f"{number}.csr": pem for number in range(3)})
    assert "more than 2" in assert_error(await upload(crowd, content_type=ZIP), 400)
    assert_error(await upload(b" " * (csr.MAX_UPLOAD + 100_000)), 413)


async def test_both_profile_ids_must_agree_and_exist(
    upload: Callable[..., Any], make_csr: Callable[..., bytes], assert_error: Callable[..., str]
) -> None:
    pem = make_csr("example.com")
    assert "profileId" in assert_error(await upload(pem, part_profile="85"), 400)
    assert "7 not found" in assert_error(await upload(pem, profile=7), 404)


async def test_the_request_part_is_checked(
    upload: Callable[..., Any], make_csr: Callable[..., bytes], assert_error: Callable[..., str]
) -> None:
    pem = make_csr("example.com")
    assert "application/json" in assert_error(await upload(pem, request_type="text/plain"), 400)
    assert "colour" in assert_error(await upload(pem, params='{"colour":"red"}'), 400)
    assert_error(await upload(pem, params="7"), 400)
    assert_error(await upload(pem, params="{"), 400)
    assert (await upload(pem, profile=85, params='{"countryName":"US"}')).status_code == 200


async def test_a_missing_or_repeated_part_is_400(client: httpx.AsyncClient, assert_error: Callable[..., str]) -> None:
    reply = await client.post(UPLOAD, files={"files": ("a", b"x", "text/plain")})
    assert "csrBatchRequest" in assert_error(reply, 400)
    reply = await client.post(UPLOAD, files=[("files", ("a", b"x")), ("files", ("b", b"y"))])
    assert "more than once" in assert_error(reply, 400)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"garbage",
        b'--b\r\nContent-Disposition: form-data; name="files"\r\n\r\nx',
        b'--b\r\nContent-Disposition: form-data; name="files"\r\n\r\nx\r\n--b\r\n',
        b"--b\r\nno colon\r\n\r\nx\r\n--b--\r\n",
    ],
)
async def test_a_malformed_multipart_is_500(
    client: httpx.AsyncClient, assert_error: Callable[..., str], body: bytes
) -> None:
    headers = {"content-type": "multipart/form-data; boundary=b"}
    assert_error(await client.post(UPLOAD, content=body, headers=headers), 500)


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "multipart/form-data", f"multipart/form-data; boundary={'b' * 1000}", ""],
)
async def test_what_is_no_multipart_is_500(
    client: httpx.AsyncClient, assert_error: Callable[..., str], content_type: str
) -> None:
    assert_error(await client.post(UPLOAD, content=b"{}", headers={"content-type": content_type}), 500)


async def test_hundreds_of_csrs_in_one_batch(
    client: httpx.AsyncClient,
    upload: Callable[..., Any],
    download: Callable[..., Any],
    make_csr: Callable[..., bytes],
    clock: FakeClock,
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    await upload(b"".join(make_csr(f"{number}.example.com", key=key) for number in range(500)))
    clock.advance(2)
    assert len(await download(24)) == 500
    assert (await client.get("/api/v1/devices")).json()["issued"] == 500
