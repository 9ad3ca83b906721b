"""One renewal for everybody."""

import asyncio
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

from sectigo_async import Config, CredentialStore, FileStore, MemoryStore, Secret, SectigoClient
from sectigo_async.auth import TokenManager
from sectigo_async.auth.token import read_claims
from sectigo_async.credentials import Credentials, Item, Login, SharedLogin, StoredToken
from sectigo_async.errors import (
    CallTimeoutError,
    ConfigurationError,
    ConnectFailedError,
    CredentialStoreError,
    InvalidCredentialsError,
    KeyringLockedError,
    KeyringUnavailableError,
    NoReplyError,
    SectigoError,
    SignInRequiredError,
)
from sectigo_async.testing import FakeClock
from sectigo_async.wire.calls import Call
from sectigo_async.wire.reply import Reply


class Service:
    """Answers sign-ins and refreshes, and counts them."""

    def __init__(self, mint: Callable[..., str]) -> None:
        self.mint = mint
        self.log: list[str] = []
        self.sent: list[str] = []
        self.answers: list[Reply | SectigoError] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def send(self, call: Call[Reply]) -> Reply:
        self.log.append(call.path)
        self.sent.append((call.body or b"").decode())
        await self.gate.wait()
        answer = self.answers.pop(0) if self.answers else self.tokens()
        if isinstance(answer, SectigoError):
            raise answer
        return answer

    async def send_with_certificate(self, call: Call[Reply], url: str) -> Reply:
        return await self.send(attrs.evolve(call, path=url))

    def tokens(self, *, refresh: str | None = "", lifetime: float | None = 900, first_login: bool = False) -> Reply:
        """Answer with tokens; `refresh` names the refresh token, `None` means none."""
        access = self.mint(f"access-{len(self.log)}", lifetime=lifetime, first_login=first_login)
        document = {"accessToken": access}
        if refresh is not None:
            document["refreshToken"] = self.mint(refresh or f"refresh-{len(self.log)}", lifetime=7200)
        return Reply(status=200, body=json.dumps(document).encode())


def timed_out() -> CallTimeoutError:
    return CallTimeoutError("slow", method="POST", path="/auth/refresh")


@pytest.fixture
def service(mint: Callable[..., str]) -> Service:
    return Service(mint)


@pytest.fixture
def manager(service: Service, clock: FakeClock) -> TokenManager:
    return manage(service, clock, ops())


def ops(password: str | None = "hunter2", **more: Any) -> Credentials:  # noqa: S107 - of a simulator
    return Credentials(username="ops", password=Secret(password) if password else None, **more)


def manage(service: Service, clock: FakeClock, credentials: Credentials) -> TokenManager:
    config = Config.create()
    shared = credentials.share(config.endpoint, clock)
    return TokenManager(sender=service, credentials=credentials, shared=shared, config=config, clock=clock)


async def secret(manager: TokenManager) -> Secret:
    return (await manager.token()).secret


