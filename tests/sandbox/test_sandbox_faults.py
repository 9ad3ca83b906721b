"""What goes wrong on purpose: each fault does what it says, to the route it names, as often as it is told."""

import io
import ssl
import zipfile
from collections.abc import AsyncIterator, Callable
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import pkcs7

from sectigo_async.sandbox import (
    NUISANCE,
    Fault,
    FaultRule,
    Sandbox,
    SandboxConfig,
    SandboxServer,
    SandboxTransport,
    parse_faults,
)
from sectigo_async.testing import FakeClock

DETAIL = "/api/v1/batches/{id}"
AUTHORITIES = "/api/v1/authorities/allowed"
CREATE = "/api/v1/batches/createSingleCertBatch"


@pytest.fixture
async def client(sandbox: Sandbox, credentials: dict[str, str]) -> AsyncIterator[httpx.AsyncClient]:
    transport = SandboxTransport(sandbox)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        reply = await client.post("/auth/pwd", json=credentials)
        client.headers["authorization"] = f"Bearer {reply.json()['accessToken']}"
        yield client


def strike(sandbox: Sandbox, fault: Fault, route: str = "*", **more: Any) -> None:
    sandbox.faults.replace([FaultRule(route=route, fault=fault, **more)])


async def test_rules_are_set_shown_and_counted(client: httpx.AsyncClient) -> None:
    rules = [{"route": f"GET {AUTHORITIES}", "fault": "rate-limit", "times": 2, "retry_after": 7}]
    assert (await client.put("/_sandbox/faults", json=rules)).json() == rules
    assert (await client.get("/_sandbox/faults")).json() == rules

    replies = [await client.get(AUTHORITIES) for _ in range(3)]

    assert [reply.status_code for reply in replies] == [429, 429, 200]
    assert replies[0].headers["retry-after"] == "7"
    assert (await client.get("/_sandbox/stats")).json()["faults"] == {"rate-limit": 2}


async def test_other_routes_and_the_control_plane_are_spared(client: httpx.AsyncClient, sandbox: Sandbox) -> None:
    strike(sandbox, Fault.ERROR_BEFORE, f"GET {AUTHORITIES}")
    assert (await client.get("/api/v1/devices")).status_code == 200
    strike(sandbox, Fault.ERROR_BEFORE)
    assert (await client.get("/api/v1/devices")).status_code == 503
    assert (await client.get("/_sandbox/stats")).status_code == 200


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ({}, "a list of rules"),
        ([1], "rule 1: an object"),
        ([{"route": "GET /nowhere", "fault": "lag"}], "unknown route 'GET /nowhere'"),
        ([{"route": "*", "fault": "plague"}], "unknown fault 'plague'"),
        ([{"route": "*", "fault": "lag"}], "lag needs seconds"),
        ([{"route": "*", "fault": "lag", "seconds": -1}], "seconds must be a number from 0"),
        ([{"route": "*", "fault": "rate-limit", "rate": 1.5}], "rate must be a number from 0 to 1"),
        ([{"route": "*", "fault": "rate-limit", "rate": True}], "rate must be"),
        ([{"route": "*", "fault": "rate-limit", "times": -1}], "times must be"),
        ([{"route": "*", "fault": "error-before", "status": 99}], "status must be"),
        ([{"route": "*", "fault": "rate-limit", "retry_after": "\n"}], "retry_after must be"),
        ([{"route": "*", "fault": "rate-limit", "odds": 1}], "unknown key 'odds'"),
        ([{"route": "*", "fault": "rate-limit"}] * 1001, "more than 1000"),
    ],
)
async def test_a_wrong_list_says_which_rule_and_why(client: httpx.AsyncClient, rules: Any, words: str) -> None:
    reply = await client.put("/_sandbox/faults", json=rules)
    assert reply.status_code == 400
    assert words in reply.json()["message"]


async def test_the_control_plane_takes_faults_from_this_machine_alone(client: httpx.AsyncClient) -> None:
    reply = await client.put("/_sandbox/faults", json=[], headers={"host": "sandbox.example.com"})
    assert reply.status_code == 403


