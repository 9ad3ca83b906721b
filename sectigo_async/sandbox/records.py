"""What the sandbox remembers of an order, and how time reveals it."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

import attrs

from sectigo_async.sandbox.profiles import Authority

_CREATED_SHARE: Final = 0.25


class Status(StrEnum):
    """Values of a batch's `status` (api.md 2)."""

    CREATED = "CREATED"
    PROCESSING = "PROCESSING"
    READY = "READY_FOR_DOWNLOAD"
    FAILED = "FAILED"
    REJECTED = "REJECTED"
    BROKEN = "BROKEN"


@attrs.frozen
class Revocation:
    """Why (RFC 5280 reason code) and when (wall clock) a certificate was revoked."""

    reason: int
    at: float


@attrs.frozen(kw_only=True)
class Issued:
    """One certificate, with the files that the archive will hold: their content by suffix."""

    common_name: str
    key_sha256: str
    serial: int
    files: Mapping[str, bytes] = attrs.field(repr=False)


@attrs.frozen(kw_only=True)
class Refused:
    """One certificate that was not issued; `key_sha256` is empty when no key was made."""

    common_name: str
    status: Status
    reason: str
    key_sha256: str = ""


Outcome = Issued | Refused


@attrs.frozen(kw_only=True)
class Batch:
    """One order. Its outcome is known from the start and revealed by the clock.

    Attributes:
        batch_id: the id the client is told.
        name: the batch name.
        authority: what it was bought under.
        created: wall time of the order.
        placed: monotonic time of the order.
        delay: seconds until everything is revealed.
        outcomes: one per certificate, in the order of the request.
    """

    batch_id: int
    name: str
    authority: Authority
    created: float
    placed: float
    delay: float
    outcomes: tuple[Outcome, ...] = attrs.field(repr=False)

    @property
    def size(self) -> int:
        """How many certificates were ordered."""
        return len(self.outcomes)

    @property
    def issued(self) -> tuple[Issued, ...]:
        """The certificates that the finished batch holds."""
        return tuple(outcome for outcome in self.outcomes if isinstance(outcome, Issued))

    def settled(self, now: float) -> int:
        """Return how many outcomes are revealed at the monotonic time `now`."""
        elapsed = now - self.placed
        if elapsed >= self.delay:
            return self.size
        start = self.delay * _CREATED_SHARE
        return max(0, int(self.size * (elapsed - start) / (self.delay - start)))

    def status(self, now: float) -> Status:
        """Return the status at the monotonic time `now`."""
        elapsed = now - self.placed
        if elapsed >= self.delay:
            return self._final_status
        return Status.CREATED if elapsed < self.delay * _CREATED_SHARE else Status.PROCESSING

    def reject_reason(self, status: Status) -> str:
        """Return why the batch ended in `status`; nothing while it is under way or when it succeeded."""
        first = self.outcomes[0]
        return first.reason if isinstance(first, Refused) and first.status == status else ""

    @property
    def _final_status(self) -> Status:
        if self.issued:
            return Status.READY
        first = self.outcomes[0]
        assert isinstance(first, Refused)
        return first.status
