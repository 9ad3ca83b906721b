"""Orders as their sender knows them: what was sent, and what is known of what became of it."""

import enum
import re
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime

import attrs

from sectigo_async.models.batch import Batch


class OrderKind(enum.Enum):
    """How an order is placed."""

    CREATE = "create"
    UPLOAD = "upload"


class OrderState(enum.Enum):
    """What is known of an order."""

    UNKNOWN = "unknown"
    """It was sent, or was about to be: it may or may not have been placed."""
    ORDERED = "ordered"
    """It was placed; its batch is known."""
    NOT_ORDERED = "not ordered"
    """It was not placed, and spent nothing."""


def readable_part(common_name: str) -> str:
    """Return what the unique name of a batch begins with: short, `[a-z0-9-]`."""
    return re.sub(r"[^a-z0-9]+", "-", common_name.lower()).strip("-")[:24].strip("-") or "batch"


def unique_name(common_name: str) -> str:
    """Return a name for a batch that no other batch has."""
    return f"{readable_part(common_name)}-{secrets.token_hex(4)}"


def readable_part_of(batch_name: str) -> str:
    """Return what a name begins with that `unique_name` made; nothing where it did not."""
    found = re.fullmatch(r"([a-z0-9-]+)-[0-9a-f]{8}", batch_name)
    return found[1] if found else ""


@attrs.frozen(kw_only=True)
class Order:
    """One order, in so far as it takes to know it again. It holds no secrets and no parameters.

    Attributes:
        order_id: tells it from every other order.
        kind: how it is placed.
        profile_id: the profile, or the authority, that it names.
        batch_name: the name it gives its batch; empty for an upload, which carries none.
        unique_name: whether that name was made for this order, so that no other batch has it.
        size: number of certificates; 0 where it is not known, of an order of which only the devices are left. What
            `batch_name` holds then is the readable part of its name.
        common_names: the first common names in it.
        key_sha256: SHA-256 of the SubjectPublicKeyInfo of each CSR of an upload, as hex: what tells it apart.
        sent_at: when it was sent, by the clock of this machine (aware).
        after: the highest batch id that was known before it was sent; 0 where none was. Its batch has a higher one.
        state: what is known of it.
        batch_id: its batch, where it was placed.
    """

    order_id: str = attrs.field(factory=lambda: secrets.token_hex(4))
    kind: OrderKind
    profile_id: int
    batch_name: str = ""
    unique_name: bool = False
    size: int = 1
    common_names: tuple[str, ...] = ()
    key_sha256: frozenset[str] = frozenset()
    sent_at: datetime
    after: int = 0
    state: OrderState = OrderState.UNKNOWN
    batch_id: int | None = None

    @property
    def subject(self) -> str:
        """What was ordered, in words."""
        if self.batch_name:
            return f'batch "{self.batch_name}"'
        names = ", ".join(self.common_names)
        if not self.size:
            return f"what may have been ordered ({names})"
        more = f" and {self.size - len(self.common_names)} more" if self.size > len(self.common_names) else ""
        return f"the order of {self.size} certificate{'' if self.size == 1 else 's'} ({names}{more})"

    def placed(self, batch_id: int) -> "Order":
        """Return the order as one that was placed."""
        return attrs.evolve(self, state=OrderState.ORDERED, batch_id=batch_id)

    def not_placed(self) -> "Order":
        """Return the order as one that was not placed."""
        return attrs.evolve(self, state=OrderState.NOT_ORDERED, batch_id=None)

    def document(self) -> dict[str, object]:
        """Return it as JSON knows it, names as on the wire."""
        return {
            "orderId": self.order_id,
            "state": self.state.value,
            "batchId": self.batch_id,
            "kind": self.kind.value,
            "profileId": self.profile_id,
            "batchName": self.batch_name,
            "uniqueName": self.unique_name,
            "size": self.size,
            "commonNames": list(self.common_names),
            "keySha256": sorted(self.key_sha256),
            "sentAt": self.sent_at.astimezone(UTC).isoformat(timespec="milliseconds"),
            "after": self.after,
        }

    @classmethod
    def from_document(cls, document: Mapping[str, object]) -> "Order":
        """Return the order that `document` returned.

        Raises:
            ValueError: it is no such document.
        """
        try:
            return cls(
                order_id=_text(document["orderId"]),
                kind=OrderKind(document["kind"]),
                profile_id=_number(document["profileId"]),
                batch_name=_text(document["batchName"]),
                unique_name=document["uniqueName"] is True,
                size=_number(document["size"]),
                common_names=tuple(_texts(document["commonNames"])),
                key_sha256=frozenset(_texts(document["keySha256"])),
                sent_at=datetime.fromisoformat(_text(document["sentAt"])).astimezone(UTC),
                after=_number(document["after"]),
                state=OrderState(document["state"]),
                batch_id=None if document["batchId"] is None else _number(document["batchId"]),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"no order: {error}") from None


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("a text is expected")
    return value


def _number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError("a number is expected")
    return value


def _texts(value: object) -> list[str]:
    if not isinstance(value, list):
        raise TypeError("a list is expected")
    return [_text(item) for item in value]


@attrs.frozen(kw_only=True)
class Reconciliation:
    """What a look for an order found.

    Attributes:
        order: the order, in the state that is now known; `UNKNOWN` is for a person to decide.
        reason: why, in words.
        batch: its batch, where it was found.
        candidates: batches that may be its, where no one can tell.
        exhausted: whether the order stays unknown although the settle time has passed and everything within reach was
            looked at: nothing fits, and only an order that was sent later could prove that it was not placed.
    """

    order: Order
    reason: str
    batch: Batch | None = None
    candidates: tuple[Batch, ...] = ()
    exhausted: bool = False
