"""Ordering, watching and downloading batches."""

import asyncio
import io
import re
import secrets
import zipfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import attrs

from sectigo_async import waiting
from sectigo_async.clock import Clock
from sectigo_async.config import DEFAULT, Timeout
from sectigo_async.errors import (
    BadRequestError,
    BatchNotReady,
    CallTimeoutError,
    InvalidArgumentError,
    NotFoundError,
    SectigoError,
    ServiceError,
    UnexpectedReplyError,
)
from sectigo_async.exchange import Attempt
from sectigo_async.models import Batch, BatchStatus, ProcessingInfo, ReportedStatus
from sectigo_async.secrets import Secret
from sectigo_async.threads import run_to_end
from sectigo_async.transport import Transport
from sectigo_async.waiting import Verdict, verdict
from sectigo_async.wire import calls
from sectigo_async.wire.reply import Reply

if TYPE_CHECKING:
    from sectigo_async.pki import Archive

_LOOK_LIMIT = 60.0
_EXCERPT = 2000
_ASK_STATUS = {BatchStatus.COLLECTED, BatchStatus.NOT_ACCEPTABLE, BatchStatus.UNKNOWN}


class Batches:
    """Orders and what became of them: `client.batches`."""

    def __init__(self, transport: Transport, clock: Clock) -> None:
        self._transport = transport
        self._clock = clock

    async def create(
        self,
        *,
        authority_id: int,
        params: Mapping[str, str | Secret],
        name: str | None = None,
        timeout: Timeout = DEFAULT,
    ) -> Batch:
        """Order one certificate with a private key made by the service. This spends a licence.

        Args:
            authority_id: the authority or the profile to order under; the service takes either.
            params: what the profile asks for (`profiles.parameters`). Several DNS names are joined by newlines.
                Give passwords as `Secret`.
            name: name of the batch. When not given, a unique one is made, by which the order can be told apart.
            timeout: seconds for the whole call.

        Raises:
            BadRequestError: the parameters break the profile's rules; nothing was ordered.
            OutcomeUnknownError: it may or may not have been ordered.
        """
        batch_name = name or _unique_name(params.get("commonName"))
        return await self._transport.send(calls.create_batch(authority_id, batch_name, params), timeout=timeout)

    async def upload(self, *, profile_id: int, requests: bytes, timeout: Timeout = DEFAULT) -> Batch:
        """Order a certificate for each of one or many CSRs. This spends a licence for each.

        An upload carries no name of its own: the public keys in it are what tells the order apart. Only the
        requests themselves are sent, whatever else stands beside them: a private key in the same file stays here.

        Args:
            profile_id: the profile to order under.
            requests: PEM text with one or many CSRs, or a ZIP of .csr and .pem files.
            timeout: seconds for the whole call.

        Raises:
            InvalidCSRError: there is no CSR in it, or one is damaged; nothing was sent.
            BadRequestError: the service refuses them; nothing was ordered.
            OutcomeUnknownError: they may or may not have been ordered.
        """
        return await self.upload_watched(profile_id, requests, Attempt(), timeout=timeout)

    async def upload_watched(
        self, profile_id: int, requests: bytes, attempt: Attempt, *, timeout: Timeout = DEFAULT
    ) -> Batch:
        """Upload, with `attempt` told whether the order may have run; for callers who keep a record of it."""
        from sectigo_async.pki import describe_requests, read_requests, requests_pem

        found = await asyncio.to_thread(read_requests, requests)
        call = calls.upload_batch(profile_id, requests_pem(found), describe_requests(found))
        return await self._transport.send(call, timeout=timeout, attempt=attempt)

    async def get(self, batch_id: int, *, timeout: Timeout = DEFAULT) -> Batch:
        """Return a batch as the service describes it now.

        Args:
            batch_id: id of the batch.
            timeout: seconds for the whole call.

        Raises:
            NotFoundError: there is no such batch.
            PermissionDeniedError: it belongs to somebody else.
        """
        return await self._transport.send(calls.batch_detail(batch_id), timeout=timeout)

    async def status(self, batch_id: int, *, timeout: Timeout = DEFAULT) -> ReportedStatus:
        """Return what the service's status call says of a batch.

        Args:
            batch_id: id of the batch.
            timeout: seconds for the whole call.
        """
        return await self._transport.send(calls.batch_status(batch_id), timeout=timeout)

    async def processing_info(self, batch_id: int, *, timeout: Timeout = DEFAULT) -> ProcessingInfo:
        """Return how many certificates of a batch are in which state.

        Args:
            batch_id: id of the batch.
            timeout: seconds for the whole call.
        """
        return await self._transport.send(calls.processing_info(batch_id), timeout=timeout)

    async def wait(self, batch_id: int, *, timeout: float | None = 1800.0) -> Batch:
        """Wait until a batch is ready for download and return it; `Batch.partial` tells of missing certificates.

        Only the id is needed, so a wait can be taken up again at any time, in any process.

        Args:
            batch_id: id of the batch.
            timeout: seconds until giving up; `None` for never.

        Raises:
            BatchFailed: it will never be ready; carries the batch.
            WaitTimeout: it was not ready in time; carries the batch.
        """
        *_, batch = [batch async for batch in self.watch(batch_id, timeout=timeout)]
        return batch

    def watch(self, batch_id: int, *, timeout: float | None = 1800.0) -> AsyncIterator[Batch]:
        """Yield a batch when first seen and at each change, the one that is ready last. Otherwise like `wait`.

        Args:
            batch_id: id of the batch.
            timeout: seconds until giving up; `None` for never.

        Raises:
            BatchFailed: it will never be ready; carries the batch.
            WaitTimeout: it was not ready in time; carries the batch.
        """

        async def look(left: float | None) -> Batch:
            return await self._look(batch_id, _LOOK_LIMIT if left is None else min(_LOOK_LIMIT, left))

        return waiting.watch(look, self._clock, timeout=timeout)

    async def download(self, batch_id: int, *, timeout: Timeout = DEFAULT) -> "Archive":
        """Return the archive of a batch that is ready, held in memory (`Config.archive_limit` bytes at most).

        Args:
            batch_id: id of the batch.
            timeout: seconds for the whole call.

        Raises:
            BatchNotReady: it is not ready yet; carries the batch.
            BatchFailed: it never will be; carries the batch.
            UnexpectedReplyError: what came is no ZIP.
        """
        from sectigo_async.pki import Archive

        call = calls.download(batch_id)
        async with self._explaining(batch_id, timeout) as limit:
            reply = await self._transport.send(call, timeout=limit)
            if not zipfile.is_zipfile(io.BytesIO(reply.body)):
                raise _not_a_zip(reply, call.path)
        return Archive(reply.body)

    async def download_to(
        self, batch_id: int, directory: Path | str, *, overwrite: bool = False, timeout: Timeout = DEFAULT
    ) -> Path:
        """Download the archive of a batch that is ready to `directory` and return its path, `<batch id>.zip`.

        It is streamed, written 0600, and appears under its name only when it is whole. The file name that the
        service suggests is not used.

        Args:
            batch_id: id of the batch.
            directory: where to; made 0700 if it is missing.
            overwrite: whether a file of other content that stands there may be replaced.
            timeout: seconds for the whole call.

        Raises:
            BatchNotReady: it is not ready yet; carries the batch.
            BatchFailed: it never will be; carries the batch.
            UnexpectedReplyError: what came is no ZIP.
            FileError: it cannot be written.
        """
        from sectigo_async.files import make_directory
        from sectigo_async.pki import StagedFile

        call = calls.download(batch_id)
        target = Path(directory) / f"{batch_id}.zip"
        made = await run_to_end(make_directory, target.parent)
        staged = StagedFile(target)
        try:
            async with self._explaining(batch_id, timeout) as limit:
                file = await run_to_end(staged.open)
                reply = await self._transport.send(call, timeout=limit, into=file)
                if not await run_to_end(_is_zip, file, staged.path):
                    raise _not_a_zip(attrs.evolve(reply, body=await run_to_end(_start_of, staged.path)), call.path)
            await run_to_end(staged.commit, overwrite=overwrite)
            made = False
        finally:
            staged.discard()
            if made:
                with suppress(OSError):
                    target.parent.rmdir()
        return target

    async def _look(self, batch_id: int, limit: float) -> Batch:
        """Return a batch with its status resolved and its counters, all in `limit` seconds (api.md 2)."""
        whole = asyncio.timeout(limit)
        try:
            async with whole:
                batch = await self.get(batch_id, timeout=None)
                if batch.status in _ASK_STATUS:
                    told = (await self.status(batch_id, timeout=None)).status
                    if told not in _ASK_STATUS:
                        batch = attrs.evolve(batch, status=told)
                if batch.status is BatchStatus.CREATED:
                    return batch
                return attrs.evolve(batch, processing=await self._counters(batch))
        except TimeoutError:
            if not whole.expired():
                raise
        path = f"/api/v1/batches/{batch_id}"
        raise CallTimeoutError(f"GET {path}: no answer within {limit:g} s", method="GET", path=path)

    async def _counters(self, batch: Batch) -> ProcessingInfo | None:
        try:
            return await self.processing_info(batch.batch_id, timeout=None)
        except ServiceError as error:
            if error.retryable and verdict(batch) is Verdict.WAITING:
                raise
            return None  # The status alone has to do.

    @asynccontextmanager
    async def _explaining(self, batch_id: int, timeout: Timeout) -> AsyncIterator[float | None]:
        """Give a download its time; where the service refuses it, raise what the batch's state says of that."""
        limit = self._transport.limit(timeout)
        started = self._clock.monotonic()
        try:
            yield limit
        except (BadRequestError, NotFoundError, UnexpectedReplyError) as error:
            refusal = error
        else:
            return
        left = _LOOK_LIMIT if limit is None else limit - (self._clock.monotonic() - started)
        batch = None
        if left > 0:
            with suppress(SectigoError):
                batch = await self._look(batch_id, min(_LOOK_LIMIT, left))
        if batch is not None and verdict(batch) is Verdict.FAILED:
            raise waiting.failed(batch)
        if batch is not None and verdict(batch) is Verdict.WAITING:
            raise BatchNotReady(
                f"batch {batch_id} is not ready for download: {waiting.describe(batch)}",
                batch=batch,
                hint="wait for it and download it then",
            )
        raise refusal


def _unique_name(common_name: object) -> str:
    """Return a batch name that nobody else uses: readable, short, `[a-z0-9-]`."""
    if isinstance(common_name, Secret):
        raise InvalidArgumentError("commonName is no secret", hint="give it as str")
    readable = re.sub(r"[^a-z0-9]+", "-", str(common_name or "batch").lower()).strip("-")[:24].strip("-")
    return f"{readable or 'batch'}-{secrets.token_hex(4)}"


def _is_zip(file: BinaryIO, path: Path) -> bool:
    from sectigo_async.files import file_errors

    with file_errors(path):
        file.flush()
        return zipfile.is_zipfile(path)


def _start_of(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_EXCERPT)


def _not_a_zip(reply: Reply, path: str) -> UnexpectedReplyError:
    return UnexpectedReplyError(
        f"what came is no ZIP archive: {reply.quote() or 'nothing'}",
        status=reply.status,
        method="GET",
        path=path,
        excerpt=reply.quote(),
        hint="try again; if it stays so, the batch is damaged at the service",
    )
