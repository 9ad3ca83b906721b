"""A ledger that is lost is made anew, from the folders of the devices and from what the service has.

A device in whose folder a certificate lies is known by that. One of which only a key or a password lies there may
have been ordered: it is looked for at the service. One that is not found there stays of unknown outcome, since that
nothing is found never proves that nothing was ordered.
"""

import asyncio
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import attrs
from cryptography import x509

from sectigo_async.client import SectigoClient
from sectigo_async.clock import Clock, SystemClock
from sectigo_async.errors import BatchFailed, FileError, InvalidArgumentError, PkiError, WrongPasswordError
from sectigo_async.issuance.devices import Device, DeviceList, LineProblem
from sectigo_async.issuance.folders import Folders
from sectigo_async.issuance.ledger import OPEN, DeviceState, Keys, Ledger, Outcome, Run
from sectigo_async.issuance.plan import with_requests
from sectigo_async.issuance.records import RECORD, Record
from sectigo_async.issuance.sink import DirectorySink
from sectigo_async.models import Batch, Order, OrderKind
from sectigo_async.models.order import readable_part, readable_part_of
from sectigo_async.pki import Archive

_MOST_NAMES = 3
_LONG_AGO = datetime.fromtimestamp(0, UTC)

_Marked = Mapping[str, Device]
"""Devices by what tells them apart: the SHA-256 of their public keys, or `Device.key` with keys of the service."""


@attrs.frozen(kw_only=True)
class Rebuilt:
    """What a ledger came to know.

    Attributes:
        states: how many devices it knows that it did not know before, by their state.
        known: how many it knew before.
        untouched: how many it still does not know, since nothing was ever ordered for them from here.
        problems: what is wrong with lines of the list, or with what lies there for them. If there are any, the ledger
            was not changed.
    """

    states: Mapping[DeviceState, int] = attrs.field(factory=dict)
    known: int = 0
    untouched: int = 0
    problems: tuple[LineProblem, ...] = ()


async def rebuild_ledger(
    client: SectigoClient,
    ledger: Ledger,
    directory: Path,
    listed: DeviceList,
    *,
    base: Path | None = None,
    after: int | None = None,
    trust: Sequence[x509.Certificate] | None = None,
    timeout: float | None = 3600.0,
    clock: Clock | None = None,
) -> Rebuilt:
    """Have a ledger know the devices of which something lies in their folders. Nothing is ordered.

    What it knows already stays as it is, so this may be done again.

    Args:
        client: asks the service, as the user who ordered.
        ledger: the ledger; nobody else has it meanwhile.
        directory: where the folders of the devices are.
        listed: the devices, as they were ordered.
        base: the directory that paths of CSRs start from; the current one when not given.
        after: a batch id that is older than the run; needed where an order may be under way.
        trust: roots that the certificates must lead to; without any, chains are not checked.
        timeout: seconds for the look at all ids from there; `None` for no limit.
        clock: time.

    Raises:
        InvalidArgumentError: `after` is needed, or is not older than the run.
        BatchNotReady: nobody can tell yet whose batch one is; the ledger was not changed.
        LedgerError: the ledger cannot be read or written.
        SectigoError: the service does not answer; the ledger was not changed.
    """
    run, folders = ledger.run, Folders(DirectorySink(directory))
    known = {entry.device.key: entry.state for entry in await ledger.entries()}
    devices, problems = await asyncio.to_thread(with_requests, listed.devices, base or Path(), run.keys)
    strangers = [
        one for one in devices if one.key not in known or (known[one.key] in OPEN and folders.is_issued(one))
    ]
    found = await asyncio.to_thread(_look, folders, run, strangers, trust)
    parts = await _parts(ledger)
    if problems := [*listed.problems, *problems, *found.problems]:
        return Rebuilt(problems=tuple(sorted(problems, key=lambda problem: problem.line)))
    if found.begun and after is None:
        first = next(iter(found.begun.values()))
        raise InvalidArgumentError(
            f"{len(found.begun):,} devices may have been ordered, the first is {first.name}",
            hint="name a batch id that is older than the run, to look for them from there on: --after ID",
        )
    if after is not None and found.saved and after >= min(found.saved):
        raise InvalidArgumentError(
            f"batch {min(found.saved)} of this run is older than batch {after}", hint="give a lower id: --after ID"
        )
    search = _Search(client, folders, run.keys, {**found.begun, **{mark: one for mark, (_, one) in parts.items()}})
    if search.left and after is not None:
        taken = (order.batch_id or 0 for order in await ledger.orders())
        highest = max((*found.saved, *taken), default=0)
        for batch in await client.batches.scan(after=after, highest=highest, timeout=timeout):
            await search.take(batch)
    adoption = _Adoption(ledger, datetime.fromtimestamp((clock or SystemClock()).time(), UTC), after or 0)
    for batch_id, saved in found.saved.items():
        await adoption.of_batch(batch_id, saved, found.outcomes)
    for batch, ordered in search.found:
        await adoption.of_batch(
            batch.batch_id, {mark: ordered[mark] for mark in ordered.keys() - parts.keys()}, {}, batch
        )
        for mark in ordered.keys() & parts.keys():
            await adoption.of_part(parts[mark][0].placed(batch.batch_id))
    for mark in search.left.keys() - parts.keys():
        await adoption.of_unknown({mark: search.left[mark]})
    return Rebuilt(states=dict(adoption.states), known=len(devices) - len(strangers), untouched=found.untouched)


