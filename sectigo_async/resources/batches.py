"""Ordering, watching and downloading batches."""

import asyncio
import io
import logging
import sys
import zipfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import attrs

from sectigo_async import waiting
from sectigo_async.clock import Clock
from sectigo_async.config import DEFAULT, Timeout
from sectigo_async.errors import (
    BadRequestError,
    BatchError,
    BatchNotReady,
    CallTimeoutError,
    FileError,
    InvalidArgumentError,
    JournalError,
    NotFoundError,
    OutcomeUnknownError,
    PkiError,
    SectigoError,
    ServiceError,
    UnexpectedReplyError,
    WrongPasswordError,
)
from sectigo_async.exchange import Attempt
from sectigo_async.journal import Journal
from sectigo_async.models import (
    Batch,
    BatchStatus,
    Order,
    OrderKind,
    OrderState,
    ProcessingInfo,
    Reconciliation,
    ReportedStatus,
)
from sectigo_async.models.order import readable_part_of, unique_name
from sectigo_async.resources.reconciling import Reconciler
from sectigo_async.resources.walking import Walk
from sectigo_async.secrets import Secret
from sectigo_async.text import one_line
from sectigo_async.threads import run_to_end
from sectigo_async.transport import Transport
from sectigo_async.waiting import Verdict, verdict
from sectigo_async.wire import calls
from sectigo_async.wire.calls import Call
from sectigo_async.wire.reply import Reply

if TYPE_CHECKING:
    from cryptography import x509

    from sectigo_async.pki import Archive

_log = logging.getLogger("sectigo_async.batches")

Note = Callable[[Order], Awaitable[None]]
"""Writes down how an order stands, durably."""

_LOOK_LIMIT = 60.0
_MOST_NAMES = 3
_EXCERPT = 2000
_ASK_STATUS = {BatchStatus.COLLECTED, BatchStatus.NOT_ACCEPTABLE, BatchStatus.UNKNOWN}


