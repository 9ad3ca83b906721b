"""Bulk runs on bad days of the disk: what is paid for is neither lost nor ordered again, and all is told."""

import errno
import itertools
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
from cryptography import x509

from sectigo_async import Config, SectigoClient
from sectigo_async.errors import FileError, LedgerError, SectigoError
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
    with broken_from(monkeypatch, call, 10**9, number) as made:
        await make_world(keys).issue(2)
    assert made[0] > 5
    for nth in range(1, made[0] + 1):
        world = make_world(keys)
        with broken_from(monkeypatch, call, nth, number), pytest.raises(SectigoError) as caught:
            await world.issue(2)
        assert isinstance(caught.value, FileError | LedgerError), caught.value
        assert os.strerror(number) in str(caught.value)
        assert caught.value.hint

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
    with full_from(monkeypatch, 10**9, for_good=True) as made:
        await make_world(keys).issue(2)
    assert made[0] >= 4
    for nth in range(1, made[0] + 1):
        world = make_world(keys)
        with (
            full_from(monkeypatch, nth, for_good=for_good),
            pytest.raises(LedgerError, match="database or disk is full") as caught,
        ):
            await world.issue(2)
        assert "room" in (caught.value.hint or "")

        assert await world.issue(2) == {DeviceState.DONE: 2}
        world.check(2)
