"""What came back: a model, or the one error that says why not."""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

import attrs

from sectigo_async.errors import (
    BadRequestError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    ServerError,
    ServiceError,
    UnexpectedReplyError,
)
from sectigo_async.models import parse_date
from sectigo_async.secrets import Secret
from sectigo_async.text import one_line
from sectigo_async.wire.converter import ShapeError, structure

T = TypeVar("T")

_KINDS: dict[int, type[ServiceError]] = {
    400: BadRequestError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: BadRequestError,
    422: BadRequestError,
    429: RateLimitError,
}


_SHORT = 4
_MASK = str(Secret("x"))
_JWT = re.compile(r"eyJ[\w-]+\.[\w-]+\.[\w-]*", re.ASCII)


def _forms(secrets: Iterable[Secret]) -> set[str]:
    """Return the texts by which a service may echo secrets: as they are, and as JSON writes them."""
    plain = {secret.reveal() for secret in secrets if secret}
    return plain | {json.dumps(text, ensure_ascii=ascii_only)[1:-1] for text in plain for ascii_only in (True, False)}


def quote(text: str, secrets: Iterable[Secret]) -> str:
    """Return foreign text fit for an error or a log: one line, without `secrets` and without anybody's tokens."""
    for form in sorted(_forms(secrets), key=len, reverse=True):
        if len(form) < _SHORT and form in text:
            return "(not shown: it may hold a secret)"
        text = text.replace(form, _MASK)
    return one_line(_JWT.sub(_MASK, text))


@attrs.frozen(kw_only=True)
class Reply:
    """An HTTP reply, read to its end.

    Attributes:
        status: HTTP status code.
        headers: header fields, names in lower case.
        body: the bytes, empty where they were written to a file.
        tls_version: e.g. `TLSv1.3`; empty without TLS, and where the body was written to a file.
        secrets: what was sent and must not be shown, should the service echo it.
    """

    status: int
    headers: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    body: bytes = attrs.field(default=b"", repr=False)
    tls_version: str = ""
    secrets: tuple[Secret, ...] = attrs.field(default=(), repr=False, eq=False)

    @property
    def ok(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status < 300  # noqa: PLR2004 - the class of success codes

    @property
    def text(self) -> str:
        """The body as text, undecodable bytes replaced."""
        return self.body.decode("utf-8", errors="replace")

    def json(self) -> object:
        """Return the body as JSON, whatever media type it claims.

        Raises:
            ValueError: it is not JSON, or is nested too deeply.
        """
        try:
            value: object = json.loads(self.body)
        except RecursionError:
            problem = "nested too deeply"
        else:
            return value
        raise ValueError(problem)

    def quote(self, text: str | None = None) -> str:
        """Return the body, or a part of it, fit for an error message: one line, without the secrets sent."""
        return quote(self.text if text is None else text, self.secrets)

    @property
    def is_web_page(self) -> bool:
        """Whether this is HTML: a portal or a proxy answered, not the API. JSON counts whatever it claims to be."""
        start = self.body[:200].lstrip().lower()
        claimed = "html" in self.headers.get("content-type", "").lower()
        return start.startswith((b"<!doctype", b"<html")) or (claimed and not start.startswith((b"{", b"[")))


@attrs.frozen
class _ErrorBody:
    """The service's own account of an error, in whatever form it came (api.md 1c and 4.1)."""

    message: str = ""
    code: int | None = None
    timestamp: datetime | None = None

    @classmethod
    def read(cls, reply: Reply) -> "_ErrorBody":
        try:
            document = reply.json()
        except ValueError:
            return cls("" if reply.is_web_page else reply.quote())
        if not isinstance(document, dict):
            return cls(reply.quote())
        message, code = document.get("message"), document.get("errorCode")
        return cls(
            reply.quote(message if isinstance(message, str) else None),
            code if isinstance(code, int) and not isinstance(code, bool) else None,
            parse_date(document.get("timestamp")),
        )


def retry_after(reply: Reply) -> float | None:
    """Return the seconds (0 or more) that `Retry-After` asks for (RFC 9110 section 10.2.3); garbage asks nothing.

    It may name a date. That is one of the sender's clock, so it counts from the reply's own date, not from our time.
    """
    value = reply.headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return float(value[:10])
    until, written = _date(value), http_date(reply)
    return None if until is None or written is None else max(0.0, (until - written).total_seconds())


def http_date(reply: Reply) -> datetime | None:
    """Return when a reply was written by its sender's clock (aware; RFC 9110 section 6.6.1), where it tells."""
    return _date(reply.headers.get("date", ""))


def _date(text: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(text)
        # One without a zone is in UTC, as all dates of HTTP are.
        return date.replace(tzinfo=date.tzinfo or UTC).astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        return None


def _unexpected(reply: Reply, method: str, path: str, problem: str, *, hint: str = "") -> UnexpectedReplyError:
    return UnexpectedReplyError(
        f"{method} {path}: {problem}",
        status=reply.status,
        method=method,
        path=path,
        excerpt=reply.quote(),
        hint=hint or "check that the endpoint is the IoT Manager API",
    )


def error_for(reply: Reply, method: str, path: str) -> ServiceError:
    """Return the error that a reply without success stands for."""
    if reply.is_web_page and reply.status < 500:  # noqa: PLR2004 - a gateway's 5xx page is a server error
        return _unexpected(reply, method, path, f"a web page with status {reply.status}, not the API")
    if 300 <= reply.status < 400:  # noqa: PLR2004 - redirects are never followed
        where = reply.quote(reply.headers.get("location", "nowhere"))
        return _unexpected(reply, method, path, f"redirected ({reply.status}) to {where}, not followed")
    said = _ErrorBody.read(reply)
    kind = _KINDS.get(reply.status, ServerError if reply.status >= 500 else UnexpectedReplyError)  # noqa: PLR2004
    code = f", code {said.code}" if said.code else ""
    words = said.message or "no explanation given"
    return kind(
        f"{words} ({reply.status}{code}, {method} {path})",
        status=reply.status,
        method=method,
        path=path,
        code=said.code,
        server_message=said.message,
        timestamp=said.timestamp,
        excerpt=reply.quote(),
        retry_after=retry_after(reply),
        hint=_HINTS.get(kind, ""),
    )


_HINTS: dict[type[ServiceError], str] = {
    BadRequestError: "nothing was changed; mend the request by the service's words",
    NotFoundError: "check the id; it must be one that your account may see",
    RateLimitError: "wait a moment, then try again",
    ServerError: "the service has a problem of its own; try again later",
    PermissionDeniedError: "the id belongs to somebody else, or your account lacks the permission",
}


def refuse_web_page(reply: Reply, method: str, path: str) -> None:
    """Refuse a successful reply that is a web page, where any text would do.

    Raises:
        UnexpectedReplyError: it is one.
    """
    if reply.body[:200].lstrip().startswith(b"<"):
        raise _unexpected(reply, method, path, "a web page, not the API")


def model(shape: type[T], method: str, path: str) -> Callable[[Reply], T]:
    """Return a reader that turns a successful reply into `shape`."""

    def read(reply: Reply) -> T:
        try:
            return structure(reply.json(), shape)
        except ShapeError as error:
            problem = f"the reply does not fit: {error}"
        except ValueError:
            problem = "a web page, not the API" if reply.is_web_page else "the reply is not JSON"
        raise _unexpected(reply, method, path, problem)

    return read
