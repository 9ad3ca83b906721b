"""Connections: leased one request at a time, over one TLS context, through the proxy the environment names.

httpx's own pool degrades badly past a few concurrent requests, so each connection here serves one request at a
time and is given back when its reply is closed.
"""

import asyncio
import functools
import logging
import os
import ssl
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import httpx

from sectigo_async.config import ClientCertificate, is_loopback
from sectigo_async.errors import ConfigurationError
from sectigo_async.secrets import Secret
from sectigo_async.text import one_line

_log = logging.getLogger("sectigo_async.auth")

_REFUSED_BY_TLS = {
    9: "its certificate is not valid yet, or the clock of this machine is slow",
    10: "its certificate has expired, or the clock of this machine is fast",
    62: "its certificate is for another host: this is another service, or something stands between",
    64: "its certificate is for another host: this is another service, or something stands between",
}
"""What OpenSSL's verdicts mean that no further authority would change."""
_TOO_OLD = frozenset({"TLSV1_ALERT_PROTOCOL_VERSION", "UNSUPPORTED_PROTOCOL"})

_OTHERS_MAY_WRITE = 0o022
_OTHERS_MAY_READ = 0o044

FRESH = "sectigo_async.fresh_connection"
"""Request extension: send this one over a connection that nobody used before."""

QUEUED = "sectigo_async.lease.queued"
"""Event of the `trace` extension: the request waits for a connection."""
LEASED = "sectigo_async.lease.complete"
"""Event of the `trace` extension: the request has a connection."""


@functools.cache
def shared_ssl_context(ca_bundle: Path | None) -> ssl.SSLContext:
    """Return the process's TLS context, which trusts what the operating system trusts, and `ca_bundle` besides.

    Raises:
        ConfigurationError: the bundle holds no certificates.
    """
    return _new_ssl_context(ca_bundle)


def client_certificate_context(certificate: ClientCertificate, ca_bundle: Path | None) -> ssl.SSLContext:
    """Return a TLS context that shows a client certificate; it is for signing in and nothing else.

    Raises:
        ConfigurationError: the files are no certificate with its key, or others may write to them.
    """
    key = certificate.key or certificate.certificate
    for path in {certificate.certificate, key}:
        if _mode(path) & _OTHERS_MAY_WRITE:
            raise ConfigurationError(f"others may write to {path}", hint=f"chmod go-w {path}")
    if _mode(key) & _OTHERS_MAY_READ:
        _log.warning("others may read the client key in %s: chmod 600 %s", key, key)
    context = _new_ssl_context(ca_bundle)
    try:
        # Without a password of its own, a key that has one would make OpenSSL ask for it on the terminal.
        context.load_cert_chain(certificate.certificate, key, password="")
    except (OSError, ValueError) as error:
        problem = f"{certificate.certificate} and {key} are no client certificate with its key: {_reason(error)}"
    else:
        return context
    raise ConfigurationError(
        problem, hint="SECTIGO_CLIENT_CERT and SECTIGO_CLIENT_KEY name PEM files, the key without a password"
    )


def _mode(path: Path) -> int:
    """Return the permissions of a file; none where it is missing or the system has none."""
    with suppress(OSError):
        return path.stat().st_mode if os.name == "posix" else 0
    return 0


def _new_ssl_context(ca_bundle: Path | None) -> ssl.SSLContext:
    import truststore

    context = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca_bundle is None:
        return context
    try:
        context.load_verify_locations(ca_bundle)
    except (OSError, ValueError) as error:
        problem = f"{ca_bundle} is no file of certificate authorities: {_reason(error)}"
    else:
        return context
    raise ConfigurationError(problem, hint="SECTIGO_CA_BUNDLE names a PEM file with one certificate or more")


def _reason(error: Exception) -> str:
    """Return what OpenSSL or the system has to say; their errors carry numbers and places of source code."""
    said = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
    return one_line(str(said))


def _proxy(address: Secret | None) -> httpx.Proxy | None:
    """Return the proxy at `address`, which may leave `http://` out, as most programs allow."""
    if not address:
        return None
    try:
        proxy = httpx.Proxy(_with_scheme(address.reveal()))
    except (ValueError, httpx.InvalidURL):
        proxy = None
    if proxy is None or not proxy.url.host or proxy.url.scheme not in {"http", "https"}:
        # The address is not quoted: it may hold a password.
        raise ConfigurationError(
            "the proxy is not a URL of an http or https proxy", hint="write it like http://proxy.example.com:3128"
        )
    return proxy


def _with_scheme(address: str) -> str:
    return address if "://" in address else f"http://{address}"


def environment_proxy(endpoint: str) -> Secret | None:
    """Return the proxy that HTTPS_PROXY, HTTP_PROXY and NO_PROXY name for `endpoint`; never one for loopback."""
    url = urlsplit(endpoint)
    host = url.hostname or ""
    if is_loopback(host) or urllib.request.proxy_bypass(host):
        return None
    proxies = urllib.request.getproxies()
    named = proxies.get(url.scheme) or proxies.get("all")
    return Secret(named) if named else None


