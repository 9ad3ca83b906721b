"""The simulated service itself, without HTTP."""

import asyncio
import hmac
import secrets
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final, TypedDict

from sectigo_async.clock import Clock, SystemClock
from sectigo_async.sandbox import catalog
from sectigo_async.sandbox.archives import pack
from sectigo_async.sandbox.ca import CertificateAuthority
from sectigo_async.sandbox.config import SandboxConfig
from sectigo_async.sandbox.csr import read_requests
from sectigo_async.sandbox.errors import ErrorCode, ServiceError
from sectigo_async.sandbox.faults import Fault, Faults
from sectigo_async.sandbox.issuing import issue_for_request, issue_with_new_key
from sectigo_async.sandbox.ledger import Ledger
from sectigo_async.sandbox.profiles import Authority
from sectigo_async.sandbox.records import Batch, Outcome, Status
from sectigo_async.sandbox.store import open_store
from sectigo_async.sandbox.tokens import TokenMint

_COUNTED: Final = ("logins", "refreshes", "orders", "polls", "downloads")
_FAULT: Final = "fault "
_LATE: Final = "late commits"


class Stats(TypedDict):
    """What clients have done so far.

    Attributes:
        logins: sign-ins that were accepted.
        refreshes: refresh tokens that were accepted.
        orders: batches that were ordered, one for each upload.
        polls: questions for the state of a batch.
        downloads: archives that were sent.
        orders_by_name: how many batches were ordered under each name.
        orders_by_key: in how many batches each key was ordered, by the SHA-256 of its SubjectPublicKeyInfo.
        faults: how often each fault struck.
        late_commits: orders that were acted on after their reply was lost.
    """

    logins: int
    refreshes: int
    orders: int
    polls: int
    downloads: int
    orders_by_name: dict[str, int]
    orders_by_key: dict[str, int]
    faults: dict[str, int]
    late_commits: int


class _Skewed:
    """A clock whose wall time is ahead of another's."""

    def __init__(self, clock: Clock, ahead: float) -> None:
        self._clock = clock
        self._ahead = ahead

    def time(self) -> float:
        return self._clock.time() + self._ahead

    def monotonic(self) -> float:
        return self._clock.monotonic()

    async def sleep(self, seconds: float) -> None:
        await self._clock.sleep(seconds)


def _tokens_document(access: str, refresh: str) -> dict[str, str]:
    return {"accessToken": access, "refreshToken": refresh}


