"""What a bulk run is going to do, and all that speaks against it, is told before anything is ordered."""

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from sectigo_async import SectigoClient
from sectigo_async.errors import InvalidArgumentError, SectigoError
from sectigo_async.issuance import (
    Device,
    DeviceState,
    Issuance,
    Keys,
    Outcome,
    Plan,
    Run,
    SqliteLedger,
    make_plan,
    read_devices,
)
from sectigo_async.models import Order, OrderKind
from sectigo_async.sandbox import Sandbox, SandboxConfig, SandboxTransport
from sectigo_async.testing import FakeClock

Csr = Callable[..., bytes]


@pytest.fixture
async def sdk(sandbox: Sandbox, clock: FakeClock, config: SandboxConfig) -> AsyncIterator[SectigoClient]:
    transport = SandboxTransport(sandbox)
    async with SectigoClient(
        endpoint="http://127.0.0.1",
        transport=transport,
        clock=clock,
        username=config.username,
        password=config.password,
    ) as client:
        yield client


def run_of(sdk: SectigoClient, *, keys: Keys = Keys.LOCAL, profile_id: int = 117) -> Run:
    return Run(endpoint=sdk.config.endpoint, username="demo", profile_id=profile_id, keys=keys)


async def plan(
    sdk: SectigoClient,
    directory: Path,
    data: str,
    *,
    keys: Keys = Keys.LOCAL,
    profile_id: int = 117,
    retry_failed: bool = False,
) -> Plan:
    async with SqliteLedger.open(directory, run_of(sdk, keys=keys, profile_id=profile_id)) as ledger:
        before = await ledger.entries()
        listed = read_devices(data.encode())
        made = await make_plan(sdk, ledger, directory, listed, base=directory, retry_failed=retry_failed)
        assert await ledger.entries() == before, "a plan changes nothing"
        return made


def told(plan: Plan) -> dict[int, str]:
    found: dict[int, str] = {}
    for problem in plan.problems:
        found[problem.line] = (
            f"{found[problem.line]} | {problem.message}" if problem.line in found else problem.message
        )
    return found


async def stand(sdk: SectigoClient, directory: Path, **states: DeviceState) -> None:
    """Have devices stand in the ledger, each in its state, as if a run had brought them there."""
    async with SqliteLedger.open(directory, run_of(sdk)) as ledger:
        devices = read_devices(
            "\n".join(["common_name,serialNumber", *(f"{name}.example.com,SN-0001" for name in states)]).encode()
        ).devices
        await ledger.amend(new=devices)
        for number, (device, state) in enumerate(zip(devices, states.values(), strict=True), start=50):
            if state is DeviceState.PLANNED:
                continue
            order = Order(kind=OrderKind.UPLOAD, profile_id=117, sent_at=datetime.now(UTC))
            await ledger.intend(order, [device.key])
            if state is DeviceState.UNKNOWN:
                continue
            await ledger.write(order.placed(number))
            if state is not DeviceState.ORDERED:
                await ledger.finish({device.key: Outcome(state=state)})


