"""What can go wrong on a bad day, by rules that can be repeated: which fault, on which route, how often.

A list of rules in JSON, as `PUT /_sandbox/faults` and `sectigo-async serve --faults FILE` take it:

```json
[
  {"route": "PUT /api/v1/batches/createSingleCertBatch", "fault": "lost-reply", "rate": 0.3},
  {"route": "GET /api/v1/batches/{id}", "fault": "lag", "seconds": 30},
  {"route": "*", "fault": "rate-limit", "times": 5, "retry_after": 2}
]
```

- `route`: a call's method and path, ids written `{id}`; or `*`, all of them. Required.
- `fault`: one of `Fault`. Required.
- `rate`: how often it strikes, from 0 to 1; always when left out.
- `times`: how often it strikes at most; without limit when left out.
- `seconds`: how long, for the faults that take time.
- `status`: the status of `error-before`, `error-after` and `web-page`.
- `retry_after`: the `Retry-After` of `rate-limit` and of both errors: a number of seconds, or any text.

The first rule that strikes is the one that counts. Rules are rolled with a seeded generator: the same requests in the
same order meet the same faults.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Sequence
from enum import StrEnum
from typing import Any, Final

import attrs

from sectigo_async.clock import Clock

ANY_ROUTE: Final = "*"
_STATUSES: Final = range(200, 600)
_MOST: Final = 1000
_LONGEST: Final = 1e6
_LONGEST_TEXT: Final = 1000


class Fault(StrEnum):
    """The faults there are."""

    LATENCY = "latency"
    """The answer takes `seconds`."""
    RATE_LIMIT = "rate-limit"
    """429, and the request does not run."""
    ERROR_BEFORE = "error-before"
    """An error (503), and the request does not run."""
    ERROR_AFTER = "error-after"
    """An error (503), though the request has run."""
    CUT_BEFORE = "cut-before"
    """The connection is cut, and the request does not run."""
    LOST_REPLY = "lost-reply"
    """The connection is cut before the first byte of the reply, though the request has run."""
    CUT_AFTER_HEADERS = "cut-after-headers"
    """The request runs, and the connection is cut after the headers of the reply."""
    CUT_MID_BODY = "cut-mid-body"
    """The request runs, and the connection is cut in the middle of the body."""
    LATE_COMMIT = "late-commit"
    """The connection is cut, and the request runs `seconds` later."""
    DRIP = "drip"
    """The request runs, and the body comes byte by byte, each after `seconds`."""
    WRONG_TYPE = "wrong-type"
    """The right reply claims to be HTML."""
    WEB_PAGE = "web-page"
    """A web page (200) in the place of the reply, and the request does not run."""
    TRUNCATED = "truncated"
    """The request runs, and its reply is the first half of itself."""
    BIT_FLIP = "bit-flip"
    """One bit of an archive is another; other replies are as they should be."""
    LAG = "lag"
    """Batches and searches are seen as they were `seconds` ago: what is newer is not there."""
    OUT_OF_ORDER = "out-of-order"
    """Statuses are those of a moment in the last `seconds`: they come twice, and go back."""
    CLOCK_SKEW = "clock-skew"
    """The reply's `Date` is `seconds` ahead; behind where they are negative."""


_TAKES_TIME: Final = {
    Fault.LATENCY,
    Fault.LATE_COMMIT,
    Fault.DRIP,
    Fault.LAG,
    Fault.OUT_OF_ORDER,
    Fault.CLOCK_SKEW,
}


@attrs.frozen(kw_only=True)
class FaultRule:
    """One rule; see the module for what its attributes mean."""

    route: str
    fault: Fault
    rate: float = 1.0
    times: int | None = None
    seconds: float = 0.0
    status: int | None = None
    retry_after: int | str | None = None

    def document(self) -> dict[str, object]:
        """Return the rule as JSON knows it."""
        return attrs.asdict(self, filter=lambda attribute, value: value != attribute.default)


NUISANCE: Final[tuple[FaultRule, ...]] = (
    FaultRule(route="PUT /api/v1/batches/createSingleCertBatch", fault=Fault.LOST_REPLY, rate=0.05),
    FaultRule(route="POST /api/v1/batches/upload", fault=Fault.LOST_REPLY, rate=0.05),
    FaultRule(route="GET /api/v1/batches/{id}", fault=Fault.OUT_OF_ORDER, rate=0.1, seconds=2),
    FaultRule(route=ANY_ROUTE, fault=Fault.RATE_LIMIT, rate=0.03, retry_after=1),
    FaultRule(route=ANY_ROUTE, fault=Fault.ERROR_BEFORE, rate=0.03),
    FaultRule(route=ANY_ROUTE, fault=Fault.LATENCY, rate=0.2, seconds=0.3),
)
"""A gentle list: what a service does on an ordinary bad day."""