async def _parts(ledger: Ledger) -> dict[str, tuple[Order, Device]]:
    """Return the devices that an earlier look did not find, and the orders that stand for them."""
    orders = {order.order_id: order for order in await ledger.orders() if not order.size}
    entries = await ledger.entries({DeviceState.UNKNOWN})
    found = [(orders[entry.order_id], entry.device) for entry in entries if entry.order_id in orders]
    return {next(iter(order.key_sha256), device.key): (order, device) for order, device in found}


@attrs.define
class _Found:
    """What lies in the folders of devices.

    Attributes:
        saved: the devices whose certificates lie there, by their batches.
        outcomes: how good these are, by `Device.key`.
        begun: the devices that may have been ordered.
        untouched: how many devices have nothing.
        problems: what cannot be taken in.
    """

    saved: dict[int, dict[str, Device]] = attrs.field(factory=dict)
    outcomes: dict[str, Outcome] = attrs.field(factory=dict)
    begun: dict[str, Device] = attrs.field(factory=dict)
    untouched: int = 0
    problems: list[LineProblem] = attrs.field(factory=list)


def _look(folders: Folders, run: Run, devices: Iterable[Device], trust: Sequence[x509.Certificate] | None) -> _Found:
    """Look what lies in the folders of devices."""
    found = _Found()
    for device in devices:
        try:
            if not folders.is_begun(device):
                found.untouched += 1
                continue
            mark = _mark(folders, run.keys, device)
        except (FileError, PkiError, ValueError) as error:
            problem = f"{device.name}: {folders.of(device)}: {error}"
            found.problems.append(LineProblem(line=device.line, message=problem))
            continue
        try:
            if not folders.is_issued(device):
                found.begun[mark] = device
                continue
            record, outcome = folders.saved(device, trust)
        except (FileError, PkiError, ValueError) as error:
            message = f"{device.name}: {folders.of(device)}: {error}. Move its {RECORD} away to have it looked for"
            found.problems.append(LineProblem(line=device.line, message=message))
            continue
        if problem := _other(record, run, device):
            found.problems.append(LineProblem(line=device.line, message=f"{device.name}: {problem}"))
        else:
            found.saved.setdefault(record.batch_id, {})[mark] = device
            found.outcomes[device.key] = outcome
    return found


def _mark(folders: Folders, keys: Keys, device: Device) -> str:
    """Return what tells a device apart.

    Raises:
        ValueError: that is gone.
    """
    mark = folders.key_sha256(device) if keys is Keys.LOCAL else device.key
    if mark is None and folders.known_password(device) is not None:
        raise ValueError("there is a PKCS#12 password, and no key: give --keys server")
    if mark is None:
        raise ValueError("its private key is gone: put it back, or order anew for a device with an id of its own")
    return mark


def _other(record: Record, run: Run, device: Device) -> str:
    """Return why a certificate is not what a run orders for a device; nothing where it is."""
    keys = None if device.request else run.keys
    if record.keys is not keys:
        made = "a CSR" if record.keys is None else f"--keys {record.keys.value}"
        return f"its certificate was ordered with {made}: give that here, too"
    expected = {
        "profile": (record.profile_id, run.profile_id),
        "endpoint": (record.endpoint, run.endpoint),
        "common name": (record.common_name, device.common_name),
        "DNS names": (record.dns_names, device.dns_names),
        "parameters": (dict(record.parameters), dict(device.parameters)),
    }
    differing = [name for name, (was, now) in expected.items() if was != now]
    return f"its certificate was ordered with another {', '.join(differing)}: give what it was" if differing else ""


