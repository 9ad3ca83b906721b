"""The sandbox on a real socket."""

import asyncio
import contextlib
import signal
import socket
import ssl
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from pathlib import Path

import httpx
import pytest
import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from sectigo_async.sandbox import Sandbox, SandboxConfig, SandboxServer
from sectigo_async.testing import FakeClock


async def test_it_serves_on_a_free_port(sandbox: Sandbox, clock: FakeClock) -> None:
    clock.advance(86_400)
    async with SandboxServer(sandbox) as server, httpx.AsyncClient(base_url=server.url) as client:
        reply = await client.get("/status")
        assert reply.status_code == 200
        assert reply.headers.get_list("date") == [reply.headers["date"]], "one date only"
        assert parsedate_to_datetime(reply.headers["date"]).timestamp() == int(clock.time())
        assert "server" not in reply.headers
        forwarded = {"x-forwarded-for": "192.0.2.1"}
        assert (await client.get("/_sandbox/stats", headers=forwarded)).status_code == 200, "the peer counts"
    with pytest.raises(OSError, match=r"."):
        await asyncio.open_connection("127.0.0.1", int(server.url.rpartition(":")[2]))


async def test_an_order_over_the_wire(
    sandbox: Sandbox, credentials: dict[str, str], device: dict[str, str], clock: FakeClock
) -> None:
    async with SandboxServer(sandbox) as server, httpx.AsyncClient(base_url=server.url) as client:
        tokens = (await client.post("/auth/pwd", json=credentials)).json()
        client.headers["authorization"] = f"Bearer {tokens['accessToken']}"
        order = {"authorityId": 117, "batchName": "certs", "profileParams": device}
        reply = await client.put("/api/v1/batches/createSingleCertBatch", json=order)
        assert reply.status_code == 201
        clock.advance(2)
        reply = await client.get("/api/v1/batches/24/download")
        assert reply.content.startswith(b"PK")


async def test_signals_belong_to_the_caller(sandbox: Sandbox) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    async with SandboxServer(sandbox):
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


async def test_a_taken_port_is_an_os_error(sandbox: Sandbox) -> None:
    async with SandboxServer(sandbox) as server:
        port = int(server.url.rpartition(":")[2])
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1 port {port}"):
            async with SandboxServer(sandbox, port=port):
                pass


async def test_an_unknown_host_is_an_os_error(sandbox: Sandbox) -> None:
    with pytest.raises(OSError, match=r"cannot listen on 192\.0\.2\.1"):
        async with SandboxServer(sandbox, host="192.0.2.1"):
            pass


async def test_ipv6(sandbox: Sandbox) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 on this machine")
    async with SandboxServer(sandbox, host="::1") as server, httpx.AsyncClient(base_url=server.url) as client:
        assert server.url.startswith("http://[::1]:")
        assert (await client.get("/_sandbox/stats")).status_code == 200


async def test_serve_forever_ends_with_its_task(sandbox: Sandbox) -> None:
    async def serve(ready: asyncio.Event) -> None:
        async with SandboxServer(sandbox) as server:
            ready.set()
            await server.serve_forever()

    ready = asyncio.Event()
    task = asyncio.create_task(serve(ready))
    await ready.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 10)


async def test_leaving_does_not_wait_for_a_client_that_never_finishes(sandbox: Sandbox) -> None:
    async with asyncio.timeout(10):
        async with SandboxServer(sandbox) as server:
            port = int(server.url.rpartition(":")[2])
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"POST /auth/pwd HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n{")
            await writer.drain()
        writer.close()
        await reader.read(1000)


def _drain(connection: socket.socket) -> int:
    received = 0
    with connection, contextlib.suppress(ConnectionError):
        while chunk := connection.recv(1_000_000):
            received += len(chunk)
    return received


