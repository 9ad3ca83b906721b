"""The folder of a device: its key or PKCS#12 password before the order, its certificate after. Blocking."""

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import attrs
from cryptography import x509

from sectigo_async.errors import FileError, PkiError, WrongPasswordError
from sectigo_async.files import discard_staged, file_errors
from sectigo_async.issuance.devices import Device
from sectigo_async.issuance.ledger import DeviceState, Entry, Keys, Outcome, Run
from sectigo_async.issuance.records import RECORD, Record, parse_record
from sectigo_async.issuance.sink import Sink
from sectigo_async.models import Parameter
from sectigo_async.parameters import make_password
from sectigo_async.pki import (
    Archive,
    ChainStatus,
    IssuedCertificate,
    MemberKind,
    PrivateKey,
    generate_key,
    key_pem,
    key_sha256,
    load_key,
    make_csr,
    read_requests,
    safe_name,
)
from sectigo_async.pki.certificates import NO_PATH, NOT_VALID
from sectigo_async.secrets import Secret

_KEY = "privkey.pem"
_PASSWORD = "bundle.p12.password"  # noqa: S105 - the name of a file
_BUNDLE = "bundle.p12"

REPORTS = frozenset({"results.csv", "errors.csv"})
"""Files beside the folders, which no folder may stand in the way of."""

_CERTIFICATE = "cert.pem"
_CHAIN = "chain.pem"
_FULL_CHAIN = "fullchain.pem"
_OURS = (_KEY, _CERTIFICATE, _FULL_CHAIN, RECORD)
_REQUEST = "request.csr"
_ARCHIVE = re.compile(r"(\d+)\.zip")


