"""Helpers for your own tests: a clock that you move by hand, and what a store or a ledger must do."""

from sectigo_async.testing.clock import FakeClock
from sectigo_async.testing.ledgers import LedgerContract
from sectigo_async.testing.stores import CredentialStoreContract

__all__ = [
    "CredentialStoreContract",
    "FakeClock",
    "LedgerContract",
]
