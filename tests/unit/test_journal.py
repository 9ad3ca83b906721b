"""The order journal in a file: durable, private, shared by processes, and clear about what is wrong with it."""

import asyncio
import os
import sqlite3
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sectigo_async import Order, OrderKind, OrderState, SqliteJournal
from sectigo_async.errors import JournalError

ENDPOINT = "https://iot.sectigo.com"
NOW = datetime(2026, 11, 25, 10, 0, tzinfo=UTC)


def journal_in(directory: Path, username: str = "ops", endpoint: str = ENDPOINT) -> SqliteJournal:
    return SqliteJournal(path=directory / "orders.sqlite3", endpoint=endpoint, username=username)


def order(**more: Any) -> Order:
    return attrs.evolve(Order(kind=OrderKind.CREATE, profile_id=42, sent_at=NOW), **more)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "state"


async def test_orders_outlast_the_journal_that_wrote_them(directory: Path) -> None:
    one = order(batch_name="gw7-0f", unique_name=True, common_names=("gw7.example.com",))
    two = order(kind=OrderKind.UPLOAD, size=3, key_sha256=frozenset({"ab", "cd"}), after=24)
    await journal_in(directory).write(one)
    await journal_in(directory).write(two)
    await journal_in(directory).write(one.placed(31))

    assert await journal_in(directory).orders() == (one.placed(31), two)
    assert await journal_in(directory).highest() == 31


async def test_each_login_has_its_own(directory: Path) -> None:
    await journal_in(directory).write(order().placed(31))

    for other in (journal_in(directory, "other"), journal_in(directory, endpoint="https://staging.example.com")):
        assert (await other.orders(), await other.highest()) == ((), 0)


async def test_looking_makes_no_file(directory: Path) -> None:
    assert (await journal_in(directory).orders(), await journal_in(directory).highest()) == ((), 0)
    assert not directory.exists()


@pytest.mark.parametrize("umask", [0o000, 0o077, 0o022])
async def test_nobody_else_may_read_it(directory: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        await journal_in(directory).write(order())
        await journal_in(directory).write(order())
    finally:
        os.umask(before)
    assert directory.stat().st_mode & 0o077 == 0
    assert [path.stat().st_mode & 0o777 for path in directory.iterdir()] == [0o600]


async def test_a_directory_that_others_may_write_to_is_refused(directory: Path) -> None:
    directory.mkdir()
    directory.chmod(0o777)
    with pytest.raises(JournalError, match="others may write"):
        await journal_in(directory).write(order())


async def test_a_link_that_was_planted_is_not_written_through(directory: Path, tmp_path: Path) -> None:
    directory.mkdir(mode=0o700)
    target = tmp_path / "precious"
    target.write_text("precious")
    (directory / "orders.sqlite3").symlink_to(target)
    with pytest.raises(JournalError):
        await journal_in(directory).write(order())
    assert target.read_text() == "precious"


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (b"no database at all, of some length", "is damaged"),
        (b"SQLite format 3\0" + bytes(2000), "is damaged"),
    ],
)
async def test_damage_is_told_with_a_way_out(directory: Path, damage: bytes, words: str) -> None:
    directory.mkdir(mode=0o700)
    (directory / "orders.sqlite3").write_bytes(damage)
    for attempt in (journal_in(directory).orders(), journal_in(directory).write(order())):
        with pytest.raises(JournalError, match=words) as caught:
            await attempt
        assert "move it away" in caught.value.hint


async def test_a_newer_journal_is_left_alone(directory: Path) -> None:
    await journal_in(directory).write(order())
    with sqlite3.connect(directory / "orders.sqlite3") as database:
        database.execute("PRAGMA user_version = 7")
    database.close()
    with pytest.raises(JournalError, match="newer version"):
        await journal_in(directory).write(order())


