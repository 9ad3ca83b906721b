"""How a renewed certificate takes the place of the one in use, wherever it is cut short."""

import asyncio
import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sectigo_async import SectigoClient
from sectigo_async.errors import FileError
from sectigo_async.issuance import (
    DeviceList,
    Installed,
    Issuance,
    Keys,
    Renewals,
    Run,
    SqliteLedger,
    make_plan,
    read_devices,
)
from sectigo_async.sandbox import Sandbox, SandboxConfig, SandboxServer

QUICK = SandboxConfig(issue_delay=0.1)


async def issue(client: SectigoClient, directory: Path, listed: DeviceList) -> None:
    run = Run(endpoint=client.config.endpoint, username="demo", profile_id=42, keys=Keys.LOCAL)
    async with SqliteLedger.open(directory, run) as ledger:
        plan = await make_plan(client, ledger, directory, listed)
        async for _ in Issuance(client, ledger, directory, plan).run():
            pass


@pytest.fixture(scope="module")
def issued(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A device with a certificate, and with a renewal that is ordered and saved, but not installed."""
    directory = tmp_path_factory.mktemp("issued")

    async def make() -> None:
        async with (
            SandboxServer(Sandbox(QUICK)) as server,
            SectigoClient(username="demo", password="demo-password", endpoint=server.url) as client,
        ):
            await issue(client, directory, read_devices(b"common_name\ngw.example.com\n"))
            renewals = Renewals(directory)
            ((one,), _) = renewals.in_use()
            place = renewals.place(one.profile_id, Keys.LOCAL)
            await issue(client, place, DeviceList(devices=(one.device,), problems=(), empty_lines=0))

    asyncio.run(make())
    return directory


def renewed(issued: Path, tmp_path: Path) -> tuple[Renewals, Path, Installed]:
    """Return a copy of all that, so that the renewal only has to be installed."""
    shutil.copytree(issued, tmp_path / "c", symlinks=True)
    renewals = Renewals(tmp_path / "c")
    ((one,), problems) = renewals.in_use()
    assert not problems
    return renewals, renewals.place(one.profile_id, Keys.LOCAL), one


STEPS = [
    ("rename", "before"),
    ("rename", "after"),
    ("replace", "before"),
    ("replace", "after"),
    ("symlink_to", "after"),
]


@pytest.mark.parametrize(("step", "when"), STEPS)
def test_a_renewal_cut_short_is_installed_whole_by_the_next(
    issued: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, when: str
) -> None:
    renewals, place, one = renewed(issued, tmp_path)
    renewals.link(one.folder)
    real: Callable[..., object] = getattr(Path, step)

    def cut_short(self: Path, *given: object) -> object:
        if self.name.endswith(".tmp"):
            return real(self, *given)
        if when == "after":
            real(self, *given)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Path, step, cut_short)
        with pytest.raises(KeyboardInterrupt):
            renewals.install(place, one.device)
    in_between = (one.folder / "live" / "cert.pem").read_bytes()
    assert in_between in {(path / "cert.pem").read_bytes() for path in (one.folder, one.folder / "live")}
    renewals.link(one.folder)
    renewals.install(place, one.device)

    assert str((one.folder / "live").readlink()) == "generation-2"
    (new,), problems = renewals.in_use()
    assert (problems, new.serial_number != one.serial_number) == ([], True)
    assert renewals.changed() == [str(one.folder)]
    assert not (one.folder / "live.next").is_symlink()
    assert renewals.install(place, one.device) is None


def test_a_link_that_a_person_turned_back_stays_so(issued: Path, tmp_path: Path) -> None:
    renewals, place, one = renewed(issued, tmp_path)
    renewals.install(place, one.device)
    (one.folder / "live").unlink()
    (one.folder / "live").symlink_to(".")

    renewals.link(one.folder)

    assert [found.serial_number for found in renewals.in_use()[0]] == [one.serial_number]
    assert renewals.superseded(after=timedelta(0), now=datetime.now(UTC) + timedelta(seconds=1)) == ([], [])


def test_a_link_that_leads_elsewhere_is_refused(issued: Path, tmp_path: Path) -> None:
    renewals, place, one = renewed(issued, tmp_path)
    (one.folder / "live").symlink_to("/etc")

    found, problems = renewals.in_use()

    assert found == []
    assert "leads to '/etc'" in problems[0]
    with pytest.raises(FileError, match="leads to"):
        renewals.install(place, one.device)


def test_a_device_whose_folder_is_gone_keeps_what_was_paid_for(issued: Path, tmp_path: Path) -> None:
    renewals, place, one = renewed(issued, tmp_path)
    one.folder.rename(tmp_path / "moved away")

    with pytest.raises(FileError, match="is gone: the renewed certificate stays in"):
        renewals.install(place, one.device)

    (tmp_path / "moved away").rename(one.folder)
    assert renewals.install(place, one.device) == one.folder


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"keys": "x"}, "'x' is not a valid Keys"),
        ({"profile_id": "42"}, "profile_id in issue.json is none"),
        ({"dns_names": [1]}, "issue.json holds what is no text"),
        ({"parameters": {"a": None}}, "issue.json holds what is no text"),
        ({"serial_number": "0A"}, "different certificates"),
        ("[" * 100_000, "recursion"),
        ("[]", "holds no object"),
        ("{", "Expecting property name"),
        ("x" * 2_000_000, "too large"),
    ],
)
def test_a_record_that_a_person_broke_is_named(
    issued: Path, tmp_path: Path, change: "dict[str, object] | str", says: str
) -> None:
    renewals, _, one = renewed(issued, tmp_path)
    path = one.folder / "issue.json"
    text = change if isinstance(change, str) else json.dumps(json.loads(path.read_text()) | change)
    path.write_text(text)

    found, problems = renewals.in_use()

    assert found == []
    assert says in problems[0]
    assert str(one.folder) in problems[0]
