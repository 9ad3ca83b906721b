"""A sandbox whose state is in a file: what it answered outlives it, however it ends."""

import asyncio
import io
import os
import sqlite3
import stat
import subprocess
import sys
import time
import zipfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import pkcs12

from sectigo_async.sandbox import Fault, FaultRule, Sandbox, SandboxConfig, SandboxTransport, StateError, catalog
from sectigo_async.testing import FakeClock

PROGRAM = str(Path(sys.executable).with_name("sectigo-async"))
CREATE = "/api/v1/batches/createSingleCertBatch"
LOGIN = {"username": "demo", "password": "demo-password"}

Order = Callable[..., dict[str, Any]]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "sandbox.db"


def spawn(file: Path, *options: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [PROGRAM, "serve", "-a", ":0", "--state", str(file), *options],
        env={"PATH": os.environ["PATH"], "HOME": str(file.parent), "PYTHONWARNINGS": "error"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextmanager
def serving(file: Path, *options: str) -> Iterator[httpx.Client]:
    """Run `sectigo-async serve --state` and kill it in the end, as `kill -9` does."""
    process = spawn(file, *options)
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert url, process.communicate()
        with httpx.Client(base_url=url, timeout=20) as client:
            yield client
    finally:
        process.kill()
        process.communicate(timeout=10)


def sign_in(client: httpx.Client) -> dict[str, str]:
    tokens: dict[str, str] = client.post("/auth/pwd", json=LOGIN).json()
    client.headers["authorization"] = f"Bearer {tokens['accessToken']}"
    return tokens


def order(client: httpx.Client, params: dict[str, str], name: str = "certs") -> dict[str, Any]:
    reply = client.put(CREATE, json={"authorityId": 3, "batchName": name, "profileParams": params})
    assert reply.status_code == 201, reply.text
    document: dict[str, Any] = reply.json()
    return document


def told(client: httpx.Client) -> list[Any]:
    """Return what a sandbox says of itself."""
    answers = [
        client.get(path)
        for path in (
            "/_sandbox/ca.pem",
            "/api/v1/authorities/3/balanceavailable",
            "/api/v1/devices",
            "/api/v1/batches/24",
            "/_sandbox/stats",
        )
    ]
    assert {answer.status_code for answer in answers} == {200}
    crl = x509.load_pem_x509_crl(client.get("/_sandbox/crl.pem").content)
    number = crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    return [answer.text for answer in answers] + [
        number,
        [(one.serial_number, one.revocation_date_utc) for one in crl],
    ]


def test_after_a_kill_it_goes_on_as_if_nothing_had_happened(file: Path, device: dict[str, str]) -> None:
    options = ("--issue-delay", "0", "--balance", "10")
    with serving(file, *options) as client:
        tokens = sign_in(client)
        first, second = order(client, device), order(client, device | {"commonName": "gateway-8"}, "others")
        search = {"commonName": "gateway-8"}
        (found,) = client.post("/api/v1/certificates/find", json=search).json()["items"]
        revocation = {"serialNumber": found["serialNumber"], "reasonCode": 4}
        assert client.post("/api/v1/certificates/117/revoke", json=revocation).status_code == 200
        assert client.get(f"/api/v1/batches/{first['batchId']}/download").status_code == 200
        before = told(client)
        (revoked,) = before[-1]
        assert int(found["serialNumber"], 16) == revoked[0]

    with serving(file, *options) as client:
        client.headers["authorization"] = f"Bearer {tokens['accessToken']}"
        stats = client.get("/_sandbox/stats").json()
        assert (stats["logins"], stats["orders"], stats["downloads"], stats["polls"]) == (1, 2, 1, 1)
        assert stats["orders_by_name"] == {"certs": 1, "others": 1}
        after = told(client)
        # To ask was a poll of its own.
        assert after[4].replace('"polls":2', '"polls":1') == before[4]
        assert after[:4] + after[5:] == before[:4] + before[5:]

        archive = client.get(f"/api/v1/batches/{first['batchId']}/download").content
        with zipfile.ZipFile(io.BytesIO(archive)) as members:
            _, leaf, chain = pkcs12.load_key_and_certificates(
                members.read("gateway-7.p12"), device["pkcs12Password"].encode()
            )
        assert leaf is not None
        root = x509.load_pem_x509_certificate(client.get("/_sandbox/ca.pem").content)
        leaf.verify_directly_issued_by(chain[0])
        chain[0].verify_directly_issued_by(root)
        assert client.post("/api/v1/certificates/find", json=search).json()["items"] == [
            found | {"status": "REVOKED"}
        ]
        assert client.post("/api/v1/certificates/117/revoke", json=revocation).status_code == 400

        assert client.post("/auth/refresh", content=tokens["refreshToken"]).status_code == 200
        assert order(client, device)["batchId"] > second["batchId"] > first["batchId"]


def test_a_batch_under_way_gets_ready_when_its_time_has_passed(file: Path, device: dict[str, str]) -> None:
    with serving(file, "--issue-delay", "2.5") as client:
        tokens = sign_in(client)
        ordered = time.monotonic()
        path = f"/api/v1/batches/{order(client, device)['batchId']}"
        assert client.get(f"{path}/status").text == "Processing"
    with serving(file, "--issue-delay", "600") as client:
        client.headers["authorization"] = f"Bearer {tokens['accessToken']}"
        while client.get(f"{path}/status").text != "Ready for download":
            assert time.monotonic() - ordered < 10
            time.sleep(0.05)
        assert time.monotonic() - ordered >= 2.4
        assert client.get(f"{path}/download").content.startswith(b"PK")


async def test_nothing_that_was_answered_is_lost(file: Path, device: dict[str, str]) -> None:
    answered: dict[str, int] = {}
    process = spawn(file, "--issue-delay", "0")
    assert process.stdout is not None
    url = (await asyncio.to_thread(process.stdout.readline)).strip()

    async def orders(client: httpx.AsyncClient, who: int) -> None:
        with suppress(httpx.TransportError):
            for number in range(10_000):
                name = f"{who}-{number}"
                document = {"authorityId": 3, "batchName": name, "profileParams": device}
                answered[name] = (await client.put(CREATE, json=document)).json()["batchId"]
                if len(answered) == 40:
                    process.kill()

    async with httpx.AsyncClient(base_url=url) as client:
        token = (await client.post("/auth/pwd", json=LOGIN)).json()["accessToken"]
        client.headers["authorization"] = f"Bearer {token}"
        await asyncio.gather(*(orders(client, who) for who in range(8)))
    process.communicate(timeout=10)

    with closing(Sandbox(SandboxConfig(state=file))) as sandbox:
        now = sandbox.clock.monotonic()
        assert {name: sandbox.ledger.batch(number, now).name for name, number in answered.items()} == {
            name: name for name in answered
        }
        stats = sandbox.stats()
        assert set(stats["orders_by_name"].values()) == {1}
        spent = 1000 - sandbox.ledger.balance(catalog.authority(3))
        assert spent == stats["orders"] == len(stats["orders_by_name"]) >= 40


def test_a_second_sandbox_is_refused(file: Path, device: dict[str, str]) -> None:
    with serving(file) as client:
        process = spawn(file)
        output, errors = process.communicate(timeout=20)
        assert (process.returncode, output) == (1, "")
        assert errors.startswith(f"error: {file} is in use by another sandbox")
        assert len(errors.splitlines()) == 1
        with pytest.raises(StateError, match="in use"):
            Sandbox(SandboxConfig(state=file))
        sign_in(client)
        order(client, device)


def test_a_second_sandbox_in_the_same_process_is_refused(file: Path) -> None:
    with closing(Sandbox(SandboxConfig(state=file))) as sandbox:
        for _ in range(2):
            with pytest.raises(StateError, match="in use"):
                Sandbox(SandboxConfig(state=file))
        process = spawn(file)
        assert "in use" in process.communicate(timeout=20)[1], "the first still has its lock"
        pem = sandbox.ca_pem()
    with closing(Sandbox(SandboxConfig(state=file))) as sandbox:
        assert sandbox.ca_pem() == pem


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such modes")
def test_the_file_and_those_beside_it_are_private(file: Path, device: dict[str, str]) -> None:
    with serving(file) as client:
        sign_in(client)
        order(client, device)
        files = list(file.parent.glob("sandbox.db*"))
        assert len(files) > 1
        assert {stat.S_IMODE(one.stat().st_mode) for one in files} == {0o600}


def _database(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as database:
        for statement in statements:
            database.execute(statement)
        database.commit()
    path.chmod(0o600)


def _garbage(path: Path) -> None:
    path.write_bytes(b"garbage" * 1000)
    path.chmod(0o600)


def _earlier(path: Path, *statements: str) -> None:
    Sandbox(SandboxConfig(state=path)).close()
    _database(path, *statements)


def _open_to_all(path: Path) -> None:
    _earlier(path)
    path.chmod(0o640)


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "garbage": (_garbage, "is not the state of a sandbox"),
    "another database": (lambda path: _database(path, "CREATE TABLE t (x)"), "is not the state of a sandbox"),
    "newer": (lambda path: _earlier(path, "PRAGMA user_version = 2"), "newer version"),
    "damaged": (lambda path: _earlier(path, "INSERT INTO batches VALUES (24, '', 9, 0, 0)"), "is damaged"),
    "half a file": (lambda path: _earlier(path, "DROP TABLE tokens"), "no such table"),
    "open to all": (_open_to_all, "others may read"),
    "folder": (lambda path: path.mkdir(), "is not a file"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_state_is_refused_and_left_alone(file: Path, kind: str) -> None:
    make, problem = REFUSED[kind]
    make(file)
    before = file.read_bytes() if file.is_file() else b""
    with pytest.raises(StateError, match=problem) as caught:
        Sandbox(SandboxConfig(state=file))
    assert str(file) in str(caught.value)
    assert (file.read_bytes() if file.is_file() else b"") == before
    with pytest.raises(StateError, match=problem):
        Sandbox(SandboxConfig(state=file))


@pytest.mark.parametrize("kind", ["garbage", "newer", "nowhere"])
def test_it_is_told_in_one_line(file: Path, kind: str) -> None:
    path = file.parent / "nowhere" / "sandbox.db" if kind == "nowhere" else file
    if kind in REFUSED:
        REFUSED[kind][0](path)
    process = spawn(path)
    output, errors = process.communicate(timeout=20)
    assert (process.returncode, output) == (1, "")
    assert errors.startswith("error: ")
    assert str(path) in errors
    assert len(errors.splitlines()) == 1


def test_an_empty_file_is_a_new_one(file: Path) -> None:
    file.touch(0o600)
    with closing(Sandbox(SandboxConfig(state=file))) as sandbox:
        pem = sandbox.ca_pem()
    with closing(Sandbox(SandboxConfig(state=file))) as sandbox:
        assert sandbox.ca_pem() == pem


class Restarted:
    """Sandboxes of one file in this process, one after the other."""

    def __init__(self, file: Path, clock: FakeClock) -> None:
        self._file = file
        self._clock = clock
        self.token = ""

    @asynccontextmanager
    async def __call__(self, **settings: Any) -> AsyncIterator[tuple[Sandbox, httpx.AsyncClient]]:
        with ExitStack() as stack:
            sandbox = stack.enter_context(closing(Sandbox(SandboxConfig(state=self._file, **settings), self._clock)))
            transport = SandboxTransport(sandbox)
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
                if not self.token:
                    self.token = (await client.post("/auth/pwd", json=LOGIN)).json()["accessToken"]
                client.headers["authorization"] = f"Bearer {self.token}"
                yield sandbox, client


@pytest.fixture
def restarted(file: Path, clock: FakeClock) -> Restarted:
    return Restarted(file, clock)


async def upload(client: httpx.AsyncClient, content: bytes) -> int:
    request = b'{"profileId":42,"batchType":"BATCH","profileParams":{}}'
    files = {
        "csrBatchRequest": ("blob", request, "application/json"),
        "files": ("requests.csr", content, "text/plain"),
    }
    reply = await client.post("/api/v1/batches/upload", data={"profileId": "42"}, files=files)
    assert reply.status_code == 200, reply.text
    return int(reply.json()["batchId"])


async def test_every_outcome_comes_back(
    restarted: Restarted, make_csr: Callable[..., bytes], clock: FakeClock
) -> None:
    orders = (
        ["a.example.com", "broken.example.com", "a.example.com", "ä.example.com"],
        ["rejected.example.com"],
        ["failed.example.com"],
    )
    formats = ("crt", "p7b", "cer", "pem")
    async with restarted(formats=formats) as (sandbox, client):
        ids = [await upload(client, b"".join(make_csr(name, sans=["a.test"]) for name in names)) for names in orders]
        before = [sandbox.ledger.batch(number, clock.monotonic()) for number in ids]
        devices = [(one.device_id, one.serial_number) for one in sandbox.ledger.revealed(clock.monotonic() + 60)]
        keys = sandbox.stats()["orders_by_key"]
        assert len(keys) == 6
    clock.advance(1)
    async with restarted() as (sandbox, client):
        after = [sandbox.ledger.batch(number, clock.monotonic()) for number in ids]
        # Wall time in a file is not as exact as a difference of two numbers.
        assert [one.placed for one in after] == pytest.approx([one.placed for one in before], abs=1e-3)
        assert [(one.batch_id, one.name, one.created, one.outcomes) for one in after] == [
            (one.batch_id, one.name, one.created, one.outcomes) for one in before
        ]
        assert [list(one.files) for one in after[0].issued] == [[f".{name}" for name in formats]] * 3
        assert sandbox.stats()["orders_by_key"] == keys
        revealed = sandbox.ledger.revealed(clock.monotonic() + 60)
        assert [(one.device_id, one.serial_number) for one in revealed] == devices
        clock.advance(1)
        statuses = [(await client.get(f"/api/v1/batches/{number}")).json()["status"] for number in ids]
        assert statuses == ["READY_FOR_DOWNLOAD", "REJECTED", "FAILED"]


async def test_logins_that_can_end_stay_as_they_were(restarted: Restarted, clock: FakeClock) -> None:
    async def refresh(client: httpx.AsyncClient, token: str) -> httpx.Response:
        return await client.post("/auth/refresh", content=token)

    async with restarted(rotate_refresh=True) as (_, client):
        clock.advance(1)
        stolen, good = [(await client.post("/auth/pwd", json=LOGIN)).json() for _ in range(2)]
        clock.advance(1)
        renewed = (await refresh(client, good["refreshToken"])).json()
        await refresh(client, stolen["refreshToken"])
    async with restarted(rotate_refresh=True) as (_, client):
        assert (await refresh(client, stolen["refreshToken"])).status_code == 401, "used before the restart"
        renewed = (await refresh(client, renewed["refreshToken"])).json()
    async with restarted(rotate_refresh=True) as (sandbox, client):
        assert (await refresh(client, renewed["refreshToken"])).status_code == 200
        assert (await refresh(client, renewed["refreshToken"])).status_code == 401, "that login has ended"
        ended = {"authorization": f"Bearer {renewed['accessToken']}"}
        assert (await client.get("/api/v1/devices", headers=ended)).status_code == 401
        sandbox.reset_tokens()
        restarted.token = ""
        assert (await client.get("/api/v1/devices")).status_code == 401
    async with restarted(rotate_refresh=True) as (_, client):
        assert (await client.get("/api/v1/devices")).status_code == 200
        assert (await client.get("/api/v1/devices", headers=ended)).status_code == 401


async def test_a_token_of_before_rotation_begins_a_login(restarted: Restarted) -> None:
    async with restarted() as (_, client):
        token = (await client.post("/auth/pwd", json=LOGIN)).json()["refreshToken"]
    async with restarted(rotate_refresh=True) as (_, client):
        assert (await client.post("/auth/refresh", content=token)).status_code == 200
        assert (await client.post("/auth/refresh", content=token)).status_code == 401


async def test_a_late_order_and_what_struck_are_kept(
    restarted: Restarted, device: dict[str, str], clock: FakeClock
) -> None:
    document = {"authorityId": 3, "batchName": "late", "profileParams": device}
    rule = FaultRule(route=f"PUT {CREATE}", fault=Fault.LATE_COMMIT, seconds=5)
    async with restarted(faults=(rule,)) as (_, client):
        for _ in range(2):
            with pytest.raises(httpx.HTTPError):
                await client.put(CREATE, json=document)
            clock.advance(3)
        await client.get("/status")
    async with restarted() as (sandbox, client):
        clock.advance(60)
        await client.get("/status")
        stats = sandbox.stats()
        assert stats["orders_by_name"] == {"late": 1}, "the one that had not run yet has spent nothing"
        assert (stats["faults"], stats["late_commits"]) == ({"late-commit": 2}, 1)


async def test_a_hold_that_was_ended_is_off_the_list(restarted: Restarted, device: dict[str, str]) -> None:
    document = {"authorityId": 3, "batchName": "certs", "profileParams": device}
    async with restarted(issue_delay=0) as (sandbox, client):
        await client.put(CREATE, json=document)
        (one,) = sandbox.ledger.revealed(sandbox.clock.monotonic())
        for reason in (6, 8):
            revocation = {"serialNumber": one.serial_number, "reasonCode": reason}
            assert (await client.post("/api/v1/certificates/3/revoke", json=revocation)).status_code == 200
    async with restarted() as (sandbox, _):
        assert sandbox.ledger.revocations == {}
        assert sandbox.ledger.crl_number == 3


async def test_what_cannot_be_written_is_not_answered_and_not_forgotten(
    restarted: Restarted, device: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    document = {"authorityId": 3, "batchName": "certs", "profileParams": device}
    async with restarted(issue_delay=0) as (sandbox, client):
        sandbox._store._database.execute("PRAGMA query_only = ON")  # type: ignore[attr-defined]
        assert (await client.put(CREATE, json=document)).status_code == 500
        assert (await client.get("/api/v1/batches/24")).status_code == 500, "nobody is told of it before it is kept"
        assert "readonly" in caplog.text
        sandbox._store._database.execute("PRAGMA query_only = OFF")  # type: ignore[attr-defined]
        assert (await client.get("/api/v1/batches/24")).status_code == 200
    async with restarted() as (_, client):
        assert (await client.get("/api/v1/batches/24")).json()["status"] == "READY_FOR_DOWNLOAD"


async def test_fewer_bought_than_ordered_leaves_nothing(restarted: Restarted, device: dict[str, str]) -> None:
    document = {"authorityId": 3, "batchName": "certs", "profileParams": device}
    async with restarted() as (_, client):
        for _ in range(2):
            assert (await client.put(CREATE, json=document)).status_code == 201
    async with restarted(balance=1) as (_, client):
        assert (await client.get("/api/v1/authorities/3/balanceavailable")).json() == 0
        assert (await client.put(CREATE, json=document)).status_code == 400


async def test_an_order_outlives_a_clock_that_was_set_back(
    file: Path, restarted: Restarted, device: dict[str, str]
) -> None:
    document = {"authorityId": 3, "batchName": "certs", "profileParams": device}
    async with restarted() as (_, client):
        assert (await client.put(CREATE, json=document)).status_code == 201
    with closing(Sandbox(SandboxConfig(state=file, clock_skew=-86_400))) as sandbox:
        assert sandbox.ledger.batch(24, sandbox.clock.monotonic()).name == "certs"


async def test_in_memory_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: dict[str, str]
) -> None:
    monkeypatch.chdir(tmp_path)
    sandbox = Sandbox(SandboxConfig(issue_delay=0))
    await sandbox.create(3, "certs", device)
    await sandbox.flush()
    sandbox.close()
    assert list(tmp_path.iterdir()) == []
