"""The calls of the service that are known to work (api.md 1a), from request to reply."""

from collections.abc import Awaitable, Callable
from typing import Final

import attrs
from starlette.requests import Request
from starlette.responses import Response

from sectigo_async.sandbox import catalog
from sectigo_async.sandbox.csr import MAX_UPLOAD
from sectigo_async.sandbox.documents import (
    authority_document,
    batch_document,
    certificate_document,
    organization_document,
    parameter_document,
    processing_document,
    profile_detail_document,
    profile_document,
    status_sentence,
)
from sectigo_async.sandbox.errors import ServiceError
from sectigo_async.sandbox.http import (
    Json,
    Text,
    integer_field,
    params_field,
    parse_json,
    read_body,
    read_json,
    text_field,
)
from sectigo_async.sandbox.multipart import Part, parse_multipart
from sectigo_async.sandbox.records import Batch, Status
from sectigo_async.sandbox.state import Sandbox

Handler = Callable[[Sandbox, Request], Awaitable[Response]]

_WITH_CERTIFICATE: Final = "/auth/pwd/certificate"
_MAX_TOKEN: Final = 16 * 1024
_UPLOAD_OVERHEAD: Final = 64 * 1024
# RFC 5280 5.3.1; 7 is not used there.
_REASONS: Final = frozenset(range(11)) - {7}


@attrs.frozen
class Call:
    """One call of the service; a public one needs no token."""

    method: str
    path: str
    handler: Handler
    public: bool = False

    @property
    def route(self) -> str:
        """Method and path as the rules of faults name them."""
        return f"{self.method} {self.path.replace(':sandbox_id', '')}"


async def _sign_in(sandbox: Sandbox, request: Request) -> Response:
    if sandbox.config.client_ca is not None:
        # 307 asks to repeat this elsewhere, with a client certificate (api.md 1a); where that is, is a guess.
        await read_body(request, _MAX_TOKEN)
        return Response(status_code=307, headers={"location": f"https://{request.url.netloc}{_WITH_CERTIFICATE}"})
    return await _sign_in_here(sandbox, request)


async def _sign_in_with_certificate(sandbox: Sandbox, request: Request) -> Response:
    if not getattr(request.state, "client_certificate", False):
        raise ServiceError(403, "A client certificate is required")
    return await _sign_in_here(sandbox, request)


async def _sign_in_here(sandbox: Sandbox, request: Request) -> Response:
    body = await read_json(request)
    return Json(sandbox.sign_in(text_field(body, "username"), text_field(body, "password")))


async def _refresh(sandbox: Sandbox, request: Request) -> Response:
    token = await read_body(request, _MAX_TOKEN)
    return Json(sandbox.refresh(token.decode(errors="replace")))


async def _create(sandbox: Sandbox, request: Request) -> Response:
    body = await read_json(request)
    batch = await sandbox.create(
        integer_field(body, "authorityId"), text_field(body, "batchName"), params_field(body)
    )
    return Json(batch_document(batch, Status.CREATED), 201)


async def _upload(sandbox: Sandbox, request: Request) -> Response:
    body = await read_body(request, MAX_UPLOAD + _UPLOAD_OVERHEAD)
    parts = parse_multipart(request.headers.get("content-type", ""), body)
    order = parse_json(_part(parts, "csrBatchRequest", "application/json").content)
    profile_id = integer_field(order, "profileId")
    if _part(parts, "profileId").content != str(profile_id).encode():
        raise ServiceError(400, "profileId differs between the part of that name and csrBatchRequest")
    files = _part(parts, "files")
    batch = await sandbox.upload(profile_id, params_field(order), files.content, files.content_type or "text/plain")
    return Json(batch_document(batch, Status.CREATED))


def _part(parts: dict[str, Part], name: str, content_type: str | None = None) -> Part:
    if name not in parts:
        raise ServiceError(400, f"Required part {name!r} is not present")
    part = parts[name]
    if content_type is not None and part.content_type != content_type:
        raise ServiceError(400, f"Part {name!r} must be {content_type}, not {part.content_type!r}")
    return part


def _seen(sandbox: Sandbox, request: Request) -> tuple[float, float]:
    """Return the moment whose batches the request may see, and the one whose statuses it is told (monotonic)."""
    now = sandbox.clock.monotonic()
    told = now - getattr(request.state, "ago", 0)
    return (told if getattr(request.state, "hides", False) else now), told


def _poll(sandbox: Sandbox, request: Request) -> tuple[Batch, float]:
    sandbox.counts["polls"] += 1
    visible, told = _seen(sandbox, request)
    batch = sandbox.ledger.batch(request.path_params["id"], visible)
    return batch, max(told, batch.placed)


