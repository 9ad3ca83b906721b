"""What the service does not have: its health, and a control plane for the machine it runs on."""

import ipaddress
import re
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from sectigo_async.sandbox.errors import ServiceError
from sectigo_async.sandbox.faults import FaultRule, parse_rules
from sectigo_async.sandbox.http import Json, parse_json_value, read_body
from sectigo_async.sandbox.routes import CALLS
from sectigo_async.sandbox.state import Sandbox

_ROUTES: Final = tuple(call.route for call in CALLS)
_MAX_FAULTS: Final = 1024 * 1024

_HOST: Final = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z.-]+)(:[0-9]+)?")


async def status(sandbox: Sandbox, _request: Request) -> Response:
    """Answer that the sandbox is up."""
    uptime = round(sandbox.clock.monotonic() - sandbox.started, 3)
    return Json({"status": "ok", "version": _version(), "uptime": uptime})


async def ca(sandbox: Sandbox, request: Request) -> Response:
    """Answer the root certificate."""
    require_local(request)
    return Response(sandbox.ca_pem(), media_type="application/x-pem-file")


async def crl(sandbox: Sandbox, request: Request) -> Response:
    """Answer the current revocation lists."""
    require_local(request)
    return Response(sandbox.crl_pem(), media_type="application/x-pem-file")


async def stats(sandbox: Sandbox, request: Request) -> Response:
    """Answer what clients have done so far."""
    require_local(request)
    return Json(sandbox.stats())


async def faults(sandbox: Sandbox, request: Request) -> Response:
    """Answer the faults in force."""
    require_local(request)
    return Json([rule.document() for rule in sandbox.faults.rules])


async def set_faults(sandbox: Sandbox, request: Request) -> Response:
    """Put other faults in force, and answer them."""
    require_local(request)
    document = parse_json_value(await read_body(request, _MAX_FAULTS))
    try:
        sandbox.faults.replace(parse_faults(document))
    except ValueError as error:
        raise ServiceError(400, str(error)) from None
    return await faults(sandbox, request)


def parse_faults(document: object) -> tuple[FaultRule, ...]:
    """Read a list of fault rules, as `sectigo_async.sandbox.faults` describes it.

    Raises:
        ValueError: it is none; says which rule is wrong and why.
    """
    return parse_rules(document, _ROUTES)


def require_local(request: Request) -> None:
    """Refuse with 403 unless the peer is this machine and was asked for as such.

    The Host header counts because a web page can make a browser on this machine connect here under a name
    of the page's choosing (DNS rebinding).
    """
    peer = request.client.host if request.client else ""
    hosts = request.headers.getlist("host")
    if not _is_loopback(peer) or len(hosts) != 1 or not _is_loopback_host(hosts[0]):
        raise ServiceError(403, "The control plane answers to this machine only")


def _is_loopback_host(host: str) -> bool:
    match = _HOST.fullmatch(host)
    if match is None:
        return False
    name = match["name"].strip("[]").lower()
    return name == "localhost" or _is_loopback(name)


def _is_loopback(address: str) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return (mapped or parsed).is_loopback


def _version() -> str:
    try:
        return version("sectigo-async")
    except PackageNotFoundError:
        return "unknown"