async def test_the_same_seed_rolls_the_same_faults(client: httpx.AsyncClient) -> None:
    async def roll() -> list[int]:
        rules = [{"route": "*", "fault": "error-before", "rate": 0.5}]
        await client.put("/_sandbox/faults", json=rules)
        return [(await client.get("/api/v1/devices")).status_code for _ in range(30)]

    first = await roll()
    assert first == await roll()
    assert 5 < first.count(503) < 25


@pytest.mark.parametrize(
    ("fault", "runs"),
    [
        (Fault.RATE_LIMIT, False),
        (Fault.ERROR_BEFORE, False),
        (Fault.CUT_BEFORE, False),
        (Fault.WEB_PAGE, False),
        (Fault.ERROR_AFTER, True),
        (Fault.LOST_REPLY, True),
        (Fault.CUT_AFTER_HEADERS, True),
        (Fault.CUT_MID_BODY, True),
        (Fault.TRUNCATED, True),
        (Fault.DRIP, True),
        (Fault.WRONG_TYPE, True),
        (Fault.LATENCY, True),
    ],
)
async def test_whether_an_order_runs(
    sandbox: Sandbox, create: Callable[..., Any], device: dict[str, str], fault: Fault, *, runs: bool
) -> None:
    strike(sandbox, fault, f"PUT {CREATE}", seconds=0.5)
    try:
        await create(device, name="once")
    except httpx.TransportError:
        assert fault in {Fault.CUT_BEFORE, Fault.LOST_REPLY, Fault.CUT_AFTER_HEADERS, Fault.CUT_MID_BODY}
    assert sandbox.stats()["orders_by_name"] == ({"once": 1} if runs else {})


async def test_a_late_order_runs_when_its_time_has_come(
    sandbox: Sandbox, create: Callable[..., Any], device: dict[str, str], client: httpx.AsyncClient, clock: FakeClock
) -> None:
    strike(sandbox, Fault.LATE_COMMIT, f"PUT {CREATE}", seconds=700, times=1)
    with pytest.raises(httpx.RemoteProtocolError):
        await create(device, name="late")
    # The token it came with has ended by then; that it was let in counts.
    clock.advance(699)
    assert (await client.get("/_sandbox/stats")).json()["orders"] == 0
    clock.advance(1)
    counted = (await client.get("/_sandbox/stats")).json()
    assert (counted["orders_by_name"], counted["late_commits"]) == ({"late": 1}, 1)


async def test_batches_and_searches_lag(
    sandbox: Sandbox, create: Callable[..., Any], device: dict[str, str], client: httpx.AsyncClient, clock: FakeClock
) -> None:
    number = (await create(device)).json()["batchId"]
    clock.advance(5)
    search = {"commonName": device["commonName"]}
    assert (await client.post("/api/v1/certificates/find", json=search)).json()["totalCount"] == 1
    strike(sandbox, Fault.LAG, seconds=4.75)
    assert (await client.get(f"/api/v1/batches/{number}")).json()["status"] == "CREATED", "as 0.25 s after the order"
    assert (await client.post("/api/v1/certificates/find", json=search)).json()["totalCount"] == 0
    strike(sandbox, Fault.LAG, seconds=6)
    assert (await client.get(f"/api/v1/batches/{number}")).status_code == 404


async def test_statuses_come_out_of_order(
    sandbox: Sandbox, create: Callable[..., Any], device: dict[str, str], client: httpx.AsyncClient, clock: FakeClock
) -> None:
    number = (await create(device)).json()["batchId"]
    clock.advance(2.5)
    strike(sandbox, Fault.OUT_OF_ORDER, seconds=60)
    seen = [(await client.get(f"/api/v1/batches/{number}")).json()["status"] for _ in range(40)]
    assert len(set(seen)) > 1
    ranks = [("CREATED", "PROCESSING", "READY_FOR_DOWNLOAD").index(status) for status in seen]
    assert ranks != sorted(ranks)


async def test_the_date_is_skewed(sandbox: Sandbox, client: httpx.AsyncClient, clock: FakeClock) -> None:
    strike(sandbox, Fault.CLOCK_SKEW, seconds=-86_400)
    date = parsedate_to_datetime((await client.get(AUTHORITIES)).headers["date"])
    assert abs(date.timestamp() - clock.time() + 86_400) < 2


