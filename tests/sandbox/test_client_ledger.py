"""What is known of a bulk run after its ledger is lost, and what the service has that no device owns."""

import json
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path

import attrs
import pytest
from cryptography import x509

from sectigo_async import Secret, SectigoClient
from sectigo_async.errors import BatchNotReady, InvalidArgumentError, LedgerDamagedError
from sectigo_async.issuance import (
    DeviceState,
    EventKind,
    Issuance,
    Keys,
    LineProblem,
    Options,
    Rebuilt,
    Renewals,
    Run,
    SqliteLedger,
    audit_ledger,
    make_plan,
    read_devices,
    read_ledger,
    rebuild_ledger,
)
from sectigo_async.models import OrderState
from sectigo_async.pki import generate_key, key_pem
from sectigo_async.sandbox import Fault, FaultRule, Sandbox, SandboxConfig, SandboxServer

QUICK = SandboxConfig(issue_delay=0.1, balance=500)
LIST = b"common_name,serialNumber\n" + b"".join(b"gw%d.example.com,SN-%04d\n" % (one, one) for one in range(6))
CREATE = "PUT /api/v1/batches/createSingleCertBatch"
UPLOAD = "POST /api/v1/batches/upload"
S = DeviceState


@pytest.fixture
async def sandbox() -> Sandbox:
    return Sandbox(QUICK)


@pytest.fixture
async def client(sandbox: Sandbox) -> AsyncIterator[SectigoClient]:
    async with (
        SandboxServer(sandbox) as server,
        SectigoClient(username=QUICK.username, password=QUICK.password, endpoint=server.url) as client,
    ):
        yield client


def run_of(client: SectigoClient, keys: Keys) -> Run:
    return Run(endpoint=client.config.endpoint, username="demo", profile_id=117, keys=keys)


async def issue(
    client: SectigoClient,
    directory: Path,
    *,
    keys: Keys = Keys.LOCAL,
    data: bytes = LIST,
    stop_at: EventKind | None = None,
    batch_size: int = 3,
    resubmit: bool = False,
) -> Issuance:
    """Run a list to the end, or cut it short at the first event of a kind."""
    async with SqliteLedger.open(directory, run_of(client, keys)) as ledger:
        plan = await make_plan(client, ledger, directory, read_devices(data))
        settle = 0 if resubmit else 0.3
        options = Options(batch_size=batch_size, settle=settle, at_once=1, resubmit=resubmit)
        issuance = Issuance(client, ledger, directory, plan, options=options)
        async with aclosing(issuance.run()) as events:
            async for event in events:
                if event.kind is stop_at:
                    break
        return issuance


async def rebuild(
    client: SectigoClient,
    directory: Path,
    *,
    keys: Keys = Keys.LOCAL,
    data: bytes = LIST,
    after: int | None = None,
) -> Rebuilt:
    async with SqliteLedger.open(directory, run_of(client, keys)) as ledger:
        return await rebuild_ledger(client, ledger, directory, read_devices(data), after=after)


async def states(directory: Path) -> dict[str, DeviceState]:
    return {entry.device.name: entry.state for entry in (await read_ledger(directory)).entries}


def lose_ledger(directory: Path) -> None:
    shutil.rmtree(directory / ".sectigo-async")


async def ready(client: SectigoClient, sandbox: Sandbox) -> None:
    for batch in await client.batches.scan(after=0):
        await client.batches.wait(batch.batch_id)
    assert sandbox.stats()["orders"]


@pytest.mark.parametrize("keys", list(Keys))
async def test_a_lost_ledger_knows_again_what_is_saved(
    client: SectigoClient, sandbox: Sandbox, tmp_path: Path, keys: Keys
) -> None:
    await issue(client, tmp_path, keys=keys)
    before = {one.device.name: one for one in (await read_ledger(tmp_path)).entries}
    ordered = sandbox.ledger.ordered()
    lose_ledger(tmp_path)

    rebuilt = await rebuild(client, tmp_path, keys=keys, data=LIST + b"new.example.com,SN-0009\n")

    assert (dict(rebuilt.states), rebuilt.untouched, rebuilt.problems) == ({S.DONE: 6}, 1, ())
    for entry in (await read_ledger(tmp_path)).entries:
        now = attrs.evolve(entry, updated=before[entry.device.name].updated, order_id="")
        assert now == attrs.evolve(before[entry.device.name], order_id="")
    again = await issue(client, tmp_path, keys=keys)
    assert (again.counts[S.DONE], sandbox.ledger.ordered()) == (6, ordered)