class Batches:
    """Orders and what became of them: `client.batches`."""

    def __init__(self, transport: Transport, clock: Clock, journal: Journal) -> None:
        self._transport = transport
        self._clock = clock
        self._journal = journal

    def under(self, journal: Journal) -> "Batches":
        """Return the same verbs with another journal, for orders that are written down elsewhere than the others.

        Args:
            journal: where the orders are written down before they are sent.
        """
        return Batches(self._transport, self._clock, journal)

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
            name: name of the batch. When not given, a unique one is made, by which the order can be told apart;
                one of your own is sent as it is, and tells the order apart as far as nobody else uses it.
            timeout: seconds for the whole call.

        Raises:
            BadRequestError: the parameters break the profile's rules; nothing was ordered.
            OutcomeUnknownError: it may or may not have been ordered; `reconcile` looks for it.
            JournalError: the order cannot be written down; it was not sent.
        """
        common_name = params.get("commonName", "")
        if isinstance(common_name, Secret):
            raise InvalidArgumentError("commonName is no secret", hint="give it as str")
        order = Order(
            kind=OrderKind.CREATE,
            profile_id=authority_id,
            batch_name=name or unique_name(common_name),
            unique_name=not name,
            common_names=(common_name,) if common_name else (),
            sent_at=self._now(),
        )
        call = calls.create_batch(authority_id, order.batch_name, params)
        return await self._place(order, call, (self._journal.write,), timeout)

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
            OutcomeUnknownError: they may or may not have been ordered; `reconcile` looks for them.
            JournalError: the order cannot be written down; it was not sent.
        """
        return await self.upload_noted(profile_id, requests, (), timeout=timeout)

    async def upload_noted(
        self, profile_id: int, requests: bytes, notes: Iterable[Note], *, timeout: Timeout = DEFAULT
    ) -> Batch:
        """Upload, with the order told to `notes`, too, wherever it is written down; for who keeps a record of it."""
        from sectigo_async.pki import read_requests, requests_pem

        found = await asyncio.to_thread(read_requests, requests)
        order = self._order_of(profile_id, found)
        call = calls.upload_batch(profile_id, requests_pem(found), order.subject)
        return await self._place(order, call, (self._journal.write, *notes), timeout)

    def _order_of(self, profile_id: int, requests: "Sequence[x509.CertificateSigningRequest]") -> Order:
        from sectigo_async.pki import key_sha256, name_of

        return Order(
            kind=OrderKind.UPLOAD,
            profile_id=profile_id,
            size=len(requests),
            common_names=tuple(filter(None, map(name_of, requests[:_MOST_NAMES]))),
            key_sha256=frozenset(key_sha256(request.public_key()) for request in requests),
            sent_at=self._now(),
        )

    async def _place(self, order: Order, call: Call[Batch], notes: tuple[Note, ...], timeout: Timeout) -> Batch:
        """Send an order that is written down before, and what became of it after."""
        limit = self._transport.limit(timeout)
        started = self._clock.monotonic()
        order = attrs.evolve(order, after=await self._journal.highest())
        attempt = Attempt()
        try:
            for note in notes:
                await note(order)
            left = None if limit is None else max(0.0, limit - (self._clock.monotonic() - started))
            batch = await self._transport.send(call, timeout=left, attempt=attempt)
        except BaseException as error:
            if isinstance(error, OutcomeUnknownError):
                error.order = order
            elif not attempt.may_have_run:
                await _settle(order.not_placed(), notes)
            raise
        try:
            await _settle(order.placed(batch.batch_id), notes)
        except BaseException as error:
            error.add_note(f"batch {batch.batch_id} was ordered")
            raise
        _log.info(
            "ordered batch %d under profile %d, size %d: %s",
            batch.batch_id,
            order.profile_id,
            order.size,
            one_line(order.batch_name or ", ".join(order.common_names)),
            extra={
                "batch_id": batch.batch_id,
                "order_id": order.order_id,
                "profile_id": order.profile_id,
                "size": order.size,
            },
        )
        return batch

    async def orders(self) -> tuple[Order, ...]:
        """Return the orders that this client's journal holds, the one sent first first.

        Raises:
            JournalError: it cannot be read.
        """
        return await self._journal.orders()

    async def reconcile(
        self,
        orders: Iterable[Order] | None = None,
        *,
        settle: float = 900.0,
        scan: int = 1000,
        timeout: float | None = 600.0,
    ) -> tuple[Reconciliation, ...]:
        """Find out what became of orders of unknown outcome, and write it to the journal. Nothing is ordered.

        Batches are looked at one by one, from the highest id that was known before an order was sent. One that has
        the order's unique name, or certificates for the public keys of its CSRs, is its batch. An order counts as
        not placed only once an order of the same journal shows that was sent after the settle time, and every id up
        to that was looked at; otherwise it stays unknown, for a person to decide. Do not order it again before.

        Args:
            orders: the orders; those of the journal whose outcome is unknown, when not given.
            settle: seconds after which a request that was sent has surely run, if it ever does. The service's own
                limit is not known.
            scan: how many ids are looked at for one order, at most (1 or more).
            timeout: seconds for all of it; `None` for no limit.

        Returns:
            What was found of each order, in the order given.

        Raises:
            AuthenticationError: no token can be had.
            NoReplyError: the service does not answer.
            JournalError: the journal cannot be read or written.
        """
        noted = {order.order_id: order for order in await self._journal.orders()}
        asked = [noted.get(order.order_id, order) for order in (noted.values() if orders is None else orders)]
        wanted = {order.order_id: order for order in asked if order.state is OrderState.UNKNOWN}
        # One batch must not be found for one order where it may be another's: these are looked for, too.
        rivals = [order for order in noted.values() if any(_alike(order, other) for other in wanted.values())]
        wanted |= {order.order_id: order for order in rivals}
        known = [order for order in noted.values() if order.order_id not in wanted]
        reconciler = Reconciler(self, self._transport, self._clock, known, settle=settle, scan=scan)
        results = await reconciler.look(tuple(wanted.values()), timeout=timeout) if wanted else []
        for result in results:
            if result.order.state is not OrderState.UNKNOWN:
                await self._journal.write(result.order)
        found = {result.order.order_id: result for result in results}
        settled = (order for order in asked if orders is not None and order.order_id not in found)
        found |= {order.order_id: Reconciliation(order=order, reason="it was known before") for order in settled}
        return tuple(found[order.order_id] for order in asked if order.order_id in found)

    async def decide(self, order: Order, batch_id: int | None, *, timeout: Timeout = DEFAULT) -> Order:
        """Write down what a person decided on an order of unknown outcome.

        Args:
            order: the order.
            batch_id: its batch, which is asked for; `None` where they made sure that it was not placed.
            timeout: seconds for the whole call.

        Returns:
            The order as it stands now.

        Raises:
            NotFoundError: there is no such batch.
            InvalidArgumentError: that batch cannot be this order's: it has another name, size, or other keys.
            JournalError: the journal cannot be written.
        """
        if batch_id is not None and (problem := await self._misfit(order, batch_id, timeout)):
            raise InvalidArgumentError(f"batch {batch_id} is not {order.subject}: {problem}", hint="name another")
        decided = order.not_placed() if batch_id is None else order.placed(batch_id)
        await self._journal.write(decided)
        return decided

    async def _misfit(self, order: Order, batch_id: int, timeout: Timeout) -> str:
        """Return why a batch cannot be that of an order; nothing where it can."""
        batch = await self.get(batch_id, timeout=timeout)
        if batch_id <= order.after:
            return "it is older"
        others = [one for one in await self._journal.orders() if one.batch_id == batch_id]
        if others and (order.size or order.kind is OrderKind.CREATE):
            return f"it is that of order {others[0].order_id}"
        if not order.size and order.kind is OrderKind.CREATE:
            begins = readable_part_of(batch.batch_name) == order.batch_name
            return "" if begins else f"its name is {batch.batch_name!r}"
        if order.size and batch.size not in {0, order.size}:
            return f"it is for {batch.size} certificates"
        if order.unique_name and batch.batch_name not in {"", order.batch_name}:
            return f"its name is {batch.batch_name!r}"
        if order.key_sha256:
            try:
                keys = await self.key_sha256(batch_id, timeout=timeout)
            except WrongPasswordError:
                return "its keys were made by the service"
            except (ServiceError, BatchError, PkiError):
                return ""  # It cannot be compared yet.
            if not keys & order.key_sha256:
                return "its certificates are for other keys"
        return ""

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.time(), UTC)

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

    async def scan(self, *, after: int, highest: int = 0, timeout: float | None = 3600.0) -> tuple[Batch, ...]:
        """Return the batches that this login may see, by looking at one id after another.

        The service has no list of batches that is documented (api.md 1b). The scan ends where 100 ids in a row are
        missing above `highest`.

        Args:
            after: the id after which it begins.
            highest: the highest id that is known to be taken.
            timeout: seconds for all of it; `None` for no limit.

        Raises:
            CallTimeoutError: there was no time to look at all of them.
            SectigoError: an id could not be looked at, however often it was tried.
        """
        walk = Walk(self.get)
        late = asyncio.timeout(timeout)
        try:
            async with late:
                await walk.through(range(after + 1, sys.maxsize), highest=highest)
        except TimeoutError:
            if not late.expired():
                raise
        if late.expired():
            path = "/api/v1/batches"
            raise CallTimeoutError(
                f"there was no time for all batches after {after}: {len(walk.looked)} ids were looked at",
                method="GET",
                path=path,
                hint="give it more time, or begin at a higher id",
            )
        for error in walk.unread.values():
            raise error
        return tuple(walk.batches[number] for number in sorted(walk.batches))

    async def status(self, batch_id: int, *, timeout: Timeout = DEFAULT) -> ReportedStatus:
        """Return what the service's status call says of a batch: a sentence of plain text (api.md 1a).

        Args:
            batch_id: id of the batch (0 or more).
            timeout: seconds for the whole call.

        Returns:
            The status, `UNKNOWN` where the text is none that is known, and the text.

        Raises:
            NotFoundError: there is no such batch.
        """
        return await self._transport.send(calls.batch_status(batch_id), timeout=timeout)

    async def processing_info(self, batch_id: int, *, timeout: Timeout = DEFAULT) -> ProcessingInfo:
        """Return how many certificates of a batch are in which state (api.md 1a).

        Args:
            batch_id: id of the batch (0 or more).
            timeout: seconds for the whole call.

        Raises:
            NotFoundError: there is no such batch.
        """
        return await self._transport.send(calls.processing_info(batch_id), timeout=timeout)

    async def look(self, batch_id: int, *, timeout: Timeout = DEFAULT) -> Batch:
        """Return a batch as a wait sees it: its status made sure of, and its counters (api.md 2).

        Args:
            batch_id: id of the batch.
            timeout: seconds for all of it.

        Raises:
            NotFoundError: there is no such batch.
        """
        limit = self._transport.limit(timeout)
        return await self._look(batch_id, _LOOK_LIMIT if limit is None else limit)

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

    async def key_sha256(self, batch_id: int, *, timeout: Timeout = DEFAULT) -> frozenset[str]:
        """Return the SHA-256 of each public key that a batch has certificates for, as `Order.key_sha256` has them.

        Args:
            batch_id: id of the batch, which is downloaded.
            timeout: seconds for the whole call.

        Raises:
            BatchNotReady: it is not ready yet; carries the batch.
            BatchFailed: it never will be; carries the batch.
            PkiError: nothing in it can be read without a password.
        """
        archive = await self.download(batch_id, timeout=timeout)
        return await asyncio.to_thread(_keys_in, archive)

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
                batch = await self.get(batch_id, timeout=limit)
                if batch.status in _ASK_STATUS:
                    told = (await self.status(batch_id, timeout=limit)).status
                    if told not in _ASK_STATUS:
                        batch = attrs.evolve(batch, status=told)
                if batch.status is BatchStatus.CREATED:
                    return batch
                return attrs.evolve(batch, processing=await self._counters(batch, limit))
        except TimeoutError:
            if not whole.expired():
                raise
        path = f"/api/v1/batches/{batch_id}"
        raise CallTimeoutError(f"GET {path}: no answer within {limit:g} s", method="GET", path=path)

    async def _counters(self, batch: Batch, limit: float) -> ProcessingInfo | None:
        try:
            return await self.processing_info(batch.batch_id, timeout=limit)
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


def _alike(one: Order, other: Order) -> bool:
    """Say whether a batch may fit both of two orders of unknown outcome."""
    return (
        one.state is OrderState.UNKNOWN
        and one.kind is other.kind
        and one.batch_name == other.batch_name
        and (one.kind is OrderKind.CREATE or bool(one.key_sha256 & other.key_sha256))
    )


async def _settle(order: Order, notes: Iterable[Note]) -> None:
    """Write down what became of an order. Where that fails, a later look finds it out."""
    cancelled: asyncio.CancelledError | None = None
    for note in notes:
        try:
            await note(order)
        except asyncio.CancelledError as error:
            cancelled = cancelled or error
        except (JournalError, FileError) as error:
            _log.warning("what became of %s is not written down: %s", order.subject, error)
    if cancelled is not None:
        raise cancelled


def _keys_in(archive: "Archive") -> frozenset[str]:
    from sectigo_async.pki import key_sha256

    return frozenset(key_sha256(one.certificate.public_key()) for one in archive.open(problems=[]))


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
