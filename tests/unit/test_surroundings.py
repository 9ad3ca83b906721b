"""What surrounds a process - proxies, netrc, resolver, endpoint - makes it tell a secret to nobody else."""

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from sectigo_async import Secret, SectigoClient, SystemClock
from sectigo_async import connections as module
from sectigo_async.credentials import resolve
from sectigo_async.errors import ConnectFailedError, SignInRequiredError
from sectigo_async.testing import FakeClock

TOKENS = b'{"accessToken":"canary.a.b","refreshToken":"canary.r.b"}'
PROXY = "http://proxy-user:canary-proxy@127.0.0.1:{}"


class Listener:
    """Answers every request in one way and remembers every byte it got."""

    def __init__(self) -> None:
        self.got = bytearray()
        self.answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(TOKENS), TOKENS)
        self.connections = 0
        self.port = 0

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        while piece := await reader.read(65536):
            self.got += piece
            writer.write(self.answer)
        writer.close()


async def _listening() -> AsyncIterator[Listener]:
    listener = Listener()
    async with await asyncio.start_server(listener.connected, "127.0.0.1", 0) as server:
        listener.port = server.sockets[0].getsockname()[1]
        yield listener


@pytest.fixture
async def service() -> AsyncIterator[Listener]:
    async for listener in _listening():
        yield listener


@pytest.fixture
async def stranger() -> AsyncIterator[Listener]:
    async for listener in _listening():
        yield listener


def client_of(endpoint: str, *, proxy: str | None = None) -> SectigoClient:
    return SectigoClient(
        username="ops", password="canary-password", endpoint=endpoint, proxy=proxy, clock=FakeClock()
    )


@pytest.fixture
def _named_everywhere(stranger: Listener, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let every variable that programs heed name a stranger, and a netrc offer a password for every host."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name.lower(), PROXY.format(stranger.port))
        monkeypatch.setenv(name, PROXY.format(stranger.port))
    (tmp_path / "netrc").write_text("default login netrc-user password canary-netrc\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


@pytest.mark.usefixtures("_named_everywhere")
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("exempt", [None, "", "elsewhere.example", "*"])
async def test_this_machine_is_reached_without_proxy_and_netrc(
    service: Listener, stranger: Listener, monkeypatch: pytest.MonkeyPatch, *, host: str, exempt: str | None
) -> None:
    if exempt is not None:
        monkeypatch.setenv("NO_PROXY", exempt)
    async with client_of(f"http://{host}:{service.port}") as client:
        await client.request("GET", "/api/v1/other")

    assert not stranger.connections
    assert b"canary-password" in service.got
    assert b"Bearer canary.a.b" in service.got
    assert b"netrc" not in service.got
    assert b"Basic" not in service.got


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 407 Say who you are\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        b"what?\r\n\r\n",
    ],
)
@pytest.mark.parametrize("given", [False, True])
async def test_a_proxy_learns_where_to_and_nothing_else(
    stranger: Listener,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    *,
    answer: bytes,
    given: bool,
) -> None:
    caplog.set_level(logging.DEBUG)
    stranger.answer = answer
    address = PROXY.format(stranger.port)
    if not given:
        monkeypatch.setenv("HTTPS_PROXY", address)
    async with client_of("https://iot.sectigo.com", proxy=address if given else None) as client:
        with pytest.raises(ConnectFailedError) as caught:
            await client.batches.create(authority_id=1, name="n", params={"pkcs12Password": Secret("canary-pkcs12")})
        shown = f"{caught.value!r} {caught.value.hint} {client!r} {vars(client)!r} {caplog.text}"

    assert stranger.got.startswith(b"CONNECT iot.sectigo.com:443 HTTP/1.1\r\n")
    assert b"Proxy-Authorization: Basic" in stranger.got
    assert b"canary" not in stranger.got
    assert "canary" not in shown


@pytest.mark.parametrize("way", ["localhost", "a proxy"])
async def test_plain_http_does_not_leave_this_machine_whatever_the_way(
    service: Listener, stranger: Listener, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    # Stands for a resolver that says so of localhost, and for a proxy on another machine.
    monkeypatch.setattr(module, "is_loopback", lambda host: host == "localhost")
    proxy = PROXY.format(stranger.port) if way == "a proxy" else None
    async with client_of(f"http://localhost:{service.port}", proxy=proxy) as client:
        with pytest.raises(ConnectFailedError, match=r"plain http would leave this machine, to 127\.0\.0\.1"):
            await client.licenses.get()

    assert not service.got
    assert not stranger.got


async def test_where_a_connection_leads_is_known_or_it_is_not_used() -> None:
    events: list[str] = []

    async def trace(event: str, _: object) -> None:
        events.append(event)

    class Stream:
        closed = False

        def get_extra_info(self, _: str) -> None: ...

        async def aclose(self) -> None:
            self.closed = True

    stream = Stream()
    with pytest.raises(httpx.ConnectError, match="nobody knows where"):
        await module._stay_here(trace, "connection.connect_tcp.complete", {"return_value": stream})

    assert stream.closed
    assert events == ["connection.connect_tcp.complete"]


async def test_a_proxy_that_wants_a_password_is_told_apart_from_the_service(stranger: Listener) -> None:
    stranger.answer = b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"
    async with client_of("https://iot.sectigo.com", proxy=PROXY.format(stranger.port)) as client:
        with pytest.raises(ConnectFailedError, match="cannot connect: the proxy answers 407") as caught:
            await client.licenses.get()

    assert "proxy" in caught.value.hint


async def test_what_is_kept_for_one_endpoint_is_not_sent_to_another(
    service: Listener, stranger: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECTIGO_CREDENTIAL_STORE", "file")
    monkeypatch.setenv("SECTIGO_USERNAME", "ops")
    monkeypatch.setenv("SECTIGO_ENDPOINT", f"http://127.0.0.1:{service.port}")
    kept = resolve(password="canary-password", keeping=True).credentials
    shared = kept.share(f"http://127.0.0.1:{service.port}", SystemClock())
    await shared.save_password(Secret("canary-password"))
    async with SectigoClient(endpoint=f"http://127.0.0.1:{service.port}", credentials=kept) as client:
        await client.sign_in(fresh=True)
    async with SectigoClient.from_env() as client:
        await client.request("GET", "/api/v1/other")
    assert await shared.refresh_token()
    assert service.got.count(b"Bearer canary.a.b") == 1

    for endpoint in (f"http://127.0.0.1:{stranger.port}", f"http://localhost:{service.port}"):
        monkeypatch.setenv("SECTIGO_ENDPOINT", endpoint)
        service.got.clear()
        async with SectigoClient.from_env() as client:
            with pytest.raises(SignInRequiredError):
                await client.licenses.get()

    assert not stranger.connections
    assert not service.got
