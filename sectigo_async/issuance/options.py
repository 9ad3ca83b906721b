"""How a run goes about it."""

from typing import Any

import attrs

from sectigo_async.errors import InvalidArgumentError
from sectigo_async.files import PRIVATE, Access

_LONGEST = 366 * 86400.0


def _seconds(_: object, field: "attrs.Attribute[Any]", value: float | None) -> None:
    if value is not None and not 0 <= value <= _LONGEST:
        raise InvalidArgumentError(f"{field.name} is {value:g}, and not a number of seconds up to {_LONGEST:,.0f}")


@attrs.frozen(kw_only=True)
class Options:
    """How a run goes about it.

    Attributes:
        batch_size: how many CSRs go into one order (1 or more). When not given: 25 until one batch has succeeded,
            then 500.
        at_once: how many things are under way at once at most (1 or more); fewer while the service is troubled.
        most_open: how many devices are ordered and not saved at most (1 or more).
        settle: seconds after which a request that was sent has surely run, if it ever does.
        resubmit: order again where the outcome of an order is unknown, the settle time has passed and nothing fits,
            although nothing proves that it was not placed. It may be paid for twice.
        timeout: seconds that a batch is waited for, and that the service may be out of reach; what is not ready then
            is left for the next run. `None` for no limit.
        pilot: order little until a certificate has come, and nothing more when none of the first 25 devices gets
            one; needless where the same was ordered before. A `batch_size` says itself how much is ordered.
        access: who may read what is written.
    """

    batch_size: int | None = attrs.field(default=None, validator=attrs.validators.optional(attrs.validators.ge(1)))
    at_once: int = attrs.field(default=20, validator=attrs.validators.ge(1))
    most_open: int = attrs.field(default=2000, validator=attrs.validators.ge(1))
    settle: float = attrs.field(default=900.0, validator=_seconds)
    resubmit: bool = False
    timeout: float | None = attrs.field(default=3600.0, validator=_seconds)
    pilot: bool = True
    access: Access = PRIVATE