async def test_leaving_does_not_wait_for_a_client_that_never_reads(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox, "ca_pem", lambda: b"x" * 50_000_000)
    async with asyncio.timeout(10):
        async with SandboxServer(sandbox) as server:
            stuck = socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])))
            stuck.sendall(b"GET /_sandbox/ca.pem HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await asyncio.to_thread(stuck.recv, 1)
        assert await asyncio.to_thread(_drain, stuck) < 49_000_000, "the connection was cut"


async def test_a_failing_start_is_raised_and_frees_the_port(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def startup(*_: object, **__: object) -> None:
        raise RuntimeError("no start")

    monkeypatch.setattr(uvicorn.Server, "startup", startup)
    server = SandboxServer(sandbox)
    with pytest.raises(RuntimeError, match="no start"):
        await server.__aenter__()
    socket.create_server(("127.0.0.1", int(server.url.rpartition(":")[2]))).close()


async def test_a_truncated_request_is_no_failure(sandbox: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
    async with SandboxServer(sandbox) as server:
        port = int(server.url.rpartition(":")[2])
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /auth/pwd HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n{")
        await writer.drain()
        writer.close()
        await writer.wait_closed()
    assert "unexpected failure" not in caplog.text


@pytest.fixture
def tls_files(tmp_path: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    certfile, keyfile = tmp_path / "cert.pem", tmp_path / "key.pem"
    certfile.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    keyfile.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certfile, keyfile


async def test_https(sandbox: Sandbox, tls_files: tuple[Path, Path]) -> None:
    certfile, keyfile = tls_files
    context = ssl.create_default_context(cafile=certfile)
    async with (
        SandboxServer(sandbox, ssl_certfile=certfile, ssl_keyfile=keyfile) as server,
        httpx.AsyncClient(base_url=server.url, verify=context) as client,
    ):
        assert server.url.startswith("https://")
        assert (await client.get("/status")).status_code == 200


async def test_https_with_a_certificate_of_its_own(sandbox: Sandbox) -> None:
    context = ssl.create_default_context(cadata=sandbox.ca_pem().decode())
    async with (
        SandboxServer(sandbox, tls=True) as server,
        httpx.AsyncClient(verify=context) as client,
    ):
        assert (await client.get(f"{server.url}/status")).status_code == 200
        port = server.url.rpartition(":")[2]
        assert (await client.get(f"https://localhost:{port}/status")).status_code == 200


async def test_a_client_certificate_of_the_right_authority_signs_in(
    tls_files: tuple[Path, Path], credentials: dict[str, str]
) -> None:
    sandbox = Sandbox(SandboxConfig(client_ca=tls_files[0]))  # Signed by itself.
    without = ssl.create_default_context(cadata=sandbox.ca_pem().decode())
    certified = ssl.create_default_context(cadata=sandbox.ca_pem().decode())
    certified.load_cert_chain(*tls_files)
    async with SandboxServer(sandbox, tls=True) as server:
        for context, status in ((without, 403), (certified, 200)):
            async with httpx.AsyncClient(verify=context, base_url=server.url) as client:
                reply = await client.post("/auth/pwd", json=credentials)
                assert reply.status_code == 307
                reply = await client.post(reply.headers["location"], json=credentials)
                assert reply.status_code == status


async def test_missing_tls_files_are_an_os_error(sandbox: Sandbox, tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"."):
        async with SandboxServer(sandbox, ssl_certfile=tmp_path / "none.pem"):
            pass


async def test_replies_do_not_wait_for_the_peers_acknowledgement(sandbox: Sandbox) -> None:
    async with SandboxServer(sandbox) as server, httpx.AsyncClient(base_url=server.url) as client:
        await client.get("/status")
        (connection,) = server._server.server_state.connections
        connected = connection.transport.get_extra_info("socket")

        assert connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize("path", ["/api/v1/batches/", "/api/v1/profiles/"])
async def test_ids_of_any_length_are_404(sandbox: Sandbox, path: str) -> None:
    async with SandboxServer(sandbox) as server, httpx.AsyncClient(base_url=server.url) as client:
        reply = await client.get(path + "9" * 5000)

    assert reply.status_code == 404
    assert len(reply.content) < 1000
