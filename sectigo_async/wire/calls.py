"""Every request this package makes, described: method, path, body, whether it may be repeated, how to read it.

Only here is a `Secret` revealed. The shapes are those of api.md 1a.
"""

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Generic, TypeVar

import attrs
import httpx

from sectigo_async.errors import InvalidArgumentError, UnexpectedReplyError
from sectigo_async.models import (
    Authority,
    Batch,
    BatchStatus,
    FoundCertificates,
    Licenses,
    Organization,
    Parameter,
    ProcessingInfo,
    Profile,
    ProfileDetail,
    ReportedStatus,
    RevocationReason,
    normalise_serial_number,
)
from sectigo_async.secrets import Secret
from sectigo_async.text import one_line
from sectigo_async.wire.converter import salvage
from sectigo_async.wire.reply import Reply, model, refuse_web_page

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

JSON = "application/json;charset=UTF-8"
BYTES = "application/octet-stream"


@attrs.frozen(kw_only=True)
class Call(Generic[T_co]):
    """One request, described.

    Attributes:
        method: HTTP method.
        path: path below the endpoint, query included.
        read: turns a successful reply into the result, or raises `UnexpectedReplyError`.
        body: the bytes to send.
        content_type: media type of `body`.
        accept: media type asked for.
        repeatable: whether sending it twice does no harm.
        subject: what it orders or revokes, in words; for errors.
        secrets: the secrets in `body`, which no error may show.
    """

    method: str
    path: str
    read: Callable[[Reply], T_co]
    body: bytes | None = attrs.field(default=None, repr=False)
    content_type: str = JSON
    accept: str = JSON
    repeatable: bool = True
    subject: str = ""
    secrets: tuple[Secret, ...] = attrs.field(default=(), repr=False)


def _id(value: object) -> int:
    """Return `value` if it is fit to stand in a path."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise InvalidArgumentError(f"an id is a number of 0 or more, not {value!r}")
    return value


def _get(path: str, shape: type[T]) -> Call[T]:
    return Call(method="GET", path=path, read=model(shape, "GET", path))


def _encode(document: Mapping[str, object]) -> bytes:
    with suppress(UnicodeEncodeError):  # The error would carry the whole body, secrets included.
        return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    raise InvalidArgumentError(
        "a value is not valid text", hint="it must be UTF-8; look at the locale of this process"
    )


def sign_in(username: str, password: Secret) -> Call[Reply]:
    """Describe the sign-in with user name and password (api.md 1a, auth/pwd)."""
    body = _encode({"username": username, "password": password.reveal()})
    return Call(method="POST", path="/auth/pwd", body=body, read=_as_it_is, repeatable=False, secrets=(password,))


def refresh(token: Secret) -> Call[Reply]:
    """Describe the refresh: the body is the bare refresh token (api.md 1a, auth/refresh)."""
    body = token.reveal().encode()
    return Call(method="POST", path="/auth/refresh", body=body, read=_as_it_is, repeatable=False, secrets=(token,))


def _as_it_is(reply: Reply) -> Reply:
    return reply


def raw(method: str, path: str, *, body: bytes | None, content_type: str, accept: str) -> Call[Reply]:
    """Describe a request of the caller's own; all but GET and HEAD count as not repeatable."""
    method = method.upper()
    return Call(
        method=method,
        path=path,
        body=body,
        content_type=content_type,
        accept=accept,
        read=_as_it_is,
        repeatable=method in {"GET", "HEAD"},
        subject=f"{method} {path}",
    )


def front_page() -> Call[Reply]:
    """Describe a request that any web server answers, for a look at the connection alone."""
    return raw("GET", "/", body=None, content_type=JSON, accept="*/*")


def _reveal(params: Mapping[str, str | Secret]) -> dict[str, str]:
    revealed: dict[str, str] = {}
    for name, value in params.items():
        if isinstance(value, Secret):
            revealed[name] = value.reveal()
        elif isinstance(value, str):
            revealed[name] = value
        else:
            # Anything else would be ordered as its repr: a masked password, say.
            raise InvalidArgumentError(f"parameter {name!r} must be str or Secret, not {type(value).__name__}")
    return revealed


def _batch(method: str, path: str) -> Callable[[Reply], Batch]:
    """Return a reader for a batch. It was paid for: as long as its id is there, odd fields do not hide it."""
    read_model = model(Batch, method, path)

    def read(reply: Reply) -> Batch:
        try:
            return read_model(reply)
        except UnexpectedReplyError as error:
            problem = error
        with suppress(ValueError):
            return salvage(reply.json(), Batch, "batchId")
        raise problem

    return read


