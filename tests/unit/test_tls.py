"""Whom TLS lets through: real servers and certificates, and nothing is said to who cannot prove who they are."""

import asyncio
import datetime as dt
import ipaddress
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import attrs
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from sectigo_async import Config, Secret, SectigoClient
from sectigo_async.errors import ConfigurationError, ConnectFailedError
from sectigo_async.testing import FakeClock

DAY = dt.timedelta(days=1)
NOW = dt.datetime.now(dt.UTC)
TOKENS = b'{"accessToken":"a.b.c","refreshToken":"a.b.c"}'
CALLS: dict[str, Callable[[SectigoClient], Awaitable[object]]] = {
    "sign in": lambda client: client.sign_in(),
    "read": lambda client: client.licenses.get(),
    "order": lambda client: client.batches.create(authority_id=1, name="n", params={"pkcs12Password": Secret("x")}),
}


def name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


_USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


@attrs.frozen
class Authority:
    """Signs certificates of servers; without one they sign their own."""

    key: ec.EllipticCurvePrivateKey = attrs.field(factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    def certificate(self) -> bytes:
        made = builder("a private authority", self.key.public_key())
        made = made.issuer_name(name("a private authority")).add_extension(x509.BasicConstraints(True, 0), True)
        # Python 3.13 is strict with an authority (RFC 5280 section 4.2.1.3).
        usage = dict.fromkeys(_USAGES, False) | {"key_cert_sign": True}
        made = made.add_extension(x509.KeyUsage(**usage), True)
        return made.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def builder(
    subject: str,
    key: ec.EllipticCurvePublicKey,
    *,
    start: dt.datetime = NOW - DAY,
    end: dt.datetime = NOW + DAY,
) -> x509.CertificateBuilder:
    serial = x509.random_serial_number()
    made = x509.CertificateBuilder(subject_name=name(subject), public_key=key, serial_number=serial)
    made = made.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), False)
    return made.not_valid_before(start).not_valid_after(end)


