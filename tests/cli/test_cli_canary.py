"""Every command with canaries for secrets, on good days and on bad ones: they sing nowhere."""

import http.server
import json
import logging
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

import attrs
import pytest
import typer.main

from sectigo_async import Secret
from sectigo_async import client as client_module
from sectigo_async.sandbox import SandboxConfig
from sectigo_async.testing import FakeClock
from sectigo_async_cli import run as run_module
from sectigo_async_cli.app import app, run_app
from sectigo_async_cli.options import commands_of

pytestmark = pytest.mark.canary

SHORTEST = 7
PASSWORD, PKCS12, PROXY = "canary-password-1", "canary-pkcs12-22", "canary-proxy-333"
DATABASE = "canary-database-6"
LEDGER = f"postgresql://ops:{DATABASE}@127.0.0.1:1/name"
STATE = Path("home/.local/state/sectigo-async")
Run = Callable[..., "subprocess.CompletedProcess[str]"]
Told = Callable[[BaseException], Iterator[str]]

# Lines for each command; `<` names what stands on standard input.
LINES: dict[str, list[str]] = {
    "login": [
        "login --password-stdin --credential-store file --save-password < password",
        "login --password-file password --credential-store file --no-save-password",
    ],
    "logout": ["logout"],
    "auth": ["auth", "auth --debug", "auth --cache"],
    "validate": ["validate", f"-p {PASSWORD} validate", "--env-file variables validate --table"],
    "authorities": ["authorities --balances"],
    "licenses": ["licenses"],
    "profiles": ["profiles", "profiles -i 42 --params"],
    "profile": ["profile -i 42"],
    "organization": ["organization"],
    "csr": ["csr -d new.example.com", "csr -d other.example.com --key one.example.com.key"],
    "create": [
        "create -a 42 -d a.example.com --out made --password-stdin < pkcs12",
        "create -a 42 -d b.example.com --wait",
        f"create -a 42 -d c.example.com -p {PKCS12}",
        f"create -a 42 -d d.example.com --param pkcs12Password={PKCS12} --table",
    ],
    "upload": ["upload -p 42 one.example.com.csr", "upload -p 42 - < key-and-request"],
    "issue": [
        "issue devices.csv -p 117 --keys server --out many",
        "issue devices.csv -p 85 --out more --dry-run",
        "--env-file ledger issue devices.csv -p 117 --out many",
    ],
    # Signed in it works until it is stopped.
    "worker": [f"worker --out many --ledger {LEDGER}", f"worker --out many --ledger {LEDGER.replace('@', '/@')}"],
    "renew": ["renew issued --within 3000d", "renew issued --revoke-superseded --after 0h"],
    "ledger status": ["ledger status issued", "--env-file ledger ledger status", f"ledger status {LEDGER}"],
    "ledger audit": ["ledger audit issued --after 0", "--env-file ledger ledger audit"],
    "ledger rebuild": ["ledger rebuild issued devices.csv -p 117 --keys server --after 0"],
    "batches": ["batches -i {batch}", "batches"],
    "reconcile": ["reconcile", "reconcile deadbeef", "reconcile --ledger issued", f"reconcile --ledger {LEDGER}"],
    "wait": ["wait {batch} --timeout 60"],
    "download": [
        "download -i {batch} -o new --extract --password-file pkcs12",
        "download -i {batch} -o new -x --password-stdin < password",
    ],
    "inspect": [
        "inspect certs/{batch}.zip --password-file pkcs12",
        "inspect certs/{batch}.zip --password-stdin < password",
        "inspect certs/base.example.com/privkey.pem",
        "inspect pkcs12",
    ],
    "unpack": [
        "unpack certs/{batch}.zip -o new --combined --password-stdin < pkcs12",
        "unpack certs/{batch}.zip -o new --password-file password",
        "unpack certs/base.example.com/cert.pem --key certs/base.example.com/privkey.pem -o new",
        "unpack pkcs12 -o new",
    ],
    "expiring": ["expiring . --within 9000d"],
    "find": ["find -n base.example.com"],
    "revoke": ["revoke -p 42 certs/base.example.com"],
    "doctor": ["doctor", "doctor --share"],
    "shell": ["shell"],
    "serve": ["serve -a 127.0.0.1:{port} --password-file password --state new"],
    "demo": ["demo -o password", "demo"],
}
TREE = typer.main.get_command(app)