class _Search:
    """Looks which batches are for devices.

    Args:
        client: downloads them.
        folders: where the passwords of the devices are.
        keys: where private keys are made.
        devices: the devices.

    Attributes:
        left: the devices of which no batch was found.
        found: the batches, and the devices that they are for.
    """

    def __init__(self, client: SectigoClient, folders: Folders, keys: Keys, devices: _Marked) -> None:
        self._client = client
        self._folders = folders
        self._keys = keys
        self.left = dict(devices)
        self.found: list[tuple[Batch, _Marked]] = []

    async def take(self, batch: Batch) -> None:
        """See which of the devices a batch is for.

        Raises:
            BatchNotReady: nobody can tell yet.
            SectigoError: the service does not answer.
        """
        try:
            marks = await (self._by_keys(batch) if self._keys is Keys.LOCAL else self._by_name(batch))
        except (BatchFailed, PkiError):
            return  # It brings nothing, or nothing that can be compared: who is looked for stays unknown.
        if mine := {mark: self.left.pop(mark) for mark in marks if mark in self.left}:
            self.found.append((batch, mine))

    async def _by_keys(self, batch: Batch) -> Collection[str]:
        return await self._client.batches.key_sha256(batch.batch_id) if self.left else ()

    async def _by_name(self, batch: Batch) -> Collection[str]:
        part = readable_part_of(batch.batch_name)
        alike = {mark: one for mark, one in self.left.items() if readable_part(one.common_name) == part}
        if not alike:
            return ()
        archive = await self._client.batches.download(batch.batch_id)
        return await asyncio.to_thread(_opened_by, self._folders, archive, alike)


def _opened_by(folders: Folders, archive: Archive, devices: _Marked) -> Collection[str]:
    """Return the device whose password opens an archive, and whose certificate lies in it."""
    for mark, device in devices.items():
        try:
            (issued, *_) = archive.open(password=folders.known_password(device), problems=[])
        except WrongPasswordError:
            continue
        if issued.common_name.casefold() == device.common_name.casefold():
            return (mark,)
    return ()


class _Adoption:
    """Writes to a ledger what was found.

    Args:
        ledger: the ledger.
        now: the time (aware).
        after: a batch id that is older than the run; 0 where none is known.

    Attributes:
        states: how many devices were written, by their state.
    """

    def __init__(self, ledger: Ledger, now: datetime, after: int) -> None:
        self._ledger = ledger
        self._now = now
        self._after = after
        self.states: Counter[DeviceState] = Counter()

    async def of_batch(
        self, batch_id: int, devices: _Marked, outcomes: Mapping[str, Outcome], batch: Batch | None = None
    ) -> None:
        """Write the devices of a batch; where nothing came of it yet, it is as the service describes it."""
        if not devices:
            return
        made = batch.creation_date if batch else None
        name = batch.batch_name if batch else ""
        order = self._order(devices, sent_at=made or _LONG_AGO, batch_name=name)
        await self._ledger.adopt(order.placed(batch_id), list(devices.values()), outcomes)
        for device in devices.values():
            outcome = outcomes.get(device.key)
            self.states[outcome.state if outcome else DeviceState.ORDERED] += 1

    async def of_unknown(self, devices: _Marked) -> None:
        """Write a device of which no batch was found."""
        (device,) = devices.values()
        name = "" if self._ledger.run.keys is Keys.LOCAL else readable_part(device.common_name)
        order = self._order(devices, sent_at=self._now, batch_name=name)
        await self._ledger.adopt(order, [device])
        self.states[DeviceState.UNKNOWN] += 1

    async def of_part(self, order: Order) -> None:
        """Write that a device was found of which an earlier look found no batch."""
        await self._ledger.write(order)
        self.states[DeviceState.ORDERED] += 1

    def _order(self, devices: _Marked, *, sent_at: datetime, batch_name: str) -> Order:
        run = self._ledger.run
        local = run.keys is Keys.LOCAL
        return Order(
            kind=OrderKind.UPLOAD if local else OrderKind.CREATE,
            profile_id=run.profile_id,
            batch_name=batch_name,
            # The batch may be for more devices, which are found later.
            size=0,
            common_names=tuple(device.common_name for device in devices.values())[:_MOST_NAMES],
            key_sha256=frozenset(devices) if local else frozenset(),
            sent_at=sent_at,
            after=self._after,
        )
