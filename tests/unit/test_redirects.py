"""A service that sends a sign-in or a call elsewhere: it goes where a password may go, and nowhere else."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
from pytest_httpx import HTTPXMock

from sectigo_async import ClientCertificate, Config, Environment, Secret, SectigoClient
from sectigo_async.auth.login import certificate_sign_in_url
from sectigo_async.errors import ClientCertificateRequiredError, ConfigurationError, SectigoError
from sectigo_async.pki import generate_key, make_csr
from sectigo_async.sandbox import Sandbox
from sectigo_async.testing import FakeClock
from sectigo_async.wire.reply import Reply

PRODUCTION = Config.create()
STAGING = Config.create("https://ca.example.com:8443/iot", Environment.STAGING)
PLAIN = Config.create("http://127.0.0.1:8831")
CERTIFICATE = ClientCertificate(certificate=Path("client.pem"))


def target(location: str, config: Config, *hosts: str) -> str:
    config = attrs.evolve(config, client_certificate=CERTIFICATE, login_hosts=hosts)
    return certificate_sign_in_url(Reply(status=307, headers={"location": location}), config, "ops")


@pytest.mark.parametrize(
    ("location", "config", "hosts", "url"),
    [
        ("https://iot.sectigo.com/auth/cert", PRODUCTION, (), "https://iot.sectigo.com:443/auth/cert"),
        ("/auth/cert?x=1", PRODUCTION, (), "https://iot.sectigo.com/auth/cert?x=1"),
        ("https://LOGIN.iot.sectigo.com:8443/", PRODUCTION, (), "https://login.iot.sectigo.com:8443/"),
        ("https://ca.example.com:8443/cert", STAGING, (), "https://ca.example.com:8443/cert"),
        ("https://login.example.com", STAGING, ("Login.example.com",), "https://login.example.com:443/"),
        ("https://login.example.com:444/a", STAGING, ("login.example.com:444",), "https://login.example.com:444/a"),
        ("https://[::1]:8832/a", PLAIN, ("[::1]:8832",), "https://[::1]:8832/a"),
    ],
)
def test_where_a_sign_in_may_go(location: str, config: Config, hosts: tuple[str, ...], url: str) -> None:
    assert target(location, config, *hosts) == url


@pytest.mark.parametrize(
    ("location", "config", "hosts"),
    [
        ("", PRODUCTION, ()),
        ("http://iot.sectigo.com/", PRODUCTION, ()),
        ("https://evilsectigo.com/", PRODUCTION, ()),
        ("https://sectigo.com.evil.example/", PRODUCTION, ()),
        ("https://iot.sectigo.com@evil.example/", PRODUCTION, ()),
        ("https://iot.sectigo.com:443@evil.example/", PRODUCTION, ()),
        ("https://evil.example/.sectigo.com", PRODUCTION, ()),
        ("https://evil.example#.sectigo.com", PRODUCTION, ()),
        ("https://evil.example?.sectigo.com", PRODUCTION, ()),
        ("https://evil.example\\.sectigo.com/", PRODUCTION, ()),
        ("https://evil.example%2f.sectigo.com/", PRODUCTION, ()),
        ("https://evil.example\t.sectigo.com/", PRODUCTION, ()),
        ("https://iot.sectigo.com./", PRODUCTION, ()),
        ("https://.sectigo.com/", PRODUCTION, ()),
        ("https://evil..sectigo.com/", PRODUCTION, ()),
        ("https://iot\u3002sectigo.com/", PRODUCTION, ()),
        ("https://www.\u017fectigo.com/", PRODUCTION, ()),
        ("//evil.example/", PRODUCTION, ()),
        ("/\\evil.example/", PLAIN, ()),
        ("auth/cert", PRODUCTION, ()),
        ("/auth/cert", PLAIN, ()),
        ("https://ca.example.com/cert", STAGING, ()),
        ("https://iot.sectigo.com/", STAGING, ()),
        ("https://login.example.com/", STAGING, ("login.example.com:444",)),
        ("https://a.login.example.com/", STAGING, ("login.example.com",)),
        ("https://127.0.0.1:8831/", PLAIN, ()),
        ("https://login.sectigo.com:99999/", PRODUCTION, ()),
        ("https://login.sectigo.com:0/", PRODUCTION, ()),
        ("/" + "a" * 70_000, PRODUCTION, ()),
    ],
)
def test_where_it_may_not_go(location: str, config: Config, hosts: tuple[str, ...]) -> None:
    with pytest.raises(ClientCertificateRequiredError, match="nothing was sent there") as caught:
        target(location, config, *hosts)

    assert "SECTIGO_LOGIN_HOST" in caught.value.hint


@pytest.mark.parametrize(
    "host", ["", "https://a", "a b", "user@host", "a:b", "*.example.com", "-a", "a:0", "a:99999"]
)
def test_a_login_host_is_a_host_and_port(host: str) -> None:
    with pytest.raises(ConfigurationError, match="host and port"):
        attrs.evolve(PRODUCTION, login_hosts=(host,))


class Listener:
    """Answers requests by path, all others in one way, and remembers every byte it got."""

    def __init__(self) -> None:
        self.got = bytearray()
        self.answer = b""
        self.by_path: dict[bytes, bytes] = {}
        self.port = 0

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(65536):
            self.got += piece
            asked = (reply for path, reply in self.by_path.items() if path in piece.partition(b"\r\n")[0])
            writer.write(next(asked, self.answer))
        writer.close()


def redirect(status: int, where: str) -> bytes:
    return b"HTTP/1.1 %d Moved\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n" % (status, where.encode())


STATUSES = [301, 302, 303, 307, 308]
LOCATIONS = [
    "http://127.0.0.1:{port}/auth",
    "https://127.0.0.1:{port}/auth",
    "http://localhost:{port}/auth",
    "https://localhost:{port}/auth",
    "https://127.0.0.1:{home}@127.0.0.1:{port}/auth",
    "https://host@evil.example:{port}/auth",
    "https://evilsectigo.com:{port}/auth",
    "https://iot.sectigo.com.:{port}/auth",
    "https://iot.sectigo.com:{port}/auth",
    "//127.0.0.1:{port}/auth",
]
TOKENS = b'{"accessToken":"canary.a.b","refreshToken":"canary.r.b"}'
SIGNED_IN = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(TOKENS), TOKENS)
CSR = make_csr(generate_key(), "gw.example.com")
CALLS: dict[str, Callable[[SectigoClient, Path], Awaitable[object]]] = {
    "read": lambda client, _: client.licenses.get(),
    "refresh": lambda client, _: client.licenses.get(),
    "order": lambda client, _: client.batches.create(
        authority_id=1, name="n", params={"pkcs12Password": Secret("canary-93b1")}
    ),
    "upload": lambda client, _: client.batches.upload(profile_id=42, requests=CSR),
    "download": lambda client, _: client.batches.download(24),
    "download to a file": lambda client, folder: client.batches.download_to(24, folder),
    "find": lambda client, _: client.certificates.find(common_name="gw.example.com"),
    "revoke": lambda client, _: client.certificates.revoke(profile_id=42, serial_number="AF01"),
    "any other": lambda client, _: client.request("POST", "/api/v1/other", json={"password": "canary-93b1"}),
}


@pytest.fixture
async def service() -> AsyncIterator[Listener]:
    async with _listening() as listener:
        yield listener


@pytest.fixture
async def stranger() -> AsyncIterator[Listener]:
    async with _listening() as listener:
        yield listener


class _listening:  # noqa: N801 - reads as a verb
    async def __aenter__(self) -> Listener:
        listener = Listener()
        self._server = await asyncio.start_server(listener.connected, "127.0.0.1", 0)
        listener.port = self._server.sockets[0].getsockname()[1]
        return listener

    async def __aexit__(self, *_: object) -> None:
        self._server.close()


@pytest.fixture
def certificate(tmp_path: Path) -> ClientCertificate:
    (tmp_path / "client.pem").write_bytes(Sandbox().tls_pem("ops.example.com"))
    return ClientCertificate(certificate=tmp_path / "client.pem")


@pytest.fixture
def _every_name_is_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve = socket.getaddrinfo

    def here(_host: Any, *more: Any, **named: Any) -> Any:
        return resolve("127.0.0.1", *more, **named)

    monkeypatch.setattr(socket, "getaddrinfo", here)


@pytest.mark.usefixtures("_every_name_is_this_machine")
@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("location", LOCATIONS)
async def test_a_stranger_receives_nothing(
    service: Listener, stranger: Listener, certificate: ClientCertificate, *, location: str, status: int
) -> None:
    where = location.format(port=stranger.port, home=service.port)
    service.answer = redirect(status, where)
    config = attrs.evolve(Config.create(f"http://127.0.0.1:{service.port}"), client_certificate=certificate)
    async with SectigoClient(username="ops", password="canary-93b1", config=config, clock=FakeClock()) as client:
        with pytest.raises(SectigoError) as caught:
            await client.licenses.get()

    assert not stranger.got
    assert service.got.count(b"POST /auth/pwd ") == 1
    assert "canary" not in f"{caught.value!r} {caught.value.hint}"


@pytest.mark.usefixtures("_every_name_is_this_machine")
@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("call", CALLS)
async def test_no_call_is_sent_to_a_stranger(
    service: Listener, stranger: Listener, certificate: ClientCertificate, tmp_path: Path, *, call: str, status: int
) -> None:
    service.by_path = {b"/auth/pwd ": SIGNED_IN}
    if call == "refresh":
        service.by_path[b"/api/v1/devices"] = b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n"
    config = attrs.evolve(Config.create(f"http://127.0.0.1:{service.port}"), client_certificate=certificate)
    for location in LOCATIONS:
        service.answer = redirect(status, location.format(port=stranger.port, home=service.port))
        async with SectigoClient(username="ops", password="canary-93b1", config=config, clock=FakeClock()) as client:
            with pytest.raises(SectigoError) as caught:
                await CALLS[call](client, tmp_path)

        assert not stranger.got
        assert "canary" not in f"{caught.value!r} {caught.value.hint}"
        assert {path.name for path in tmp_path.iterdir()} == {"client.pem"}
    if call == "refresh":
        assert service.got.count(b"/auth/refresh") == len(LOCATIONS)


async def test_one_hop_and_no_more(httpx_mock: HTTPXMock, certificate: ClientCertificate) -> None:
    config = attrs.evolve(PRODUCTION, client_certificate=certificate)
    for url in ("https://iot.sectigo.com/auth/pwd", "https://login.sectigo.com/a?b=c"):
        httpx_mock.add_response(
            url=url, method="POST", status_code=307, headers={"location": "https://login.sectigo.com/a?b=c"}
        )
    async with SectigoClient(username="ops", password="canary-93b1", config=config, clock=FakeClock()) as client:
        with pytest.raises(SectigoError, match="not followed"):
            await client.licenses.get()

    first, second = httpx_mock.get_requests()
    assert first.content == second.content
    assert "authorization" not in second.headers


@pytest.mark.parametrize("spoil", ["missing", "garbage", "no key", "encrypted", "open"])
async def test_a_client_certificate_that_cannot_be_used_is_told(
    httpx_mock: HTTPXMock, tmp_path: Path, spoil: str
) -> None:
    from cryptography.hazmat.primitives import serialization

    path = tmp_path / "client.pem"
    pem = Sandbox().tls_pem("ops.example.com")
    start = pem.index(b"-----BEGIN CERTIFICATE")
    if spoil == "encrypted":
        key = serialization.load_pem_private_key(pem[:start], None)
        encrypted = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
        path.write_bytes(encrypted + pem[start:])
    elif spoil != "missing":
        path.write_bytes({"garbage": b"hello", "no key": pem[start:], "open": pem}[spoil])
    if spoil == "open":
        path.chmod(0o666)
    httpx_mock.add_response(status_code=307, headers={"location": "https://iot.sectigo.com/a"})
    config = attrs.evolve(PRODUCTION, client_certificate=ClientCertificate(certificate=path))
    async with SectigoClient(username="ops", password="x", config=config, clock=FakeClock()) as client:
        with pytest.raises(ConfigurationError, match=r"client\.pem") as caught:
            await client.licenses.get()

    assert caught.value.hint
    assert len(httpx_mock.get_requests()) == 1
