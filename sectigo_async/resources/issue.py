"""One certificate from nothing to files, so that it can be taken up again after anything."""

import asyncio
import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from sectigo_async.config import DEFAULT
from sectigo_async.errors import (
    AuthenticationError,
    FileError,
    InvalidArgumentError,
    NoReplyError,
    OutcomeUnknownError,
    ServiceError,
)
from sectigo_async.models import Batch
from sectigo_async.resources.batches import Batches

if TYPE_CHECKING:
    from cryptography import x509

    from sectigo_async.pki import Archive, IssuedCertificate, PrivateKey

_NOT_ORDERED = (AuthenticationError, ServiceError, NoReplyError, InvalidArgumentError)


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
class _Wish:
    """What is to be issued."""

    endpoint: str
    profile_id: int
    common_name: str
    dns_names: tuple[str, ...]

    def record(self, batch_id: int | None, attempt: str) -> bytes:
        document = attrs.asdict(self) | {"version": 1, "attempt": attempt, "batch_id": batch_id}
        return json.dumps(document, indent=2).encode() + b"\n"


class _Folder:
    """The folder of one certificate: key, intent and batch id before, certificate files after. Blocking.

    `issue.json` is written before the order is sent, and gains the batch id after. A folder with the first and
    not the second is an order whose outcome is unknown.
    """

    def __init__(self, directory: Path, wish: _Wish) -> None:
        from sectigo_async.pki import safe_name

        self.path = directory / safe_name(wish.common_name)
        self._wish = wish
        self._record = self.path / "issue.json"
        self._attempt = secrets.token_hex(8)

    def open(self) -> int | None:
        """Return the id of the batch that was ordered for this folder, or `None` where none was.

        Raises:
            OutcomeUnknownError: an order was sent and nobody knows what became of it.
            FileError: the folder belongs to another wish, or cannot be read.
        """
        from sectigo_async.pki.files import make_directory

        make_directory(self.path)
        try:
            record = json.loads(self._record.read_bytes())
            batch_id = record["batch_id"]
            same = all(record[name] == _listed(value) for name, value in attrs.asdict(self._wish).items())
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError):
            raise FileError(f"{self._record} cannot be read", hint="choose another directory") from None
        if not same:
            raise FileError(
                f"{self.path} holds an order of other names, profile or endpoint",
                hint="choose another directory",
            )
        if batch_id is None:
            raise OutcomeUnknownError(
                f"an order for {self._wish.common_name} was sent from {self.path}, but its outcome is unknown",
                subject=f"the order for {self._wish.common_name}",
                hint=f"look in the portal; if there is no such batch, remove {self._record} and order again",
            )
        return int(batch_id)

    def key(self) -> "PrivateKey":
        """Return the folder's private key, made and durable by now."""
        from sectigo_async.pki import generate_key, key_pem, load_key, write_private

        path = self.path / "privkey.pem"
        if path.exists():
            return load_key(path.read_bytes())
        key = generate_key()
        write_private(path, key_pem(key))
        return key

    def intend(self) -> None:
        """Note that the order is about to be sent. Of two who try at once, one fails."""
        from sectigo_async.pki import write_private

        write_private(self._record, self._wish.record(None, self._attempt))

    def withdraw(self) -> None:
        """Note that nothing was ordered."""
        self._record.unlink(missing_ok=True)

    def ordered(self, batch_id: int) -> None:
        """Note the batch that was ordered."""
        from sectigo_async.pki import write_private

        write_private(self._record, self._wish.record(batch_id, self._attempt), overwrite=True)

    def keep_archive(self, archive: "Archive") -> None:
        """Keep the archive as it came."""
        from sectigo_async.pki import write_private

        write_private(self.path / "archive.zip", archive.raw, overwrite=True)


def _listed(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


async def issue(
    batches: Batches,
    *,
    endpoint: str,
    common_name: str,
    profile_id: int,
    directory: Path | str | None,
    key: "PrivateKey | None",
    dns_names: Sequence[str],
    subject: Mapping[str, str] | None,
    trust: "Iterable[x509.Certificate] | None",
    timeout: float | None,
) -> Issued:
    """Order, wait for, download, keep and check one certificate; see `SectigoClient.issue`."""
    from sectigo_async.pki import make_csr

    if (directory is None) == (key is None):
        raise InvalidArgumentError(
            "give either a directory or a key", hint="with a directory the key is made and kept there"
        )
    names = tuple(dns_names) or (common_name,)
    wish = _Wish(endpoint=endpoint, profile_id=profile_id, common_name=common_name, dns_names=names)
    folder = None if directory is None else _Folder(Path(directory), wish)
    batch_id = None if folder is None else await asyncio.to_thread(folder.open)
    private_key = key if key is not None else await asyncio.to_thread(_required(folder).key)
    if batch_id is None:
        request = make_csr(private_key, common_name, dns_names=names, subject=subject)
        batch_id = await _order(batches, folder, profile_id, request)
    try:
        batch = await batches.wait(batch_id, timeout=timeout)
        archive = await batches.download(batch_id, timeout=DEFAULT)
    except BaseException as error:
        error.add_note(f"batch {batch_id} was ordered for {common_name}: go on with its id, do not order again")
        raise
    if folder is not None:
        await asyncio.to_thread(folder.keep_archive, archive)
    expected = {common_name, *names}
    anchors = None if trust is None else list(trust)
    found = await asyncio.to_thread(archive.open, keys=[private_key], trust=anchors, names=expected)
    issued = next((one for one in found if one.key_match), found[0])
    if not set(names) <= set(issued.dns_names):
        issued = attrs.evolve(issued, name_match=False)
    if folder is not None and issued.key_match:
        await asyncio.to_thread(issued.write_to, folder.path, overwrite=True)
    return Issued(certificate=issued, batch=batch, directory=None if folder is None else folder.path)


async def _order(batches: Batches, folder: _Folder | None, profile_id: int, request: bytes) -> int:
    if folder is None:
        return (await batches.upload(profile_id=profile_id, requests=request)).batch_id
    await asyncio.to_thread(folder.intend)
    try:
        batch = await batches.upload(profile_id=profile_id, requests=request)
    except _NOT_ORDERED:
        await asyncio.to_thread(folder.withdraw)
        raise
    await asyncio.shield(asyncio.to_thread(folder.ordered, batch.batch_id))
    return batch.batch_id


def _required(folder: _Folder | None) -> _Folder:
    assert folder is not None
    return folder
