"""One pure decision: send again, and after how long?"""

_FIRST = 0.5
_LONGEST = 20.0
_LONGEST_ASKED = 60.0
_WORTH_IT = frozenset({429, 502, 503, 504})


def retry_delay(
    *,
    repeatable: bool,
    sent: bool,
    status: int | None,
    retry_after: float | None,
    attempt: int,
    attempts: int,
    jitter: float,
) -> float | None:
    """Return the seconds to wait before sending again, or `None` to stop.

    What is not repeatable is sent again only if it provably was not sent before: it may cost money.

    Args:
        repeatable: whether the request may run twice.
        sent: whether the last attempt may have reached the service.
        status: the status it answered with; `None` where no answer came.
        retry_after: the seconds it asked to wait, where it did; capped at 60.
        attempt: number of the last attempt, from 1.
        attempts: the most attempts there are.
        jitter: a random number from 0 to 1; the wait is that part of the full back-off.
    """
    if attempt >= attempts or (status is not None and status not in _WORTH_IT):
        return None
    if sent and not repeatable:
        return None
    if retry_after is not None:
        return min(retry_after, _LONGEST_ASKED)
    return float(jitter * min(_LONGEST, _FIRST * 2 ** (attempt - 1)))
