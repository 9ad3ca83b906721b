"""A service behind a proxy with a password, and with a certificate of a company's own authority, in a simulator.

Run it with `python examples/ca_and_proxy.py`; it needs `pip install 'sectigo-async[sandbox]'`. What the operating
system trusts is trusted as it is; `ca_bundle` is for an authority that it does not know. Without `proxy=`,
HTTPS_PROXY and NO_PROXY count. With `SectigoClient.from_env()` both stand in the environment:

    SECTIGO_CA_BUNDLE=company-ca.pem HTTPS_PROXY=http://proxy.example.com:3128
"""

import asyncio
import base64
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import attrs
from cryptography import x509

from sectigo_async import Config, Secret, SectigoClient
from sectigo_async.pki import generate_key
from sectigo_async.sandbox import Sandbox, SandboxConfig, SandboxServer

PASS = base64.b64encode(b"me:proxy-password")


async def work(endpoint: str, proxy: Secret, ca: Path, root: x509.Certificate) -> None:
    """Issue a certificate through the proxy."""
    config = attrs.evolve(Config.create(endpoint), ca_bundle=ca)
    async with SectigoClient(username="demo", password="demo-password", config=config, proxy=proxy) as client:  # noqa: S106
        print("signing in over", (await client.probe()).tls_version)
        issued = await client.issue(
            common_name="gw7.example.com", profile_id=42, key=generate_key(), trust=[root], timeout=60
        )
        print(issued.certificate.common_name, issued.certificate.chain_check.status.value)


@asynccontextmanager
async def proxy_server(seen: list[str]) -> AsyncIterator[int]:
    """Run a proxy that asks for a password, and give its port: it stands for your company's."""

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if b"basic " + PASS.lower() not in head.lower():
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
            writer.close()
            return
        target = head.split()[1].decode()
        seen.append(target)
        host, _, port = target.rpartition(":")
        there, back = await asyncio.open_connection(host, int(port))
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(copy(reader, back), copy(there, writer))

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


async def main() -> None:
    """Start service and proxy, and work with them."""
    sandbox = Sandbox(SandboxConfig(issue_delay=0))
    root = x509.load_pem_x509_certificate(sandbox.ca_pem())
    seen: list[str] = []
    with tempfile.TemporaryDirectory() as directory:
        ca = Path(directory) / "company-ca.pem"
        ca.write_bytes(sandbox.ca_pem())
        async with SandboxServer(sandbox, tls=True) as server, proxy_server(seen) as port:
            await work(server.url, Secret(f"http://me:proxy-password@127.0.0.1:{port}"), ca, root)
    print("the proxy led to the service and nowhere else:", len(set(seen)) == 1)


if __name__ == "__main__":
    asyncio.run(main())