@pytest.mark.parametrize("keys", list(Keys))
async def test_what_was_ordered_and_not_saved_is_found_at_the_service(
    client: SectigoClient, sandbox: Sandbox, tmp_path: Path, keys: Keys
) -> None:
    await issue(client, tmp_path, keys=keys, stop_at=EventKind.ORDERED, batch_size=4)
    begun = sandbox.ledger.ordered()
    lose_ledger(tmp_path)
    await ready(client, sandbox)

    with pytest.raises(InvalidArgumentError, match=r"may have been ordered, the first is gw0\.example\.com"):
        await rebuild(client, tmp_path, keys=keys)
    assert await states(tmp_path) == {}
    rebuilt = await rebuild(client, tmp_path, keys=keys, after=0)

    assert dict(rebuilt.states) == {S.ORDERED: begun}
    assert rebuilt.untouched == 6 - begun
    finished = await issue(client, tmp_path, keys=keys)
    assert finished.counts[S.DONE] == sandbox.ledger.ordered() == 6
    assert await audit_ledger(client, tmp_path) == ()


def forget(directory: Path) -> None:
    """Leave of the devices only what was made before their orders, and no ledger."""
    lose_ledger(directory)
    for path in directory.rglob("*"):
        is_key = path.name == "privkey.pem" and not (path.parent / "bundle.p12").exists()
        if path.is_file() and not is_key and path.name != "bundle.p12.password":
            path.unlink()


async def test_devices_of_one_name_are_told_apart(client: SectigoClient, sandbox: Sandbox, tmp_path: Path) -> None:
    """By their keys; by their passwords where the service makes the keys."""
    data = b"id,common_name,serialNumber\n" + b"".join(b"%d,gw.example.com,SN-0001\n" % one for one in range(4))
    for keys in Keys:
        directory = tmp_path / keys.value
        await issue(client, directory, keys=keys, data=data)
        before = {one.device.name: one.batch_id for one in (await read_ledger(directory)).entries}
        forget(directory)

        rebuilt = await rebuild(client, directory, keys=keys, data=data, after=0)

        assert dict(rebuilt.states) == {S.ORDERED: 4}
        assert {one.device.name: one.batch_id for one in (await read_ledger(directory)).entries} == before
    assert sandbox.ledger.ordered() == 8


@pytest.mark.parametrize("keys", list(Keys))
async def test_what_is_not_found_stays_unknown_until_a_person_decides(
    client: SectigoClient, tmp_path: Path, keys: Keys
) -> None:
    await issue(client, tmp_path / "elsewhere", keys=keys, data=LIST.replace(b"gw", b"other"))
    known = await read_ledger(tmp_path / "elsewhere")
    here = tmp_path / "here"
    begun = here / "gw0.example.com"
    shutil.copytree(tmp_path / "elsewhere" / "other0.example.com", begun)
    if keys is Keys.LOCAL:
        (begun / "privkey.pem").write_bytes(key_pem(generate_key()))
    forget_all = [path for path in begun.iterdir() if path.name not in {"privkey.pem", "bundle.p12.password"}]
    for path in forget_all:
        path.unlink()

    after = max(order.batch_id or 0 for order in known.orders)
    rebuilt = await rebuild(client, here, keys=keys, after=after)

    assert (dict(rebuilt.states), rebuilt.untouched) == ({S.UNKNOWN: 1}, 5)
    await issue(client, here, keys=keys, stop_at=EventKind.SAVED)
    async with SqliteLedger.open(here, run_of(client, keys)) as ledger:
        (result,) = await client.batches.under(ledger).reconcile(settle=0.3)
        assert result.order.state is OrderState.UNKNOWN, "where to look from, a person said: that proves nothing"
        await client.batches.under(ledger).decide(result.order, None)
    assert (await states(here))["gw0.example.com"] is S.PLANNED


async def test_a_batch_that_is_not_ready_is_waited_for(tmp_path: Path) -> None:
    slow = Sandbox(SandboxConfig(issue_delay=3600))
    async with (
        SandboxServer(slow) as server,
        SectigoClient(username=QUICK.username, password=QUICK.password, endpoint=server.url) as client,
    ):
        await issue(client, tmp_path, stop_at=EventKind.ORDERED)
        lose_ledger(tmp_path)

        with pytest.raises(BatchNotReady):
            await rebuild(client, tmp_path, after=0)

    assert await states(tmp_path) == {}


