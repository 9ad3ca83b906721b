"""The command line as people run it: a process of its own, against a simulator in another."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

PROGRAM = str(Path(sys.executable).with_name("sectigo-async"))

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def environment(home: Path, **extra: str) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL") if name in os.environ}
    return kept | {"HOME": str(home), "PYTHONWARNINGS": "error"} | extra


@contextmanager
def serving(home: Path, *options: str) -> Iterator[str]:
    """Run `sectigo-async serve` on a free port; give its URL."""
    process = subprocess.Popen(
        [PROGRAM, "serve", "-a", ":0", *options],
        env=environment(home),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert "://127.0.0.1:" in url, process.communicate()
        yield url
    finally:
        process.terminate()
        process.communicate(timeout=10)


@pytest.fixture
def serve(tmp_path: Path) -> "Callable[..., AbstractContextManager[str]]":
    """Run `sectigo-async serve` with options of the test's own."""
    return lambda *options: serving(tmp_path / "server", *options)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A simulator that issues at once."""
    with serving(tmp_path_factory.mktemp("server"), "--issue-delay", "0") as url:
        yield url


@pytest.fixture(scope="session")
def slow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A simulator that takes its time, with two certificates to sell."""
    with serving(tmp_path_factory.mktemp("server"), "--issue-delay", "600", "--balance", "2") as url:
        yield url


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., "subprocess.Popen[str]"]:
    """Start `sectigo-async` in the test's folder, without any of its settings."""

    def begin(*arguments: str, **extra: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [PROGRAM, *arguments],
            cwd=tmp_path,
            env=environment(tmp_path / "home", **extra),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return begin


@pytest.fixture
def bare(tmp_path: Path) -> Run:
    """Run `sectigo-async` piped, in the test's folder, with no settings but those given."""
    (tmp_path / "home").mkdir(exist_ok=True)

    def execute(*arguments: str, stdin: str = "", **extra: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [PROGRAM, *arguments],
            cwd=tmp_path,
            env=environment(tmp_path / "home", **extra),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )

    return execute


@pytest.fixture
def run(tmp_path: Path, server: str) -> Run:
    """Run `sectigo-async` piped, in the test's folder, signed in to the simulator unless told otherwise."""
    (tmp_path / "home").mkdir()

    def execute(*arguments: str, **extra: str) -> "subprocess.CompletedProcess[str]":
        settings = {
            "SECTIGO_ENDPOINT": server,
            "SECTIGO_ENVIRONMENT": "testing",
            "SECTIGO_USERNAME": "demo",
            "SECTIGO_PASSWORD": "demo-password",
        }
        return subprocess.run(
            [PROGRAM, *arguments],
            cwd=tmp_path,
            env=environment(tmp_path / "home", **settings | extra),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    return execute