Answer = Callable[[str], tuple[int, bytes]]


def message(status: int) -> Answer:
    return lambda heard: (status, json.dumps({"status": status, "message": heard, "errorCode": 7}).encode())


def text(status: int) -> Answer:
    return lambda heard: (status, heard.encode())


def page(status: int) -> Answer:
    return lambda heard: (status, f"<html>{heard}</html>".encode())


# Who answers otherwise than with tokens or a document, the sign-in or the call, and what: always all that it heard.
BAD_DAYS: dict[str, tuple[str, Answer]] = {
    "sign-in 401": ("/auth/", message(401)),
    "sign-in 500": ("/auth/", message(500)),
    "sign-in 307": ("/auth/", text(307)),
    "sign-in of another shape": ("/auth/", message(200)),
    "sign-in cut": ("/auth/", lambda _: (0, b"")),
    "400": ("/api/", message(400)),
    "401": ("/api/", text(401)),
    "403": ("/api/", text(403)),
    "429": ("/api/", message(429)),
    "500": ("/api/", page(500)),
    "302": ("/api/", text(302)),
    "another shape": ("/api/", lambda heard: (200, json.dumps([{"batchId": heard, "status": heard}]).encode())),
    "no JSON": ("/api/", text(200)),
    "cut": ("/api/", lambda _: (0, b"")),
}
TOKENS = json.dumps({"accessToken": "eyJ-canary.access.4", "refreshToken": "eyJ-canary.refresh.5"}).encode()


class Parrot:
    """A service that repeats what it heard: headers, tokens, passwords."""

    def __init__(self) -> None:
        self.bad: tuple[str, Answer] = ("nothing", text(200))
        self.heard = 0
        parrot = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0))).decode(errors="replace")
                heard = f"{self.headers.get('authorization', '')} {body}".replace("\r\n", " ").replace("\n", " ")
                parrot.heard += 1
                where, answer = parrot.bad
                status, said = answer(heard) if self.path.startswith(where) else (200, b"{}")
                if self.path.startswith("/auth/") and where != "/auth/":
                    status, said = 200, TOKENS
                if not status:
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                self.send_response(status)
                if status in {302, 307}:
                    self.send_header("location", f"https://127.0.0.1:1/{heard}")
                self.send_header("content-length", str(len(said)))
                self.end_headers()
                self.wfile.write(said)

            do_GET = do_POST = do_PUT = _answer  # noqa: N815 - names of http.server

            def log_message(self, *_: object) -> None: ...

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


_STARTED: list[str] = []
_EVENTS = {"subprocess.Popen", "os.exec", "os.posix_spawn", "os.spawn", "os.system"}


def _note_children(event: str, given: tuple[object, ...]) -> None:
    if event in _EVENTS:
        _STARTED.append(f"{event} {given[:-1] or given}")  # What stands last is the environment.


sys.addaudithook(_note_children)


@attrs.frozen
class Base:
    """What the commands take, in a folder that is copied for each.

    Attributes:
        url: a simulator whose account has the canary for a password.
        values: what stands in braces in the lines.
    """

    folder: Path
    url: str
    values: dict[str, str]


@pytest.fixture(scope="module")
def base(
    simulate: Callable[[SandboxConfig], Any], call: Run, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Base]:
    folder = tmp_path_factory.mktemp("canary") / "base"
    (folder / "temporary").mkdir(parents=True)
    for name, content in (
        ("password", PASSWORD),
        ("pkcs12", PKCS12),
        ("variables", f"SECTIGO_PASSWORD={PASSWORD}\n"),
        ("ledger", f"SECTIGO_LEDGER={LEDGER}\n"),
        ("empty", ""),
        ("devices.csv", "common_name,serialNumber\ngw.example.com,SN-0001\n"),
    ):
        _write(folder / name, content)
    with simulate(SandboxConfig(password=PASSWORD, issue_delay=0, rotate_refresh=True)) as running:
        for line in (
            "create -a 42 -d base.example.com --out certs --password-file pkcs12",
            "csr -d one.example.com",
            "issue devices.csv -p 117 --keys server --out issued",
        ):
            made = call(folder, *shlex.split(line), SECTIGO_ENDPOINT=running.url, SECTIGO_PASSWORD=PASSWORD)
            assert made.returncode == 0, made.stderr
        _write(
            folder / "key-and-request", "".join((folder / f"one.example.com.{x}").read_text() for x in ("key", "csr"))
        )
        (archive,) = (folder / "certs").glob("*.zip")
        yield Base(folder, running.url, {"batch": archive.stem, "port": running.url.rpartition(":")[2]})