Spoil = Callable[[Path], object]


def edited(**values: object) -> Spoil:
    def edit(folder: Path) -> None:
        document = json.loads((folder / "issue.json").read_text())
        (folder / "issue.json").write_text(json.dumps(document | values))

    return edit


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: (folder / "issue.json").write_text("[" * 100_000),
        lambda folder: (folder / "issue.json").write_text("[]"),
        lambda folder: (folder / "issue.json").write_bytes(b"\xff"),
        lambda folder: (folder / "issue.json").write_text(" " * 2_000_000),
        lambda folder: (folder / "cert.pem").write_text("junk"),
        lambda folder: (folder / "cert.pem").write_bytes((folder.parent / "gw1.example.com/cert.pem").read_bytes()),
        lambda folder: (folder / "cert.pem").unlink(),
        lambda folder: (folder / "privkey.pem").unlink(),
        lambda folder: (folder / "privkey.pem").write_text("junk"),
        edited(batch_id="7"),
        edited(batch_id=None),
        edited(profile_id=42),
        edited(endpoint="https://elsewhere.example.com"),
        edited(keys="server"),
        edited(keys="nonsense"),
        edited(common_name="gw9.example.com"),
        edited(dns_names=["gw9.example.com"]),
        edited(dns_names=[7]),
        edited(parameters={"serialNumber": "SN-0009"}),
        edited(parameters={"serialNumber": 7}),
    ],
)
async def test_a_folder_that_is_not_as_it_was_left_is_told_and_changes_nothing(
    client: SectigoClient, tmp_path: Path, spoil: Spoil
) -> None:
    await issue(client, tmp_path)
    lose_ledger(tmp_path)
    spoil(tmp_path / "gw0.example.com")

    rebuilt = await rebuild(client, tmp_path)

    (problem,) = rebuilt.problems
    assert problem.line == 2
    assert "gw0.example.com" in problem.message
    assert await states(tmp_path) == {}


async def test_what_is_wrong_with_a_certificate_is_found_anew(client: SectigoClient, tmp_path: Path) -> None:
    await issue(client, tmp_path)
    lose_ledger(tmp_path)
    (tmp_path / "gw0.example.com" / "privkey.pem").write_bytes(key_pem(generate_key()))

    rebuilt = await rebuild(client, tmp_path)

    assert dict(rebuilt.states) == {S.DONE: 5, S.VERIFY_FAILED: 1}
    (bad,) = [entry for entry in (await read_ledger(tmp_path)).entries if entry.error]
    assert (bad.device.name, bad.error) == ("gw0.example.com", "its certificate is for another key")


async def test_a_ledger_that_knows_some_learns_the_others(client: SectigoClient, tmp_path: Path) -> None:
    await issue(client, tmp_path / "a", data=LIST[: LIST.index(b"gw3")])
    await issue(client, tmp_path / "b", data=LIST[: LIST.index(b"gw0")] + LIST[LIST.index(b"gw3") :])
    for folder in (tmp_path / "b").glob("gw*"):
        folder.rename(tmp_path / "a" / folder.name)

    refused = await issue_problems(client, tmp_path / "a")
    rebuilt = await rebuild(client, tmp_path / "a")
    again = await rebuild(client, tmp_path / "a")

    assert [problem.line for problem in refused] == [5, 6, 7]
    assert "sectigo-async ledger rebuild" in refused[0].message
    assert (dict(rebuilt.states), dict(again.states)) == ({S.DONE: 3}, {})
    assert await issue_problems(client, tmp_path / "a") == ()


async def issue_problems(client: SectigoClient, directory: Path) -> tuple[LineProblem, ...]:
    async with SqliteLedger.open(directory, run_of(client, Keys.LOCAL)) as ledger:
        return (await make_plan(client, ledger, directory, read_devices(LIST))).problems


async def test_a_key_that_the_ledger_does_not_know_of_is_not_ordered_for(
    client: SectigoClient, sandbox: Sandbox, tmp_path: Path
) -> None:
    await issue(client, tmp_path, stop_at=EventKind.ORDERED, batch_size=6)
    lose_ledger(tmp_path)

    problems = await issue_problems(client, tmp_path)

    assert [problem.line for problem in problems] == [2, 3, 4, 5, 6, 7]
    assert sandbox.ledger.ordered() == 6