async def test_what_somebody_wrote_into_it_is_told(directory: Path) -> None:
    await journal_in(directory).write(order())
    with sqlite3.connect(directory / "orders.sqlite3") as database:
        database.execute("UPDATE orders SET kind = 'gift'")
    database.close()
    with pytest.raises(JournalError, match="no order"):
        await journal_in(directory).orders()


async def test_a_directory_in_its_place_is_told(directory: Path) -> None:
    (directory / "orders.sqlite3").mkdir(parents=True, mode=0o700)
    directory.chmod(0o700)
    with pytest.raises(JournalError, match="cannot use the order journal"):
        await journal_in(directory).write(order())


WRITE = """
import asyncio, sys
from datetime import UTC, datetime
from pathlib import Path
from sectigo_async import Order, OrderKind, SqliteJournal

async def main():
    journal = SqliteJournal(path=Path(sys.argv[1]), endpoint="https://iot.sectigo.com", username="ops")
    for _ in range(20):
        await journal.write(Order(kind=OrderKind.CREATE, profile_id=42, sent_at=datetime.now(UTC)))

asyncio.run(main())
"""


async def test_processes_and_tasks_share_it(directory: Path) -> None:
    path = directory / "orders.sqlite3"
    others = [await asyncio.create_subprocess_exec(sys.executable, "-c", WRITE, str(path)) for _ in range(4)]
    await asyncio.gather(*(journal_in(directory).write(order()) for _ in range(20)))
    assert [await other.wait() for other in others] == [0, 0, 0, 0]

    assert len(await journal_in(directory).orders()) == 100


MULTIPLY = """
INSERT INTO orders SELECT hex(randomblob(8)), endpoint, username, kind, profile_id, hex(randomblob(4000)),
    unique_name, size, common_names, key_sha256, sent_at, after, state, batch_id FROM orders LIMIT 1
"""


async def test_a_full_disk_is_told(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await journal_in(directory).write(order())
    journal = journal_in(directory)

    def full(database: sqlite3.Connection) -> None:
        database.execute("PRAGMA max_page_count = 1")
        for _ in range(1000):
            database.execute(MULTIPLY)

    monkeypatch.setattr(journal, "_prepare", full)
    with pytest.raises(JournalError, match="full") as caught:
        await journal.write(order())
    assert "room" in caught.value.hint
    assert len(await journal_in(directory).orders()) == 1, "what was there is there"


orders = st.builds(
    Order,
    order_id=st.text(min_size=1, max_size=20),
    kind=st.sampled_from(OrderKind),
    profile_id=st.integers(0, 2**63 - 1),
    batch_name=st.text(st.characters(codec="utf-8"), max_size=50),
    unique_name=st.booleans(),
    size=st.integers(0, 10**6),
    common_names=st.lists(st.text(st.characters(codec="utf-8"), max_size=20), max_size=3).map(tuple),
    key_sha256=st.frozensets(st.text("0123456789abcdef", max_size=64), max_size=3),
    sent_at=st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    after=st.integers(0, 2**63 - 1),
    state=st.sampled_from(OrderState),
    batch_id=st.none() | st.integers(0, 2**63 - 1),
)


@given(orders)
def test_an_order_survives_its_document(one: Order) -> None:
    moment = one.sent_at.replace(microsecond=one.sent_at.microsecond // 1000 * 1000)
    one = attrs.evolve(one, sent_at=moment)
    assert Order.from_document(one.document()) == one


values = st.none() | st.integers() | st.text() | st.lists(st.none())


@given(st.dictionaries(st.sampled_from(list(order().document())), values))
def test_other_documents_are_no_orders(changes: dict[str, object]) -> None:
    try:
        Order.from_document(order().document() | changes)
    except ValueError:
        return


async def test_it_stands_in_the_state_directory() -> None:
    await SqliteJournal(endpoint=ENDPOINT, username="ops").write(order())

    assert (Path.home() / ".local" / "state" / "sectigo-async" / "orders.sqlite3").exists()