async def test_everything_that_is_wrong_is_told_at_once(
    sdk: SectigoClient, sandbox: Sandbox, tmp_path: Path, make_csr: Csr
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    for name, content in {
        "other.csr": make_csr("other.example.com"),
        "one.csr": make_csr("one.example.com", key=key),
        "same-key.csr": make_csr("two.example.com", key=key),
        "two.csr": make_csr("a.example.com") + make_csr("b.example.com"),
        "junk.csr": b"junk",
        "good.csr": make_csr("good.example.com"),
    }.items():
        (tmp_path / name).write_bytes(content)
    await stand(sdk, tmp_path, done=DeviceState.DONE, paid=DeviceState.ORDERED)
    (tmp_path / "before.example.com").mkdir()
    (tmp_path / "before.example.com" / "issue.json").write_text("{}")
    lines = {
        2: ("fine.example.com", "SN-0001", "", "", "", ""),
        3: ("bad.example.com", "lower case", "", "", "", ""),
        4: ("no.example.com", "", "", "", "", ""),
        5: ("unknown.example.com", "SN-0001", "blue", "", "", ""),
        6: ("password.example.com", "SN-0001", "", "canary-11", "", ""),
        7: ("type.example.com", "SN-0001", "", "", "gateway", ""),
        8: ("missing.example.com", "", "", "", "", "no.csr"),
        9: ("wrong.example.com", "", "", "", "", "other.csr"),
        10: ("", "", "", "", "", "one.csr"),
        11: ("", "", "", "", "", "same-key.csr"),
        12: ("", "", "", "", "", "two.csr"),
        13: ("", "", "", "", "", "junk.csr"),
        14: ("good.example.com", "SN-0001", "", "", "", "good.csr"),
        15: ("done.example.com", "SN-9999", "", "", "", ""),
        16: ("paid.example.com", "SN-9999", "", "", "", ""),
        17: ("before.example.com", "SN-0001", "", "", "", ""),
        18: ("not a dns name", "SN-0001", "", "", "", ""),
        19: ("fine.example.com", "SN-0001", "", "", "", ""),
        20: ("last.example.com", "SN-0001", "", "", "", ""),
    }
    header = "common_name,serialNumber,colour,pkcs12Password,deviceType,csr"

    made = await plan(sdk, tmp_path, "\n".join([header, *(",".join(line) for line in lines.values())]))

    expected = {
        3: "serialNumber: must be 4 to 32",
        4: "serialNumber: is required",
        5: "colour: cannot stand in a CSR",
        6: "pkcs12Password: is made here",
        7: "deviceType: cannot stand in a CSR",
        8: "cannot read",
        9: "is for 'other.example.com'",
        11: "same-key.csr stands in line 10 already",
        12: "holds 2 requests",
        13: "junk.csr: there is no certificate signing request",
        14: "leave the other columns empty",
        15: "done.example.com is done already, with other names or parameters",
        16: "paid.example.com is ordered already",
        17: "the ledger does not know what lies in",
        18: "is not a DNS name",
        19: "the same device as that of line 2",
    }
    found = told(made)
    assert set(found) == set(expected)
    for line, words in expected.items():
        assert words in found[line], (line, found[line])
    assert "canary" not in str(found)
    rest = made.without_problems()
    assert rest.problems == ()
    assert [device.line for device in rest.devices] == [2, 10, 20]
    assert sandbox.stats()["orders"] == 0
    with pytest.raises(InvalidArgumentError, match=r"16 problems in the list; the first: line 3: "):
        Issuance(sdk, None, tmp_path, made)  # type: ignore[arg-type]


async def test_with_keys_of_the_service_other_things_are_wrong(
    sdk: SectigoClient, tmp_path: Path, make_csr: Csr
) -> None:
    (tmp_path / "one.csr").write_bytes(make_csr("one.example.com"))
    lines = (
        "common_name,serialNumber,colour,pkcs12Password,deviceType,csr",
        "fine.example.com,SN-0001,,,gateway,",
        "colour.example.com,SN-0001,blue,,,",
        "type.example.com,SN-0001,,,toaster,",
        "password.example.com,SN-0001,,canary-11,,",
        "csr.example.com,,,,,one.csr",
        "missing.example.com,,,,,",
    )

    made = await plan(sdk, tmp_path, "\n".join(lines), keys=Keys.SERVER)

    found = told(made)
    assert set(found) == {3, 4, 5, 6, 7}
    assert "colour: the profile takes no such parameter" in found[3]
    assert "deviceType: must be one of" in found[4]
    assert "pkcs12Password: is made here" in found[5]
    assert "goes with keys made here" in found[6]
    assert "serialNumber: is required" in found[7]
    assert "pkcs12Password" not in found[7]
    assert "canary" not in str(found)
    assert made.password_rule is not None


@pytest.mark.parametrize("profile_id", [85, 117])
async def test_a_request_of_ones_own_says_itself_what_the_profile_asks_for(
    sdk: SectigoClient, tmp_path: Path, make_csr: Csr, profile_id: int
) -> None:
    (tmp_path / "one.csr").write_bytes(make_csr("one.example.com"))

    made = await plan(sdk, tmp_path, "csr\none.csr\n", profile_id=profile_id)

    assert made.problems == ()
    (device,) = made.devices
    assert (device.name, device.common_name, device.key) == ("one.example.com",) * 3
    assert device.dns_names == ("one.example.com",)


async def test_a_request_that_breaks_the_profile_s_rule_for_names_is_told(
    sdk: SectigoClient, tmp_path: Path, make_csr: Csr
) -> None:
    (tmp_path / "one.csr").write_bytes(make_csr("x/y", sans=["xy.example.com"]))

    made = await plan(sdk, tmp_path, "csr\none.csr\n", profile_id=42)

    assert "commonName: must be a domain name" in told(made)[2]


async def test_a_list_that_grew_and_changed_is_an_amendment(sdk: SectigoClient, tmp_path: Path) -> None:
    await stand(
        sdk,
        tmp_path,
        planned=DeviceState.PLANNED,
        other=DeviceState.PLANNED,
        gone=DeviceState.PLANNED,
        failed=DeviceState.FAILED,
        mended=DeviceState.FAILED,
        unknown=DeviceState.UNKNOWN,
        ordered=DeviceState.ORDERED,
        done=DeviceState.DONE,
        bad=DeviceState.VERIFY_FAILED,
    )
    serials = {"mended": "SN-0002", "other": "SN-0002"}
    listed = ["new", "bad", "done", "failed", "mended", "ordered", "unknown", "planned", "other"]
    data = "common_name,serialNumber\n" + "".join(
        f"{name}.example.com,{serials.get(name, 'SN-0001')}\n" for name in listed
    )

    made = await plan(sdk, tmp_path, data)

    def names(devices: tuple[Device, ...]) -> list[str]:
        return [device.name.partition(".")[0] for device in devices]

    assert made.problems == ()
    assert names(made.devices) == ["new", "mended", "planned", "other"]
    assert names(made.changed) == ["mended", "other"]
    assert names(made.unknown) == ["unknown"]
    assert names(tuple(entry.device for entry in made.failed)) == ["failed"]
    assert (made.new, made.ordered, made.done, made.verify_failed, len(made.left_out)) == (1, 1, 1, 1, 1)
    assert names(tuple(entry.device for entry in made.gone)) == ["done"]
    assert made.balance == 1000
    again = await plan(sdk, tmp_path, data, retry_failed=True)
    assert names(again.devices) == ["new", "failed", "mended", "planned", "other"]
    assert (again.failed, names(again.changed)) == ((), ["mended", "other"])


@pytest.mark.parametrize(
    "state", [DeviceState.UNKNOWN, DeviceState.ORDERED, DeviceState.DONE, DeviceState.VERIFY_FAILED]
)
async def test_what_was_paid_for_cannot_be_changed(sdk: SectigoClient, tmp_path: Path, state: DeviceState) -> None:
    await stand(sdk, tmp_path, gw=state)
    for line in ("gw.example.com,SN-0002,", "gw.example.com,SN-0001,more.example.com"):
        made = await plan(sdk, tmp_path, f"common_name,serialNumber,dns_names\n{line}\n", retry_failed=True)

        assert f"gw.example.com is {state.value} already" in told(made)[2]
        assert "an id of its own" in told(made)[2]
        assert made.without_problems() == Plan(balance=1000, password_rule=made.password_rule)
    same = await plan(sdk, tmp_path, "common_name,serialNumber\n\n\n\ngw.example.com,SN-0001\n", retry_failed=True)
    assert (same.problems, same.devices) == ((), ())


async def test_a_profile_that_is_not_there_is_told(sdk: SectigoClient, tmp_path: Path) -> None:
    with pytest.raises(SectigoError, match="not found"):
        await plan(sdk, tmp_path, "common_name\na.example.com\n", profile_id=999)
