"""A canary password and canary tokens: whatever happens, they show nowhere."""

import logging
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import attrs
import httpx
import pytest
from pytest_httpx import HTTPXMock

import sectigo_async
from sectigo_async import Config, FileStore, Secret, SectigoClient, SectigoError
from sectigo_async.credentials import Credentials, Login
from sectigo_async.testing import FakeClock

BASE = "https://iot.sectigo.com"
PASSWORD, ACCESS, REFRESH = "canary-password", "eyJ-canary.access.token", "eyJ-canary.refresh.token"
TOKENS = {"accessToken": ACCESS, "refreshToken": REFRESH}
PACKAGE = str(Path(sectigo_async.__file__).parent)


def sign_in(mock: HTTPXMock, **answer: Any) -> None:
    mock.add_response(url=f"{BASE}/auth/pwd", is_optional=True, is_reusable=True, **answer)


def refresh(mock: HTTPXMock, **answer: Any) -> None:
    sign_in(mock, json=TOKENS)
    for path, reply in (("api/v1/devices", {"status_code": 401}), ("auth/refresh", answer)):
        mock.add_response(url=f"{BASE}/{path}", is_optional=True, is_reusable=True, **reply)


def devices(mock: HTTPXMock, **answer: Any) -> None:
    sign_in(mock, json=TOKENS)
    mock.add_response(url=f"{BASE}/api/v1/devices", is_reusable=True, **answer)


def cut(mock: HTTPXMock, path: str, error: Exception) -> None:
    if path != "auth/pwd":
        sign_in(mock, json=TOKENS)
    if path == "auth/refresh":
        mock.add_response(url=f"{BASE}/api/v1/devices", status_code=401, is_reusable=True, is_optional=True)
    mock.add_exception(error, url=f"{BASE}/{path}", is_reusable=True)


EVERYTHING = f"{PASSWORD} {ACCESS} {REFRESH}"
SCENES: dict[str, Callable[[HTTPXMock], None]] = {
    "all is well": lambda mock: devices(mock, json={"ordered": 1, "issued": 1}),
    "the password is refused": lambda mock: sign_in(mock, status_code=401, text=EVERYTHING),
    "the account is refused": lambda mock: sign_in(mock, status_code=403, json={"message": PASSWORD}),
    "a certificate is wanted": lambda mock: sign_in(
        mock, status_code=307, headers={"location": f"https://{PASSWORD}"}
    ),
    "sign-in is redirected": lambda mock: sign_in(mock, status_code=302, headers={"location": f"https://{PASSWORD}"}),
    "sign-in fails": lambda mock: sign_in(mock, status_code=500, json={"message": EVERYTHING, "status": 500}),
    "sign-in answers otherwise": lambda mock: sign_in(mock, json={"token": ACCESS, "echo": PASSWORD}),
    "sign-in is no JSON": lambda mock: sign_in(mock, text=EVERYTHING),
    "tokens of another shape": lambda mock: sign_in(mock, json={"accessToken": {"value": ACCESS}}),
    "a token with a newline": lambda mock: sign_in(mock, json={"accessToken": f"{ACCESS}\r\nX: y"}),
    "sign-in is cut": lambda mock: cut(mock, "auth/pwd", httpx.ReadError(PASSWORD)),
    "sign-in takes long": lambda mock: cut(mock, "auth/pwd", httpx.ReadTimeout(PASSWORD)),
    "nobody is there": lambda mock: cut(mock, "auth/pwd", httpx.ConnectError("no")),
    "refresh is refused": lambda mock: refresh(mock, status_code=401, text=REFRESH),
    "refresh fails": lambda mock: refresh(mock, status_code=500, json={"message": f"{REFRESH} is bad"}),
    "refresh is cut": lambda mock: cut(mock, "auth/refresh", httpx.ReadError(REFRESH)),
    "a call is refused": lambda mock: devices(mock, status_code=403, text=f"not with {ACCESS}"),
    "a call fails": lambda mock: devices(mock, status_code=500, json={"message": f"Bearer {ACCESS}"}),
    "a call answers otherwise": lambda mock: devices(mock, json=[ACCESS]),
    "a call is cut": lambda mock: cut(mock, "api/v1/devices", httpx.ReadError("cut")),
}


@pytest.mark.parametrize("scene", SCENES)
async def test_no_secret_shows(
    httpx_mock: HTTPXMock, caplog: pytest.LogCaptureFixture, tmp_path: Path, scene: str
) -> None:
    caplog.set_level(logging.DEBUG)
    SCENES[scene](httpx_mock)
    credentials = Credentials(
        username="ops", password=Secret(PASSWORD), store=FileStore(tmp_path / "store"), directory=tmp_path / "state"
    )
    caught: SectigoError | None = None
    async with SectigoClient(config=Config.create(), credentials=credentials, clock=FakeClock()) as client:
        try:
            await client.licenses.get()
        except SectigoError as error:
            caught = error
        shown = f"{client!r} {vars(client)!r} {credentials!r} {client._transport._tokens!r}"
        shown += repr([vars(part) for part in (client._transport, client._transport._tokens)])

    assert (caught is None) == (scene == "all is well")
    assert "canary" not in shown + caplog.text
    if caught is not None:
        assert not [text for text in everything_about(caught) if "canary" in text]
    assert_files_are_private(tmp_path)


