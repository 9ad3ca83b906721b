"""The ASGI application: the calls of the service, and what stands around them."""

from collections.abc import Awaitable, Callable
from typing import Final

import attrs
from starlette.applications import Starlette
from starlette.convertors import IntegerConvertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from sectigo_async.sandbox import control
from sectigo_async.sandbox.errors import ErrorCode, ServiceError
from sectigo_async.sandbox.fault_replies import Mishap
from sectigo_async.sandbox.http import Envelope, ErrorReplies
from sectigo_async.sandbox.routes import CALLS, Call
from sectigo_async.sandbox.state import Sandbox

_CONTROL: Final = (
    Call("GET", "/status", control.status, public=True),
    Call("GET", "/_sandbox/ca.pem", control.ca, public=True),
    Call("GET", "/_sandbox/crl.pem", control.crl, public=True),
    Call("GET", "/_sandbox/stats", control.stats, public=True),
    Call("GET", "/_sandbox/faults", control.faults, public=True),
    Call("PUT", "/_sandbox/faults", control.set_faults, public=True),
)


class _IdConvertor(IntegerConvertor):
    """Ids in paths, of a bounded length: Python refuses to read a number of thousands of digits."""

    regex = "[0-9]{1,18}"


def create_app(sandbox: Sandbox) -> Starlette:
    """Return the ASGI application that serves `sandbox`; it needs no lifespan."""
    register_url_convertor("sandbox_id", _IdConvertor())
    errors = ErrorReplies(sandbox.clock)
    calls = (*(_with_faults(call, errors) for call in CALLS), *_CONTROL)
    app = Starlette(
        routes=[Route(call.path, _endpoint(sandbox, call), methods=[call.method]) for call in calls],
        middleware=[Middleware(Envelope, clock=sandbox.clock, errors=errors)],
        exception_handlers={ServiceError: errors.refused, HTTPException: errors.not_routed},
    )
    # A redirect is news to a client of this service: 307 asks it for a certificate (api.md 1a).
    app.router.redirect_slashes = False
    return app


def _endpoint(sandbox: Sandbox, call: Call) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        try:
            await sandbox.faults.catch_up()
            if not call.public:
                sandbox.authorise(_bearer(request))
            return await call.handler(sandbox, request)
        finally:
            # Nobody is told what a crash could still undo, not even by an error.
            await sandbox.flush()

    return endpoint


def _with_faults(call: Call, errors: ErrorReplies) -> Call:
    """Return a call of the service that faults may strike once the request is authorised."""

    async def handler(sandbox: Sandbox, request: Request) -> Response:
        rule = sandbox.faults.pick(call.route)
        if rule is None:
            return await call.handler(sandbox, request)

        async def run() -> Response:
            try:
                return await call.handler(sandbox, request)
            except ServiceError as error:
                return await errors.refused(request, error)

        return await Mishap(rule, request, run, sandbox.faults, sandbox.clock, errors).answer()

    return attrs.evolve(call, handler=handler)


def _bearer(request: Request) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise ServiceError(401, "Authentication failed", ErrorCode.AUTHENTICATION)
    return token
