"""Private files: 0600 from the start, whole or not at all."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sectigo_async.errors import FileError, InvalidArgumentError
from sectigo_async.files import Access, make_directory
from sectigo_async.pki import StagedFile, safe_name, write_private

needs_modes = pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")


def test_file_is_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        write_private(tmp_path / "key", b"secret")
    finally:
        os.umask(before)

    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "key").read_bytes() == b"secret"


def test_same_content_is_done_and_other_content_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "key"
    write_private(target, b"one")
    write_private(target, b"one")

    with pytest.raises(FileError, match="other content") as caught:
        write_private(target, b"two")

    assert caught.value.hint
    assert target.read_bytes() == b"one"
    assert [file.name for file in tmp_path.iterdir()] == ["key"]
    write_private(target, b"two", overwrite=True)
    assert target.read_bytes() == b"two"


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_symbolic_link_is_not_followed(tmp_path: Path, overwrite: bool) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"mine")
    (tmp_path / "key").symlink_to(elsewhere)

    if overwrite:
        write_private(tmp_path / "key", b"two", overwrite=True)
    else:
        with pytest.raises(FileError):
            write_private(tmp_path / "key", b"two")

    assert elsewhere.read_bytes() == b"mine"


def test_what_is_discarded_leaves_no_trace(tmp_path: Path) -> None:
    staged = StagedFile(tmp_path / "key")
    staged.open().write(b"half")
    staged.discard()
    staged.discard()

    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("target", ["missing/key", "file/key"])
def test_places_that_cannot_be_written(tmp_path: Path, target: str) -> None:
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(FileError) as caught:
        write_private(tmp_path / target, b"x")

    assert str(tmp_path) in str(caught.value)


def test_a_disk_that_is_full_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    import signal

    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(FileError, match="cannot write"):
            write_private(tmp_path / "key", b"x" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)

    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["gw7.example.com", "a-b_c.d"])
def test_plain_names_stay_as_they_are(name: str) -> None:
    assert safe_name(name) == name


@given(st.text(max_size=200))
def test_any_name_becomes_one_plain_file_name(name: str) -> None:
    safe = safe_name(name)

    assert "/" not in safe
    assert "\\" not in safe
    assert "\0" not in safe
    assert not safe.startswith((".", "-"))
    assert 0 < len(safe.encode()) < 200
    assert safe.isascii()


@given(st.text(max_size=60), st.text(max_size=60))
def test_different_names_get_different_file_names(one: str, other: str) -> None:
    if one.lower() != other.lower():
        assert safe_name(one) != safe_name(other)


@pytest.mark.parametrize("name", ["con", "NUL", "com1.example", "../../etc/passwd", "*.example.com", "", "..", "a/b"])
def test_names_that_mean_something_else_are_changed(name: str) -> None:
    assert safe_name(name) != name.lower()


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
@pytest.mark.parametrize(("mode", "of_directory"), [(0o600, 0o700), (0o640, 0o750)])
def test_access_is_what_was_said_whatever_the_umask(tmp_path: Path, umask: int, mode: int, of_directory: int) -> None:
    access = Access(mode=mode)
    before = os.umask(umask)
    try:
        assert make_directory(tmp_path / "a" / "b", access)
        assert not make_directory(tmp_path / "a" / "b", access)
        for content in (b"one", b"two"):
            write_private(tmp_path / "a" / "b" / "key", content, overwrite=True, access=access)
    finally:
        os.umask(before)

    assert (tmp_path / "a" / "b" / "key").stat().st_mode & 0o7777 == mode
    for made in (tmp_path / "a" / "b", tmp_path / "a"):
        assert made.stat().st_mode & 0o7777 == of_directory


def test_access_for_a_group_gives_it_to_that_group(tmp_path: Path) -> None:
    groups = [1234] if os.geteuid() == 0 else [group for group in os.getgroups() if group != os.getegid()]
    if not groups:
        pytest.skip("this user has one group only")
    access = Access(mode=0o640, group=groups[0])
    make_directory(tmp_path / "folder", access)
    write_private(tmp_path / "folder" / "key", b"one", access=access)

    for path in (tmp_path / "folder", tmp_path / "folder" / "key"):
        assert path.stat().st_gid == groups[0]
    assert (tmp_path / "folder" / "key").stat().st_mode & 0o777 == 0o640


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may give files to any group")
def test_a_group_that_files_cannot_be_given_to_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileError):
        write_private(tmp_path / "key", b"one", access=Access(mode=0o640, group=0))

    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("mode", [0o644, 0o666, 0o660, 0o604, 0o700, 0o400, 0o1600, 0o2640, 0o4600, 0o000])
def test_no_other_access_is_one_for_keys(mode: int) -> None:
    with pytest.raises(InvalidArgumentError, match=f"{mode:04o}") as caught:
        Access(mode=mode)

    assert "0640" in caught.value.hint


def test_many_make_the_same_directories_at_once(tmp_path: Path) -> None:
    """One of them makes each, and none is told that something is in the way."""
    ready = threading.Barrier(8)

    def make(number: int) -> bool:
        ready.wait()
        return make_directory(tmp_path / f"{number}" / "a" / "b" / "c")

    with ThreadPoolExecutor(8) as pool:
        for number in range(40):
            made = list(pool.map(make, [number] * 8))
            assert any(made)
            assert (tmp_path / f"{number}" / "a" / "b" / "c").is_dir()
