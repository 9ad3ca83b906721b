"""The control plane answers to this machine only."""

from collections.abc import Callable

import httpx
import pytest
from cryptography import x509

from sectigo_async.sandbox import Sandbox, create_app
from sectigo_async.testing import FakeClock

PATHS = ["/_sandbox/ca.pem", "/_sandbox/crl.pem", "/_sandbox/stats"]


async def test_status_needs_no_token(anonymous: httpx.AsyncClient, clock: FakeClock) -> None:
    clock.advance(12.5)
    document = (await anonymous.get("/status", headers={"host": "sandbox.example.com"})).json()
    assert set(document) == {"status", "version", "uptime"}
    assert (document["status"], document["uptime"]) == ("ok", 12.5)


async def test_ca_crl_and_stats(anonymous: httpx.AsyncClient, sandbox: Sandbox) -> None:
    ca = await anonymous.get("/_sandbox/ca.pem")
    assert ca.content == sandbox.ca_pem()
    crl = await anonymous.get("/_sandbox/crl.pem")
    assert crl.content.count(b"-----BEGIN X509 CRL-----") == 2
    root = x509.load_pem_x509_certificate(ca.content)
    assert x509.load_pem_x509_crl(crl.content).issuer != root.subject, "the issuing CA's comes first"
    assert (
        (await anonymous.get("/_sandbox/stats")).json()
        == sandbox.stats()
        == {
            "logins": 0,
            "refreshes": 0,
            "orders": 0,
            "polls": 0,
            "downloads": 0,
            "orders_by_name": {},
            "orders_by_key": {},
            "faults": {},
            "late_commits": 0,
        }
    )


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.1:8000", "localhost", "LOCALHOST:8000", "127.8.9.1", "[::1]", "[::1]:8000"]
)
async def test_loopback_hosts_are_answered(anonymous: httpx.AsyncClient, path: str, host: str) -> None:
    assert (await anonymous.get(path, headers={"host": host})).status_code == 200


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "host",
    [
        "evil.example.com",
        "localhost.evil.example.com",
        "127.0.0.1.evil.example.com",
        "192.168.1.2",
        "[::2]",
        "[::1",
        "localhost:x",
        "localhost@evil.example.com",
        "",
    ],
)
async def test_other_hosts_are_refused(
    anonymous: httpx.AsyncClient, assert_error: Callable[..., str], path: str, host: str
) -> None:
    assert_error(await anonymous.get(path, headers={"host": host}), 403)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("peer", "status"),
    [
        ("127.0.0.1", 200),
        ("::1", 200),
        ("::ffff:127.0.0.1", 200),
        ("192.168.1.2", 403),
        ("::ffff:192.168.1.2", 403),
        ("", 403),
    ],
)
async def test_the_peer_must_be_this_machine(sandbox: Sandbox, path: str, peer: str, status: int) -> None:
    transport = httpx.ASGITransport(create_app(sandbox), client=(peer, 4711))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        reply = await client.get(path, headers={"x-forwarded-for": "127.0.0.1"})
    assert reply.status_code == status