@attrs.frozen
class Folders:
    """The folders of the devices of a run.

    Attributes:
        sink: keeps them.
    """

    sink: Sink

    def of(self, device: Device) -> str:
        """Return where the folder of a device is, for people."""
        return self.sink.where(folder_of(device))

    def is_issued(self, device: Device) -> bool:
        """Say whether a certificate lies in the folder of a device.

        Raises:
            FileError: that cannot be found out.
        """
        return self._size(device, RECORD) is not None

    def is_begun(self, device: Device) -> bool:
        """Say whether there is anything of a device: without that, nothing was ever ordered for it from here.

        Raises:
            FileError: that cannot be found out.
        """
        return any(self._size(device, name) is not None for name in (*_OURS, _REQUEST, _BUNDLE, _PASSWORD))

    def is_whole(self, device: Device) -> bool:
        """Say whether all that belongs to a certificate lies in the folder of a device, its key included.

        Raises:
            FileError: that cannot be found out.
        """
        return all(self._size(device, name) for name in _OURS if name != _KEY or not device.request)

    def saved(self, device: Device, trust: Sequence[x509.Certificate] | None = None) -> tuple[Record, Outcome]:
        """Return what the certificate in the folder of a device was ordered with, and judge it anew.

        Args:
            device: the device.
            trust: roots that its chain must lead to; `None` where none are known.

        Raises:
            FileError: the folder cannot be used.
            PkiError: the key or the certificate in it is damaged.
            ValueError: what lies there is not what was written there.
        """
        certificate, chain = self._needed(device, _CERTIFICATE), self._needed(device, _CHAIN)
        try:
            record = parse_record(self._needed(device, RECORD), certificate)
        except (TypeError, RecursionError) as error:
            raise ValueError(str(error)) from None
        (issued, *_) = Archive(certificate + chain, _CERTIFICATE).open(trust=trust, problems=[])
        key = self.key_sha256(device)
        match = None if key is None else key == key_sha256(issued.certificate.public_key())
        return record, _outcome(device, attrs.evolve(issued, key_match=match))

    def requests(self, devices: Sequence[Device]) -> bytes:
        """Return the requests for devices as PEM; their keys are durable by then, and are never made anew.

        Raises:
            FileError: a folder cannot be used.
            PkiError: a key in one is damaged.
        """
        keys: dict[str, PrivateKey] = {}
        made: dict[str, bytes] = {}
        given: dict[str, bytes] = {}
        for device in devices:
            if device.request:
                given[_name(device, _REQUEST)] = device.request.encode()
                continue
            key = self._key(device)
            if key is None:
                key = generate_key()
                made[_name(device, _KEY)] = key_pem(key)
            keys[device.key] = key
        self.sink.write(made)
        # Of a key that is elsewhere nothing else would tell that something may be ordered for it.
        self.sink.write(given, overwrite=True)
        return b"".join(
            device.request.encode()
            or make_csr(keys[device.key], device.common_name, dns_names=device.dns_names, subject=device.parameters)
            for device in devices
        )

    def password(self, device: Device, rule: Parameter | None) -> Secret:
        """Return the PKCS#12 password for a device; it is durable by then, and is never made anew.

        Args:
            device: the device.
            rule: what the profile asks of it.

        Raises:
            FileError: the folder cannot be used.
            InvalidArgumentError: no password fits the rule.
        """
        known = self.known_password(device)
        if known is not None:
            return known
        made = make_password(rule)
        self.sink.write({_name(device, _PASSWORD): made.reveal().encode() + b"\n"})
        return made

    def known_password(self, device: Device) -> Secret | None:
        """Return the PKCS#12 password for a device, or `None` where it is gone.

        Raises:
            FileError: it cannot be read.
        """
        content = self.sink.read(_name(device, _PASSWORD))
        return None if content is None else Secret(content.decode().removesuffix("\n"))

    def key_sha256(self, device: Device) -> str | None:
        """Return the SHA-256 of a device's public key, or `None` where there is no key.

        Raises:
            FileError: the folder cannot be used.
            PkiError: the key in it is damaged.
        """
        if device.request:
            return key_sha256(read_requests(device.request.encode())[0].public_key())
        key = self._key(device)
        return None if key is None else key_sha256(key.public_key())

    def bundle(self, device: Device) -> bytes:
        """Return the PKCS#12 file that came for a device.

        Raises:
            FileError: it cannot be read.
        """
        return self._needed(device, _BUNDLE)

    def _size(self, device: Device, file: str) -> int | None:
        return self.sink.size(_name(device, file))

    def _needed(self, device: Device, file: str) -> bytes:
        name = _name(device, file)
        content = self.sink.read(name)
        if content is None:
            raise FileError(f"{self.sink.where(name)} is gone", hint="put it back from a copy")
        return content

    def _key(self, device: Device) -> PrivateKey | None:
        """Return the key of a device, or `None` where there is none.

        Raises:
            FileError: it cannot be read.
            PkiError: it is damaged.
        """
        name = _name(device, _KEY)
        content = self.sink.read(name)
        if content is None:
            return None
        try:
            return load_key(content)
        except PkiError as error:
            problem = f"{self.sink.where(name)}: {error}"
        raise PkiError(problem, hint="bring it back from a copy: what was ordered for it is of no use without it")


def folder_of(device: Device) -> str:
    """Return the name of a device's folder; no two devices share one, and none has the name of a report."""
    name = safe_name(device.key)
    # With a character that no other folder has in its name.
    return f"{name}+" if name in REPORTS else name


def _name(device: Device, file: str) -> str:
    return f"{folder_of(device)}/{file}"


def sweep(folders: Folders, archives: Path, entries: Iterable[Entry]) -> None:
    """Remove what a killed run left behind: files in the making, and archives that nobody needs any more.

    Args:
        folders: the folders of the devices.
        archives: where archives are downloaded to.
        entries: all devices of the run.

    Raises:
        FileError: it cannot be removed.
    """
    kept: set[int | None] = set()
    unfinished: list[str] = []
    for entry in entries:
        if entry.state is DeviceState.VERIFY_FAILED:
            kept.add(entry.batch_id)
        elif entry.state is not DeviceState.DONE:
            unfinished.append(folder_of(entry.device))
    folders.sink.tidy(unfinished)
    discard_staged(archives)
    with file_errors(archives):
        for path in archives.iterdir() if archives.is_dir() else ():
            archive = _ARCHIVE.fullmatch(path.name)
            if archive is not None and int(archive[1]) not in kept:
                path.unlink(missing_ok=True)


