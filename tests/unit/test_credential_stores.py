"""The stores: the contract for each, and what is particular to files."""

import asyncio
import os
import threading
import time
from pathlib import Path
from typing import Any

import filelock
import pytest

from sectigo_async import CredentialStore, FileStore, MemoryStore, Secret, SystemClock
from sectigo_async.credentials import (
    Account,
    Accounts,
    Credentials,
    Item,
    Login,
    RefreshTokenFile,
    StoredToken,
    read_secret_file,
)
from sectigo_async.errors import CredentialStoreError
from sectigo_async.testing import CredentialStoreContract

OPS = Login("https://iot.sectigo.com", "ops")


class TestMemoryStore(CredentialStoreContract):
    durable = False

    def make_store(self) -> CredentialStore:
        return MemoryStore()


class TestFileStore(CredentialStoreContract):
    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path: Path) -> None:
        self.directory = tmp_path / "credentials"

    def make_store(self) -> CredentialStore:
        return FileStore(self.directory)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
async def test_files_are_private_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        store = FileStore(tmp_path / "a" / "b")
        await store.save(OPS, Item.PASSWORD, Secret("x"))
        async with Credentials(username="ops", directory=tmp_path / "a" / "b").share("e", SystemClock()).locked():
            pass
    finally:
        os.umask(before)

    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "a" / "b").iterdir()} == {0o600}
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "a", tmp_path / "a" / "b")} == {0o700}


async def test_a_directory_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)

    with pytest.raises(CredentialStoreError, match="others may write") as caught:
        await FileStore(tmp_path / "open").save(OPS, Item.PASSWORD, Secret("x"))

    assert "0700" in caught.value.hint
    assert not list((tmp_path / "open").iterdir())


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="needs a directory of another user")
async def test_a_directory_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir(mode=0o700)
    os.chown(tmp_path / "theirs", 65534, 65534)

    with pytest.raises(CredentialStoreError, match="somebody else"):
        await FileStore(tmp_path / "theirs").save(OPS, Item.PASSWORD, Secret("x"))


@pytest.mark.parametrize("spoil", ["mode", "link", "long", "binary"])
async def test_a_file_that_is_not_as_it_was_left_is_refused(tmp_path: Path, spoil: str) -> None:
    store = FileStore(tmp_path)
    await store.save(OPS, Item.PASSWORD, Secret("x"))
    path = store.path(OPS, Item.PASSWORD)
    if spoil == "mode":
        path.chmod(0o640)
    elif spoil == "link":
        path.rename(tmp_path / "elsewhere")
        path.symlink_to(tmp_path / "elsewhere")
    elif spoil == "long":
        path.write_bytes(b"x" * 100_000)
    else:
        path.write_bytes(b"\xff\xfe")

    with pytest.raises(CredentialStoreError) as caught:
        await store.load(OPS, Item.PASSWORD)

    assert str(path) in str(caught.value)


RECORDS = [
    b"",
    b"{}",
    b"[]",
    b"null",
    b'{"version": 2}',
    b"[" * 20_000,
    b'{"version":1,"endpoint":"e","username":"ops"}',
]


@pytest.mark.parametrize("content", RECORDS)
async def test_a_record_that_is_damaged_is_none(tmp_path: Path, content: bytes) -> None:
    shared = Credentials(username="ops", store=FileStore(tmp_path), directory=tmp_path).share("e", SystemClock())
    for item in Item:
        path = FileStore(tmp_path).path(shared.login, item)
        path.write_bytes(content)
        path.chmod(0o600)

    assert await shared.access_token() is None
    assert await shared.refresh_token() is None
    assert await shared.password() is None
    assert not await shared.was_refused(Secret("x"))


