"""What each exit code means."""

from sectigo_async.errors import (
    AuthenticationError,
    BatchNotReady,
    ConfigurationError,
    InvalidArgumentError,
    NotFoundError,
    OutcomeUnknownError,
    SectigoError,
    WaitTimeout,
)

DONE = 0
FAILED = 1
USAGE = 2
NOT_FOUND = 3
NOT_SIGNED_IN = 4
PARTLY_DONE = 5
OUTCOME_UNKNOWN = 6
PENDING = 8
INTERRUPTED = 130

MEANINGS = {
    DONE: "done",
    FAILED: "failed",
    USAGE: "usage",
    NOT_FOUND: "not found",
    NOT_SIGNED_IN: "not signed in",
    PARTLY_DONE: "partly done: something was done that counts, an order for example, but not all",
    OUTCOME_UNKNOWN: "outcome unknown: money may be spent, do not repeat it",
    PENDING: "still pending",
    INTERRUPTED: "interrupted",
}

_CODES: tuple[tuple[type[SectigoError], int], ...] = (
    (InvalidArgumentError, USAGE),
    (ConfigurationError, USAGE),
    (NotFoundError, NOT_FOUND),
    (AuthenticationError, NOT_SIGNED_IN),
    (OutcomeUnknownError, OUTCOME_UNKNOWN),
    (BatchNotReady, PENDING),
    (WaitTimeout, PENDING),
)


def exit_code(error: SectigoError) -> int:
    """Return the exit code for an error."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), FAILED)