@attrs.frozen(kw_only=True)
class Batched:
    """Devices that were ordered in one batch.

    Attributes:
        batch_id: the batch.
        devices: the devices.
        endpoint: the service.
        profile_id: the profile.
        keys: where their private keys are made.
        trust: roots that the chains must lead to; `None` where none are known.
    """

    batch_id: int
    devices: Sequence[Device]
    endpoint: str
    profile_id: int
    keys: Keys
    trust: Sequence[x509.Certificate] | None = None


def save(folders: Folders, batched: Batched, archive: Archive) -> dict[str, Outcome]:
    """Write what came for each device to its folder, then judge it; return the outcome by `Device.key`.

    Raises:
        ArchiveError: the archive is damaged; nothing was written.
        FileError: a folder cannot be used.
    """
    if batched.keys is Keys.SERVER:
        (device,) = batched.devices
        return _save_with_key(folders, batched, device, archive)
    issued = archive.open(trust=batched.trust, problems=[])
    by_key = {key_sha256(one.certificate.public_key()): one for one in issued}
    brought: list[tuple[Device, IssuedCertificate]] = []
    missing: list[Device] = []
    for device in batched.devices:
        key = _key_of(folders, device)
        one = None if key is None else by_key.pop(key, None)
        if one is None:
            missing.append(device)
        else:
            brought.append((device, attrs.evolve(one, key_match=True)))
    outcomes: dict[str, Outcome] = {}
    by_name: dict[str, list[IssuedCertificate]] = {}
    for one in by_key.values():
        by_name.setdefault(one.common_name.casefold(), []).append(one)
    for device in missing:
        foreign = by_name.get(device.common_name.casefold())
        if not foreign:
            error = f"batch {batched.batch_id} brought no certificate for its key"
            outcomes[device.key] = Outcome(state=DeviceState.FAILED, error=error)
        else:
            match = None if _key_of(folders, device) is None else False
            brought.append((device, attrs.evolve(foreign.pop(), key_match=match)))
    return outcomes | _save(folders, batched, brought)


def _key_of(folders: Folders, device: Device) -> str | None:
    """Return what tells the key of a device; nothing where it is gone, or damaged: others are saved all the same."""
    try:
        return folders.key_sha256(device)
    except FileError:
        raise
    except PkiError:
        return None


def _save_with_key(folders: Folders, batched: Batched, device: Device, archive: Archive) -> dict[str, Outcome]:
    """Save a certificate that came with its key, the PKCS#12 file as it came."""
    bundles = [member.content for member in archive.members() if member.kind is MemberKind.PKCS12]
    if len(bundles) == 1:
        folders.sink.write({_name(device, _BUNDLE): bundles[0]}, overwrite=True)
    try:
        (first, *others) = archive.open(password=folders.known_password(device), trust=batched.trust, problems=[])
    except WrongPasswordError as error:
        return {device.key: Outcome(state=DeviceState.VERIFY_FAILED, error=str(error))}
    if others:
        problem = f"batch {batched.batch_id} brought {len(others) + 1} certificates where one was ordered"
        return {device.key: Outcome(state=DeviceState.VERIFY_FAILED, error=problem)}
    if first.key is not None:
        folders.sink.write({_name(device, _KEY): key_pem(first.key)})
    return _save(folders, batched, [(device, attrs.evolve(first, key_match=first.key is not None or None))])


