"""A canary password and canary tokens: whatever happens, they show nowhere."""

import enum
import inspect
import logging
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import attrs
import httpx
import pytest
from cryptography import x509
from pytest_httpx import HTTPXMock

import sectigo_async
from sectigo_async import (
    Config,
    FileStore,
    IssuedCertificate,
    MemoryStore,
    Secret,
    SectigoClient,
    SectigoError,
    fleet,
    issuance,
    models,
    pki,
    sandbox,
    testing,
)
from sectigo_async import credentials as credentials_module
from sectigo_async.credentials import Credentials, Login
from sectigo_async.testing import FakeClock, LedgerContract

BASE = "https://iot.sectigo.com"
PASSWORD, ACCESS, REFRESH = "canary-password", "eyJ-canary.access.token", "eyJ-canary.refresh.token"
TOKENS = {"accessToken": ACCESS, "refreshToken": REFRESH}

Told = Callable[[BaseException], Iterable[str]]

pytestmark = pytest.mark.canary


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


@pytest.fixture
def everything_about(words_about: Told, locals_of: Told) -> Told:
    """Yield all that a crash reporter shows of an error."""
    return lambda error: chain(words_about(error), locals_of(error))


@pytest.mark.parametrize("scene", SCENES)
async def test_no_secret_shows(
    httpx_mock: HTTPXMock, caplog: pytest.LogCaptureFixture, tmp_path: Path, everything_about: Told, scene: str
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


async def test_no_secret_shows_where_the_store_fails(
    tmp_path: Path, httpx_mock: HTTPXMock, everything_about: Told
) -> None:
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
    make: Callable[[], SectigoClient], monkeypatch: pytest.MonkeyPatch, everything_about: Told
) -> None:
    monkeypatch.setenv("SECTIGO_PASSWORD", PASSWORD)
    monkeypatch.setenv("SECTIGO_ACCESS_TOKEN", ACCESS)
    for name in ("SECTIGO_TOKEN_CACHE", "SECTIGO_CREDENTIAL_STORE", "SECTIGO_ENVIRONMENT", "SECTIGO_ACCOUNT"):
        with monkeypatch.context() as patch:
            patch.setenv(name, "nonsense")
            with pytest.raises(SectigoError) as caught:
                make()

        assert not [text for text in everything_about(caught.value) if "canary" in text]


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


KEY = pki.generate_key()
PUBLIC = [sectigo_async, models, pki, credentials_module, fleet, issuance, sandbox, testing]


def memory() -> MemoryStore:
    made = MemoryStore()
    made._kept[Login(BASE, "ops"), credentials_module.Item.PASSWORD] = Secret(PASSWORD)
    return made


def issued() -> IssuedCertificate:
    certificate = x509.load_pem_x509_certificate(sandbox.Sandbox().ca_pem())
    check = pki.ChainCheck(pki.ChainStatus.FAILED, "")
    return IssuedCertificate(
        certificate=certificate, chain=(), key=KEY, member="a", key_match=None, name_match=None, chain_check=check
    )


def device() -> issuance.Device:
    return issuance.Device(key="a", name="a", common_name="a", parameters={"pkcs12Password": PASSWORD}, line=2)


def installed() -> issuance.Installed:
    return issuance.Installed(
        folder=Path("a"),
        generation=Path("a"),
        endpoint=BASE,
        profile_id=42,
        keys=issuance.Keys.SERVER,
        device=device(),
        serial_number="0A",
        not_before=datetime(2026, 2, 1, tzinfo=UTC),
        not_after=datetime(2026, 3, 1, tzinfo=UTC),
    )


def ledger_copy() -> issuance.LedgerCopy:
    run = issuance.Run(endpoint=BASE, username="ops", profile_id=42, keys=issuance.Keys.SERVER)
    now = datetime(2026, 3, 1, tzinfo=UTC)
    entries = (issuance.Entry(device=device(), updated=now),)
    return issuance.LedgerCopy(run=run, entries=entries, orders=(), devices_of_orders={}, in_use=False)


def database() -> fleet.Database:
    return fleet.Database.at(f"postgresql://ops:{PASSWORD}@db.example.com/name?sslpassword={PASSWORD}")


def shared_ledger() -> fleet.PostgresLedger:
    connection = cast("Any", SimpleNamespace())
    return fleet.PostgresLedger(database(), connection, LedgerContract.run, FakeClock(), None)


