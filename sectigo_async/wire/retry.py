"""One pure decision: send again, and after how long?"""

_FIRST = 0.5
_LONGEST = 20.0
_LONGEST_ASKED = 60.0
_BUSY = 429
_WORTH_IT = frozenset({_BUSY, 502, 503, 504})

DID_NOT_RUN = frozenset({400, 401, 403, 404, 405, 406, 409, 411, 413, 414, 415, 422, _BUSY, 431})
"""Answers by which a service refuses a request before acting on it."""


def retry_delay(
    *,
    repeatable: bool,
    sent: bool,
    status: int | None,
    retry_after: float | None,
    attempt: int,
    attempts: int,
    left: float | None,
    jitter: float,
) -> float | None:
    """Return the seconds to wait before sending again, or `None` to stop.

    What is not repeatable is sent again only if it provably did not run: it may cost money.

    Args:
        repeatable: whether the request may run twice.
        sent: whether the last attempt may have reached the service.
        status: the status it answered with; `None` where no answer came.
        retry_after: the seconds (0 or more) it asked to wait, where it did; capped at 60.
        attempt: number of the last attempt, from 1.
        attempts: the most attempts there are.
        left: seconds left of the whole call; `None` for no limit. Nothing is waited for that comes too late.
        jitter: a random number from 0 to 1; the wait is that part of the full back-off.
    """
    if attempt >= attempts or (status is not None and status not in _WORTH_IT):
        return None
    if sent and not repeatable and status not in DID_NOT_RUN:
        return None
    if retry_after is not None:
        wait = min(retry_after, _LONGEST_ASKED)
    else:
        wait = jitter * min(_LONGEST, _FIRST * 2 ** (attempt - 1))
    return None if left is not None and wait >= left else wait