async def _batch(sandbox: Sandbox, request: Request) -> Response:
    batch, moment = _poll(sandbox, request)
    return Json(batch_document(batch, batch.status(moment)))


async def _batch_status(sandbox: Sandbox, request: Request) -> Response:
    batch, moment = _poll(sandbox, request)
    return Text(status_sentence(batch.status(moment)))


async def _processing_info(sandbox: Sandbox, request: Request) -> Response:
    batch, moment = _poll(sandbox, request)
    return Json(processing_document(batch, moment))


async def _download(sandbox: Sandbox, request: Request) -> Response:
    batch_id = request.path_params["id"]
    return Response(
        await sandbox.download(batch_id),
        media_type="application/octet-stream",
        headers={"content-disposition": f"attachment; filename={batch_id}.zip"},
    )


def _issued(sandbox: Sandbox) -> int:
    return sum(1 for _ in sandbox.ledger.revealed(sandbox.clock.monotonic()))


async def _devices(sandbox: Sandbox, _request: Request) -> Response:
    return Json({"ordered": sandbox.ledger.ordered(), "issued": _issued(sandbox)})


async def _authorities(sandbox: Sandbox, _request: Request) -> Response:
    bought = sandbox.config.balance
    return Json([authority_document(authority, bought) for authority in catalog.AUTHORITIES])


async def _balance(sandbox: Sandbox, request: Request) -> Response:
    return Json(sandbox.ledger.balance(catalog.authority(request.path_params["id"])))


async def _profiles(_sandbox: Sandbox, _request: Request) -> Response:
    return Json([profile_document(authority.profile) for authority in catalog.AUTHORITIES])


async def _profile(_sandbox: Sandbox, request: Request) -> Response:
    return Json(profile_detail_document(catalog.authority_of_profile(request.path_params["id"]).profile))


async def _profile_parameters(_sandbox: Sandbox, request: Request) -> Response:
    profile = catalog.authority_of_profile(request.path_params["id"]).profile
    return Json([parameter_document(parameter) for parameter in profile.parameters])


async def _organization(sandbox: Sandbox, _request: Request) -> Response:
    return Json(organization_document(sandbox.config.balance))


async def _find(sandbox: Sandbox, request: Request) -> Response:
    body = await read_json(request)
    terms = {name: body[name] for name in ("commonName", "serialNumber") if body.get(name)}
    if not terms:
        raise ServiceError(400, "commonName or serialNumber is required")
    terms = {name: text_field(terms, name) for name in terms}
    visible, _ = _seen(sandbox, request)
    found = sandbox.ledger.find(terms.get("commonName"), terms.get("serialNumber"), visible)
    revoked = sandbox.ledger.revocations
    items = [certificate_document(item, revoked=item.issued.serial in revoked) for item in found]
    return Json({"totalCount": len(items), "items": items})


async def _revoke(sandbox: Sandbox, request: Request) -> Response:
    authority = catalog.authority_or_profile(request.path_params["id"])
    body = await read_json(request)
    reason = integer_field(body, "reasonCode")
    if reason not in _REASONS:
        raise ServiceError(400, "reasonCode must be a code of RFC 5280: 0 to 10 without 7")
    sandbox.ledger.revoke(authority, text_field(body, "serialNumber"), reason)
    return Json({})


CALLS: Final = (
    Call("POST", "/auth/pwd", _sign_in, public=True),
    Call("POST", _WITH_CERTIFICATE, _sign_in_with_certificate, public=True),
    Call("POST", "/auth/refresh", _refresh, public=True),
    Call("PUT", "/api/v1/batches/createSingleCertBatch", _create),
    Call("POST", "/api/v1/batches/upload", _upload),
    Call("GET", "/api/v1/batches/{id:sandbox_id}", _batch),
    Call("GET", "/api/v1/batches/{id:sandbox_id}/status", _batch_status),
    Call("GET", "/api/v1/batches/{id:sandbox_id}/processing_info", _processing_info),
    Call("GET", "/api/v1/batches/{id:sandbox_id}/download", _download),
    Call("GET", "/api/v1/devices", _devices),
    Call("GET", "/api/v1/authorities/allowed", _authorities),
    Call("GET", "/api/v1/authorities/{id:sandbox_id}/balanceavailable", _balance),
    Call("GET", "/api/v1/profiles", _profiles),
    Call("GET", "/api/v1/profiles/{id:sandbox_id}", _profile),
    Call("GET", "/api/v1/profiles/{id:sandbox_id}/parameters", _profile_parameters),
    Call("GET", "/api/v1/organizations/user", _organization),
    Call("POST", "/api/v1/certificates/find", _find),
    Call("POST", "/api/v1/certificates/{id:sandbox_id}/revoke", _revoke),
)