def _write(path: Path, content: str) -> None:
    path.touch(0o600)
    path.write_text(content)


@pytest.fixture(scope="module")
def parrot() -> Iterator[Parrot]:
    made = Parrot()
    yield made
    made.close()


@attrs.define
class Cage:
    """Runs the command line in this process, and remembers all that it showed and every secret that there was.

    Attributes:
        secrets: every text that was made a `Secret`, and the lines of private keys.
        errors: what the commands reported.
    """

    base: Base
    folder: Path
    monkeypatch: pytest.MonkeyPatch
    capfd: pytest.CaptureFixture[str]
    caplog: pytest.LogCaptureFixture
    secrets: set[str] = attrs.field(factory=set)
    errors: list[BaseException] = attrs.field(factory=list)

    def run(self, line: str, endpoint: str) -> str:
        """Run a command line in a fresh copy of the folder; return all that was shown."""
        words, _, stdin = line.format(**self.base.values).partition(" < ")
        if self.folder.exists():
            shutil.rmtree(self.folder)
        shutil.copytree(self.base.folder, self.folder)
        for forgetful in (self.caplog, self.errors, _STARTED):
            forgetful.clear()
        logger = logging.getLogger("sectigo_async")
        handlers, level = list(logger.handlers), logger.level
        with self.monkeypatch.context() as patch, _standard_input(self.folder / (stdin or "empty")) as opened:
            patch.chdir(self.folder)
            patch.setattr(sys, "stdin", opened)
            patch.setattr(sys, "argv", ["sectigo-async", "--debug", *shlex.split(words)])
            patch.setattr(tempfile, "tempdir", str(self.folder / "temporary"))
            patch.setenv("HOME", str(self.folder / "home"))
            patch.setenv("SECTIGO_ENDPOINT", endpoint)
            with suppress(SystemExit):
                run_app()
        logger.handlers[:] = handlers
        logger.setLevel(level)
        shown = self.capfd.readouterr()
        # What the service puts into its headers is logged by httpcore, not by this package.
        logged = [line for line in self.caplog.text.splitlines() if "receive_response_headers.complete" not in line]
        return "\n".join([shown.out, shown.err, *logged, *_STARTED])

    def songs(self, parts: Iterable[str]) -> set[str]:
        """Return the lines that hold a secret."""
        return {line for part in parts for line in part.splitlines() if any(one in line for one in self.secrets)}

    def songs_of_files(self) -> Iterator[str]:
        """Yield what is wrong with the files that hold a secret."""
        for file in self.folder.rglob("*"):
            if not file.is_file():
                continue
            content, name = file.read_bytes(), file.relative_to(self.folder)
            for key in re.findall(rb"BEGIN[A-Z ]* PRIVATE KEY-+\n(.*?)\n-+END", content, re.DOTALL):
                self.secrets.add(key.decode().splitlines()[0])  # Further lines may hold the public key alone.
            if not any(secret.encode() in content for secret in self.secrets):
                continue
            if file.stat().st_mode & 0o177:
                yield f"{name}: others may read it"
            if name.parts[0] == "temporary" or (name.parts[0] == "home" and not name.is_relative_to(STATE)):
                yield f"{name}: is not for secrets"
            if name.parts[0] == "home" and file.parent.stat().st_mode & 0o077:
                yield f"{name}: others may look into its folder"


@contextmanager
def _standard_input(path: Path) -> Iterator[TextIO]:
    kept = os.dup(0)
    try:
        with path.open() as opened:
            os.dup2(opened.fileno(), 0)
            yield opened
    finally:
        os.dup2(kept, 0)
        os.close(kept)


