"""Bulk runs of the library against the simulator: each device gets one certificate, whatever happens between."""

import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from cryptography import x509

from sectigo_async import SectigoClient, files
from sectigo_async.files import make_directory
from sectigo_async.issuance import (
    Device,
    DeviceState,
    Event,
    EventKind,
    Issuance,
    Keys,
    Options,
    Outcome,
    Plan,
    Run,
    SqliteLedger,
    make_plan,
    read_devices,
    write_reports,
)
from sectigo_async.models import Order, OrderKind
from sectigo_async.pki import load_key
from sectigo_async.sandbox import Sandbox, SandboxConfig, SandboxServer

QUICK = SandboxConfig(issue_delay=0.2, balance=2000)


@pytest.fixture
async def sandbox() -> Sandbox:
    return Sandbox(QUICK)


@pytest.fixture
async def client(sandbox: Sandbox) -> AsyncIterator[SectigoClient]:
    async with SandboxServer(sandbox) as server, made_client(server.url) as client:
        yield client


def made_client(url: str) -> SectigoClient:
    return SectigoClient(username=QUICK.username, password=QUICK.password, endpoint=url)


def names(count: int) -> bytes:
    return "".join(["common_name\n", *(f"gw{number}.example.com\n" for number in range(count))]).encode()


async def issue(
    client: SectigoClient,
    directory: Path,
    data: bytes,
    *,
    keys: Keys = Keys.LOCAL,
    profile_id: int = 42,
    stop_at: EventKind | None = None,
    **options: object,
) -> tuple[Issuance, Plan, list[Event]]:
    """Run a list of devices to the end; or, as Ctrl-C twice does, cut it short at the first event of a kind."""
    run = Run(endpoint=client.config.endpoint, username="demo", profile_id=profile_id, keys=keys)
    async with SqliteLedger.open(directory, run) as ledger:
        retry_failed = bool(options.pop("retry_failed", False))
        plan = await make_plan(client, ledger, directory, read_devices(data), retry_failed=retry_failed)
        issuance = Issuance(client, ledger, directory, plan, options=Options(**options))  # type: ignore[arg-type]
        seen = []
        async with aclosing(issuance.run()) as events:
            async for event in events:
                seen.append(event)
                if event.kind is stop_at:
                    break
        return issuance, plan, seen


def done(issuance: Issuance) -> int:
    assert sum(issuance.counts.values()) == issuance.counts[DeviceState.DONE]
    return issuance.counts[DeviceState.DONE]


