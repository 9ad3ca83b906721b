import os
import shutil
import signal
import subprocess
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import attrs
import pytest

from sectigo_async.sandbox import SandboxConfig
from sectigo_async.testing import RunningSandbox

TESTS = str(Path(__file__).parent)


@pytest.fixture(autouse=True)
def _nothing_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep the settings, proxies and state of whoever runs the tests out of them."""
    for name in list(os.environ):
        foreign = name.upper().endswith("_PROXY") or name.startswith(
            ("SECTIGO_", "XDG_", "DBUS_", "PYTHON_KEYRING", "PG")
        )
        if foreign and name != "SECTIGO_TEST_REQUIRE":
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))


def find_tool(name: str, group: str, path: str | None = None) -> str:
    """Return the path of a program; without it, skip, or fail where the group is required."""
    tool = shutil.which(name, path=path)
    if tool is None:
        if group in os.environ.get("SECTIGO_TEST_REQUIRE", "").split(","):
            pytest.fail(f"{name} is required and not installed")
        pytest.skip(f"{name} is not installed")
    return tool


@pytest.fixture
def openssl(tmp_path: Path) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Run the openssl command line tool in the test's folder."""
    tool = find_tool("openssl", "openssl")

    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [tool, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=30
        )

    return run


@attrs.frozen
class SecretService:
    """A real, unlocked keyring in a store of its own.

    Attributes:
        environment: what a process needs to find it.
        pid: the keyring's process.
    """

    environment: dict[str, str]
    pid: int


# The look-up waits for the service to be on the bus; without it a short test leaves a daemon behind.
_SESSION = """
printf ci | gnome-keyring-daemon --unlock --components=secrets >/dev/null || exit 97
secret-tool lookup probe probe
echo "$DBUS_SESSION_BUS_ADDRESS"
dbus-send --session --print-reply=literal --dest=org.freedesktop.DBus / \\
    org.freedesktop.DBus.GetConnectionUnixProcessID string:org.freedesktop.secrets
read -r _
"""


@pytest.fixture
def secret_service(tmp_path: Path) -> Iterator[SecretService]:
    """Run gnome-keyring in a session bus of its own, as a desktop does."""
    session, *_ = [
        find_tool(tool, "keyring")
        for tool in ("dbus-run-session", "gnome-keyring-daemon", "secret-tool", "dbus-send")
    ]
    home = tmp_path / "keyring-home"
    home.mkdir()
    places = {name: str(home) for name in ("HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR")}
    process = subprocess.Popen(
        [session, "--", "sh", "-c", _SESSION],
        env={"PATH": os.environ["PATH"]} | places,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    address = process.stdout.readline().strip()
    assert address.startswith("unix:"), process.wait(5)
    pid = int(process.stdout.readline().split()[-1])
    yield SecretService(places | {"DBUS_SESSION_BUS_ADDRESS": address}, pid)
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)
    process.stdin.close()
    process.stdout.close()
    process.wait(10)


@pytest.fixture(scope="session")
def simulate() -> Callable[[SandboxConfig], RunningSandbox]:
    """Make simulators with settings of the test's own."""
    return RunningSandbox


@pytest.fixture
def live() -> Iterator[RunningSandbox]:
    """A simulator whose refresh tokens are good once, and which issues at once."""
    with RunningSandbox(SandboxConfig(issue_delay=0, rotate_refresh=True)) as running:
        yield running


@pytest.fixture(scope="session")
def words_about() -> Callable[[BaseException], Iterator[str]]:
    """Yield what an error says of itself: words, state, causes, notes, and how it is printed."""

    def tell(error: BaseException) -> Iterator[str]:
        for one in _chain(error):
            yield from (str(one), repr(one), repr(vars(one)), repr(getattr(one, "__notes__", [])))
            yield "".join(traceback.format_exception(one))

    return tell


@pytest.fixture(scope="session")
def locals_of() -> Callable[[BaseException], Iterator[str]]:
    """Yield what a crash reporter shows beside: where each frame of an error is, and what its variables hold."""

    def tell(error: BaseException) -> Iterator[str]:
        for one in _chain(error):
            for frame, line in traceback.walk_tb(one.__traceback__):
                where = f"{frame.f_code.co_filename}:{line}"
                if not where.startswith(TESTS):
                    yield from (f"{where}: {name} = {value!r}" for name, value in frame.f_locals.items())

    return tell


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    left: list[BaseException | None] = [error]
    while left:
        one = left.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            left += [one.__cause__, one.__context__]
            yield one