def create_batch(authority_id: int, name: str, params: Mapping[str, str | Secret]) -> Call[Batch]:
    """Describe the order of one certificate with a key made by the service."""
    path = "/api/v1/batches/createSingleCertBatch"
    document = {"authorityId": _id(authority_id), "batchName": name, "profileParams": _reveal(params)}
    return Call(
        method="PUT",
        path=path,
        body=_encode(document),
        read=_batch("PUT", path),
        repeatable=False,
        subject=f'batch "{one_line(name)}"',
        secrets=tuple(value for value in params.values() if isinstance(value, Secret)),
    )


def upload_batch(profile_id: int, requests: bytes, subject: str) -> Call[Batch]:
    """Describe the order of certificates for CSRs, given as PEM text."""
    path = "/api/v1/batches/upload"
    order = _encode({"profileId": _id(profile_id), "batchType": "BATCH", "profileParams": {}})
    form = httpx.Request(
        "POST",
        "http://multipart.invalid",
        data={"profileId": str(profile_id)},
        files={
            "csrBatchRequest": ("blob", order, "application/json"),
            "files": ("requests.csr", requests, BYTES),
        },
    )
    return Call(
        method="POST",
        path=path,
        body=form.read(),
        content_type=form.headers["content-type"],
        read=_batch("POST", path),
        repeatable=False,
        subject=subject,
    )


def batch_detail(batch_id: int) -> Call[Batch]:
    """Describe the look at one batch."""
    path = f"/api/v1/batches/{_id(batch_id)}"
    return Call(method="GET", path=path, read=_batch("GET", path))


def batch_status(batch_id: int) -> Call[ReportedStatus]:
    """Describe the status call, which answers with a sentence as plain text."""

    def read(reply: Reply) -> ReportedStatus:
        refuse_web_page(reply, "GET", path)
        text = one_line(reply.text).strip('"')
        return ReportedStatus(status=BatchStatus.parse(text), text=text)

    path = f"/api/v1/batches/{_id(batch_id)}/status"
    return Call(method="GET", path=path, read=read)


def processing_info(batch_id: int) -> Call[ProcessingInfo]:
    """Describe the question how many certificates of a batch are done."""
    return _get(f"/api/v1/batches/{_id(batch_id)}/processing_info", ProcessingInfo)


def download(batch_id: int) -> Call[Reply]:
    """Describe the download of a batch's archive."""
    path = f"/api/v1/batches/{_id(batch_id)}/download"
    return Call(method="GET", path=path, content_type=BYTES, accept=BYTES, read=_as_it_is)


def licenses() -> Call[Licenses]:
    """Describe the question for the licence counters; the path's name misleads (api.md 1a)."""
    return _get("/api/v1/devices", Licenses)


def authorities() -> Call[tuple[Authority, ...]]:
    """Describe the list of authorities."""
    return _get("/api/v1/authorities/allowed", tuple[Authority, ...])


def balance(authority_id: int) -> Call[int]:
    """Describe the question how many certificates are left: the answer is a bare integer."""
    return _get(f"/api/v1/authorities/{_id(authority_id)}/balanceavailable", int)


def profiles() -> Call[tuple[Profile, ...]]:
    """Describe the list of profiles."""
    return _get("/api/v1/profiles", tuple[Profile, ...])


def profile_detail(profile_id: int) -> Call[ProfileDetail]:
    """Describe the look at one profile."""
    return _get(f"/api/v1/profiles/{_id(profile_id)}", ProfileDetail)


def profile_parameters(profile_id: int) -> Call[tuple[Parameter, ...]]:
    """Describe the list of parameters that a profile takes."""
    return _get(f"/api/v1/profiles/{_id(profile_id)}/parameters", tuple[Parameter, ...])


def organization() -> Call[Organization]:
    """Describe the look at the user's own organisation."""
    return _get("/api/v1/organizations/user", Organization)


def find(common_name: str | None, serial_number: int | str | None) -> Call[FoundCertificates]:
    """Describe a search; what is not given is left out of the body."""
    path = "/api/v1/certificates/find"
    wanted: dict[str, object] = {}
    if common_name:
        wanted["commonName"] = common_name
    if serial_number is not None and serial_number != "":
        wanted["serialNumber"] = normalise_serial_number(serial_number)
    # A search changes nothing, so this POST may be repeated.
    return Call(method="POST", path=path, body=_encode(wanted), read=model(FoundCertificates, "POST", path))


def revoke(profile_id: int, serial_number: int | str, reason: RevocationReason) -> Call[None]:
    """Describe the revocation of one certificate; the reply's body says nothing (api.md 1a)."""
    try:
        code = RevocationReason(reason)
    except ValueError:
        raise InvalidArgumentError(f"{reason!r} is not a revocation reason of RFC 5280") from None
    serial = normalise_serial_number(serial_number)
    path = f"/api/v1/certificates/{_id(profile_id)}/revoke"
    return Call(
        method="POST",
        path=path,
        body=_encode({"reasonCode": int(code), "serialNumber": serial}),
        read=lambda reply: refuse_web_page(reply, "POST", path),
        repeatable=False,
        subject=f"the revocation of {serial}",
    )