def strike(sandbox: Sandbox, route: str, fault: Fault) -> None:
    sandbox.faults.replace([FaultRule(route=route, fault=fault, times=1)])


@pytest.mark.parametrize("keys", list(Keys))
async def test_an_order_that_ran_after_all_is_found_with_its_devices(
    client: SectigoClient, sandbox: Sandbox, tmp_path: Path, keys: Keys
) -> None:
    data = LIST[: LIST.index(b"gw1")]
    strike(sandbox, CREATE if keys is Keys.SERVER else UPLOAD, Fault.LOST_REPLY)
    await issue(client, tmp_path, keys=keys, data=data, stop_at=EventKind.OUTCOME_UNKNOWN)
    await ready(client, sandbox)
    (unknown,) = await audit_ledger(client, tmp_path)
    assert (unknown.is_paid_twice, unknown.devices) == (False, ("gw0.example.com",))
    async with SqliteLedger.open(tmp_path, run_of(client, keys)) as ledger:
        (order,) = await ledger.orders()
        await client.batches.under(ledger).decide(order, None)
    await issue(client, tmp_path, keys=keys, data=data)
    await ready(client, sandbox)

    (found,) = await audit_ledger(client, tmp_path)

    assert found.is_paid_twice
    assert (found.batch.batch_id, found.devices) == (unknown.batch.batch_id, ("gw0.example.com",))
    assert sandbox.ledger.ordered() == 2


