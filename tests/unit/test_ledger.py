"""The ledger in an SQLite file: what the contract says, and what can happen to a file."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import attrs
import pytest

from sectigo_async.errors import LedgerError, LedgerInUseError
from sectigo_async.issuance import (
    Device,
    DeviceState,
    Keys,
    Ledger,
    Run,
    SqliteLedger,
    group_commit,
    ledger_file,
    read_ledger,
)
from sectigo_async.models import Order, OrderKind
from sectigo_async.testing import LedgerContract

RUN = LedgerContract.run


def device(name: str) -> Device:
    return Device(key=name, name=name, common_name=name, line=2)


def order(number: int) -> Order:
    sent = datetime(2026, 3, 1, tzinfo=UTC)
    return Order(order_id=f"order-{number}", kind=OrderKind.UPLOAD, profile_id=42, sent_at=sent)


def file_of(directory: Path) -> Path:
    return directory / ".sectigo-async" / "ledger.sqlite3"


async def filled(directory: Path, count: int = 3) -> None:
    async with SqliteLedger.open(directory, RUN) as ledger:
        await ledger.amend(new=[device(f"gw{number}") for number in range(count)])
        await ledger.intend(order(1), ["gw0", "gw1"])


async def opened(directory: Path) -> None:
    async with SqliteLedger.open(directory, RUN) as ledger:
        await ledger.amend(new=[device("there is room")])


async def refused(directory: Path, run: Run = RUN, kind: type[LedgerError] = LedgerError) -> LedgerError:
    with pytest.raises(kind) as caught:
        async with SqliteLedger.open(directory, run) as ledger:
            await ledger.entries()
    assert caught.value.hint
    return caught.value


class TestSqliteLedger(LedgerContract):
    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path) -> None:
        self.directory = tmp_path / "run"

    def open_ledger(self) -> AbstractAsyncContextManager[Ledger]:
        return SqliteLedger.open(self.directory, self.run)


@contextmanager
def umask(mode: int) -> Iterator[None]:
    before = os.umask(mode)
    try:
        yield
    finally:
        os.umask(before)


@pytest.mark.parametrize("mode", [0o000, 0o077])
async def test_its_files_are_private_whatever_the_umask(tmp_path: Path, mode: int) -> None:
    directory = tmp_path / "new" / "run"
    with umask(mode):
        async with SqliteLedger.open(directory, RUN) as ledger:
            await ledger.amend(new=[device("a")])
            files = list(file_of(directory).parent.iterdir())
            assert {path.name for path in files} >= {"ledger.sqlite3", "ledger.sqlite3-wal", "ledger.lock"}
            assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    assert file_of(directory).parent.stat().st_mode & 0o777 == 0o700


HOLDER = """
import asyncio, sys
from pathlib import Path
from sectigo_async.issuance import Keys, Run, SqliteLedger

async def hold():
    run = Run(endpoint="https://iot.sectigo.com", username="ops", profile_id=42, keys=Keys.LOCAL)
    async with SqliteLedger.open(Path(sys.argv[1]), run):
        print("held", flush=True)
        await asyncio.sleep(60)