def server_context(
    folder: Path,
    authority: Authority | None,
    *,
    names: tuple[x509.GeneralName, ...] = (x509.IPAddress(ipaddress.ip_address("127.0.0.1")),),
    start: dt.datetime = NOW - DAY,
    end: dt.datetime = NOW + DAY,
) -> ssl.SSLContext:
    """Return what a server needs to show a certificate for `names`."""
    key = ec.generate_private_key(ec.SECP256R1())
    signer = key if authority is None else authority.key
    issuer = "service" if authority is None else "a private authority"
    made = builder("service", key.public_key(), start=start, end=end).issuer_name(name(issuer))
    made = made.add_extension(x509.SubjectAlternativeName(names), False)
    made = made.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), False)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file = folder / "server.pem"
    file.write_bytes(private + made.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


class Server:
    """Answers every request over TLS, and remembers every byte that it could read."""

    def __init__(self) -> None:
        self.got = bytearray()
        self.port = 0

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(65536):
            self.got += piece
            body = TOKENS if b" /auth/pwd " in piece else b"{}"
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        writer.close()


@asynccontextmanager
async def serving(context: ssl.SSLContext) -> AsyncIterator[Server]:
    server = Server()
    listener = await asyncio.start_server(server.connected, "127.0.0.1", 0, ssl=context)
    server.port = listener.sockets[0].getsockname()[1]
    # What the handshake of a client that leaves raises is no concern of a test of that client.
    asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
    async with listener:
        yield server


@contextmanager
def saying_goodbye(context: ssl.SSLContext) -> Iterator[Server]:
    """Serve as `serving` does, but tell the client why a handshake fails, which asyncio does not."""
    server, ended = Server(), threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server.port = listener.getsockname()[1]

        def serve() -> None:
            while not ended.is_set():
                connection, _ = listener.accept()
                connection.settimeout(5)
                with suppress(OSError), context.wrap_socket(connection, server_side=True) as secured:
                    while piece := secured.recv(65536):
                        server.got += piece

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server
        finally:
            ended.set()
            socket.create_connection(listener.getsockname()).close()
            thread.join()


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def bundle(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("authority") / "ca.pem"
    path.write_bytes(authority.certificate())
    return path


def client_of(server: Server, bundle: Path | None) -> SectigoClient:
    config = attrs.evolve(Config.create(f"https://127.0.0.1:{server.port}"), ca_bundle=bundle)
    return SectigoClient(username="ops", password="canary-93b1", config=config, clock=FakeClock())


async def test_a_private_authority_is_trusted_where_the_bundle_names_it(
    authority: Authority, bundle: Path, tmp_path: Path
) -> None:
    async with serving(server_context(tmp_path, authority)) as server, client_of(server, bundle) as client:
        await client.licenses.get()
        assert (await client.probe()).tls_version == "TLSv1.3"

    assert b"canary-93b1" in server.got


FLAWS: dict[str, tuple[dict[str, Any], str, str]] = {
    "of an authority that nobody named": ({}, "certificate verify failed: unable to get local", "SECTIGO_CA_BUNDLE"),
    "self-signed": ({}, "certificate verify failed: self-signed certificate", "SECTIGO_CA_BUNDLE"),
    "for another host": ({"names": (x509.DNSName("elsewhere.example"),)}, "is for another host", "SECTIGO_ENDPOINT"),
    "expired": ({"start": NOW - 3 * DAY, "end": NOW - DAY}, "has expired, or the clock", "network"),
    "of tomorrow": ({"start": NOW + DAY, "end": NOW + 3 * DAY}, "is not valid yet, or the clock", "network"),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("flaw", FLAWS)
async def test_who_cannot_prove_who_they_are_is_told_nothing(
    authority: Authority, bundle: Path, tmp_path: Path, *, flaw: str, call: str
) -> None:
    made, problem, way_out = FLAWS[flaw]
    context = server_context(tmp_path, None if flaw == "self-signed" else authority, **made)
    trusted = None if flaw == "of an authority that nobody named" else bundle
    async with serving(context) as server, client_of(server, trusted) as client:
        with pytest.raises(ConnectFailedError, match=problem) as caught:
            await CALLS[call](client)

    assert not server.got
    assert way_out in caught.value.hint
    assert "_ssl.c" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1:DeprecationWarning")
@pytest.mark.parametrize("call", CALLS)
async def test_tls_before_1_2_is_refused(authority: Authority, bundle: Path, tmp_path: Path, call: str) -> None:
    context, old = server_context(tmp_path, authority), ssl.create_default_context(cafile=bundle)
    for one in (context, old):
        one.set_ciphers("ALL:@SECLEVEL=0")
        one.minimum_version = one.maximum_version = ssl.TLSVersion.TLSv1_1
    with saying_goodbye(context) as server:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=old)
        except ssl.SSLError:
            pytest.skip("this OpenSSL speaks no TLS 1.1, not even at security level 0")
        writer.close()
        async with client_of(server, bundle) as client:
            with pytest.raises(ConnectFailedError, match="speaks no TLS of version"):
                await CALLS[call](client)

    assert not server.got


async def test_a_context_of_the_caller_decides_whom_it_trusts(
    authority: Authority, bundle: Path, tmp_path: Path
) -> None:
    endpoint = "https://127.0.0.1:{}"
    async with serving(server_context(tmp_path, authority)) as server:
        for trusts in (True, False):
            context = ssl.create_default_context(cafile=bundle if trusts else None)
            async with SectigoClient(
                username="ops",
                password="canary-93b1",
                endpoint=endpoint.format(server.port),
                ssl_context=context,
                clock=FakeClock(),
            ) as client:
                if trusts:
                    await client.licenses.get()
                    server.got.clear()
                    continue
                with pytest.raises(ConnectFailedError, match="certificate verify failed"):
                    await client.licenses.get()

    assert not server.got


async def test_who_hangs_up_during_the_handshake(bundle: Path) -> None:
    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    listener = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    server = Server()
    server.port = listener.sockets[0].getsockname()[1]
    async with listener, client_of(server, bundle) as client:
        with pytest.raises(ConnectFailedError, match="it hung up"):
            await CALLS["order"](client)


def test_a_bundle_that_is_none_is_told(tmp_path: Path) -> None:
    for path, content in ((tmp_path / "empty.pem", b""), (tmp_path / "missing.pem", None)):
        if content is not None:
            path.write_bytes(content)
        config = attrs.evolve(Config.create("https://127.0.0.1:1"), ca_bundle=path)
        with pytest.raises(ConfigurationError, match=rf"{path.name} is no file of certificate authorities") as caught:
            SectigoClient(username="ops", password="canary-93b1", config=config)

        assert "SECTIGO_CA_BUNDLE" in caught.value.hint