# Each public class whose objects hold a secret of the user's; none may be pickled.
KEEPERS: dict[str, Callable[[Path], object]] = {
    "Secret": lambda _: Secret(PASSWORD),
    "Issuance": lambda folder: issuance.Issuance(
        SectigoClient(username="ops", password=PASSWORD, store=memory()),
        cast("issuance.Ledger", SimpleNamespace(run=LedgerContract.run)),
        folder,
        issuance.Plan(devices=(device(),)),
    ),
    "Database": lambda _: database(),
    "PostgresLedger": lambda _: shared_ledger(),
    "FleetRun": lambda folder: fleet.FleetRun(
        database(), shared_ledger(), folder, issuance.Plan(devices=(device(),))
    ),
    "Worker": lambda folder: fleet.Worker(
        SectigoClient(username="ops", password=PASSWORD, store=memory()), database(), folder
    ),
    "SectigoClient": lambda _: SectigoClient(
        username="ops", password=PASSWORD, proxy=f"http://ops:{PASSWORD}@127.0.0.1:1", store=memory()
    ),
    "MemoryStore": lambda _: memory(),
    "Credentials": lambda _: Credentials(password=Secret(PASSWORD), access_token=Secret(ACCESS), store=memory()),
    "Found": lambda _: credentials_module.Found(Secret(PASSWORD), "argument"),
    "Resolved": lambda _: credentials_module.resolve(password=PASSWORD, environ={}),
    "StoredToken": lambda _: credentials_module.StoredToken.received(Secret(ACCESS), 900, FakeClock()),
    "SharedLogin": lambda folder: credentials_module.SharedLogin(
        Login(BASE, "ops"), store=memory(), directory=folder, cache=True, clock=FakeClock()
    ),
    "Reply": lambda _: sectigo_async.Reply(status=200, body=EVERYTHING.encode(), secrets=(Secret(PASSWORD),)),
    "IssuedCertificate": lambda _: issued(),
    "Issued": lambda _: sectigo_async.Issued(
        certificate=issued(), batch=sectigo_async.Batch(batch_id=24), directory=None
    ),
    "Item": lambda _: pki.Item(member="a.key", thing=KEY),
}
# Those that hold what a service, a file or a test says, whatever that is: it is not shown.
HOLDERS: dict[str, Callable[[], object]] = {
    "Archive": lambda: pki.Archive(EVERYTHING.encode()),
    "Member": lambda: pki.Member("a", EVERYTHING.encode(), pki.MemberKind.OTHER),
    "Batch": lambda: sectigo_async.Batch(
        batch_id=24,
        raw={"generatorParametersValues": EVERYTHING},
        generator_parameters_values={"pkcs12Password": PASSWORD},
    ),
    "Device": device,
    "DeviceList": lambda: issuance.DeviceList(devices=(device(),), problems=(), empty_lines=0),
    "Entry": lambda: ledger_copy().entries[0],
    "Installed": installed,
    "LedgerCopy": ledger_copy,
    "Plan": lambda: issuance.Plan(devices=(device(),), changed=(device(),), failed=ledger_copy().entries),
    "Model": lambda: models.Model(raw={"token": ACCESS}),
    "SandboxConfig": lambda: sandbox.SandboxConfig(password=PASSWORD),
    "Sandbox": lambda: sandbox.Sandbox(sandbox.SandboxConfig(password=PASSWORD)),
    "SandboxServer": lambda: sandbox.SandboxServer(sandbox.Sandbox(sandbox.SandboxConfig(password=PASSWORD))),
}
# Those that have nowhere to hold one: names, numbers, places, and how to reach a store.
HARMLESS = {
    "Access",
    "Account",
    "Accounts",
    "Authority",
    "ChainCheck",
    "ClientCertificate",
    "Clock",
    "Config",
    "CredentialStore",
    "CredentialStoreContract",
    "DirectorySink",
    "Event",
    "FakeClock",
    "FaultRule",
    "FileStore",
    "Finding",
    "FleetStatus",
    "FoundCertificate",
    "FoundCertificates",
    "Journal",
    "KeyringStore",
    "Layer",
    "Ledger",
    "LedgerContract",
    "Licenses",
    "LineProblem",
    "Login",
    "MemoryJournal",
    "Options",
    "Order",
    "Organization",
    "Outcome",
    "Parameter",
    "Probe",
    "ProcessingInfo",
    "Profile",
    "ProfileDetail",
    "Protection",
    "Rebuilt",
    "Reconciliation",
    "RefreshTokenFile",
    "Renewals",
    "ReportedStatus",
    "Run",
    "RunningSandbox",
    "SandboxTransport",
    "Setting",
    "SignIn",
    "Sink",
    "SinkContract",
    "SqliteJournal",
    "SqliteLedger",
    "StagedFile",
    "Standing",
    "Stats",
    "Superseded",
    "SystemClock",
}


def test_it_is_known_of_every_public_class_whether_it_can_hold_a_secret() -> None:
    classes = {name for module in PUBLIC for name in module.__all__ if inspect.isclass(getattr(module, name))}
    skipped = (enum.Enum, BaseException)
    found = {
        name
        for module in PUBLIC
        for name in classes & set(module.__all__)
        if not issubclass(getattr(module, name), skipped)
    }

    assert found == set(KEEPERS) | set(HOLDERS) | HARMLESS


def test_no_public_object_shows_what_it_holds(tmp_path: Path) -> None:
    keepers = [make(tmp_path) for make in KEEPERS.values()]
    for thing in [*keepers, *[make() for make in HOLDERS.values()]]:
        shown = f"{thing} {thing!r} {[thing]} {vars(thing) if isinstance(thing, SectigoClient) else ''}"
        assert "canary" not in shown
        assert "PRIVATE KEY" not in shown
    for thing in keepers:
        with pytest.raises((TypeError, AttributeError, pickle.PicklingError)):
            pickle.dumps(thing)


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
