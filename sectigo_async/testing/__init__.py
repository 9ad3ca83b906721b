"""Helpers for your own tests: a sandbox, a clock that you move by hand, what a store, a ledger or a sink must do.

`sectigo_async.testing.plugin` has them as fixtures for pytest.
"""

from sectigo_async.testing.clock import FakeClock
from sectigo_async.testing.ledgers import LedgerContract
from sectigo_async.testing.running import RunningSandbox
from sectigo_async.testing.sinks import SinkContract
from sectigo_async.testing.stores import CredentialStoreContract

__all__ = [
    "CredentialStoreContract",
    "FakeClock",
    "LedgerContract",
    "RunningSandbox",
    "SinkContract",
]