async def test_a_copy_of_a_run_that_ordered_the_same_again_is_found(
    client: SectigoClient, sandbox: Sandbox, tmp_path: Path
) -> None:
    await issue(client, tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    forget(tmp_path / "two")
    highest = max(batch.batch_id for batch in await client.batches.scan(after=0))
    await rebuild(client, tmp_path / "two", after=highest)
    async with SqliteLedger.open(tmp_path / "two", run_of(client, Keys.LOCAL)) as ledger:
        for order in await ledger.orders():
            await client.batches.under(ledger).decide(order, None)
    await issue(client, tmp_path / "two")
    await ready(client, sandbox)

    found = await audit_ledger(client, tmp_path / "one")

    assert all(one.is_paid_twice for one in found)
    assert {name for one in found for name in one.devices} == {f"gw{number}.example.com" for number in range(6)}
    assert sandbox.ledger.ordered() == 12


async def test_what_others_ordered_is_told_apart(client: SectigoClient, sandbox: Sandbox, tmp_path: Path) -> None:
    """An order of this machine's journal, and one of a renewal, are owned; one of somebody else is listed."""
    await issue(client, tmp_path)
    await client.batches.create(
        authority_id=117,
        params={"commonName": "mine.example.com", "serialNumber": "SN-0001", "dNSName": "mine.example.com"}
        | {"pkcs12Password": Secret("a-password-for-it")},
    )
    place = Renewals(tmp_path).place(117, Keys.LOCAL)
    await issue(client, place, data=LIST.replace(b"gw", b"renewed"))
    before = sandbox.ledger.ordered()
    async with SectigoClient(
        username=QUICK.username, password=QUICK.password, endpoint=client.config.endpoint
    ) as other:
        await issue(other, tmp_path.with_name("other"), data=LIST.replace(b"gw", b"foreign"), batch_size=6)

    found = await audit_ledger(client, tmp_path)

    assert [(one.batch.size, one.order, one.is_paid_twice) for one in found] == [(6, None, False)]
    assert "no order of this run" in found[0].reason
    assert before == 13


async def test_a_damaged_ledger_is_kept_when_it_is_made_anew(client: SectigoClient, tmp_path: Path) -> None:
    await issue(client, tmp_path)
    path = tmp_path / ".sectigo-async" / "ledger.sqlite3"
    damaged = path.read_bytes()[: len(path.read_bytes()) // 8192 * 4096]
    path.write_bytes(damaged)
    with pytest.raises(LedgerDamagedError, match="damaged") as caught:
        await issue(client, tmp_path)
    assert "ledger rebuild" in caught.value.hint

    kept = await SqliteLedger.set_aside(tmp_path)

    assert (kept / "ledger.sqlite3").read_bytes() == damaged
    assert kept.stat().st_mode & 0o777 == 0o700
    assert dict((await rebuild(client, tmp_path)).states) == {S.DONE: 6}


def begin_again(folder: Path) -> None:
    """Leave of a device only what was made before its order."""
    for path in folder.iterdir():
        if path.name not in {"privkey.pem", "bundle.p12.password"}:
            path.unlink()


async def test_a_device_is_found_in_a_batch_that_others_are_known_from(
    client: SectigoClient, sandbox: Sandbox, tmp_path: Path
) -> None:
    """As after kill -9 in the midst of saving a batch, and the loss of the ledger."""
    await issue(client, tmp_path, batch_size=6)
    lose_ledger(tmp_path)
    begin_again(tmp_path / "gw1.example.com")

    rebuilt = await rebuild(client, tmp_path, after=0)

    assert dict(rebuilt.states) == {S.DONE: 5, S.ORDERED: 1}
    again = await issue(client, tmp_path)
    assert (again.counts[S.DONE], sandbox.ledger.ordered()) == (6, 6)


async def test_a_rebuild_with_half_of_the_list_is_completed_by_another(
    client: SectigoClient, sandbox: Sandbox, tmp_path: Path
) -> None:
    await issue(client, tmp_path, batch_size=6)
    lose_ledger(tmp_path)

    first = await rebuild(client, tmp_path, data=LIST[: LIST.index(b"gw3")])
    second = await rebuild(client, tmp_path)

    assert (dict(first.states), dict(second.states), second.known) == ({S.DONE: 3}, {S.DONE: 3}, 3)
    assert (await issue(client, tmp_path)).counts[S.DONE] == sandbox.ledger.ordered() == 6


@pytest.mark.parametrize("keys", list(Keys))
async def test_a_look_that_began_too_late_can_be_made_again(
    client: SectigoClient, sandbox: Sandbox, tmp_path: Path, keys: Keys
) -> None:
    await issue(client, tmp_path, keys=keys, batch_size=6)
    forget(tmp_path)
    highest = max(batch.batch_id for batch in await client.batches.scan(after=0))
    late = await rebuild(client, tmp_path, keys=keys, after=highest)
    assert dict(late.states) == {S.UNKNOWN: 6}

    again = await rebuild(client, tmp_path, keys=keys, after=0)

    assert dict(again.states) == {S.ORDERED: 6}
    assert (await issue(client, tmp_path, keys=keys)).counts[S.DONE] == sandbox.ledger.ordered() == 6


async def test_an_older_ledger_that_was_put_back_orders_nothing_again(
    client: SectigoClient, sandbox: Sandbox, tmp_path: Path
) -> None:
    await issue(client, tmp_path)
    lose_ledger(tmp_path)
    async with SqliteLedger.open(tmp_path, run_of(client, Keys.LOCAL)) as ledger:
        await ledger.amend(new=read_devices(LIST).devices)

    problems = await issue_problems(client, tmp_path)
    rebuilt = await rebuild(client, tmp_path)

    assert len(problems) == 6
    assert "it is older than that" in problems[0].message
    assert dict(rebuilt.states) == {S.DONE: 6}
    assert (await issue(client, tmp_path)).counts[S.DONE] == sandbox.ledger.ordered() == 6


@pytest.mark.parametrize("keys", list(Keys))
async def test_what_did_not_pass_its_checks_is_judged_again(
    client: SectigoClient, sandbox: Sandbox, tmp_path: Path, keys: Keys
) -> None:
    """Here a key, or a password, is put back that was away when the certificate came."""
    name = "privkey.pem" if keys is Keys.LOCAL else "bundle.p12.password"
    sandbox.faults.replace([FaultRule(route="GET /api/v1/batches/{id}/download", fault=Fault.ERROR_BEFORE)])
    await issue(client, tmp_path, keys=keys, stop_at=EventKind.TROUBLE)
    place = tmp_path / "gw0.example.com" / name
    place.rename(tmp_path / "away")
    sandbox.faults.replace([])
    first = await issue(client, tmp_path, keys=keys)
    assert first.counts[S.VERIFY_FAILED] == 1
    (bad,) = [entry for entry in (await read_ledger(tmp_path)).entries if entry.state is S.VERIFY_FAILED]
    assert "put it back" in bad.error or "password" in bad.error
    (tmp_path / "away").rename(place)

    again = await issue(client, tmp_path, keys=keys)

    assert again.counts[S.DONE] == sandbox.ledger.ordered() == 6
    assert (tmp_path / "gw0.example.com" / "cert.pem").exists()


async def test_an_id_that_is_not_older_than_the_run_is_refused(client: SectigoClient, tmp_path: Path) -> None:
    await issue(client, tmp_path)
    highest = max(batch.batch_id for batch in await client.batches.scan(after=0))
    with pytest.raises(InvalidArgumentError, match="of this run is older"):
        await audit_ledger(client, tmp_path, after=highest)
    lose_ledger(tmp_path)

    with pytest.raises(InvalidArgumentError, match="of this run is older"):
        await rebuild(client, tmp_path, after=highest)


async def test_a_failure_of_an_older_ledger_is_not_ordered_again(
    client: SectigoClient, sandbox: Sandbox, tmp_path: Path
) -> None:
    """It was ordered since: its certificate lies there."""
    await issue(client, tmp_path)
    lose_ledger(tmp_path)
    async with SqliteLedger.open(tmp_path, run_of(client, Keys.LOCAL)) as ledger:
        devices = read_devices(LIST).devices
        await ledger.amend(new=devices)
        await ledger.refuse({devices[0].key: "refused"})
        plan = await make_plan(client, ledger, tmp_path, read_devices(LIST), retry_failed=True)
        assert [problem.line for problem in plan.problems] == [2, 3, 4, 5, 6, 7]

    rebuilt = await rebuild(client, tmp_path)

    assert dict(rebuilt.states) == {S.DONE: 6}
    assert sandbox.ledger.ordered() == 6


async def test_who_left_the_list_is_not_ordered_for(client: SectigoClient, sandbox: Sandbox, tmp_path: Path) -> None:
    """Even where an order for it is taken for not placed, and the others of the list are ordered."""
    sandbox.faults.replace([FaultRule(route=UPLOAD, fault=Fault.CUT_BEFORE, times=1)])
    await issue(client, tmp_path, data=LIST[: LIST.index(b"gw1")], stop_at=EventKind.OUTCOME_UNKNOWN)
    others = LIST[: LIST.index(b"gw0")] + LIST[LIST.index(b"gw1") :]

    await issue(client, tmp_path, data=others, resubmit=True)

    assert (await states(tmp_path))["gw0.example.com"] is S.PLANNED
    assert sandbox.ledger.ordered() == 5


async def test_two_of_one_name_keep_a_certificate_each_while_their_keys_are_away(
    client: SectigoClient, sandbox: Sandbox, tmp_path: Path
) -> None:
    data = b"id,common_name,serialNumber\n" + b"".join(b"%d,gw.example.com,SN-0001\n" % one for one in range(2))
    sandbox.faults.replace([FaultRule(route="GET /api/v1/batches/{id}/download", fault=Fault.ERROR_BEFORE)])
    await issue(client, tmp_path, data=data, stop_at=EventKind.TROUBLE)
    for name in ("0", "1"):
        (tmp_path / name / "privkey.pem").rename(tmp_path / f"away-{name}")
    sandbox.faults.replace([])
    assert (await issue(client, tmp_path, data=data)).counts[S.VERIFY_FAILED] == 2

    found = {(tmp_path / name / "cert.pem").read_bytes() for name in ("0", "1")}

    assert len(found) == 2


async def test_a_root_that_is_left_out_forgives_nothing(client: SectigoClient, tmp_path: Path) -> None:
    other = x509.load_pem_x509_certificate(Sandbox(QUICK).ca_pem())

    async def run(trust: list[x509.Certificate] | None) -> Issuance:
        async with SqliteLedger.open(tmp_path, run_of(client, Keys.LOCAL)) as ledger:
            plan = await make_plan(client, ledger, tmp_path, read_devices(LIST))
            issuance = Issuance(client, ledger, tmp_path, plan, trust=trust)
            async for _ in issuance.run():
                pass
            return issuance

    assert (await run([other])).counts[S.VERIFY_FAILED] == 6

    assert (await run(None)).counts[S.VERIFY_FAILED] == 6
    right = x509.load_pem_x509_certificate((await client.request("GET", "/_sandbox/ca.pem")).body)
    assert (await run([right])).counts[S.DONE] == 6
