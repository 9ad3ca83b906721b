"""The command line as people run it: a process of its own, against a simulator in another."""

import http.server
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pexpect
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
def start(tmp_path: Path) -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Start `sectigo-async` in the test's folder, without any of its settings; it does not outlive the test."""
    started: list[subprocess.Popen[str]] = []

    def begin(*arguments: str, **extra: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [PROGRAM, *arguments],
            cwd=tmp_path,
            env=environment(tmp_path / "home", **extra),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    # Whoever runs the tests may ignore it, as nohup does, and a child would inherit that.
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield begin
    signal.signal(signal.SIGHUP, before)
    for process in started:
        process.kill()
        for pipe in (process.stdout, process.stderr):
            assert pipe is not None
            pipe.close()
        process.wait(10)


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


@pytest.fixture(scope="session")
def call(server: str) -> Run:
    """Run `sectigo-async` piped, in a folder of the caller's, signed in to the simulator."""

    def execute(folder: Path, *arguments: str, stdin: str = "", **extra: str) -> "subprocess.CompletedProcess[str]":
        settings = {"SECTIGO_ENDPOINT": server, "SECTIGO_USERNAME": "demo", "SECTIGO_PASSWORD": "demo-password"}
        return subprocess.run(
            [PROGRAM, *arguments],
            cwd=folder,
            env=environment(folder, **settings | extra),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )

    return execute


@pytest.fixture
def run(tmp_path: Path, call: Run) -> Run:
    """Run `sectigo-async` piped, in the test's folder, signed in to the simulator unless told otherwise."""
    (tmp_path / "home").mkdir()
    return partial(call, tmp_path, SECTIGO_ENVIRONMENT="testing")


class Dialogue:
    """A command in a pseudo-terminal, and what a person answers it."""

    def __init__(self, child: "pexpect.spawn[str]") -> None:
        self.child = child
        self._log: list[str] = []
        child.logfile_read = self

    def write(self, text: str) -> None:
        self._log.append(text)

    def flush(self) -> None: ...

    def answer(self, question: str, keys: str) -> None:
        """Wait for a question, then press some keys; `\r` is Enter."""
        self.child.expect_exact(question)
        self.child.send(keys)

    def end(self) -> tuple[int | None, str]:
        """Wait for the end; return the exit code and all that was shown, without colours and cursor movements."""
        self.child.expect(pexpect.EOF)
        self.child.close()
        shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", "".join(self._log))
        return self.child.exitstatus, shown.replace("\r", "")


@pytest.fixture
def talk(tmp_path: Path, live: Any) -> Callable[..., Dialogue]:
    """Run `sectigo-async` on a terminal, in the test's folder, against a simulator in this process."""
    (tmp_path / "home").mkdir(exist_ok=True)

    def begin(*arguments: str, columns: int = 120, **extra: str) -> Dialogue:
        settings = {
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path / "home"),
            "TERM": "xterm-256color",
            "PROMPT_TOOLKIT_NO_CPR": "1",
            "SECTIGO_ENDPOINT": live.url,
            "SECTIGO_USERNAME": "demo",
            "SECTIGO_PASSWORD": "demo-password",
        }
        child: pexpect.spawn[str] = pexpect.spawn(
            PROGRAM,
            list(arguments),
            env=settings | extra,
            cwd=tmp_path,
            encoding="utf-8",
            timeout=20,
            dimensions=(50, columns),
        )
        return Dialogue(child)

    return begin


class Service:
    """A service that answers as it is told, and remembers what it was asked.

    Attributes:
        replies: status and document by method and path.
        seen: method and path of each request.
    """

    def __init__(self, replies: Mapping[str, tuple[int, object]]) -> None:
        self.replies = {"POST /auth/pwd": (200, {"accessToken": "a.b.c", "refreshToken": "a.b.c"}), **replies}
        self.seen: list[str] = []
        service = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def _answer(self) -> None:
                self.rfile.read(int(self.headers.get("content-length", 0)))
                asked = f"{self.command} {self.path}"
                service.seen.append(asked)
                status, document = service.replies.get(asked, (404, {"message": "unknown"}))
                body = json.dumps(document).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_PUT = _answer  # noqa: N815 - names of http.server

            def log_message(self, *_: object) -> None: ...

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def service() -> Iterator[Callable[[Mapping[str, tuple[int, object]]], Service]]:
    """Start a service that answers as the test says."""
    started: list[Service] = []

    def start(replies: Mapping[str, tuple[int, object]]) -> Service:
        started.append(Service(replies))
        return started[-1]

    yield start
    for one in started:
        one.close()