class Sandbox:
    """A simulated IoT Manager: one account, a certificate authority, and everything ordered so far.

    It belongs to one event loop. Signing happens in worker threads, books are kept on the loop. One with
    `SandboxConfig.state` is to be closed.

    Args:
        config: its settings; the defaults when left out.
        clock: all its time; the machine's when left out.

    Raises:
        StateError: the file of `SandboxConfig.state` cannot be used.
    """

    def __init__(self, config: SandboxConfig | None = None, clock: Clock | None = None) -> None:
        self.config: SandboxConfig = config or SandboxConfig()
        self.clock: Clock = _Skewed(clock or SystemClock(), self.config.clock_skew)
        self.started: float = self.clock.monotonic()
        self._store = open_store(self.config.state, self.clock)
        self.ledger: Ledger = Ledger(
            self.clock, balance=self.config.balance, issue_delay=self.config.issue_delay, store=self._store
        )
        self.counts: Counter[str] = Counter()
        self.faults: Faults = Faults(self.config.faults, self.config.seed, self.clock)
        self._ca = CertificateAuthority(self.clock, self._store)
        self._tokens = TokenMint(
            self.clock,
            self._store,
            access_ttl=self.config.access_ttl,
            refresh_ttl=self.config.refresh_ttl,
            rotate=self.config.rotate_refresh,
        )
        self._orders_by_name: Counter[str] = Counter()
        self._orders_by_key: Counter[str] = Counter()
        self._recall_counts()
        # Before anybody is told of the CA.
        self._store.write()

    async def flush(self) -> None:
        """Return once all that has happened so far will outlast this process, if `SandboxConfig.state` is there."""
        await self._store.flush(self._lasting_counts)

    def close(self) -> None:
        """Let go of the file of `SandboxConfig.state`; nothing can be asked of this sandbox after that."""
        self._store.close(self._lasting_counts)

    def ca_pem(self) -> bytes:
        """Return the root certificate as PEM: the trust anchor for everything issued here."""
        return self._ca.root_pem

    def tls_pem(self, host: str) -> bytes:
        """Return key and certificate chain for serving this sandbox at `host`, as PEM; the root is its own."""
        return self._ca.tls_pem(host)

    def crl_pem(self) -> bytes:
        """Return the current revocation lists as PEM: the issuing CA's, then the root's (empty)."""
        return self._ca.crl_pem(self.ledger.revocations, self.ledger.crl_number)

    def stats(self) -> Stats:
        """Return what clients have done so far, for tests that count."""
        return Stats(
            logins=self.counts["logins"],
            refreshes=self.counts["refreshes"],
            orders=self.counts["orders"],
            polls=self.counts["polls"],
            downloads=self.counts["downloads"],
            orders_by_name=dict(self._orders_by_name),
            orders_by_key=dict(self._orders_by_key),
            faults={fault.value: count for fault, count in self.faults.counts.items()},
            late_commits=self.faults.late_commits,
        )

    def reset_tokens(self) -> None:
        """Forget every token issued so far, as a restart of the service would."""
        self._tokens.reset()

    def sign_in(self, username: str, password: str) -> dict[str, str]:
        """Return new tokens, or refuse with 401."""
        right_name = hmac.compare_digest(username.encode(), self.config.username.encode())
        right_password = hmac.compare_digest(password.encode(), self.config.password.encode())
        # Both were compared before either is judged: the time taken tells nothing.
        if not (right_name and right_password):
            raise ServiceError(401, "Invalid username or password", ErrorCode.AUTHENTICATION)
        self.counts["logins"] += 1
        return _tokens_document(*self._tokens.sign_in())

    def refresh(self, refresh_token: str) -> dict[str, str]:
        """Return a new access token and the refresh token to use from here on (api.md 3), or refuse with 401."""
        tokens = self._tokens.refresh(refresh_token)
        self.counts["refreshes"] += 1
        return _tokens_document(*tokens)

    def authorise(self, access_token: str) -> None:
        """Refuse with 401 unless the access token is valid."""
        self._tokens.check_access(access_token)

    async def create(self, either_id: int, name: str, params: Mapping[str, str]) -> Batch:
        """Order one certificate with a key made here; `either_id` is an authority's or a profile's."""
        authority = catalog.authority_or_profile(either_id)
        authority.profile.check(params)
        return await self._order(
            authority, name, 1, lambda: (issue_with_new_key(self._ca, authority.profile, params),)
        )

    async def upload(self, profile_id: int, params: Mapping[str, str], content: bytes, content_type: str) -> Batch:
        """Order one certificate per uploaded CSR, under a batch name invented here."""
        authority = catalog.authority_of_profile(profile_id)
        authority.profile.check(params, complete=False)
        requests = await asyncio.to_thread(read_requests, content, content_type)

        def sign() -> tuple[Outcome, ...]:
            return tuple(
                issue_for_request(self._ca, authority.profile, request, self.config.formats) for request in requests
            )

        return await self._order(authority, f"csr-batch-{secrets.token_hex(8)}", len(requests), sign)

    async def download(self, batch_id: int) -> bytes:
        """Return the ZIP of a finished batch, or refuse with 400."""
        batch = self.ledger.batch(batch_id, self.clock.monotonic())
        status = batch.status(self.clock.monotonic())
        if status is not Status.READY:
            raise ServiceError(400, f"Batch {batch_id} is not ready for download. Status: {status}")
        archive = await asyncio.to_thread(pack, batch.issued, batch.created)
        self.counts["downloads"] += 1
        return archive

    async def _order(
        self, authority: Authority, name: str, size: int, sign: Callable[[], tuple[Outcome, ...]]
    ) -> Batch:
        # Spent before the thread is awaited: orders that arrive meanwhile must see it gone.
        self.ledger.spend(authority, size)
        try:
            outcomes = await asyncio.to_thread(sign)
        except BaseException:
            self.ledger.give_back(authority, size)
            raise
        batch = self.ledger.record(authority, name, outcomes)
        self._count_order(batch)
        return batch

    def _count_order(self, batch: Batch) -> None:
        self.counts["orders"] += 1
        self._orders_by_name[batch.name] += 1
        self._orders_by_key.update({outcome.key_sha256 for outcome in batch.outcomes if outcome.key_sha256})

    def _lasting_counts(self) -> Counter[str]:
        """Return what was counted and cannot be counted again from the orders."""
        faults = {_FAULT + fault: count for fault, count in self.faults.counts.items()}
        return Counter({**self.counts, **faults, _LATE: self.faults.late_commits})

    def _recall_counts(self) -> None:
        kept = self._store.kept
        self.counts.update({name: kept.counts[name] for name in _COUNTED if name in kept.counts})
        self.faults.counts.update(
            {fault: kept.counts[_FAULT + fault] for fault in Fault if _FAULT + fault in kept.counts}
        )
        self.faults.late_commits = kept.counts.get(_LATE, 0)
        self.counts["orders"] = 0
        for batch in kept.batches:
            self._count_order(batch)
