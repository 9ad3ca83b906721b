"""One certificate from nothing to files, so that it can be taken up again after anything."""

import asyncio
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Never

import attrs

from sectigo_async.clock import Clock
from sectigo_async.errors import BatchFailed, FileError, InvalidArgumentError, OutcomeUnknownError
from sectigo_async.models import Batch, BatchStatus, Order, OrderState
from sectigo_async.resources.batches import Batches
from sectigo_async.threads import run_to_end

if TYPE_CHECKING:
    from cryptography import x509

    from sectigo_async.pki import Archive, IssuedCertificate, PrivateKey

_WAS_ISSUED = {BatchStatus.REVOKED, BatchStatus.REMOVED_AFTER_EXPIRATION}


@attrs.frozen(kw_only=True)
class Issued:
    """What `SectigoClient.issue` returns.

    Attributes:
        certificate: the certificate with its key, and what was checked about it: see `certificate.sound`.
        batch: the batch it was ordered in.
        directory: the folder that holds its files; `None` where the caller brought the key.
    """

    certificate: "IssuedCertificate"
    batch: Batch
    directory: Path | None


@attrs.frozen(kw_only=True)
class Wish:
    """What is to be issued; what it takes to know an order again.

    Attributes:
        endpoint: the service it is ordered from.
        profile_id: the profile it is ordered under.
        common_name: common name of the certificate.
        dns_names: its DNS names.
        subject: further parts of its subject.
    """

    endpoint: str
    profile_id: int
    common_name: str
    dns_names: tuple[str, ...]
    subject: Mapping[str, str]

    def document(self) -> dict[str, object]:
        """Return it as JSON knows it."""
        return attrs.asdict(self) | {"dns_names": list(self.dns_names), "subject": dict(self.subject)}


class _Folder:
    """The folder of one certificate: key, intent and batch id before, certificate files after. Blocking.

    `issue.json` is written before the order is sent, and gains the batch id after. A folder with the first and
    not the second is an order whose outcome is unknown; the order itself stands there, to be looked for. One process,
    and in it one task, works in it at a time.
    """

    def __init__(self, directory: Path, wish: Wish) -> None:
        from filelock import FileLock

        from sectigo_async.pki import safe_name

        self.path = directory / safe_name(wish.common_name)
        self.record = self.path / "issue.json"
        self._wish = wish
        self._lock = FileLock(self.path / ".lock", mode=0o600, timeout=0, thread_local=False)

    def open(self) -> int | Order | None:
        """Take the folder and return the id of the batch that was ordered for it, or `None` where none was.

        Returns:
            The order, where one was sent and nobody knows what became of it.

        Raises:
            OutcomeUnknownError: so it is, and nothing is known of that order.
            FileError: somebody else is at it, it belongs to another wish, or it cannot be read.
        """
        from filelock import Timeout

        from sectigo_async.files import file_errors, make_directory

        make_directory(self.path)
        taken = False
        with file_errors(self.path):
            try:
                self._lock.acquire()
            except Timeout:
                taken = True
        if taken:
            raise FileError(f"somebody else is at work in {self.path}", hint="wait for them to finish")
        with file_errors(self.record):
            if not self.record.exists():
                return None
            text = self.record.read_bytes()
        try:
            record = json.loads(text)
            batch_id = record.pop("batch_id")
            sent = record.pop("order", None)
            order = None if sent is None else Order.from_document(sent)
        except (ValueError, KeyError, AttributeError, TypeError):
            raise FileError(f"{self.record} cannot be read", hint="choose another directory") from None
        if record != self._wish.document():
            raise FileError(
                f"{self.path} holds an order of other names, subject, profile or endpoint",
                hint="choose another directory",
            )
        if isinstance(batch_id, int):
            return batch_id
        return order or self.unknown(None, "look in the portal")

    def unknown(self, order: Order | None, reason: str) -> Never:
        """Refuse to go on, since nobody knows what became of the order that was sent from here.

        Raises:
            OutcomeUnknownError: always.
        """
        name = self._wish.common_name
        raise OutcomeUnknownError(
            f"an order for {name} was sent from {self.path}, but its outcome is unknown: {reason}",
            subject=f"the order for {name}",
            hint=f"try again later; only if the portal shows no such batch, remove {self.record} and order again",
            order=order,
        )

    def close(self) -> None:
        """Leave the folder to others."""
        self._lock.release()

    def key(self, ordered: int | Order | None) -> "PrivateKey":
        """Return the folder's private key, made and durable by now; never a new one for an old order."""
        from sectigo_async.files import file_errors
        from sectigo_async.pki import generate_key, key_pem, load_key, write_private

        path = self.path / "privkey.pem"
        with file_errors(path):
            if path.exists():
                path.chmod(0o600)
                return load_key(path.read_bytes())
        if ordered is not None:
            what = f"batch {ordered}" if isinstance(ordered, int) else ordered.subject
            raise FileError(
                f"{path} is gone, and with it the key that {what} was ordered for",
                hint="restore it from a backup; without it the certificate is of no use",
            )
        key = generate_key()
        write_private(path, key_pem(key))
        return key

    async def note(self, order: Order) -> None:
        """Write down how the order stands; nothing is left of one that was not placed."""
        if order.state is OrderState.NOT_ORDERED:
            with suppress(OSError):  # The error that led here matters more.
                await run_to_end(self.record.unlink, missing_ok=True)
        else:
            await run_to_end(self._write, order)

    def _write(self, order: Order) -> None:
        from sectigo_async.pki import write_private

        record = self._wish.document() | {"batch_id": order.batch_id}
        if order.batch_id is None:
            record["order"] = order.document()
        text = json.dumps(record, indent=2, ensure_ascii=False)
        write_private(self.record, text.encode() + b"\n", overwrite=True)

    def keep_archive(self, archive: "Archive") -> None:
        """Keep the archive as it came."""
        from sectigo_async.pki import write_private

        write_private(self.path / "archive.zip", archive.raw, overwrite=True)