async def test_no_secret_shows_where_the_store_fails(tmp_path: Path, httpx_mock: HTTPXMock) -> None:
    sign_in(httpx_mock, json=TOKENS)
    (tmp_path / "in the way").write_text("")
    store = FileStore(tmp_path / "in the way")
    credentials = Credentials(username="ops", password=Secret(PASSWORD), store=store, directory=tmp_path / "state")
    async with SectigoClient(config=Config.create(), credentials=credentials) as client:
        with pytest.raises(SectigoError) as caught:
            await client.sign_in(fresh=True)
    shared = credentials.share(BASE, FakeClock())
    with pytest.raises(SectigoError) as other:
        await shared.save_password(Secret(PASSWORD))

    for error in (caught.value, other.value):
        assert not [text for text in everything_about(error) if "canary" in text]


@pytest.mark.parametrize(
    "make",
    [
        lambda: SectigoClient(username="ops", password=PASSWORD, endpoint="nonsense"),
        lambda: SectigoClient(username="ops", password=PASSWORD, config=Config.create(), endpoint="https://x"),
        SectigoClient.from_env,
    ],
)
def test_no_secret_shows_where_a_client_cannot_be_made(
    make: Callable[[], SectigoClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECTIGO_PASSWORD", PASSWORD)
    monkeypatch.setenv("SECTIGO_ACCESS_TOKEN", ACCESS)
    for name in ("SECTIGO_TOKEN_CACHE", "SECTIGO_CREDENTIAL_STORE", "SECTIGO_ENVIRONMENT", "SECTIGO_ACCOUNT"):
        with monkeypatch.context() as patch:
            patch.setenv(name, "nonsense")
            with pytest.raises(SectigoError) as caught:
                make()

        assert not [text for text in everything_about(caught.value) if "canary" in text]


def everything_about(error: BaseException) -> Iterator[str]:
    """Yield all that a crash reporter would show: words, state, causes, notes, and locals of our frames."""
    seen: set[int] = set()
    left: list[BaseException | None] = [error]
    while left:
        one = left.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        left += [one.__cause__, one.__context__]
        yield from (str(one), repr(one), repr(vars(one)), repr(getattr(one, "__notes__", [])))
        yield "".join(traceback.format_exception(one))
        yield from (repr(value) for frame in frames(one.__traceback__) for value in frame.f_locals.values())


def frames(trace: TracebackType | None) -> Iterator[FrameType]:
    while trace is not None:
        if trace.tb_frame.f_code.co_filename.startswith(PACKAGE):
            yield trace.tb_frame
        trace = trace.tb_next


def assert_files_are_private(directory: Path) -> None:
    for path in directory.rglob("*"):
        if path.is_file() and b"canary" in path.read_bytes():
            assert path.stat().st_mode & 0o177 == 0, path
            assert path.parent.stat().st_mode & 0o077 == 0, path


def test_what_is_stored_shows_nothing_of_itself(tmp_path: Path) -> None:
    from sectigo_async.credentials import Found, RefreshTokenFile, StoredToken
    from sectigo_async.credentials.records import encode

    login = Login(BASE, "ops")
    token = StoredToken.received(Secret(ACCESS), 900, FakeClock())
    things: list[object] = [token, encode(login, token.fields()), Found(Secret(PASSWORD), "argument")]
    things += [Credentials(password=Secret(PASSWORD), access_token=Secret(ACCESS)), RefreshTokenFile(tmp_path)]

    things += [attrs.asdict(token), attrs.asdict(Found(Secret(PASSWORD), "argument"))]

    assert "canary" not in repr(things)


CHILDREN = """
import sys
events = []
watched = ("subprocess.Popen", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system")
sys.addaudithook(lambda name, args: events.append(name) if name in watched else None)
from sectigo_async_cli import main
try:
    main()
except SystemExit as end:
    assert not events, events
    raise
"""


@pytest.mark.parametrize("command", [("licenses",), ("auth",), ("login", "--credential-store", "file")])
def test_no_child_is_started_that_could_be_told_a_secret(live: Any, tmp_path: Path, command: tuple[str, ...]) -> None:
    (tmp_path / "home").mkdir()
    result = subprocess.run(
        [sys.executable, "-c", CHILDREN, "-e", live.url, "-u", "demo", *command],
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path / "home"),
            "SECTIGO_PASSWORD": "demo-password",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )

    assert result.returncode == 0, result.stderr
    assert "demo-password" not in result.stdout + result.stderr
