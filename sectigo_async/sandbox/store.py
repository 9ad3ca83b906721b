"""What must outlive a sandbox, and the store that keeps nothing of it: that of a sandbox in memory.

What changes is put into the store at once and is durable once `flush` has returned. `create_app` awaits that before
any answer leaves, so nothing that was answered is ever lost; what was not durable in time was never told.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import attrs

from sectigo_async.clock import Clock
from sectigo_async.sandbox.records import Batch, Revocation


class StateError(Exception):
    """The file of a sandbox's state cannot be used; says which one and why."""


@attrs.frozen
class Logins:
    """Which logins tokens belong to, where logins can end.

    Attributes:
        of: the logins of a token, by its digest.
        used: digests of the refresh tokens that are used up.
        ended: the logins that have ended.
    """

    of: dict[bytes, set[str]] = attrs.field(factory=dict, repr=False)
    used: set[bytes] = attrs.field(factory=set, repr=False)
    ended: set[str] = attrs.field(factory=set)


@attrs.frozen(kw_only=True)
class Kept:
    """What a store held when it was opened.

    Attributes:
        batches: the orders, first to last; times are those of the clock that the store was opened with.
        revocations: by serial number.
        crl_number: of the last revocation list.
        logins: which tokens were given.
        counts: what was counted, by name.
    """

    batches: Sequence[Batch] = ()
    revocations: Mapping[int, Revocation] = attrs.field(factory=dict)
    crl_number: int = 1
    logins: Logins = attrs.field(factory=Logins)
    counts: Mapping[str, int] = attrs.field(factory=dict)


class Store:
    """Keeps nothing: all is gone with the sandbox.

    Attributes:
        kept: what it held when it was opened.
    """

    def __init__(self) -> None:
        self.kept: Kept = Kept()

    def keep(self, name: str, make: Callable[[], bytes]) -> bytes:
        """Return the secret of this name: the one held, or a new one that `make` returns."""
        del name
        return make()

    def replace_secret(self, name: str, value: bytes) -> None:
        """Put another secret in the place of the one of this name."""

    def add_batch(self, batch: Batch) -> None:
        """Put in an order, with all that was issued for it."""

    def set_revocation(self, serial: int, revocation: Revocation | None, crl_number: int) -> None:
        """Put in a revocation, or take it out, and the number of the revocation list after that."""

    def add_token(self, digest: bytes, login: str) -> None:
        """Put in that a token belongs to a login."""

    def use_token(self, digest: bytes) -> None:
        """Put in that a refresh token is used up."""

    def end_login(self, login: str) -> None:
        """Put in that a login has ended."""

    def forget_logins(self) -> None:
        """Take every token and login out."""

    def write(self) -> None:
        """Make all that was put in so far durable; not while anybody awaits `flush`."""

    async def flush(self, counts: Callable[[], Counter[str]]) -> None:
        """Return once all that was put in so far is durable, and what `counts` returns with it."""

    def close(self, counts: Callable[[], Counter[str]]) -> None:
        """Make all durable, and let go of it."""


def open_store(path: Path | None, clock: Clock) -> Store:
    """Return the store in the file at `path`, which is made where there is none; without one, that of memory.

    Raises:
        StateError: the file cannot be used.
    """
    if path is None:
        return Store()
    # Not every Python has SQLite, and few sandboxes need it.
    from sectigo_async.sandbox.sqlite_store import SqliteStore

    return SqliteStore(path, clock)