class _Deadline:
    """The seconds left of a whole; `None` where there is no limit."""

    def __init__(self, clock: Clock, seconds: float | None) -> None:
        self._clock = clock
        self._end = None if seconds is None else clock.monotonic() + seconds

    def left(self) -> float | None:
        return None if self._end is None else max(0.0, self._end - self._clock.monotonic())


async def issue(
    batches: Batches,
    clock: Clock,
    wish: Wish,
    *,
    directory: Path | str | None,
    key: "PrivateKey | None",
    trust: "Iterable[x509.Certificate] | None",
    timeout: float | None,
) -> Issued:
    """Order, wait for, download, keep and check one certificate; see `SectigoClient.issue`."""
    from sectigo_async.pki import generate_key

    deadline = _Deadline(clock, timeout)
    _request(wish, generate_key())  # Names that cannot stand in a request are refused before anything is written.
    if directory is not None and key is None:
        folder = _Folder(Path(directory), wish)
        try:
            ordered = await run_to_end(folder.open)
            private_key = await run_to_end(folder.key, ordered)
            if isinstance(ordered, Order):
                ordered = await _look_for(batches, ordered, deadline, folder)
            return await _issue(
                batches, wish, private_key, trust=trust, deadline=deadline, folder=folder, ordered=ordered
            )
        finally:
            await run_to_end(folder.close)
    if key is not None and directory is None:
        return await _issue(batches, wish, key, trust=trust, deadline=deadline)
    raise InvalidArgumentError(
        "give either a directory or a key", hint="with a directory the key is made and kept there"
    )


async def _issue(
    batches: Batches,
    wish: Wish,
    key: "PrivateKey",
    *,
    trust: "Iterable[x509.Certificate] | None",
    deadline: _Deadline,
    folder: _Folder | None = None,
    ordered: int | None = None,
) -> Issued:
    batch_id = ordered if ordered is not None else await _order(batches, wish, key, deadline, folder)
    try:
        batch = await batches.wait(batch_id, timeout=deadline.left())
        archive = await batches.download(batch_id, timeout=deadline.left())
        if folder is not None:
            await run_to_end(folder.keep_archive, archive)
        issued = await asyncio.to_thread(_choose, archive, wish, key, None if trust is None else list(trust))
        if folder is not None and issued.key_match:
            # The key stands in the folder already, perhaps in another form.
            await run_to_end(attrs.evolve(issued, key=None).write_to, folder.path, overwrite=True)
    except BatchFailed as failed:
        if folder is not None and failed.batch.status not in _WAS_ISSUED:
            failed.hint = f"mend the cause, then remove {folder.record} and order again"
        raise
    except BaseException as error:
        error.add_note(f"batch {batch_id} was ordered for {wish.common_name}: go on with its id, do not order again")
        raise
    return Issued(certificate=issued, batch=batch, directory=None if folder is None else folder.path)


async def _order(batches: Batches, wish: Wish, key: "PrivateKey", deadline: _Deadline, folder: _Folder | None) -> int:
    notes = () if folder is None else (folder.note,)
    batch = await batches.upload_noted(wish.profile_id, _request(wish, key), notes, timeout=deadline.left())
    return batch.batch_id


async def _look_for(batches: Batches, order: Order, deadline: _Deadline, folder: _Folder) -> int | None:
    """Return the batch of an order whose outcome was unknown; `None` where it was not placed.

    Raises:
        OutcomeUnknownError: nobody can tell.
    """
    (result,) = await batches.reconcile([order], timeout=deadline.left())
    if result.order.state is OrderState.UNKNOWN:
        folder.unknown(order, result.reason)
    await folder.note(result.order)
    return result.order.batch_id


def _request(wish: Wish, key: "PrivateKey") -> bytes:
    from sectigo_async.pki import make_csr

    return make_csr(key, wish.common_name, dns_names=wish.dns_names, subject=wish.subject)


def _choose(
    archive: "Archive", wish: Wish, key: "PrivateKey", trust: "list[x509.Certificate] | None"
) -> "IssuedCertificate":
    """Return the certificate for `key`, or failing that any that came, with what was checked about it."""
    found = archive.open(keys=[key], trust=trust, names={wish.common_name, *wish.dns_names})
    ours = key.public_key()
    issued = next((one for one in found if one.certificate.public_key() == ours), None)
    if issued is None:
        return attrs.evolve(found[0], key=None, key_match=False)
    missing = {name.lower() for name in wish.dns_names} - {name.lower() for name in issued.dns_names}
    return attrs.evolve(issued, name_match=False) if missing else issued
