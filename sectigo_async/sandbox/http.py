"""What every call shares: reading requests with bounds, and replies in the service's own dress."""

import json
import logging
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sectigo_async.clock import Clock
from sectigo_async.sandbox.errors import ErrorCode, ServiceError

logger: Final = logging.getLogger("sectigo_async.sandbox")

_MAX_JSON: Final = 1024 * 1024
_LONGEST_SHOWN: Final = 200


class Json(JSONResponse):
    """A JSON reply with the media type the service uses (api.md 1)."""

    media_type = "application/json;charset=UTF-8"


class Text(PlainTextResponse):
    """A plain text reply."""

    charset = "UTF-8"


class ConnectionCut(Exception):
    """The connection is to be cut, where there is none: a transport in this process turns it into an error.

    Attributes:
        reply: the reply whose headers came through; `None` where nothing did.
        body: what came through of its body.
    """

    def __init__(self, reply: Response | None, body: bytes) -> None:
        super().__init__("the connection was cut")
        self.reply = reply
        self.body = body


async def read_body(request: Request, limit: int) -> bytes:
    """Return the body, or refuse with 413 once it exceeds `limit` bytes."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise ServiceError(413, f"The request is larger than {limit} bytes")
    return bytes(body)


async def read_json(request: Request) -> dict[str, Any]:
    """Return the JSON object that a request carries, or refuse with 400."""
    return parse_json(await read_body(request, _MAX_JSON))


def parse_json_value(body: bytes) -> object:
    """Return the JSON in `body`, or refuse with 400."""
    try:
        document: object = json.loads(body)
        # JSON may spell half a surrogate pair, which no reply could carry back.
        json.dumps(document, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise ServiceError(400, "Malformed JSON request") from error
    return document


def parse_json(body: bytes) -> dict[str, Any]:
    """Return the JSON object in `body`, or refuse with 400 or 413."""
    if len(body) > _MAX_JSON:
        raise ServiceError(413, "The JSON request is too large")
    document = parse_json_value(body)
    if not isinstance(document, dict):
        raise ServiceError(400, "Malformed JSON request: an object is expected")
    return document


def text_field(document: dict[str, Any], name: str) -> str:
    """Return a text that must be there and not be blank, or refuse with 400."""
    value = document.get(name)
    if not isinstance(value, str) or not value.strip():
        raise ServiceError(400, f"{name} must be a text that is not empty")
    return value


def integer_field(document: dict[str, Any], name: str) -> int:
    """Return a whole number that must be there, or refuse with 400."""
    value = document.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ServiceError(400, f"{name} must be a whole number")
    return value


def params_field(document: dict[str, Any]) -> dict[str, str]:
    """Return `profileParams`, or refuse with 400: all its values are texts (api.md 4.5)."""
    value = document.get("profileParams")
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise ServiceError(400, "profileParams must be an object whose values are texts")
    return value


class ErrorReplies:
    """Turns every failure into the service's error body (api.md 1c).

    Args:
        clock: its wall clock stamps the errors.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def reply(self, status: int, message: str, code: ErrorCode = ErrorCode.GENERAL) -> Json:
        """Return an error reply."""
        timestamp = int(self._clock.time() * 1000)
        return Json({"status": status, "message": message, "errorCode": code.value, "timestamp": timestamp}, status)

    async def refused(self, _request: Request, error: Exception) -> Response:
        """Answer a `ServiceError`."""
        assert isinstance(error, ServiceError)
        return self.reply(error.status, error.message, error.code)

    async def not_routed(self, request: Request, error: Exception) -> Response:
        """Answer an unknown path (404) or a wrong method (405)."""
        assert isinstance(error, HTTPException)
        phrase = HTTPStatus(error.status_code).phrase
        response = self.reply(
            error.status_code, f"{phrase}: {request.method} {request.scope['path'][:_LONGEST_SHOWN]}"
        )
        response.headers.update(error.headers or {})
        return response


class Envelope:
    """Outermost layer: stamps replies with the injected clock's Date and lets no exception out.

    Args:
        app: what it wraps.
        clock: its wall clock is told in the `Date` header.
        errors: makes the reply to an unexpected exception.
    """

    def __init__(self, app: ASGIApp, clock: Clock, errors: ErrorReplies) -> None:
        self._app = app
        self._clock = clock
        self._errors = errors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        started = False
        state = scope.setdefault("state", {})

        async def stamped(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                date = formatdate(self._clock.time() + state.get("clock_skew", 0), usegmt=True).encode()
                message = {**message, "headers": [*message["headers"], (b"date", date)]}
            await send(message)

        try:
            await self._app(scope, receive, stamped)
        except ClientDisconnect:
            return
        except ConnectionCut:
            raise
        except Exception:
            if started:
                raise
            logger.exception("unexpected failure in the sandbox")
            await self._errors.reply(500, "Internal server error")(scope, receive, stamped)