def open_connections(
    endpoint: str,
    *,
    size: int,
    keep_alive: float,
    ssl_context: ssl.SSLContext | None,
    ca_bundle: Path | None,
    proxy: Secret | None,
) -> httpx.AsyncBaseTransport:
    """Return leased connections to an endpoint.

    Args:
        endpoint: URL whose origin they lead to.
        size: how many are in use at once at most (1 or more).
        keep_alive: seconds for which one that is idle is used again.
        ssl_context: TLS context; the shared one when not given.
        ca_bundle: certificate authorities that the shared one trusts besides the operating system's.
        proxy: URL of a proxy, which may hold a password; what the environment says when not given.

    Raises:
        ConfigurationError: the proxy is none, or the bundle holds no certificates.
    """
    plain = urlsplit(endpoint).scheme == "http"
    context = False if plain else ssl_context or shared_ssl_context(ca_bundle)
    via = _proxy(proxy or environment_proxy(endpoint))
    limits = httpx.Limits(max_connections=1, keepalive_expiry=keep_alive)

    def connect() -> httpx.AsyncBaseTransport:
        return _Connection(
            httpx.AsyncHTTPTransport(verify=context, proxy=via, trust_env=False, limits=limits),
            plain=plain,
        )

    return LeasedTransport(size, connect)


class _Connection(httpx.AsyncBaseTransport):
    """A connection that says in words whom TLS refused, and takes plain http nowhere but to this machine."""

    def __init__(self, inner: httpx.AsyncBaseTransport, *, plain: bool) -> None:
        self._inner = inner
        self._plain = plain

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self._plain:
            request.extensions["trace"] = functools.partial(_stay_here, request.extensions.get("trace"))
        try:
            return await self._inner.handle_async_request(request)
        except httpx.ProxyError as error:
            words = f"the proxy answers {error}"
        except httpx.ConnectError as error:
            words = _why_no_connection(error)
        raise httpx.ConnectError(words)

    async def aclose(self) -> None:
        await self._inner.aclose()


async def _stay_here(trace: Callable[..., Awaitable[None]] | None, event: str, info: Mapping[str, Any]) -> None:
    """Close a connection that leads to another machine, before anything is written to it.

    `localhost` may be made to mean one, and a proxy may stand on one.
    """
    if trace is not None:
        await trace(event, info)
    if event == "connection.connect_tcp.complete":
        stream = info["return_value"]
        peer = stream.get_extra_info("server_addr")
        if not peer or not is_loopback(str(peer[0])):
            await stream.aclose()
            raise httpx.ConnectError(
                "plain http would leave this machine, to " + (str(peer[0]) if peer else "nobody knows where")
            )


def _why_no_connection(error: httpx.ConnectError) -> str:
    """Return why TLS failed, in words for a person; what the error says itself where it is something else."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__ or cause.__context__
    if isinstance(cause, ssl.SSLCertVerificationError):
        plainly = _REFUSED_BY_TLS.get(cause.verify_code)
        return plainly or f"certificate verify failed: {cause.verify_message}"
    if isinstance(cause, ssl.SSLError) and cause.reason in _TOO_OLD:
        return "it speaks no TLS of version 1.2 or newer, and older ones are not safe"
    return str(error) or "it hung up before the connection stood"


class LeasedTransport(httpx.AsyncBaseTransport):
    """Lends out connections, each for one request at a time; the one used last is lent first.

    Args:
        size: how many are in use at once at most (1 or more).
        connect: makes a transport that holds one connection.
    """

    def __init__(self, size: int, connect: Callable[[], httpx.AsyncBaseTransport]) -> None:
        self._connect = connect
        self._places = asyncio.Semaphore(size)
        self._idle: list[httpx.AsyncBaseTransport] = []
        self._closed = False
        self.leased: int = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send `request` over a leased connection, which the reply's end gives back."""
        trace = request.extensions.get("trace")
        if trace is not None:
            await trace(QUEUED, {})
        await self._places.acquire()
        self.leased += 1
        fresh = bool(request.extensions.get(FRESH))
        connection: httpx.AsyncBaseTransport | None = None
        try:
            connection = self._idle.pop() if self._idle and not fresh else self._connect()
            if trace is not None:
                await trace(LEASED, {})
            response = await connection.handle_async_request(request)
        except BaseException:
            await self._give_back(connection, keep=False)
            raise
        assert isinstance(response.stream, httpx.AsyncByteStream)
        give_back = functools.partial(self._give_back, connection)
        response.stream = _Leased(response.stream, give_back, reusable=not fresh)
        return response

    async def _give_back(self, connection: httpx.AsyncBaseTransport | None, *, keep: bool) -> None:
        self.leased -= 1
        self._places.release()
        if connection is None:
            return
        if keep and not self._closed:
            self._idle.append(connection)
        else:
            await connection.aclose()

    async def aclose(self) -> None:
        """Close the idle connections; those in use are closed when they come back."""
        self._closed = True
        while self._idle:
            await self._idle.pop().aclose()


class _GiveBack(Protocol):
    def __call__(self, *, keep: bool) -> Awaitable[None]: ...


class _Leased(httpx.AsyncByteStream):
    """A reply's body that gives its connection back, once, when it is closed."""

    def __init__(self, inner: httpx.AsyncByteStream, give_back: _GiveBack, *, reusable: bool) -> None:
        self._inner = inner
        self._give_back: _GiveBack | None = give_back
        self._reusable = reusable

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._inner:
            yield piece

    async def aclose(self) -> None:
        give_back, self._give_back = self._give_back, None
        clean = False
        try:
            await self._inner.aclose()
            clean = True
        finally:
            if give_back is not None:
                # A connection whose closing was cut short is in nobody knows what state.
                await give_back(keep=self._reusable and clean)
