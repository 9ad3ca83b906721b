"""What happens in a run, for whoever shows it."""

import enum
from collections.abc import Mapping

import attrs

from sectigo_async.issuance.ledger import DeviceState


class EventKind(enum.Enum):
    """What happened in a run."""

    ORDERED = "ordered"
    REFUSED = "refused"
    OUTCOME_UNKNOWN = "outcome unknown"
    FOUND = "found"
    NOT_ORDERED = "not ordered"
    READY = "ready"
    SAVED = "saved"
    FAILED = "failed"
    TROUBLE = "trouble"
    STOPPED = "stopped"


@attrs.frozen(kw_only=True)
class Event:
    """Something that happened in a run.

    Attributes:
        kind: what.
        text: the same in words, in one line.
        devices: the names of the devices that it happened to.
        batch_id: the batch, where it is about one.
        counts: how many devices are in each state now.
    """

    kind: EventKind
    text: str
    devices: tuple[str, ...] = ()
    batch_id: int | None = None
    counts: Mapping[DeviceState, int]