def certificate_in(folder: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate((folder / "cert.pem").read_bytes())


async def test_keys_made_here_get_a_certificate_each_in_few_orders(
    client: SectigoClient, sandbox: Sandbox, tmp_path: Path
) -> None:
    issuance, plan, _ = await issue(client, tmp_path, names(60))

    assert (done(issuance), plan.new, plan.balance) == (60, 60, QUICK.balance)
    # A pilot of 25, and then all that are left.
    assert (sandbox.stats()["orders"], sandbox.ledger.ordered()) == (2, 60)
    for number in range(60):
        folder = tmp_path / f"gw{number}.example.com"
        key = load_key((folder / "privkey.pem").read_bytes())
        assert certificate_in(folder).public_key() == key.public_key()
        assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
        assert folder.stat().st_mode & 0o777 == 0o700
        assert json.loads((folder / "issue.json").read_text())["common_name"] == folder.name
    assert set(sandbox.stats()["orders_by_key"].values()) == {1}


async def test_keys_made_by_the_service_come_with_their_passwords(
    client: SectigoClient,
    sandbox: Sandbox,
    tmp_path: Path,
    openssl: Callable[..., "CompletedProcess[str]"],
) -> None:
    data = b"id,CN,serialNumber\n" + b"".join(b"%d,gw.example.com,SN-%04d\n" % (one, one) for one in range(6))

    issuance, _, _ = await issue(client, tmp_path, data, keys=Keys.SERVER, profile_id=117)

    assert (done(issuance), sandbox.stats()["orders"]) == (6, 6)
    folder = tmp_path / "3"
    assert json.loads((folder / "issue.json").read_text())["parameters"] == {"serialNumber": "SN-0003"}
    checked = openssl(
        "pkcs12", "-in", f"{folder}/bundle.p12", "-passin", f"file:{folder}/bundle.p12.password", "-noout"
    )
    assert checked.returncode == 0, checked.stderr
    key = load_key((folder / "privkey.pem").read_bytes())
    assert certificate_in(folder).public_key() == key.public_key()


async def test_what_a_killed_run_left_half_made_is_swept_away_by_the_next(
    client: SectigoClient, tmp_path: Path
) -> None:
    archives = tmp_path / ".sectigo-async" / "archives"
    await issue(client, tmp_path, names(2), stop_at=EventKind.ORDERED)
    bad = Device(key="bad", name="bad", common_name="bad", line=9)
    order = Order(kind=OrderKind.UPLOAD, profile_id=42, sent_at=datetime.now(UTC)).placed(78)
    run = Run(endpoint=client.config.endpoint, username="demo", profile_id=42, keys=Keys.LOCAL)
    async with SqliteLedger.open(tmp_path, run) as ledger:
        await ledger.adopt(order, [bad], {"bad": Outcome(state=DeviceState.VERIFY_FAILED)})
    evidence = archives / "78.zip"
    folder = tmp_path / "gw1.example.com"
    left = [
        folder / ".privkey.pem.0123456789ab.tmp",
        folder / ".cert.pem.0123456789ab.tmp",
        archives / ".77.zip.0123456789ab.tmp",
        archives / "77.zip",
        tmp_path / ".results.csv.0123456789ab.tmp",
    ]
    make_directory(archives)
    others = [evidence, folder / "notes.tmp", tmp_path / ".privkey.pem.0123456789ab.tmp", archives / "notes.zip"]
    for path in (*left, *others):
        path.touch()

    issuance, _, _ = await issue(client, tmp_path, names(2))
    write_reports(tmp_path, [])

    assert issuance.counts[DeviceState.DONE] == 2
    assert [path for path in left if path.exists()] == []
    assert [path for path in others if not path.exists()] == []


@pytest.mark.parametrize("stop_at", [EventKind.ORDERED, EventKind.SAVED])
@pytest.mark.parametrize("keys", list(Keys))
async def test_a_run_that_is_cut_short_is_taken_up_where_it_stopped(
    client: SectigoClient, sandbox: Sandbox, tmp_path: Path, keys: Keys, stop_at: EventKind
) -> None:
    data = b"common_name,serialNumber\n" + b"".join(b"gw%d.example.com,SN-%04d\n" % (one, one) for one in range(8))
    more = {"keys": keys, "profile_id": 117, "settle": 0.5, "resubmit": True, "batch_size": 3}
    await issue(client, tmp_path, data, stop_at=stop_at, **more)  # type: ignore[arg-type]

    issuance, plan, _ = await issue(client, tmp_path, data, **more)  # type: ignore[arg-type]

    assert plan.new == 0
    assert done(issuance) == 8
    assert sandbox.ledger.ordered() == 8
    again, plan, events = await issue(client, tmp_path, data, **more)  # type: ignore[arg-type]
    assert (done(again), plan.devices, events) == (8, (), [])


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux flushes a file system at once")
async def test_the_files_of_a_batch_are_made_durable_together_before_they_are_needed(
    client: SectigoClient, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys are flushed before the order is sent, and all of it takes fewer flushes than there are devices."""
    flushes: list[int] = []
    syncfs, fsync = files._syncfs(), os.fsync
    assert syncfs is not None

    def flush_all(handle: int) -> int:
        keys = {path.parent for path in tmp_path.rglob("*privkey.pem*")}
        flushes.append(len(keys) if not sandbox.stats()["orders"] else -1)
        return syncfs(handle)

    def flush_one(handle: int) -> None:
        flushes.append(0)
        fsync(handle)

    monkeypatch.setattr(files, "_syncfs", lambda: flush_all)
    monkeypatch.setattr(os, "fsync", flush_one)

    issuance, _, _ = await issue(client, tmp_path, names(50), batch_size=50)

    assert done(issuance) == 50
    assert flushes.count(50) == 2, "their contents, and then their names"
    assert flushes.count(-1) == 2, "the same of the certificates"
    assert len(flushes) < 50
