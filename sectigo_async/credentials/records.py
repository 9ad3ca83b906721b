"""What is stored of a login: versioned, and bound to its endpoint and user."""

import functools
import json
from collections.abc import Mapping
from pathlib import Path

import attrs

from sectigo_async.clock import Clock
from sectigo_async.credentials.login import Login
from sectigo_async.secrets import Secret
from sectigo_async.text import fits_a_header

_VERSION = 1
_AGREEMENT = 60.0
_MOST = 1e12
_LONGEST_LIFE = 1e9


def encode(login: Login, fields: Mapping[str, object]) -> Secret:
    """Return a record as text."""
    document = {"version": _VERSION, "endpoint": login.endpoint, "username": login.username, **fields}
    return Secret(json.dumps(document, separators=(",", ":")))


def decode(login: Login, text: Secret | None) -> dict[str, object]:
    """Read a record; what is no record, or one of another version or login, is empty."""
    try:
        document = json.loads(text.reveal()) if text is not None else None
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        return {}
    owner = (document.get("version"), document.get("endpoint"), document.get("username"))
    return document if owner == (_VERSION, login.endpoint, login.username) else {}


@functools.cache
def boot_id() -> str:
    """Return what tells one start of this machine from another; empty where the system does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


@attrs.frozen(kw_only=True)
class StoredToken:
    """A token with the time at which it was received, by both clocks.

    Attributes:
        token: the token.
        lifetime: seconds from its issue to its end; `None` where it does not say.
        wall: wall-clock time of its receipt, in seconds since the epoch.
        monotonic: monotonic time of its receipt.
        boot: the start of the machine that `monotonic` belongs to.
    """

    token: Secret
    lifetime: float | None
    wall: float
    monotonic: float
    boot: str

    @classmethod
    def received(cls, token: Secret, lifetime: float | None, clock: Clock) -> "StoredToken":
        """Return a record of a token that was received just now."""
        return cls(token=token, lifetime=lifetime, wall=clock.time(), monotonic=clock.monotonic(), boot=boot_id())

    def left(self, clock: Clock) -> float | None:
        """Return the seconds it is still good for; `None` where it does not say, 0 where that is in doubt.

        In doubt: after a restart, and where the two clocks disagree about how long ago it was received, as they
        do after the wall clock was set or the machine slept. It only saves a request: the service's 401 decides.
        """
        if self.lifetime is None:
            return None
        by_wall = clock.time() - self.wall
        by_monotonic = clock.monotonic() - self.monotonic if self.boot else by_wall
        if self.boot != boot_id() or min(by_wall, by_monotonic) < 0 or abs(by_wall - by_monotonic) > _AGREEMENT:
            return 0.0
        return max(0.0, self.lifetime - max(by_wall, by_monotonic))

    def fields(self) -> dict[str, object]:
        """Return what is stored of it; the token is shown."""
        return {
            "token": self.token.reveal(),
            "lifetime": self.lifetime,
            "wall": self.wall,
            "monotonic": self.monotonic,
            "boot": self.boot,
        }

    @classmethod
    def read(cls, record: Mapping[str, object]) -> "StoredToken | None":
        """Return the token of a record, or `None` where it holds none that could be sent."""
        token, lifetime, boot = record.get("token"), record.get("lifetime"), record.get("boot")
        wall, monotonic = record.get("wall"), record.get("monotonic")
        if not isinstance(token, str) or not fits_a_header(token) or not isinstance(boot, str):
            return None
        seconds = None if lifetime is None else _number(lifetime)
        received = _number(wall), _number(monotonic)
        if received[0] is None or received[1] is None:
            return None
        if lifetime is not None and (seconds is None or seconds > _LONGEST_LIFE):
            return None
        return cls(token=Secret(token), lifetime=seconds, wall=received[0], monotonic=received[1], boot=boot)


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < _MOST else None  # Not a number is not less either.