async def test_a_record_copied_to_another_login_is_none(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    ours = Credentials(username="ops", store=store, directory=tmp_path).share("https://a", SystemClock())
    await ours.save_password(Secret("x"))
    for endpoint, username in (("https://evil", "ops"), ("https://a", "eve")):
        theirs = Credentials(username=username, store=store, directory=tmp_path).share(endpoint, SystemClock())
        copied = await store.load(ours.login, Item.PASSWORD)
        assert copied is not None
        await store.save(theirs.login, Item.PASSWORD, copied)

        assert await theirs.password() is None


@pytest.mark.parametrize(
    ("content", "secret"),
    [(b"pass\n", "pass"), (b"pass\r\n", "pass"), (b"pass", "pass"), (b" p\n\n", " p\n"), (b"p\r", "p\r")],
)
async def test_of_a_password_file_one_newline_is_dropped(tmp_path: Path, content: bytes, secret: str) -> None:
    (tmp_path / "real").write_bytes(content)
    (tmp_path / "link").symlink_to("real")

    assert (await read_secret_file(tmp_path / "link")).reveal() == secret


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
async def test_a_password_file_that_others_may_write_to_is_refused(tmp_path: Path, mode: int) -> None:
    (tmp_path / "password").write_text("canary-93b1")
    (tmp_path / "password").chmod(mode)

    with pytest.raises(CredentialStoreError, match="others may write") as caught:
        await read_secret_file(tmp_path / "password")

    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("content", [None, b"", b"\n", b"\xff", b"x" * 100_000])
async def test_a_password_file_without_a_password_is_refused(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "password").write_bytes(content)

    with pytest.raises(CredentialStoreError, match="password"):
        await read_secret_file(tmp_path / "password")


async def test_a_pipe_is_read_and_one_that_gives_nothing_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    writer = threading.Thread(target=(tmp_path / "pipe").write_text, args=("pass\n",))
    writer.start()
    assert (await read_secret_file(tmp_path / "pipe")).reveal() == "pass"
    writer.join()

    monkeypatch.setattr("sectigo_async.credentials.stores._READ_LIMIT", 0.05)
    with pytest.raises(CredentialStoreError, match="gave nothing"):
        await read_secret_file(tmp_path / "pipe")
    # Let the thread that is left behind come to its end.
    os.close(os.open(tmp_path / "pipe", os.O_WRONLY))


async def test_the_refresh_token_file_is_rewritten_where_its_link_leads(tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir(mode=0o700)
    (tmp_path / "secrets" / "token").write_text("old\n")
    (tmp_path / "token").symlink_to("secrets/token")
    store = RefreshTokenFile(tmp_path / "token")
    shared = Credentials(username="ops", store=store, directory=tmp_path / "state").share("e", SystemClock())

    assert await shared.refresh_token() == Secret("old")
    await shared.save_refresh_token(Secret("new"), 7200)

    assert (tmp_path / "token").is_symlink()
    assert (tmp_path / "secrets" / "token").read_text() == "new"
    assert (tmp_path / "secrets" / "token").stat().st_mode & 0o777 == 0o600
    assert await shared.password() is None
    await store.erase(shared.login, Item.REFRESH_TOKEN)
    assert (tmp_path / "secrets" / "token").read_text() == "new", "the file is the user's"


async def test_two_tasks_of_one_process_exclude_each_other(tmp_path: Path) -> None:
    inside = most = 0

    async def enter() -> None:
        nonlocal inside, most
        async with Credentials(username="ops", directory=tmp_path / "s").share("e", SystemClock()).locked():
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0.01)
            inside -= 1

    await asyncio.gather(*(enter() for _ in range(5)))

    assert most == 1


@pytest.mark.parametrize("steps", range(12))
async def test_whoever_is_cancelled_for_the_lock_leaves_it_free(
    tmp_path: Path, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    acquire = filelock.FileLock.acquire

    def slowly(lock: Any, **named: Any) -> Any:
        time.sleep(0.01)
        return acquire(lock, **named)

    async def enter() -> None:
        async with Credentials(username="ops", directory=tmp_path / "s").share("e", SystemClock()).locked():
            await asyncio.sleep(0)

    with monkeypatch.context() as patch:
        patch.setattr(filelock.FileLock, "acquire", slowly)
        task = asyncio.create_task(enter())
        for _ in range(steps):
            await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.wait([task])

    with filelock.FileLock(next((tmp_path / "s").glob("*.lock"), tmp_path / "any"), timeout=0):
        pass


async def test_logging_out_says_what_is_still_kept(tmp_path: Path) -> None:
    class Sticky(MemoryStore):
        async def erase(self, login: Login, item: Item) -> None:
            pass

    shared = Credentials(username="ops", store=Sticky(), directory=tmp_path).share("e", SystemClock())
    await shared.save_password(Secret("x"))

    with pytest.raises(CredentialStoreError, match="the memory still holds the password of 'ops'"):
        await shared.erase()


async def test_a_refresh_token_file_is_one_login_however_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("x")
    (tmp_path / "link").symlink_to("token")
    named = [
        Credentials(username=username, store=RefreshTokenFile(path), directory=tmp_path).share("e", SystemClock())
        for username in (None, "ops")
        for path in (tmp_path / "token", tmp_path / "link", tmp_path / "x" / ".." / "token")
    ]

    assert len({shared.cache_path for shared in named}) == 1


def test_accounts_that_are_made_at_once_are_all_kept(tmp_path: Path) -> None:
    account = Account(endpoint="e", environment="testing", username="ops", store="file")
    threads = [
        threading.Thread(target=Accounts(tmp_path).save, args=(f"account {number}", account)) for number in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert all(Accounts(tmp_path).get(f"account {number}") == account for number in range(20))


@pytest.mark.parametrize("field", ["wall", "monotonic", "lifetime"])
@pytest.mark.parametrize("value", [10**400, float("nan"), float("inf"), True, "1", [1]])
def test_a_token_with_times_that_are_none_is_none(field: str, value: object) -> None:
    fields = StoredToken.received(Secret("x"), 900, SystemClock()).fields()

    assert StoredToken.read(fields) is not None
    assert StoredToken.read(fields | {field: value}) is None
