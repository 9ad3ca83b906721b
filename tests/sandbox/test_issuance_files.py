"""Bulk runs on bad days of the disk: what is paid for is neither lost nor ordered again, and all is told."""

import errno
import itertools
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
from cryptography import x509

from sectigo_async import Config, SectigoClient
from sectigo_async.errors import FileError, InvalidArgumentError, LedgerError, SectigoError
from sectigo_async.issuance import (
    DeviceState,
    Event,
    Issuance,
    Keys,
    Options,
    Run,
    SqliteLedger,
    group_commit,
    make_plan,
    read_devices,
)
from sectigo_async.pki import load_key
from sectigo_async.sandbox import Sandbox, SandboxConfig, SandboxTransport
from sectigo_async.testing import FakeClock

ENDPOINT = "http://127.0.0.1"


@attrs.frozen
class World:
    """A sandbox and the directory of a run, on one clock."""

    sandbox: Sandbox
    clock: FakeClock
    directory: Path
    keys: Keys = Keys.LOCAL

    async def issue(
        self, count: int, watch: Callable[[Event], object] = lambda _: None, **options: Any
    ) -> dict[DeviceState, int]:
        """Run a list of devices to the end, as a process of its own does; return how many are in which state."""
        lines = [f"gw{number}.example.com,SN-0001\n" for number in range(count)]
        listed = read_devices("".join(["common_name,serialNumber\n", *lines]).encode())
        run = Run(endpoint=ENDPOINT, username="demo", profile_id=117, keys=self.keys)
        config = attrs.evolve(Config.create(ENDPOINT), timeout=None)
        async with (
            SectigoClient(
                config=config,
                transport=SandboxTransport(self.sandbox),
                clock=self.clock,
                username="demo",
                password="demo-password",
            ) as client,
            SqliteLedger.open(self.directory, run, clock=self.clock) as ledger,
        ):
            plan = await make_plan(client, ledger, self.directory, listed)
            issuance = Issuance(client, ledger, self.directory, plan, options=Options(**options), clock=self.clock)
            async with aclosing(issuance.run()) as events:
                async for event in events:
                    watch(event)
            return {state: number for state, number in issuance.counts.items() if number}

    def check(self, count: int) -> None:
        """Check that each device was ordered once, and has its certificate, beside its key, and nothing else."""
        assert self.sandbox.ledger.ordered() == count
        assert set(self.sandbox.stats()["orders_by_key"].values()) == {1}
        for number in range(count):
            folder = self.directory / f"gw{number}.example.com"
            certificate = x509.load_pem_x509_certificate((folder / "cert.pem").read_bytes())
            key = load_key((folder / "privkey.pem").read_bytes())
            assert certificate.public_key() == key.public_key()
        assert not list(self.directory.rglob("*.tmp"))


@pytest.fixture
def make_world(tmp_path: Path) -> Callable[..., World]:
    made = itertools.count()

    def make(keys: Keys = Keys.LOCAL, *, issue_delay: float = 0) -> World:
        clock = FakeClock()
        sandbox = Sandbox(SandboxConfig(issue_delay=issue_delay), clock)
        return World(sandbox, clock, tmp_path / f"certs-{next(made)}", keys)

    return make


async def failure(world: World) -> SectigoError | None:
    """Run a list of two devices, and return what ended that before its time."""
    try:
        await world.issue(2)
    except SectigoError as error:
        return error
    return None


@contextmanager
def broken_from(monkeypatch: pytest.MonkeyPatch, call: str, nth: int, number: int) -> Iterator[list[int]]:
    """Have a call of the operating system that writes fail, from the nth time on; count how often it is made."""
    made = [0]
    real: Callable[..., Any] = getattr(os, call)

    def fails(*arguments: Any, **named: Any) -> Any:
        if call == "open" and not arguments[1] & os.O_CREAT:
            return real(*arguments, **named)
        made[0] += 1
        if made[0] >= nth:
            raise OSError(number, os.strerror(number))
        return real(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fails)
        yield made


@pytest.mark.parametrize(("call", "number"), [("fsync", errno.ENOSPC), ("open", errno.EROFS)])
@pytest.mark.parametrize("keys", list(Keys))
async def test_a_disk_that_takes_no_more_files_costs_no_second_order_whenever_that_begins(
    make_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch, keys: Keys, call: str, number: int
) -> None:
    for nth in itertools.count(1):
        world = make_world(keys)
        with broken_from(monkeypatch, call, nth, number) as made:
            error = await failure(world)
        if made[0] < nth:
            assert nth > 5
            break
        assert isinstance(error, FileError | LedgerError)
        assert os.strerror(number) in str(error)
        assert error.hint

        assert await world.issue(2) == {DeviceState.DONE: 2}
        world.check(2)


