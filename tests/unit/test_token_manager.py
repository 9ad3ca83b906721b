"""One renewal for everybody."""

import asyncio
import json
from collections.abc import Callable

import pytest

from sectigo_async import MemoryTokenStore, Secret, StoredToken
from sectigo_async.auth import TokenManager
from sectigo_async.auth.token import read_claims
from sectigo_async.credentials import Credentials
from sectigo_async.errors import CallTimeoutError, ConfigurationError, InvalidCredentialsError, SectigoError
from sectigo_async.testing import FakeClock
from sectigo_async.wire.calls import Call
from sectigo_async.wire.reply import Reply


class Service:
    """Answers sign-ins and refreshes, and counts them."""

    def __init__(self, mint: Callable[..., str]) -> None:
        self.mint = mint
        self.log: list[str] = []
        self.answers: list[Reply | SectigoError] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def send(self, call: Call[Reply]) -> Reply:
        self.log.append(call.path)
        await self.gate.wait()
        answer = self.answers.pop(0) if self.answers else self.tokens()
        if isinstance(answer, SectigoError):
            raise answer
        return answer

    def tokens(self, *, refresh: bool = True, lifetime: float | None = 900) -> Reply:
        document = {"accessToken": self.mint(f"access-{len(self.log)}", lifetime=lifetime)}
        if refresh:
            document["refreshToken"] = self.mint(f"refresh-{len(self.log)}", lifetime=7200)
        return Reply(status=200, body=json.dumps(document).encode())


def timed_out() -> CallTimeoutError:
    return CallTimeoutError("slow", method="POST", path="/auth/refresh")


@pytest.fixture
def service(mint: Callable[..., str]) -> Service:
    return Service(mint)


@pytest.fixture
def manager(service: Service, clock: FakeClock) -> TokenManager:
    return TokenManager(send=service.send, credentials=ops(), clock=clock)


def ops(password: str | None = "hunter2") -> Credentials:
    secret = Secret(password) if password else None
    return Credentials(username="ops", password=secret, username_source="argument", password_source="argument")


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

    assert len(set(tokens)) == 1
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


async def test_a_stored_token_saves_the_sign_in_until_it_is_refused(
    service: Service, clock: FakeClock, mint: Callable[..., str]
) -> None:
    store = MemoryTokenStore()
    await store.save(StoredToken(access=Secret(mint("stored")), expires_at=clock.time() + 500))
    manager = TokenManager(send=service.send, credentials=ops(), clock=clock, store=store)

    stored = await manager.token()
    assert stored.reveal() == mint("stored")
    assert not service.log
    renewed = await manager.replace(stored)

    assert service.log == ["/auth/pwd"]
    kept = await store.load()
    assert kept is not None
    assert kept.access == renewed


async def test_a_stored_token_past_its_end_is_not_used(
    service: Service, clock: FakeClock, mint: Callable[..., str]
) -> None:
    store = MemoryTokenStore()
    await store.save(StoredToken(access=Secret(mint("stored")), expires_at=clock.time() - 1))
    manager = TokenManager(send=service.send, credentials=ops(), clock=clock, store=store)

    await manager.token()

    assert service.log == ["/auth/pwd"]


async def test_a_store_that_fails_is_no_reason_to_fail(service: Service, clock: FakeClock) -> None:
    class Broken(MemoryTokenStore):
        async def load(self) -> StoredToken | None:
            raise PermissionError(13, "no")

        async def save(self, token: StoredToken) -> None:  # noqa: ARG002
            raise PermissionError(13, "no")

    manager = TokenManager(send=service.send, credentials=ops(), clock=clock, store=Broken())

    assert await manager.token()


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

    assert (claims.lifetime, claims.expires_at, claims.first_login) == (None, None, False)


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