def parse_rules(document: object, routes: Collection[str]) -> tuple[FaultRule, ...]:
    """Read a list of rules.

    Args:
        document: the list, as JSON was read.
        routes: the routes there are.

    Raises:
        ValueError: it is none; says which rule is wrong and why.
    """
    if not isinstance(document, list):
        raise ValueError("a list of rules is expected")  # noqa: TRY004 - one kind of error for what comes from outside
    if len(document) > _MOST:
        raise ValueError(f"more than {_MOST} rules")
    rules = []
    for number, item in enumerate(document, start=1):
        try:
            rules.append(_parse(item, routes))
        except ValueError as error:
            raise ValueError(f"rule {number}: {error}") from None
    return tuple(rules)


def _parse(item: object, routes: Collection[str]) -> FaultRule:
    if not isinstance(item, dict):
        raise ValueError("an object is expected")  # noqa: TRY004 - as above
    known = {field.name for field in attrs.fields(FaultRule)}
    if unknown := [name for name in item if name not in known]:
        raise ValueError(f"unknown key {unknown[0][:80]!r}; there are {', '.join(sorted(known))}")
    route, kind = item.get("route"), item.get("fault")
    if route != ANY_ROUTE and route not in routes:
        raise ValueError(f"unknown route {str(route)[:80]!r}; there are *, {', '.join(sorted(routes))}")
    try:
        fault = Fault(str(kind))
    except ValueError:
        raise ValueError(f"unknown fault {str(kind)[:80]!r}; there are {', '.join(Fault)}") from None
    return FaultRule(
        route=str(route),
        fault=fault,
        rate=_number(item, "rate", 1.0, low=0, high=1),
        times=_integer(item, "times", range(1_000_000)),
        seconds=_seconds(item, fault),
        status=_integer(item, "status", _STATUSES),
        retry_after=_wait(item),
    )


def _number(item: dict[str, Any], name: str, default: float, *, low: float, high: float) -> float:
    value = item.get(name, default)
    if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
        raise ValueError(f"{name} must be a number from {low:g} to {high:g}")
    return float(value)


def _integer(item: dict[str, Any], name: str, allowed: range) -> int | None:
    value = item.get(name)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value not in allowed):
        raise ValueError(f"{name} must be a whole number from {allowed.start} to {allowed.stop - 1}")
    return value


def _seconds(item: dict[str, Any], fault: Fault) -> float:
    if fault in _TAKES_TIME and "seconds" not in item:
        raise ValueError(f"{fault} needs seconds")
    low = -_LONGEST if fault is Fault.CLOCK_SKEW else 0
    return _number(item, "seconds", 0.0, low=low, high=_LONGEST)


def _wait(item: dict[str, Any]) -> int | str | None:
    value = item.get("retry_after")
    text = isinstance(value, str) and value.isascii() and value.isprintable() and len(value) <= _LONGEST_TEXT
    if value is None or text or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    raise ValueError("retry_after must be a whole number or a text")


class Faults:
    """The rules in force, what they have done, and the requests that will run late.

    Args:
        rules: the rules to begin with.
        seed: where the generator starts.
        clock: says when a late request is due.
    """

    def __init__(self, rules: Sequence[FaultRule], seed: int, clock: Clock) -> None:
        self.counts: Counter[Fault] = Counter()
        self.late_commits: int = 0
        self._seed = seed
        self._clock = clock
        self._running = asyncio.Lock()
        self._late: list[tuple[float, Callable[[], Awaitable[object]]]] = []
        self.replace(rules)

    def replace(self, rules: Sequence[FaultRule]) -> None:
        """Put other rules in force, and start the generator anew."""
        self.rules: tuple[FaultRule, ...] = tuple(rules)
        self.random: random.Random = random.Random(self._seed)  # noqa: S311 - it rolls faults, and is to be repeated
        self._struck: Counter[int] = Counter()

    def pick(self, route: str) -> FaultRule | None:
        """Return the rule that strikes this request, if one does, and count it."""
        for number, rule in enumerate(self.rules):
            if rule.route not in {ANY_ROUTE, route} or self._struck[number] == rule.times:
                continue
            if self.random.random() < rule.rate:
                self._struck[number] += 1
                self.counts[rule.fault] += 1
                return rule
        return None

    def later(self, seconds: float, run: Callable[[], Awaitable[object]]) -> None:
        """Have a request run when it is due."""
        self._late.append((self._clock.monotonic() + seconds, run))

    async def catch_up(self) -> None:
        """Run the late requests that are due by now: time moves them, as it moves orders."""
        if not self._late:
            return
        # Who comes while they run must see what they did.
        async with self._running:
            now = self._clock.monotonic()
            due = sorted((one for one in self._late if one[0] <= now), key=lambda one: one[0])
            for one in due:
                await one[1]()
                self._late.remove(one)
                self.late_commits += 1