def judge_again(
    folders: Folders, run: Run, entries: Iterable[Entry], trust: Sequence[x509.Certificate] | None
) -> dict[str, Outcome]:
    """Judge anew what was saved and did not pass its checks; return those that pass them now, by `Device.key`."""
    outcomes: dict[str, Outcome] = {}
    for entry in entries:
        if trust is None and any(words in entry.error for words in (NO_PATH, NOT_VALID)):
            continue  # A root was given that it does not lead to: to give none proves nothing.
        with suppress(FileError, PkiError, ValueError):
            if not folders.is_issued(entry.device) and entry.batch_id is not None and run.keys is Keys.SERVER:
                _open_again(folders, run, entry.device, entry.batch_id)
            _, outcome = folders.saved(entry.device, trust)
            if outcome.state is DeviceState.DONE:
                outcomes[entry.device.key] = outcome
    return outcomes


def _open_again(folders: Folders, run: Run, device: Device, batch_id: int) -> None:
    """Take the certificate out of a PKCS#12 file that could not be opened when it came."""
    batched = Batched(
        batch_id=batch_id, devices=[device], endpoint=run.endpoint, profile_id=run.profile_id, keys=run.keys
    )
    _save_with_key(folders, batched, device, Archive(folders.bundle(device), _BUNDLE))


def _save(
    folders: Folders, batched: Batched, brought: Sequence[tuple[Device, IssuedCertificate]]
) -> dict[str, Outcome]:
    """Save certificates, then judge them."""
    files: dict[str, bytes] = {}
    for device, issued in brought:
        files |= _files(batched, device, issued)
    folders.sink.write(files, overwrite=True)
    return {device.key: _outcome(device, issued) for device, issued in brought}


def _files(batched: Batched, device: Device, issued: IssuedCertificate) -> dict[str, bytes]:
    """Return what stands in the folder of a device."""
    record = Record(
        endpoint=batched.endpoint,
        profile_id=batched.profile_id,
        keys=None if device.request else batched.keys,
        common_name=device.common_name,
        dns_names=device.dns_names,
        parameters=device.parameters,
        batch_id=batched.batch_id,
        serial_number=issued.serial_number,
        not_before=issued.certificate.not_valid_before_utc,
        not_after=issued.not_after,
        device_id=device.name if device.key != device.common_name else "",
    )
    certificate, chain = issued.certificate_pem(), issued.chain_pem()
    return {
        _name(device, _CERTIFICATE): certificate,
        _name(device, _CHAIN): chain,
        _name(device, _FULL_CHAIN): certificate + chain,
        # Last: where it stands, the others do.
        _name(device, RECORD): record.content(),
    }


def _outcome(device: Device, issued: IssuedCertificate) -> Outcome:
    added, problems = _judge(device, issued)
    return Outcome(
        state=DeviceState.VERIFY_FAILED if problems else DeviceState.DONE,
        error="; ".join(problems),
        warning=f"the service added the name {', '.join(added)}" if added else "",
        serial_number=issued.serial_number,
        not_after=issued.not_after,
    )


def _judge(device: Device, issued: IssuedCertificate) -> tuple[list[str], list[str]]:
    """Return the names that were added to a certificate, and what is wrong with it."""
    found = {name.lower() for name in issued.dns_names}
    wanted = {name.lower() for name in device.dns_names}
    problems = []
    if issued.key_match is None:
        problems.append("its private key is gone or damaged: put it back")
    elif not issued.key_match:
        problems.append("its certificate is for another key")
    if missing := sorted(wanted - found):
        problems.append(f"its certificate lacks the name {', '.join(missing)}")
    if device.common_name and issued.common_name.casefold() != device.common_name.casefold():
        problems.append(f"its certificate is for {issued.common_name!r}")
    if issued.chain_check.status is ChainStatus.FAILED:
        problems.append(issued.chain_check.detail)
    return sorted(found - wanted - {device.common_name.lower()}), problems