@pytest.fixture
def cage(
    base: Base,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    *,
    request: pytest.FixtureRequest,
) -> Cage:
    made = Cage(base, tmp_path / "work", monkeypatch, capfd, caplog, secrets={PASSWORD, PKCS12, PROXY, DATABASE})
    caplog.set_level(logging.DEBUG)
    keep, report = Secret.__init__, run_module.report

    def kept(self: Secret, value: "str | Secret") -> None:
        keep(self, value)
        if len(self.reveal()) > SHORTEST:
            made.secrets.add(self.reveal())

    def reported(error: Any, chosen: Any) -> int:
        made.errors.append(error)
        return report(error, chosen)

    def bug(error: BaseException, **_: object) -> int:
        pytest.fail(f"a bug: {error!r}")

    monkeypatch.setattr(Secret, "__init__", kept)
    monkeypatch.setattr(run_module, "report", reported)
    monkeypatch.setattr(run_module, "report_bug", bug)
    if request.node.callspec.params.get("line") != "demo":  # Its simulator lives in real time.
        monkeypatch.setattr(client_module, "SystemClock", lambda: FakeClock(start=time.time()))
    monkeypatch.setattr(typer.main, "get_command", lambda _: TREE)  # To build it takes longer than most commands.
    monkeypatch.setenv("SECTIGO_USERNAME", "demo")
    monkeypatch.setenv("SECTIGO_PASSWORD", PASSWORD)
    monkeypatch.setenv("HTTPS_PROXY", f"http://user:{PROXY}@127.0.0.1:1")
    return made


# Lines after which a crash reporter would find a secret among the variables of a frame, and in which file. What is
# mended there must be struck out here.
OPEN = {
    f"create -a 42 -d c.example.com -p {PKCS12}": {"create.py"},
    f"create -a 42 -d d.example.com --param pkcs12Password={PKCS12} --table": {"create.py"},
    "download -i {batch} -o new -x --password-stdin < password": {"archive.py"},
    "inspect certs/{batch}.zip --password-stdin < password": {"archive.py"},
    "unpack certs/{batch}.zip -o new --password-file password": {"archive.py"},
    "serve -a 127.0.0.1:{port} --password-file password --state new": {"sandbox.py"},
}


@pytest.mark.skipif(sys.platform == "win32", reason="there are no core files")
def test_a_crash_leaves_no_memory_behind(call: Run, tmp_path: Path) -> None:
    code = "import atexit, resource\natexit.register(lambda: print(resource.getrlimit(resource.RLIMIT_CORE)[0]))\n"
    (tmp_path / "sitecustomize.py").write_text(code)

    assert call(tmp_path, "--help", PYTHONPATH=str(tmp_path)).stdout.splitlines()[-1] == "0"


def test_no_command_is_left_out() -> None:
    assert set(LINES) == set(commands_of(TREE))


FIRST_LINES = {lines[0] for lines in LINES.values()}


def days(base: Base, parrot: Parrot, line: str) -> Iterator[tuple[str, str]]:
    """Yield how a day is and where the service is.

    Few bad days are enough for a command's further lines, and one for commands that ask no service.
    """
    yield "good", base.url
    if line == "demo":
        return  # It brings its own service.
    yield "behind a proxy that is down", "https://iot.sectigo.com"
    yield "misspelt", "nonsense"
    before = parrot.heard
    for day in BAD_DAYS if line in FIRST_LINES else ("sign-in 401", "400", "cut"):
        parrot.bad = BAD_DAYS[day]
        yield day, parrot.url
        if parrot.heard == before:
            return


@pytest.mark.parametrize("line", [line for lines in LINES.values() for line in lines])
def test_no_canary_sings(cage: Cage, parrot: Parrot, words_about: Told, locals_of: Told, *, line: str) -> None:
    in_frames: set[str] = set()
    for day, endpoint in days(cage.base, parrot, line):
        shown = cage.run(line, endpoint)
        assert not list(cage.songs_of_files()), day
        assert not cage.songs([shown]), day
        assert not cage.songs(part for error in cage.errors for part in words_about(error)), day
        in_frames |= cage.songs(part for error in cage.errors for part in locals_of(error))

    assert {found.partition(":")[0].rpartition("/")[2] for found in in_frames} == OPEN.get(line, set()), in_frames