@contextmanager
def full_from(monkeypatch: pytest.MonkeyPatch, nth: int, *, for_good: bool) -> Iterator[list[int]]:
    """Have the ledger's disk be full at the nth change, and from then on or not; count the changes."""
    made = [0]
    real = group_commit._transaction

    def filling(work: group_commit.Work[Any]) -> group_commit.Work[Any]:
        def run(database: sqlite3.Connection) -> object:
            before = database.total_changes
            result = work(database)
            if database.total_changes > before:
                made[0] += 1
                if made[0] == nth or (for_good and made[0] > nth):
                    raise sqlite3.OperationalError("database or disk is full")
            return result

        return run

    with monkeypatch.context() as patch:
        patch.setattr(group_commit, "_transaction", lambda database, works: real(database, [*map(filling, works)]))
        yield made


@pytest.mark.parametrize("for_good", [True, False])
@pytest.mark.parametrize("keys", list(Keys))
async def test_a_ledger_that_cannot_be_written_costs_no_second_order_whenever_that_begins(
    make_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch, keys: Keys, for_good: bool
) -> None:
    for nth in itertools.count(1):
        world = make_world(keys)
        with full_from(monkeypatch, nth, for_good=for_good) as made:
            error = await failure(world)
        if made[0] < nth:
            assert nth > 4
            break
        assert isinstance(error, LedgerError)
        assert "database or disk is full" in str(error)
        assert "room" in (error.hint or "")

        assert await world.issue(2) == {DeviceState.DONE: 2}
        world.check(2)


LEDGER = Path(".sectigo-async") / "ledger.sqlite3"


def overwritten(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[5000:9000] = b"\xff" * 4000
    path.write_bytes(content)


def halved(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


LOSSES: dict[str, Callable[[Path], object]] = {
    "overwritten in the middle": overwritten,
    "truncated": halved,
    "empty": lambda path: path.write_bytes(b""),
    "not SQLite": lambda path: path.write_text("Please sign in"),
    "gone": lambda path: path.unlink(),
}


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("keys", list(Keys))
async def test_with_a_ledger_that_is_damaged_or_lost_nothing_is_ordered(
    make_world: Callable[..., World], keys: Keys, loss: str
) -> None:
    world = make_world(keys, issue_delay=7200)
    assert await world.issue(3, timeout=60.0) == {DeviceState.ORDERED: 3}
    before = world.sandbox.ledger.ordered()
    kept = (world.directory / LEDGER).read_bytes()
    LOSSES[loss](world.directory / LEDGER)

    with pytest.raises((LedgerError, InvalidArgumentError), match=r"damaged|the ledger does not know"):
        await world.issue(3)

    assert world.sandbox.ledger.ordered() == before
    # As a copy of yesterday brings it back.
    (world.directory / LEDGER).write_bytes(kept)
    world.clock.advance(7200)
    assert await world.issue(3) == {DeviceState.DONE: 3}
    world.check(3)


async def test_a_ledger_whose_last_changes_are_lost_orders_nothing_again(
    make_world: Callable[..., World], tmp_path: Path
) -> None:
    world = make_world(issue_delay=7200)
    copy = tmp_path / "copy"

    def keep(_: Event) -> None:
        if not copy.exists():
            shutil.copytree(world.directory, copy)

    await world.issue(3, watch=keep, timeout=60.0)
    assert (copy / LEDGER).with_name("ledger.sqlite3-wal").stat().st_size > 0
    (copy / LEDGER).with_name("ledger.sqlite3-wal").unlink()

    with pytest.raises((LedgerError, InvalidArgumentError)):
        await attrs.evolve(world, directory=copy).issue(3)

    assert world.sandbox.ledger.ordered() == 3


async def test_a_folder_that_cannot_be_used_is_told_before_anything_is_ordered(
    make_world: Callable[..., World],
) -> None:
    world = make_world()
    world.directory.mkdir(mode=0o700)
    obstacle = world.directory / "gw1.example.com"
    obstacle.write_text("in the way")

    with pytest.raises(FileError, match=r"gw1\.example\.com"):
        await world.issue(3)

    assert world.sandbox.ledger.ordered() == 0
    obstacle.unlink()
    assert await world.issue(3) == {DeviceState.DONE: 3}
    world.check(3)


async def test_a_key_that_was_damaged_since_costs_the_others_nothing_and_stays_as_it_is(
    make_world: Callable[..., World],
) -> None:
    world = make_world(issue_delay=7200)
    await world.issue(3, timeout=60.0)
    key = world.directory / "gw1.example.com" / "privkey.pem"
    right = key.read_bytes()
    key.write_bytes(b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    world.clock.advance(7200)

    assert await world.issue(3) == {DeviceState.DONE: 2, DeviceState.VERIFY_FAILED: 1}

    assert b"AAAA" in key.read_bytes()
    key.write_bytes(right)
    assert await world.issue(3) == {DeviceState.DONE: 3}
    world.check(3)