asyncio.run(hold())
"""


def test_one_process_has_it_until_it_ends_however_it_ends(tmp_path: Path) -> None:
    asyncio.run(filled(tmp_path))
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        error = asyncio.run(refused(tmp_path, kind=LedgerInUseError))
        assert "another run is at work" in str(error)
        assert asyncio.run(read_ledger(tmp_path)).in_use
        holder.send_signal(signal.SIGKILL)
        holder.wait()

    asyncio.run(opened(tmp_path))
    assert not asyncio.run(read_ledger(tmp_path)).in_use


async def test_two_tasks_of_one_process_do_not_share_it(tmp_path: Path) -> None:
    async with SqliteLedger.open(tmp_path, RUN):
        await refused(tmp_path, kind=LedgerInUseError)


OTHERS: dict[str, Run] = {
    "endpoint": attrs.evolve(RUN, endpoint="https://other.example.com"),
    "user": attrs.evolve(RUN, username="somebody"),
    "profile": attrs.evolve(RUN, profile_id=43),
    "keys": attrs.evolve(RUN, keys=Keys.SERVER),
}


@pytest.mark.parametrize("what", OTHERS)
async def test_a_run_of_another_kind_is_refused_and_told_which(tmp_path: Path, what: str) -> None:
    await filled(tmp_path)
    before = await read_ledger(tmp_path)

    error = await refused(tmp_path, OTHERS[what])

    assert f"another {what}" in str(error)
    assert await read_ledger(tmp_path) == before


def rewrite(path: Path, change: Callable[[bytearray], object]) -> None:
    content = bytearray(path.read_bytes())
    change(content)
    path.write_bytes(content)


def newer(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = 9")


def garbage(path: Path) -> None:
    rewrite(path, lambda content: content.__setitem__(slice(0, 16), b"not a database!!"))


def flipped(path: Path) -> None:
    """Spoil every page but the first, whose header says that it is a database."""
    rewrite(path, lambda content: content.__setitem__(slice(4096, None), bytes(b ^ 0x55 for b in content[4096:])))


def cut(path: Path) -> None:
    rewrite(path, lambda content: content.__delitem__(slice(len(content) // 2 // 4096 * 4096, None)))


@pytest.mark.parametrize("spoil", [newer, garbage, flipped, cut])
async def test_a_file_that_is_not_as_it_was_left_is_refused(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    await filled(tmp_path, 300)
    spoil(file_of(tmp_path))
    before = file_of(tmp_path).read_bytes()

    error = await refused(tmp_path)

    assert ("newer version" if spoil is newer else "damaged") in str(error)
    with pytest.raises(LedgerError, match="newer version" if spoil is newer else "damaged"):
        await read_ledger(tmp_path)
    assert file_of(tmp_path).read_bytes() == before


async def test_a_ledger_that_was_not_begun_yet_is_begun(tmp_path: Path) -> None:
    async with SqliteLedger.open(tmp_path, RUN):
        pass
    # As kill -9 between making the file and the first commit leaves it.
    for path in file_of(tmp_path).parent.glob("ledger.sqlite3*"):
        path.unlink()
    file_of(tmp_path).touch(0o600)

    await filled(tmp_path)

    assert len((await read_ledger(tmp_path)).entries) == 3


@pytest.mark.parametrize("obstacle", ["file", "others may write", "link to nowhere"])
async def test_a_place_that_cannot_be_used_is_told(tmp_path: Path, obstacle: str) -> None:
    place = file_of(tmp_path).parent
    if obstacle == "file":
        place.write_text("in the way")
    elif obstacle == "others may write":
        place.mkdir()
        place.chmod(0o777)
    else:
        place.symlink_to(tmp_path / "nowhere" / "at all")

    await refused(tmp_path)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
async def test_a_directory_that_must_not_be_written_is_told(tmp_path: Path) -> None:
    await filled(tmp_path)
    file_of(tmp_path).parent.chmod(0o500)

    await refused(tmp_path)


FULL = """
import asyncio, resource, sys
from pathlib import Path
from sectigo_async.errors import LedgerError
from sectigo_async.issuance import Device, Keys, Run, SqliteLedger

async def fill():
    run = Run(endpoint="https://iot.sectigo.com", username="ops", profile_id=42, keys=Keys.LOCAL)
    async with SqliteLedger.open(Path(sys.argv[1]), run) as ledger:
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
        for number in range(100):
            some = [Device(key=f"{number}-{one}", name="n" * 500, common_name="c", line=2) for one in range(50)]
            try:
                await ledger.amend(new=some)
            except LedgerError as error:
                print(number, error.hint)
                assert "Traceback" not in str(error) and "room" in error.hint
                assert len(await ledger.entries()) == 50 * number
                return

