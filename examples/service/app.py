"""A web service that issues certificates for devices, over one client that lives as long as the service does.

Start it from the top of this project, with the settings of `SectigoClient.from_env()` in the environment:

    pip install 'sectigo-async' fastapi uvicorn
    SECTIGO_USERNAME=ops SECTIGO_PASSWORD_FILE=/run/secrets/sectigo DEVICE_DIRECTORY=devices \
        uvicorn --factory examples.service.app:create_app --timeout-graceful-shutdown 30

`PUT /devices/gw7.example.com/certificate` may be repeated as often as one likes. Key and intent are in the directory
before the order is sent, the batch id right after: whatever ends the service, no device is ordered for twice.
"""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated
from weakref import WeakValueDictionary

from fastapi import FastAPI, Request
from fastapi import Path as InPath
from fastapi.responses import JSONResponse

from sectigo_async import SectigoClient
from sectigo_async.errors import (
    BadRequestError,
    BatchFailed,
    InvalidArgumentError,
    NoReplyError,
    NotFoundError,
    OutcomeUnknownError,
    PermissionDeniedError,
    RateLimitError,
    SectigoError,
    WaitTimeout,
)

_log = logging.getLogger(__name__)

PROFILE = 42
PATIENCE = 20.0
"""Seconds that one request waits for its certificate; less than proxies in front of this service wait for a reply."""
RETRY_AFTER = 10

_UNAVAILABLE = "the certificate service cannot be used now; ask again later"
_REPLIES: tuple[tuple[type[SectigoError], int, str | None], ...] = (
    # Their words are about what was asked for. All others may tell of accounts and folders, and are for the log.
    (InvalidArgumentError, 422, None),
    (BadRequestError, 422, None),
    (BatchFailed, 422, None),
    (NotFoundError, 404, "there is no such batch"),
    # The account is right, so the batch is another customer's: nobody here is to know that it exists.
    (PermissionDeniedError, 404, "there is no such batch"),
    (RateLimitError, 503, _UNAVAILABLE),
    (NoReplyError, 504, "the certificate service does not answer; ask again later"),
    (OutcomeUnknownError, 503, "it is not known yet whether this was ordered; ask again later, it is looked up then"),
    (SectigoError, 502, _UNAVAILABLE),
)

Device = Annotated[str, InPath(pattern=r"^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$")]


def create_app(
    make_client: Callable[[], SectigoClient] = SectigoClient.from_env, directory: Path | None = None
) -> FastAPI:
    """Return the service.

    Args:
        make_client: makes the client, once, when the service starts.
        directory: where keys and certificates are kept; `DEVICE_DIRECTORY` when not given.
    """
    kept = directory or Path(os.environ.get("DEVICE_DIRECTORY", "devices"))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        # Requests under way have ended, or were cancelled, before the block is left.
        async with make_client() as client:
            app.state.client = client
            app.state.working = WeakValueDictionary[str, asyncio.Lock]()
            yield

    app = FastAPI(title="Device certificates", lifespan=lifespan)

    @app.put("/devices/{device}/certificate")
    async def issue(request: Request, device: Device) -> JSONResponse:
        client: SectigoClient = request.app.state.client
        # Who asks for the same device meanwhile waits, and finds the certificate in the folder.
        async with request.app.state.working.setdefault(device, asyncio.Lock()):
            try:
                issued = await client.issue(common_name=device, profile_id=PROFILE, directory=kept, timeout=PATIENCE)
            except WaitTimeout as late:
                return JSONResponse(
                    {"batch_id": late.batch.batch_id, "status": late.batch.status.value},
                    status_code=202,
                    headers={"location": f"/batches/{late.batch.batch_id}", "retry-after": str(RETRY_AFTER)},
                )
        certificate = issued.certificate
        if not certificate.sound:
            _log.error("the certificate of %s failed a check: %s", device, certificate.chain_check)
            return JSONResponse({"detail": "the certificate that came failed a check"}, status_code=502)
        return JSONResponse(
            {
                "batch_id": issued.batch.batch_id,
                "serial_number": certificate.serial_number,
                "not_after": certificate.not_after.isoformat(),
                "chain": certificate.chain_check.status.value,
                "certificate": (certificate.certificate_pem() + certificate.chain_pem()).decode(),
            }
        )

    @app.get("/batches/{batch_id}")
    async def batch(request: Request, batch_id: int) -> dict[str, object]:
        client: SectigoClient = request.app.state.client
        found = await client.batches.look(batch_id)
        return {"batch_id": batch_id, "status": found.status.value, "reason": found.reject_reason or None}

    @app.exception_handler(SectigoError)
    async def refused(request: Request, error: SectigoError) -> JSONResponse:
        status, detail = next((status, words) for kind, status, words in _REPLIES if isinstance(error, kind))
        _log.warning("%s %s: %s (%s)", request.method, request.url.path, error, error.hint)
        later = {"retry-after": str(RETRY_AFTER)} if status in {503, 504} else None
        return JSONResponse({"detail": detail or str(error)}, status_code=status, headers=later)

    return app