async def test_an_archive_loses_its_end_or_a_bit(
    sandbox: Sandbox, create: Callable[..., Any], device: dict[str, str], client: httpx.AsyncClient, clock: FakeClock
) -> None:
    number = (await create(device)).json()["batchId"]
    clock.advance(5)
    path = f"/api/v1/batches/{number}/download"
    whole = (await client.get(path)).content
    strike(sandbox, Fault.TRUNCATED)
    assert (await client.get(path)).content == whole[: len(whole) // 2]
    strike(sandbox, Fault.BIT_FLIP)
    flipped = (await client.get(path)).content
    assert sum((a ^ b).bit_count() for a, b in zip(whole, flipped, strict=True)) == 1
    assert (await client.get(AUTHORITIES)).json(), "other replies are as they should be"


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (Fault.CUT_BEFORE, httpx.RemoteProtocolError),
        (Fault.LOST_REPLY, httpx.RemoteProtocolError),
        (Fault.CUT_AFTER_HEADERS, httpx.TransportError),
        (Fault.CUT_MID_BODY, httpx.TransportError),
    ],
)
@pytest.mark.parametrize("tls", [False, True])
async def test_a_connection_is_cut_on_a_socket(
    fault: Fault, expected: type[Exception], tmp_path: Path, *, tls: bool
) -> None:
    sandbox = Sandbox(SandboxConfig(faults=(FaultRule(route="POST /auth/pwd", fault=fault, times=1),)))
    root = tmp_path / "root.pem"
    root.write_bytes(sandbox.ca_pem())
    body = {"username": "demo", "password": "demo-password"}
    async with SandboxServer(sandbox, tls=tls) as server:
        context = ssl.create_default_context(cafile=str(root))
        async with httpx.AsyncClient(base_url=server.url, verify=context) as client:
            got: list[bytes] = []
            with pytest.raises(expected):
                await receive(client, body, got)
            assert bool(got) == (fault is Fault.CUT_MID_BODY)
            assert (await client.post("/auth/pwd", json=body)).status_code == 200


async def receive(client: httpx.AsyncClient, body: object, got: list[bytes]) -> None:
    async with client.stream("POST", "/auth/pwd", json=body) as reply:
        assert reply.status_code == 200
        async for piece in reply.aiter_raw():
            got.append(piece)  # noqa: PERF401 - what came before the cut is to be kept


async def test_a_drip_ends_with_the_client_on_a_socket() -> None:
    rule = FaultRule(route="POST /auth/pwd", fault=Fault.DRIP, seconds=0.05)
    body = {"username": "demo", "password": "demo-password"}
    async with (
        SandboxServer(Sandbox(SandboxConfig(faults=(rule,)))) as server,
        httpx.AsyncClient(base_url=server.url) as client,
        client.stream("POST", "/auth/pwd", json=body) as reply,
    ):
        pieces = reply.aiter_raw()
        assert [await anext(pieces), await anext(pieces)] == [b"{", b'"']


@pytest.mark.parametrize("config", [SandboxConfig(formats=("pem", "crt", "cer", "p7b"))])
async def test_certificates_for_csrs_in_every_form(
    client: httpx.AsyncClient, upload: Callable[..., Any], make_csr: Callable[..., bytes], clock: FakeClock
) -> None:
    number = (await upload(make_csr("gw7.example.com"))).json()["batchId"]
    clock.advance(5)
    archive = zipfile.ZipFile(io.BytesIO((await client.get(f"/api/v1/batches/{number}/download")).content))
    files = {name.rpartition(".")[2]: archive.read(name) for name in archive.namelist()}

    leaf = x509.load_der_x509_certificate(files["cer"])
    assert x509.load_pem_x509_certificate(files["crt"]) == leaf
    assert x509.load_pem_x509_certificates(files["pem"])[0] == leaf
    assert leaf in pkcs7.load_der_pkcs7_certificates(files["p7b"])


def test_the_gentle_list_is_one_that_can_be_sent() -> None:
    assert parse_faults([rule.document() for rule in NUISANCE]) == NUISANCE


def test_the_manual_names_every_fault() -> None:
    manual = (Path(__file__).parents[2] / "docs" / "simulator.md").read_text()
    assert [fault for fault in Fault if f"\n| `{fault}` |" not in manual] == []
