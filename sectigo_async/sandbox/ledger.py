"""What was bought, issued and revoked: balances, batches, certificates. Touched on the event loop only."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Final

import attrs

from sectigo_async.clock import Clock
from sectigo_async.sandbox.catalog import AUTHORITIES
from sectigo_async.sandbox.errors import ServiceError
from sectigo_async.sandbox.profiles import Authority
from sectigo_async.sandbox.records import Batch, Issued, Outcome, Revocation
from sectigo_async.sandbox.store import Store

_FIRST_BATCH_ID: Final = 24
_LARGEST_STEP: Final = 5

_HOLD: Final = 6
_REMOVE_FROM_CRL: Final = 8


@attrs.frozen(kw_only=True)
class Certificate:
    """One issued certificate in its place."""

    device_id: str
    batch: Batch
    position: int
    issued: Issued

    @property
    def serial_number(self) -> str:
        """The serial number as the service writes it: upper-case hex (api.md 4.10)."""
        return f"{self.issued.serial:X}"


class Ledger:
    """The books of one sandbox.

    Args:
        clock: dates orders and reveals what they brought.
        balance: certificates each authority has been bought for.
        issue_delay: seconds from an order to its certificates.
        store: what was entered before, and where all is put that is entered.
    """

    def __init__(self, clock: Clock, *, balance: int, issue_delay: float, store: Store) -> None:
        self._clock = clock
        self._issue_delay = issue_delay
        self._balances = {authority.authority_id: balance for authority in AUTHORITIES}
        self._batches: dict[int, Batch] = {}
        self._next_id = _FIRST_BATCH_ID
        self._certificates: dict[str, Certificate] = {}
        self._by_name: dict[str, list[Certificate]] = {}
        self._store = store
        self.revocations: dict[int, Revocation] = dict(store.kept.revocations)
        self.crl_number: int = store.kept.crl_number
        for batch in store.kept.batches:
            self._balances[batch.authority.authority_id] -= batch.size
            self._enter(batch)

    def balance(self, authority: Authority) -> int:
        """Return how many certificates are left to order."""
        # Fewer may have been bought than were ordered when more had been.
        return max(0, self._balances[authority.authority_id])

    def spend(self, authority: Authority, amount: int) -> None:
        """Take `amount` off the balance, or refuse with 400."""
        left = self.balance(authority)
        if left < amount:
            raise ServiceError(
                400,
                f"insufficient balance on authority {authority.authority_id}: {amount} ordered, {left} available",
            )
        self._balances[authority.authority_id] -= amount

    def give_back(self, authority: Authority, amount: int) -> None:
        """Undo a `spend` whose order never came to be."""
        self._balances[authority.authority_id] += amount

    def record(self, authority: Authority, name: str, outcomes: Sequence[Outcome]) -> Batch:
        """Enter a paid order and return it."""
        batch = Batch(
            batch_id=self._next_id,
            name=name,
            authority=authority,
            created=self._clock.time(),
            placed=self._clock.monotonic(),
            delay=self._issue_delay,
            outcomes=tuple(outcomes),
        )
        self._enter(batch)
        self._store.add_batch(batch)
        return batch

    def batch(self, batch_id: int, now: float) -> Batch:
        """Return a batch ordered by `now` (monotonic), or refuse: 403 for another tenant's, 404 for none."""
        batch = self._batches.get(batch_id)
        if batch is not None and batch.placed <= now:
            return batch
        if batch is None and batch_id < self._next_id and _is_foreign(batch_id):
            raise ServiceError(403, f"No permission to read batch {batch_id}")
        raise ServiceError(404, f"Batch {batch_id} not found")

    def ordered(self) -> int:
        """Return how many certificates were ordered."""
        return sum(batch.size for batch in self._batches.values())

    def revealed(self, now: float) -> Iterator[Certificate]:
        """Yield the certificates that exist by `now` (monotonic)."""
        return (certificate for certificate in self._certificates.values() if _is_revealed(certificate, now))

    def find(self, common_name: str | None, serial_number: str | None, now: float) -> list[Certificate]:
        """Return the certificates with this name and serial number by `now` (monotonic); `None` matches all."""
        name = None if common_name is None else common_name.casefold()
        if serial_number is not None:
            one = self._certificates.get(_hex(serial_number))
            candidates = [] if one is None or name not in {None, one.issued.common_name.casefold()} else [one]
        elif name is not None:
            candidates = self._by_name.get(name, [])
        else:
            candidates = list(self._certificates.values())
        return [certificate for certificate in candidates if _is_revealed(certificate, now)]

    def revoke(self, authority: Authority, serial_number: str, reason: int) -> None:
        """Revoke one certificate that `authority` issued, or refuse with 404 or 400."""
        found = self.find(None, serial_number, self._clock.monotonic())
        if not found or found[0].batch.authority != authority:
            raise ServiceError(404, f"Certificate {serial_number!r} not found")
        serial = found[0].issued.serial
        revocation = self.revocations.get(serial)
        if reason == _REMOVE_FROM_CRL:
            if revocation is None or revocation.reason != _HOLD:
                raise ServiceError(400, f"Certificate {serial_number} is not on hold")
            del self.revocations[serial]
        elif revocation is not None:
            raise ServiceError(400, f"Certificate {serial_number} is already revoked")
        else:
            self.revocations[serial] = Revocation(reason, self._clock.time())
        self.crl_number += 1
        self._store.set_revocation(serial, self.revocations.get(serial), self.crl_number)

    def _enter(self, batch: Batch) -> None:
        self._batches[batch.batch_id] = batch
        self._next_id = batch.batch_id + 1 + _digest(batch.batch_id) % _LARGEST_STEP
        for position, outcome in enumerate(batch.outcomes):
            if isinstance(outcome, Issued):
                self._enter_certificate(batch, position, outcome)

    def _enter_certificate(self, batch: Batch, position: int, issued: Issued) -> None:
        certificate = Certificate(
            device_id=str(len(self._certificates) + 1), batch=batch, position=position, issued=issued
        )
        self._certificates[certificate.serial_number] = certificate
        self._by_name.setdefault(issued.common_name.casefold(), []).append(certificate)


def _is_revealed(certificate: Certificate, now: float) -> bool:
    return certificate.position < certificate.batch.settled(now)


def _hex(serial_number: str) -> str:
    return serial_number.upper().lstrip("0")


def _digest(number: int) -> int:
    """Return a number that looks random and is always the same, so that runs can be repeated."""
    return hashlib.sha256(str(number).encode()).digest()[0]


def _is_foreign(batch_id: int) -> bool:
    return _digest(-batch_id) % 2 == 0
