"""A sandbox whose time the tests move, clients that talk to it in process, and tools to check its work."""

import io
import time
import zipfile
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from sectigo_async.sandbox import Sandbox, SandboxConfig, create_app
from sectigo_async.testing import FakeClock

CREATE = "/api/v1/batches/createSingleCertBatch"
UPLOAD = "/api/v1/batches/upload"


@pytest.fixture
def clock() -> FakeClock:
    # The present, because openssl judges validity by the machine's clock.
    return FakeClock(start=time.time())


@pytest.fixture
def config() -> SandboxConfig:
    return SandboxConfig()


@pytest.fixture
def sandbox(config: SandboxConfig, clock: FakeClock) -> Sandbox:
    return Sandbox(config, clock)


@pytest.fixture
async def anonymous(sandbox: Sandbox) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(create_app(sandbox))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        yield client


@pytest.fixture
def credentials(config: SandboxConfig) -> dict[str, str]:
    return {"username": config.username, "password": config.password}


@pytest.fixture
async def client(sandbox: Sandbox, credentials: dict[str, str]) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(create_app(sandbox))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        reply = await client.post("/auth/pwd", json=credentials)
        client.headers["authorization"] = f"Bearer {reply.json()['accessToken']}"
        yield client


@pytest.fixture
def params() -> dict[str, str]:
    """Parameters of profile 42, as in the manual."""
    return {"commonName": "example.com", "dNSName": "example.com", "pkcs12Password": "secrtpasswrd"}


@pytest.fixture
def device() -> dict[str, str]:
    """Parameters of profile 117, whose keys are quick to make."""
    return {"commonName": "gateway-7", "serialNumber": "SN-0007", "pkcs12Password": "secrtpasswrd"}


@pytest.fixture
def create(client: httpx.AsyncClient) -> Callable[..., Any]:
    """Order one certificate and return the reply."""

    async def order(params: dict[str, str], *, authority: int = 3, name: str = "certs") -> httpx.Response:
        document = {"authorityId": authority, "batchName": name, "profileParams": params}
        return await client.put(CREATE, json=document)

    return order


@pytest.fixture
def make_csr() -> Callable[..., bytes]:
    """Return a CSR as PEM, by default for its common name."""

    def make(name: str, *, sans: list[str] | None = None, key: ec.EllipticCurvePrivateKey | None = None) -> bytes:
        key = key or ec.generate_private_key(ec.SECP256R1())
        builder = x509.CertificateSigningRequestBuilder().subject_name(
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        )
        names = [x509.DNSName(san) for san in ([name] if sans is None else sans)]
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    return make


@pytest.fixture
def upload(client: httpx.AsyncClient) -> Callable[..., Any]:
    """Upload CSRs as the service's clients do and return the reply."""

    async def send(
        content: bytes,
        *,
        profile: int = 42,
        part_profile: str | None = None,
        content_type: str = "text/plain",
        request_type: str = "application/json",
        params: str = "{}",
    ) -> httpx.Response:
        request = f'{{"profileId":{profile},"batchType":"BATCH","profileParams":{params}}}'
        files = {
            "csrBatchRequest": ("blob", request.encode(), request_type),
            "files": ("secret-project-name.csr", content, content_type),
        }
        return await client.post(UPLOAD, data={"profileId": part_profile or str(profile)}, files=files)

    return send


@pytest.fixture
def download(client: httpx.AsyncClient) -> Callable[..., Any]:
    """Return the members of a batch's archive."""

    async def fetch(batch_id: int) -> dict[str, bytes]:
        reply = await client.get(f"/api/v1/batches/{batch_id}/download")
        assert reply.status_code == 200
        with zipfile.ZipFile(io.BytesIO(reply.content)) as archive:
            return {name: archive.read(name) for name in archive.namelist()}

    return fetch


@pytest.fixture
def assert_error(clock: FakeClock) -> Callable[..., str]:
    """Check that a reply is the service's error body and return its message."""

    def check(reply: httpx.Response, status: int) -> str:
        assert reply.status_code == status, reply.text
        assert reply.headers["content-type"] == "application/json;charset=UTF-8"
        document = reply.json()
        assert set(document) == {"status", "message", "errorCode", "timestamp"}
        assert document["status"] == status
        assert isinstance(document["errorCode"], int)
        assert document["timestamp"] == int(clock.time() * 1000)
        message = document["message"]
        assert isinstance(message, str)
        assert message
        return message

    return check