async def settle() -> None:
    """Let a renewal that nobody waits for come to its end."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_fresh_token_is_reused_and_renewed_a_little_before_its_end(
    manager: TokenManager, service: Service, clock: FakeClock
) -> None:
    first = await manager.token()
    clock.advance(839)
    assert await manager.token() == first
    clock.advance(59)
    assert await manager.token() == first, "nobody waits while the old one is good"
    await settle()

    assert await manager.token() != first
    assert service.log == ["/auth/pwd", "/auth/refresh"]


async def test_many_who_wait_share_one_sign_in(manager: TokenManager, service: Service) -> None:
    tokens = await asyncio.gather(*(manager.token() for _ in range(1000)))

    assert len({token.secret for token in tokens}) == 1
    assert service.log == ["/auth/pwd"]


async def test_the_cancellation_of_one_does_not_cost_the_others_their_token(
    manager: TokenManager, service: Service
) -> None:
    service.gate.clear()
    tasks = [asyncio.create_task(manager.token()) for _ in range(3)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    await asyncio.sleep(0)
    service.gate.set()

    assert await tasks[1] == await tasks[2]
    assert tasks[0].cancelled()
    assert service.log == ["/auth/pwd"]


async def test_when_all_who_wait_are_cancelled_the_token_is_there_for_the_next(
    manager: TokenManager, service: Service
) -> None:
    service.gate.clear()
    task = asyncio.create_task(manager.token())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    service.gate.set()

    await manager.token()

    assert service.log == ["/auth/pwd"]


async def test_a_good_token_survives_a_failed_refresh_and_the_service_is_not_hammered(
    manager: TokenManager, service: Service, clock: FakeClock
) -> None:
    first = await manager.token()
    service.answers = [timed_out(), timed_out()]
    clock.advance(860)

    for _ in range(5):
        assert await manager.token() == first
        await settle()
    assert service.log == ["/auth/pwd", "/auth/refresh", "/auth/pwd"]
    service.answers = [timed_out(), timed_out()]
    clock.advance(41)
    with pytest.raises(CallTimeoutError):
        await manager.token()


async def test_only_the_token_that_failed_is_replaced(manager: TokenManager, service: Service) -> None:
    first = await manager.token()
    second = await manager.replace(first)

    assert await manager.replace(first) == second
    assert service.log == ["/auth/pwd", "/auth/refresh"]


async def test_a_failed_renewal_reaches_all_who_wait_and_the_next_tries_again(
    manager: TokenManager, service: Service
) -> None:
    service.answers = [timed_out()]

    results = await asyncio.gather(*(manager.token() for _ in range(3)), return_exceptions=True)

    assert all(isinstance(result, CallTimeoutError) for result in results)
    await manager.token()
    assert service.log == ["/auth/pwd", "/auth/pwd"]


async def test_refresh_that_does_not_work_falls_back_to_the_password(
    manager: TokenManager, service: Service, clock: FakeClock
) -> None:
    await manager.token()
    service.answers = [Reply(status=500, body=b"broken")]
    clock.advance(2000)

    await manager.token()

    assert service.log == ["/auth/pwd", "/auth/refresh", "/auth/pwd"]


async def test_tokens_that_tell_no_lifetime_are_used_until_refused(
    service: Service, manager: TokenManager, clock: FakeClock
) -> None:
    service.answers = [service.tokens(lifetime=None)]
    first = await manager.token()
    clock.advance(10**6)

    assert await manager.token() == first


@pytest.fixture
def shared(clock: FakeClock, tmp_path: Path) -> SharedLogin:
    """What another process of the same login has shared."""
    return ops(directory=tmp_path / "state").share("https://iot.sectigo.com", clock)


async def test_a_shared_token_saves_the_sign_in_until_it_is_refused(
    service: Service, clock: FakeClock, mint: Callable[..., str], shared: SharedLogin, tmp_path: Path
) -> None:
    await shared.share_access_token(StoredToken.received(Secret(mint("shared")), 900, clock))
    clock.advance(500)
    manager = manage(service, clock, ops(directory=tmp_path / "state"))

    first = await manager.token()
    assert first.secret.reveal() == mint("shared")
    assert first.good_until == clock.monotonic() + 400
    assert not service.log
    renewed = await manager.replace(first)

    assert service.log == ["/auth/pwd"]
    kept = await shared.access_token()
    assert kept is not None
    assert kept.token == renewed.secret


@pytest.mark.parametrize("later", [900, 1000, -10])
async def test_a_shared_token_past_its_end_or_from_the_future_is_not_used(
    service: Service, clock: FakeClock, shared: SharedLogin, tmp_path: Path, later: float
) -> None:
    await shared.share_access_token(StoredToken.received(Secret("shared"), 900, clock))
    clock.advance(later)

    await manage(service, clock, ops(directory=tmp_path / "state")).token()

    assert service.log == ["/auth/pwd"]


async def test_a_shared_token_is_not_trusted_where_the_clocks_disagree_or_the_machine_was_restarted(
    service: Service, clock: FakeClock, mint: Callable[..., str], shared: SharedLogin, tmp_path: Path
) -> None:
    token = StoredToken.received(Secret(mint("shared")), 900, clock)
    for doubtful in (attrs.evolve(token, wall=token.wall - 100), attrs.evolve(token, boot="another")):
        await shared.share_access_token(doubtful)
        assert doubtful.left(clock) == 0
        service.log.clear()

        await manage(service, clock, ops(directory=tmp_path / "state")).token()

        assert service.log == ["/auth/pwd"]


async def test_a_directory_that_cannot_be_used_is_an_error_only_where_something_is_at_stake(
    service: Service, clock: FakeClock, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(CredentialStoreError, match="file"):
        await manage(service, clock, ops(None, store=MemoryStore(), directory=tmp_path / "file")).token()
    assert not service.log
    await manage(service, clock, ops(directory=tmp_path / "file")).token()
    assert service.log == ["/auth/pwd"]


async def test_a_password_refused_while_the_token_is_good_does_not_end_the_session(
    manager: TokenManager, service: Service, clock: FakeClock
) -> None:
    first = await manager.token()
    service.answers = [Reply(status=401)] * 3
    clock.advance(860)

    assert await manager.token() == first
    await settle()
    assert await manager.token() == first
    with pytest.raises(InvalidCredentialsError):
        await manager.replace(first)
    assert service.log.count("/auth/pwd") == 2


async def test_closing_ends_a_renewal_under_way(manager: TokenManager, service: Service) -> None:
    service.gate.clear()
    task = asyncio.create_task(manager.token())
    await asyncio.sleep(0)

    await manager.aclose()

    with pytest.raises(ConfigurationError, match="closed"):
        await task
    assert not task.cancelled()


@pytest.mark.parametrize("token", ["", "a.b", "a.b.c", "..", "a.!!!.c", "a.bnVsbA.c", "a.W10.c", "é.é.é"])
def test_tokens_that_cannot_be_read_say_nothing(token: str) -> None:
    claims = read_claims(Secret(token))

    assert (claims.lifetime, claims.first_login) == (None, False)


@pytest.mark.parametrize("answer", [Reply(status=200, body=b'{"ok":1}'), timed_out(), Reply(status=503)])
async def test_whatever_is_wrong_with_the_refresh_the_password_helps(
    manager: TokenManager, service: Service, clock: FakeClock, answer: Reply | SectigoError
) -> None:
    await manager.token()
    service.answers = [answer]
    clock.advance(901)

    await manager.token()

    assert service.log == ["/auth/pwd", "/auth/refresh", "/auth/pwd"]


async def test_a_slow_renewal_that_fails_is_judged_by_the_time_it_ended(
    manager: TokenManager, service: Service, clock: FakeClock
) -> None:
    await manager.token()
    clock.advance(890)
    service.gate.clear()
    service.answers = [timed_out(), timed_out()]
    await manager.token()
    await settle()
    clock.advance(35)
    late = asyncio.create_task(manager.token())
    await settle()
    service.gate.set()

    with pytest.raises(CallTimeoutError):
        await late


async def test_each_who_waits_gets_an_error_of_its_own(manager: TokenManager, service: Service) -> None:
    service.answers = [timed_out()]

    one, other = await asyncio.gather(manager.token(), manager.token(), return_exceptions=True)

    assert isinstance(one, CallTimeoutError)
    assert isinstance(other, CallTimeoutError)
    one.add_note("for one alone")
    assert not hasattr(other, "__notes__")
    assert (other.method, other.path, str(other)) == ("POST", "/auth/refresh", "slow")


async def test_a_first_login_is_explained(
    manager: TokenManager, service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    service.answers = [service.tokens(first_login=True)]

    told = await manager.sign_in(fresh=False)

    assert told.first_login
    assert "set a new password" in caplog.text


async def test_what_a_sign_in_tells(manager: TokenManager, clock: FakeClock) -> None:
    told = await manager.sign_in(fresh=False)
    assert (told.username, told.endpoint) == ("ops", "https://iot.sectigo.com")
    assert (told.source, told.expires_in, told.shared, told.store) == ("password (argument)", 900, False, None)

    clock.advance(1000)
    assert (await manager.sign_in(fresh=False)).source == "refresh token"


async def test_a_refresh_without_a_refresh_token_keeps_the_old_one_and_a_new_one_is_used_from_then_on(
    manager: TokenManager, service: Service, clock: FakeClock
) -> None:
    for refresh in ("first", None, "second", None):
        service.answers.append(service.tokens(refresh=refresh))
    for _ in range(4):
        await manager.token()
        clock.advance(1000)

    assert service.log == ["/auth/pwd", *["/auth/refresh"] * 3]
    assert service.sent[1:] == [service.mint(name, lifetime=7200) for name in ("first", "first", "second")]


async def test_a_refused_refresh_without_a_password_asks_to_sign_in_again(
    service: Service, clock: FakeClock, tmp_path: Path
) -> None:
    store = MemoryStore()
    credentials = ops(None, store=store, directory=tmp_path / "state")
    shared = credentials.share("https://iot.sectigo.com", clock)
    await shared.save_refresh_token(Secret("kept"), 7200)
    service.answers = [service.tokens(), Reply(status=401)]
    manager = manage(service, clock, credentials)
    await manager.token()
    clock.advance(1000)

    with pytest.raises(SignInRequiredError, match="no longer accepts the login of 'ops'"):
        await manager.token()

    assert service.log == ["/auth/refresh"] * 2
    assert await shared.refresh_token() is None, "what was refused is forgotten"


async def test_a_refused_refresh_token_is_kept_if_somebody_has_replaced_it(clock: FakeClock, tmp_path: Path) -> None:
    shared = ops(None, store=MemoryStore(), directory=tmp_path).share("https://iot.sectigo.com", clock)
    await shared.save_refresh_token(Secret("new"), 7200)

    await shared.forget_refresh_token(Secret("old"))

    assert await shared.refresh_token() == Secret("new")


async def test_the_store_supplies_refresh_token_and_password(
    service: Service, clock: FakeClock, tmp_path: Path
) -> None:
    credentials = ops(None, store=MemoryStore(), directory=tmp_path / "state")
    shared = credentials.share("https://iot.sectigo.com", clock)
    await shared.save_refresh_token(Secret("kept"), 7200)
    await shared.save_password(Secret("hunter2"))
    manager = manage(service, clock, credentials)

    assert (await manager.sign_in(fresh=False)).source == "refresh token (memory)"
    assert await shared.refresh_token() == Secret(service.mint("refresh-1", lifetime=7200))
    service.answers = [Reply(status=403)]
    clock.advance(1000)

    assert (await manager.sign_in(fresh=False)).source == "password (memory)"
    assert service.log == ["/auth/refresh", "/auth/refresh", "/auth/pwd"]


async def test_a_refused_password_is_not_sent_again_by_any_process_until_somebody_says_so(
    service: Service, clock: FakeClock, tmp_path: Path
) -> None:
    credentials = ops(directory=tmp_path / "state")
    service.answers = [Reply(status=401)]
    manager = manage(service, clock, credentials)
    for _ in range(3):
        with pytest.raises(InvalidCredentialsError):
            await manager.token()
    another = manage(service, clock, credentials)
    with pytest.raises(InvalidCredentialsError, match="before"):
        await another.token()
    assert service.log == ["/auth/pwd"]
    assert b"hunter2" not in b"".join(path.read_bytes() for path in (tmp_path / "state").iterdir())

    await manage(service, clock, ops("another", directory=tmp_path / "state")).token()
    assert service.log == ["/auth/pwd"] * 2, "another password is sent"
    service.answers = [Reply(status=401)]
    with pytest.raises(InvalidCredentialsError):
        await another.sign_in(fresh=True)
    assert service.log == ["/auth/pwd"] * 3, "another was accepted meanwhile"
    with pytest.raises(InvalidCredentialsError, match="before"):
        await manage(service, clock, credentials).sign_in(fresh=True)
    await credentials.share("https://iot.sectigo.com", clock).clear_refusal()
    await manage(service, clock, credentials).sign_in(fresh=True)
    clock.advance(1000)
    await manage(service, clock, credentials).token()
    assert service.log == ["/auth/pwd"] * 5, "once accepted, it is used again"


async def test_several_refused_passwords_are_remembered(service: Service, clock: FakeClock, tmp_path: Path) -> None:
    service.answers = [Reply(status=401)] * 4
    for password in ("old", "older", "old", "older"):
        with pytest.raises(InvalidCredentialsError):
            await manage(service, clock, ops(password, directory=tmp_path / "state")).token()

    assert service.log == ["/auth/pwd"] * 2


@pytest.mark.parametrize("problem", ["cut", "no connection"])
async def test_a_refresh_that_was_cut_off_is_asked_for_once_more_and_one_without_connection_ends_it(
    manager: TokenManager, service: Service, clock: FakeClock, problem: str
) -> None:
    await manager.token()
    clock.advance(1000)
    if problem == "cut":
        service.answers = [NoReplyError("cut", method="POST", path="/auth/refresh")]
        await manager.token()
        assert service.log == ["/auth/pwd", "/auth/refresh", "/auth/refresh"]
    else:
        service.answers = [ConnectFailedError("no", method="POST", path="/auth/refresh")]
        with pytest.raises(ConnectFailedError):
            await manager.token()
        assert service.log == ["/auth/pwd", "/auth/refresh"]


class Broken(MemoryStore):
    """A store that fails: for reading, or for writing alone."""

    def __init__(self, *, reading: bool = True) -> None:
        super().__init__()
        self.reading = reading

    async def load(self, login: Login, item: Item) -> Secret | None:
        if self.reading:
            raise KeyringUnavailableError("there is no usable keyring", hint="start one")
        return await super().load(login, item)

    async def save(self, login: Login, item: Item, value: Secret) -> None:  # noqa: ARG002
        raise CredentialStoreError("full")


async def test_without_a_keyring_and_a_password_both_are_told(
    service: Service, clock: FakeClock, tmp_path: Path
) -> None:
    manager = manage(service, clock, ops(None, store=Broken(), directory=tmp_path / "state"))

    with pytest.raises(
        KeyringUnavailableError, match="no password for 'ops', and there is no usable keyring"
    ) as caught:
        await manager.token()

    assert caught.value.hint == "start one"


async def test_a_keyring_that_fails_is_no_obstacle_where_the_password_is_given(
    service: Service, clock: FakeClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manager = manage(service, clock, ops(store=Broken(), directory=tmp_path / "state"))

    await manager.token()

    assert service.log == ["/auth/pwd"]
    assert "cannot be kept" in caplog.text
    with pytest.raises(CredentialStoreError, match="full"):
        await manage(service, clock, ops(store=Broken(reading=False), directory=tmp_path / "b")).sign_in(fresh=True)


async def test_a_given_access_token_is_used_until_it_is_refused(service: Service, clock: FakeClock) -> None:
    credentials = Credentials(access_token=Secret("given"))
    manager = manage(service, clock, credentials)
    given = await manager.token()
    assert given.secret == Secret("given")
    clock.advance(10**6)
    assert (await manager.token()).secret == Secret("given")

    with pytest.raises(SignInRequiredError, match="no longer accepts SECTIGO_ACCESS_TOKEN"):
        await manager.replace(given)
    assert not service.log


async def test_closing_waits_for_a_stored_refresh_token_in_the_air(
    service: Service, clock: FakeClock, tmp_path: Path
) -> None:
    credentials = ops(None, store=MemoryStore(), directory=tmp_path / "state")
    shared = credentials.share("https://iot.sectigo.com", clock)
    await shared.save_refresh_token(Secret("kept"), 7200)
    manager = manage(service, clock, credentials)
    service.gate.clear()
    caller = asyncio.create_task(manager.token())
    while not service.log:
        await asyncio.sleep(0)
    caller.cancel()
    closing = asyncio.create_task(manager.aclose())
    await settle()
    assert not closing.done()
    service.gate.set()
    await closing

    assert await shared.refresh_token() == Secret(service.mint("refresh-1", lifetime=7200))


async def test_whoever_waits_for_the_lock_takes_the_token_that_its_holder_got(
    service: Service, clock: FakeClock, tmp_path: Path
) -> None:
    credentials = ops(store=MemoryStore(), directory=tmp_path / "state")
    one, other = manage(service, clock, credentials), manage(service, clock, credentials)

    first, second = await asyncio.gather(one.token(), other.token())

    assert first.secret == second.secret
    assert service.log == ["/auth/pwd"]
    assert {first.minted, second.minted} == {True, False}


async def test_a_lock_that_is_not_given_up_is_told(
    service: Service, clock: FakeClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sectigo_async.credentials.shared.LOCK_WAIT", 0.1)
    credentials = ops(store=MemoryStore(), directory=tmp_path / "state")
    shared = credentials.share("https://iot.sectigo.com", clock)

    async with shared.locked():
        with pytest.raises(CredentialStoreError, match="another process has kept the lock"):
            await manage(service, clock, credentials).token()
        assert not service.log
        # Where no refresh token is shared, there is nothing to be lost.
        await manage(service, clock, ops(directory=tmp_path / "state")).token()

    assert service.log == ["/auth/pwd"]
    await manage(service, clock, credentials).token()


async def test_a_token_keeps_its_secret(manager: TokenManager, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    token = await manager.token()

    assert token.secret.reveal() not in f"{token!r} {caplog.text} {await manager.sign_in(fresh=False)!r}"


async def test_a_new_refresh_token_that_cannot_be_kept_is_used_all_the_same(
    service: Service, clock: FakeClock, tmp_path: Path
) -> None:
    class ReadOnly(MemoryStore):
        full = False

        async def save(self, login: Login, item: Item, value: Secret) -> None:
            if self.full:
                raise CredentialStoreError("full")
            await super().save(login, item, value)

    store = ReadOnly()
    credentials = ops(None, store=store, directory=tmp_path / "state")
    shared = credentials.share("https://iot.sectigo.com", clock)
    await shared.save_refresh_token(Secret("R0"), 7200)
    store.full = True
    service.answers = [service.tokens(refresh="R1"), service.tokens(refresh="R2"), service.tokens(refresh="R3")]
    manager = manage(service, clock, credentials)
    for _ in range(3):
        await manager.token()
        clock.advance(1000)
        store.full = len(service.sent) < 2

    assert service.sent == ["R0", service.mint("R1", lifetime=7200), service.mint("R2", lifetime=7200)]
    assert await shared.refresh_token() == Secret(service.mint("R3", lifetime=7200)), "in the end it was kept"


async def test_a_keyring_that_locks_later_does_not_cost_the_token_at_hand(
    service: Service, clock: FakeClock, tmp_path: Path
) -> None:
    class LocksLater(MemoryStore):
        locked = False

        async def load(self, login: Login, item: Item) -> Secret | None:
            if self.locked:
                raise KeyringLockedError("locked")
            return await super().load(login, item)

    store = LocksLater()
    credentials = ops(None, store=store, directory=tmp_path / "state")
    await credentials.share("https://iot.sectigo.com", clock).save_refresh_token(Secret("R0"), 7200)
    manager = manage(service, clock, credentials)
    await manager.token()
    store.locked = True
    clock.advance(1000)

    await manager.token()

    assert service.log == ["/auth/refresh"] * 2


async def test_who_is_signed_out_elsewhere_does_not_sign_in_again(
    service: Service, clock: FakeClock, tmp_path: Path
) -> None:
    credentials = ops(None, store=MemoryStore(), directory=tmp_path / "state")
    shared = credentials.share("https://iot.sectigo.com", clock)
    await shared.save_refresh_token(Secret("R0"), 7200)
    manager = manage(service, clock, credentials)
    await manager.token()
    await shared.erase()
    clock.advance(1000)

    with pytest.raises(SignInRequiredError):
        await manager.token()

    assert service.log == ["/auth/refresh"]
    assert await shared.refresh_token() is None
    assert await shared.access_token() is None


async def test_a_shared_token_with_less_life_than_the_own_one_is_left_alone(
    service: Service, clock: FakeClock, shared: SharedLogin, tmp_path: Path
) -> None:
    manager = manage(service, clock, ops(store=MemoryStore(), directory=tmp_path / "state"))
    first = await manager.token()
    await shared.share_access_token(StoredToken.received(Secret("about-to-end"), 865, clock))
    clock.advance(860)
    await manager.token()
    while len(service.log) < 2:
        await asyncio.sleep(0.001)
    await settle()

    assert service.log == ["/auth/pwd", "/auth/refresh"]
    assert (await manager.token()).secret != first.secret


async def test_without_a_shared_token_a_refused_password_is_told_to_others_all_the_same(
    service: Service, clock: FakeClock, tmp_path: Path
) -> None:
    credentials = ops(directory=tmp_path / "state", cache=False)
    service.answers = [Reply(status=401)]
    for _ in range(3):
        with pytest.raises(InvalidCredentialsError):
            await manage(service, clock, credentials).token()

    assert service.log == ["/auth/pwd"]
    assert not list((tmp_path / "state").glob("*.access-token.json"))


async def test_processes_that_started_together_do_not_refresh_together(service: Service, clock: FakeClock) -> None:
    managers = [manage(service, clock, ops()) for _ in range(20)]
    for manager in managers:
        await manager.token()

    moments = {manager._fresh_until for manager in managers}

    assert len(moments) == 20
    assert all(840 <= moment <= 852 for moment in moments)


async def test_while_a_refresh_fails_the_service_is_left_alone_for_a_while(
    manager: TokenManager, service: Service, clock: FakeClock
) -> None:
    await manager.token()
    clock.advance(853)
    for _ in range(20):
        service.answers = [timed_out(), timed_out()]
        await manager.token()
        await settle()

    assert service.log == ["/auth/pwd", "/auth/refresh", "/auth/pwd"]


async def test_a_closed_manager_starts_nothing(manager: TokenManager, service: Service, clock: FakeClock) -> None:
    await manager.token()
    await manager.aclose()
    clock.advance(1000)

    with pytest.raises(ConfigurationError, match="closed"):
        await manager.token()
    assert service.log == ["/auth/pwd"]


async def test_a_good_shared_token_needs_no_lock(
    service: Service, clock: FakeClock, shared: SharedLogin, tmp_path: Path
) -> None:
    await shared.share_access_token(StoredToken.received(Secret("shared"), 900, clock))
    async with shared.locked():
        manager = manage(service, clock, ops(store=MemoryStore(), directory=tmp_path / "state"))

        assert (await asyncio.wait_for(manager.token(), 5)).secret == Secret("shared")


async def test_a_client_with_a_store_in_memory_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    stores: list[tuple[CredentialStore, Path | None]] = [
        (MemoryStore(), None),
        (FileStore(tmp_path), tmp_path / ".local/state/sectigo-async"),
    ]
    for store, directory in stores:
        client = SectigoClient(username="ops", password="x", store=store)
        path = client._transport._tokens._shared.cache_path

        assert (path.parent if path else None) == directory


@pytest.mark.parametrize("lifetime", [1e300, 1e9, 0, -5])
async def test_a_lifetime_that_cannot_be_is_none(manager: TokenManager, service: Service, lifetime: float) -> None:
    service.answers = [service.tokens(lifetime=lifetime)]

    assert (await manager.sign_in(fresh=False)).expires_in is None


async def test_a_refresh_token_that_could_not_be_kept_outlasts_a_token_of_another_process(
    service: Service, clock: FakeClock, shared: SharedLogin, tmp_path: Path
) -> None:
    class ReadOnly(MemoryStore):
        async def save(self, login: Login, item: Item, value: Secret) -> None:
            if await self.load(login, item) is not None:
                raise CredentialStoreError("read-only")
            await super().save(login, item, value)

    credentials = ops(None, store=ReadOnly(), directory=tmp_path / "state")
    await credentials.share("https://iot.sectigo.com", clock).save_refresh_token(Secret("R0"), 7200)
    service.answers = [service.tokens(refresh="R1")]
    manager = manage(service, clock, credentials)
    await manager.token()
    clock.advance(1000)
    await shared.share_access_token(StoredToken.received(Secret("of-another"), 900, clock))
    assert await secret(manager) == Secret("of-another")
    clock.advance(1000)
    await manager.token()

    assert service.sent == ["R0", service.mint("R1", lifetime=7200)], "nobody else has that one"
