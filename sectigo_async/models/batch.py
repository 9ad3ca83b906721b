"""Batches: what one order bought."""

import enum
from datetime import datetime
from typing import ClassVar

import attrs

from sectigo_async.models.base import Model


class BatchStatus(enum.Enum):
    """The state of a batch, one vocabulary for the wire's three (api.md 2). Open: see `UNKNOWN`."""

    CREATED = "CREATED"
    PROCESSING = "PROCESSING"
    READY_FOR_DOWNLOAD = "READY_FOR_DOWNLOAD"
    COLLECTED = "COLLECTED"
    PARTLY_ISSUED = "BATCH_ISSUED_PARTLY"
    FAILED = "FAILED"
    REJECTED = "REJECTED"
    NOT_ACCEPTABLE = "NOT_ACCEPTABLE"
    BROKEN = "BROKEN"
    ABORTED = "ABORTED"
    PROCESSING_REJECT = "PROCESSING_REJECT"
    PROCESSING_REVOKE = "PROCESSING_REVOKE"
    REVOKED = "REVOKED"
    REVOCATION_ERROR = "REVOCATION_ERROR"
    REMOVED_AFTER_EXPIRATION = "REMOVED_AFTER_EXPIRATION"
    UNKNOWN = "UNKNOWN"
    """A status this version does not know; the text itself stands in `status_text`."""

    @classmethod
    def parse(cls, text: str) -> "BatchStatus":
        """Read a status of the batch detail, a sentence of the status call, or a label of the portal."""
        word = text.strip().upper().replace(" ", "_")
        inner = word.removeprefix(_WRAPPER).strip("_")
        found = _LABELS.get(inner) or next((member for member in cls if member.value == inner), cls.UNKNOWN)
        return cls.NOT_ACCEPTABLE if found is cls.UNKNOWN and word.startswith(_WRAPPER) else found


_WRAPPER = "NOT_ACCEPTABLE._STATUS:"
_LABELS = {
    "PENDING_CREATION": BatchStatus.PROCESSING,
    "PENDING_ISSUE": BatchStatus.PROCESSING,
    "ZIP_REMOVED_AFTER_EXPIRATION": BatchStatus.REMOVED_AFTER_EXPIRATION,
}


@attrs.frozen(kw_only=True)
class ProcessingInfo(Model):
    """How many certificates of a batch are in which state (api.md 1a, processing_info).

    Attributes:
        active: still being issued.
        success: issued.
        failed: will not be issued.
    """

    active: int = 0
    success: int = 0
    failed: int = 0


@attrs.frozen(kw_only=True)
class ReportedStatus:
    """The answer of the status call.

    Attributes:
        status: what it means.
        text: the service's own sentence.
    """

    status: BatchStatus
    text: str


@attrs.frozen(kw_only=True)
class Batch(Model):
    """One order: certificates bought together (api.md 1c, Batch).

    Attributes:
        batch_id: the id all other calls take.
        order_number: the service's order number; may come later.
        creation_date: when it was ordered.
        profile: name of the profile it was ordered under.
        size: number of certificates.
        status: its state.
        active: a flag of the service, meaning unknown.
        batch_name: the name it was ordered under.
        reject_reason: why it was refused, where it was.
        generator_parameters_values: unknown.
        user_id: who ordered it.
        downloadable: a flag of the service; no sign that it is ready (api.md 1c).
        rejectable: a flag of the service.
        processing: the counters, on a batch that `wait` or `watch` returned and that was asked for them.
    """

    batch_id: int
    order_number: int | None = None
    creation_date: datetime | None = None
    profile: str = ""
    size: int = 0
    status: BatchStatus = BatchStatus.UNKNOWN
    active: bool = False
    batch_name: str = ""
    reject_reason: str = ""
    # By its name it may hold what was ordered with, a password included.
    generator_parameters_values: object = attrs.field(default=None, repr=False)
    user_id: int | None = None
    downloadable: bool = False
    rejectable: bool = False
    processing: ProcessingInfo | None = None

    _not_on_the_wire: ClassVar[frozenset[str]] = frozenset({"raw", "processing"})

    @property
    def status_text(self) -> str:
        """The status as the service wrote it."""
        text = self.raw.get("status", self.status.value)
        return text if isinstance(text, str) else str(text)

    @property
    def partial(self) -> bool:
        """Whether some certificates were issued and some were not, as far as is known."""
        counts = self.processing
        return self.status is BatchStatus.PARTLY_ISSUED or (
            counts is not None and counts.failed > 0 and counts.success > 0
        )