asyncio.run(fill())
"""


def test_a_disk_that_is_full_is_told_and_loses_nothing(tmp_path: Path) -> None:
    found = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, check=False, timeout=30
    )

    assert found.returncode == 0, found.stderr
    written = int(found.stdout.split()[0])
    assert written > 0
    assert len(asyncio.run(read_ledger(tmp_path)).entries) == 50 * written
    asyncio.run(opened(tmp_path))


@pytest.mark.parametrize(
    ("kind", "folder"), [("nfs4", "share"), ("cifs", "Büro 7"), ("fuse.sshfs", "a b"), ("9p", "tab\there")]
)
async def test_a_network_file_system_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, folder: str
) -> None:
    share = tmp_path / folder
    escaped = str(share).replace("\t", "\\011").replace(" ", "\\040")
    mounts = tmp_path / "mountinfo"
    lines = (
        "22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw",
        f"90 22 0:50 / {escaped} rw,relatime shared:2 master:7 - {kind} server:/export rw,vers=4.2",
        f"91 90 254:2 / {escaped}/local rw - ext4 /dev/vdb rw",
        f"92 22 0:51 / {escaped}-not rw - nfs server:/other rw",
    )
    mounts.write_text("\n".join(lines) + "\n", encoding="utf-8")
    monkeypatch.setattr(ledger_file, "_MOUNTS", mounts)

    error = await refused(share / "run")

    assert f"network file system ({kind})" in str(error)
    await filled(share / "local")
    await filled(tmp_path / "here")


async def test_what_waits_is_committed_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    real = group_commit._transaction

    def counted(database: sqlite3.Connection, works: list[group_commit.Work[object]]) -> object:
        sizes.append(len(works))
        return real(database, works)

    monkeypatch.setattr(group_commit, "_transaction", counted)
    async with SqliteLedger.open(tmp_path, RUN) as ledger:
        await asyncio.gather(*(ledger.amend(new=[device(f"gw{number}")]) for number in range(1500)))

        assert sum(sizes) == 1501
        assert len(sizes) < 150
        assert (await ledger.counts())[DeviceState.PLANNED] == 1500


async def test_in_a_group_one_that_is_refused_does_no_harm_to_the_others(tmp_path: Path) -> None:
    async with SqliteLedger.open(tmp_path, RUN) as ledger:
        wishes = [ledger.amend(new=[device("fresh"), device(f"gw{number // 2}")]) for number in range(6)]
        wishes += [ledger.amend(new=[device(f"other{number}")]) for number in range(6)]
        results = await asyncio.gather(*wishes, return_exceptions=True)

        assert [isinstance(result, LedgerError) for result in results] == [False] + [True] * 5 + [False] * 6
        names = [entry.device.key for entry in await ledger.entries()]
        assert names == ["fresh", "gw0", *(f"other{number}" for number in range(6))]


async def test_what_a_cancelled_task_wrote_is_written_all_the_same(tmp_path: Path) -> None:
    async with SqliteLedger.open(tmp_path, RUN) as ledger:
        writing = asyncio.create_task(ledger.amend(new=[device("a")]))
        await asyncio.sleep(0)
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing

    assert [entry.device.key for entry in (await read_ledger(tmp_path)).entries] == ["a"]


async def test_it_can_be_read_while_a_run_is_on(tmp_path: Path) -> None:
    async with SqliteLedger.open(tmp_path, RUN) as ledger:
        await ledger.amend(new=[device("a"), device("b")])
        await ledger.intend(order(1), ["b"])

        copy = await read_ledger(tmp_path)
        assert (copy.run, copy.in_use) == (RUN, True)
        assert copy.entries == await ledger.entries()
        assert copy.orders == await ledger.orders()
        assert copy.devices_of_orders == await ledger.devices_of_orders()
        await ledger.write(order(1).placed(30))
    again = await read_ledger(tmp_path)
    assert ([entry.batch_id for entry in again.entries], again.in_use) == ([None, 30], False)


async def test_where_there_is_none_reading_makes_none(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="no ledger"):
        await read_ledger(tmp_path)

    assert not list(tmp_path.iterdir())


async def test_a_floor_is_where_the_look_for_orders_starts(tmp_path: Path) -> None:
    async with SqliteLedger.open(tmp_path, RUN, floor=500) as ledger:
        assert await ledger.highest() == 500
    async with SqliteLedger.open(tmp_path, RUN) as ledger:
        assert await ledger.highest() == 500
        await ledger.write(order(1).placed(20))
        assert await ledger.highest() == 500
        await ledger.write(order(2).placed(600))
        assert await ledger.highest() == 600


async def test_once_closed_it_takes_nothing_more(tmp_path: Path) -> None:
    async with SqliteLedger.open(tmp_path, RUN) as ledger:
        pass

    with pytest.raises(LedgerError):
        await ledger.amend(new=[device("late")])


async def test_a_ledger_in_which_nothing_stands_is_for_any_run(tmp_path: Path) -> None:
    """A mistake at the first attempt binds nobody; what was ordered does."""
    async with SqliteLedger.open(tmp_path, attrs.evolve(RUN, profile_id=7, keys=Keys.SERVER)):
        pass

    await filled(tmp_path)

    assert (await read_ledger(tmp_path)).run == RUN
    assert "another profile" in str(await refused(tmp_path, attrs.evolve(RUN, profile_id=7)))
