"""What a run is going to do, and all that speaks against it, before anything is ordered."""

import asyncio
import stat
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import attrs

from sectigo_async.client import SectigoClient
from sectigo_async.errors import InvalidArgumentError, InvalidCSRError, NotFoundError
from sectigo_async.issuance.devices import Device, DeviceList, LineProblem, device_key
from sectigo_async.issuance.folders import Folders
from sectigo_async.issuance.ledger import OPEN, DeviceState, Entry, Keys, Ledger
from sectigo_async.issuance.sink import DirectorySink
from sectigo_async.models import Parameter
from sectigo_async.parameters import check_parameters, is_secret, make_password
from sectigo_async.secrets import Secret

IN_A_CSR = (
    "organizationName",
    "organizationalUnitName",
    "localityName",
    "stateOrProvinceName",
    "countryName",
    "serialNumber",
)
"""The parameters that a request carries in its subject; see `pki.make_csr`."""

_COMMON_NAME = "commonName"
_DNS_NAMES = "dNSName"
_LARGEST_CSR = 64 * 1024


@attrs.frozen(kw_only=True)
class Plan:
    """What a run is going to do.

    Attributes:
        devices: what is to be ordered, in the order of the list.
        new: how many of these the ledger does not know yet.
        changed: which of these are known with other names or parameters.
        failed: those that failed before, and stay so unless they are to be tried again.
        unknown: those for which an order of unknown outcome was sent; ordered again if it turns out not placed.
        ordered: how many are ordered, but not saved yet; they are fetched.
        done: how many are saved, and passed every check.
        verify_failed: how many are saved, and did not; they are checked again.
        gone: which of those that are done have lost their key or their certificate since.
        namesakes: how many of `devices` have the common name of one that is done, under another id.
        left_out: those for which nothing is ordered, and that are not in the list any more.
        problems: what is wrong with the list. Nothing may be ordered by such a plan; see `without_problems`.
        not_checked: parameters whose pattern could not be used.
        balance: how many certificates can be ordered, where that is known.
        password_rule: what the profile asks of a PKCS#12 password.
    """

    devices: tuple[Device, ...] = ()
    new: int = 0
    changed: tuple[Device, ...] = ()
    failed: tuple[Entry, ...] = ()
    unknown: tuple[Device, ...] = ()
    ordered: int = 0
    done: int = 0
    verify_failed: int = 0
    gone: tuple[Entry, ...] = ()
    namesakes: int = 0
    left_out: tuple[Entry, ...] = ()
    problems: tuple[LineProblem, ...] = ()
    not_checked: tuple[str, ...] = ()
    balance: int | None = None
    password_rule: Parameter | None = None

    @property
    def lacking(self) -> int:
        """How many licences are missing for all of it, as far as is known."""
        return 0 if self.balance is None else max(0, len(self.devices) - self.balance)

    def check(self) -> None:
        """See that it can be carried out.

        Raises:
            InvalidArgumentError: the list has problems.
        """
        if self.problems:
            raise InvalidArgumentError(
                f"{len(self.problems)} problems in the list; the first: {self.problems[0]}",
                hint="mend them, or leave them out: plan.without_problems()",
            )

    def without_problems(self) -> "Plan":
        """Return a plan for the lines with which nothing is wrong."""
        bad = {problem.line for problem in self.problems}
        return attrs.evolve(
            self,
            devices=tuple(device for device in self.devices if device.line not in bad),
            changed=tuple(device for device in self.changed if device.line not in bad),
            unknown=tuple(device for device in self.unknown if device.line not in bad),
            problems=(),
        )

    def first(self, count: int) -> "Plan":
        """Return a plan that orders for the first `count` devices only."""
        devices = self.devices[:count]
        keys = {device.key for device in devices}
        changed = tuple(device for device in self.changed if device.key in keys)
        return attrs.evolve(self, devices=devices, changed=changed)


async def make_plan(
    client: SectigoClient,
    ledger: Ledger,
    directory: Path,
    listed: DeviceList,
    *,
    base: Path | None = None,
    retry_failed: bool = False,
) -> Plan:
    """Hold a list of devices against the ledger, the profile and the balance. Nothing is written or ordered.

    Args:
        client: asks for the profile's parameters and the balance.
        ledger: knows what was ordered before.
        directory: where the folders of the devices are; certificates may lie there already.
        listed: the devices.
        base: the directory that paths of CSRs start from; the current one when not given.
        retry_failed: whether devices that failed are tried again.

    Raises:
        SectigoError: the service does not answer, or the ledger cannot be read.
    """
    run = ledger.run
    folders = Folders(DirectorySink(directory))
    known = {entry.device.key: entry for entry in await ledger.entries()}
    devices, problems = await asyncio.to_thread(
        with_requests, listed.devices, base or Path(), run.keys, {key: one.device for key, one in known.items()}
    )
    problems = [*listed.problems, *problems]
    to_order: list[Device] = []
    changed: list[Device] = []
    failed: list[Entry] = []
    unknown: list[Device] = []
    states: Counter[DeviceState] = Counter()
    done: list[Entry] = []
    for device in devices:
        entry = known.get(device.key)
        same = entry is not None and _is_same(entry.device, device)
        if entry is None:
            to_order.append(device)
            continue
        if same and not (entry.state is DeviceState.PLANNED or (entry.state is DeviceState.FAILED and retry_failed)):
            states[entry.state] += 1
            if entry.state is DeviceState.FAILED:
                failed.append(entry)
            elif entry.state is DeviceState.UNKNOWN:
                unknown.append(device)
            elif entry.state is DeviceState.DONE:
                done.append(entry)
            continue
        if not same and entry.state not in OPEN:
            what = f"{device.name} is {entry.state.value} already, with other names or parameters"
            problems.append(LineProblem(line=device.line, message=f"{what}: give the new one an id of its own"))
            continue
        to_order.append(device)
        if not same:
            changed.append(device)
    rules = {rule.name: rule for rule in await _rules(client, run.profile_id)}
    found, not_checked = await asyncio.to_thread(_check, to_order, rules, run.keys)
    problems += found
    problems += await asyncio.to_thread(_begun_before, to_order, known, folders)
    keys = {device.key for device in devices}
    issued = {entry.device.common_name.casefold() for entry in known.values() if entry.state is DeviceState.DONE}
    return Plan(
        devices=tuple(to_order),
        new=sum(device.key not in known for device in to_order),
        changed=tuple(changed),
        failed=tuple(failed),
        unknown=tuple(unknown),
        ordered=states[DeviceState.ORDERED],
        done=states[DeviceState.DONE],
        verify_failed=states[DeviceState.VERIFY_FAILED],
        gone=tuple(await asyncio.to_thread(_gone, done, folders)),
        namesakes=sum(device.common_name.casefold() in issued for device in to_order),
        left_out=tuple(entry for key, entry in known.items() if key not in keys and entry.state in OPEN),
        problems=tuple(sorted(problems, key=lambda problem: problem.line)),
        not_checked=not_checked,
        balance=await balance_of(client, run.profile_id),
        password_rule=_password_rule(rules.values()),
    )


async def write_plan(ledger: Ledger, plan: Plan) -> dict[str, Entry]:
    """Have a ledger know the devices of a plan as planned; return those that it knew before, by `Device.key`.

    Raises:
        LedgerError: it cannot be read or written; or something is ordered for a device that changed.
    """
    known = {entry.device.key: entry for entry in await ledger.entries()}
    changed = {device.key for device in plan.changed}
    again = [
        device.key
        for device in plan.devices
        if device.key in known and device.key not in changed and known[device.key].state is DeviceState.FAILED
    ]
    await ledger.amend(new=[one for one in plan.devices if one.key not in known], changed=plan.changed)
    await ledger.retry(again)
    return known


async def plan_what_is_left(client: SectigoClient, ledger: Ledger) -> Plan:
    """Return a plan for what a ledger holds and nothing is ordered for yet. It was checked when it was put there.

    Args:
        client: asks for what the profile asks of a PKCS#12 password.
        ledger: knows what is left.

    Raises:
        SectigoError: the service does not answer, or the ledger cannot be read.
    """
    entries = await ledger.entries({DeviceState.PLANNED, DeviceState.UNKNOWN})
    by_state: dict[DeviceState, list[Device]] = {DeviceState.PLANNED: [], DeviceState.UNKNOWN: []}
    for entry in entries:
        by_state[entry.state].append(entry.device)
    rules = await _rules(client, ledger.run.profile_id) if ledger.run.keys is Keys.SERVER else ()
    return Plan(
        devices=tuple(by_state[DeviceState.PLANNED]),
        unknown=tuple(by_state[DeviceState.UNKNOWN]),
        password_rule=_password_rule(rules),
    )


def _is_same(one: Device, other: Device) -> bool:
    """Say whether two say the same about a device, wherever they stood."""
    return attrs.evolve(one, line=0, csr=None, name="") == attrs.evolve(other, line=0, csr=None, name="")


async def _rules(client: SectigoClient, profile_id: int) -> Sequence[Parameter]:
    return await client.profiles.parameters(profile_id)


async def balance_of(client: SectigoClient, profile_id: int) -> int | None:
    """Return what can be ordered under a profile, or `None` where that is not known."""
    try:
        authorities = await client.authorities.list()
        chosen = next((one for one in authorities if profile_id in {one.profile_id, one.id}), None)
        return None if chosen is None else await client.authorities.balance(chosen.id)
    except NotFoundError:
        return None


def _password_rule(rules: Iterable[Parameter]) -> Parameter | None:
    return next((rule for rule in rules if is_secret(rule)), None)


def with_requests(
    devices: Sequence[Device], base: Path, keys: Keys, known: Mapping[str, Device] | None = None
) -> tuple[list[Device], list[LineProblem]]:
    """Read the requests that lines name; tell of those that cannot be used.

    Args:
        devices: the lines.
        base: the directory that paths start from.
        keys: where private keys are made.
        known: devices whose requests were read before, and need not be there any more, by `Device.key`.
    """
    from sectigo_async.pki import key_sha256, read_requests

    read: list[Device] = []
    problems: list[LineProblem] = []
    by_csr = {device.csr: device for device in (known or {}).values() if device.csr}
    lines: dict[str, int] = {}
    for device in devices:
        try:
            earlier = (known or {}).get(device.key) or by_csr.get(str((base / (device.csr or "")).absolute()))
            if earlier is not None and earlier.request and device.csr and not (base / device.csr).exists():
                one = attrs.evolve(earlier, line=device.line)
            else:
                one = _with_request(device, base, keys) if device.csr else device
        except InvalidArgumentError as error:
            problems.append(LineProblem(line=device.line, message=str(error)))
            continue
        marks = {one.key: f"the name {one.key!r}"}
        if one.request:
            marks[key_sha256(read_requests(one.request.encode())[0].public_key())] = f"the key of {one.csr}"
        for mark, what in marks.items():
            if (before := lines.setdefault(mark, one.line)) != one.line:
                problems.append(LineProblem(line=one.line, message=f"{what} stands in line {before} already"))
        read.append(one)
    return read, problems


def _with_request(device: Device, base: Path, keys: Keys) -> Device:
    """Return a device with the request that its line names, and the names in it.

    Raises:
        InvalidArgumentError: it cannot be used.
    """
    from sectigo_async.pki import dns_names, name_of, read_requests, requests_pem

    if keys is Keys.SERVER:
        raise InvalidArgumentError("a CSR goes with keys made here, not with keys made by the service")
    path = (base / (device.csr or "")).absolute()
    try:
        # What is no file, a pipe for example, may never end.
        if not stat.S_ISREG(path.stat().st_mode):
            raise InvalidArgumentError(f"{path} is not a file")
        with path.open("rb") as file:
            found = read_requests(file.read(_LARGEST_CSR))
    except OSError as error:
        raise InvalidArgumentError(f"cannot read {path}: {error.strerror}") from None
    except InvalidCSRError as error:
        raise InvalidArgumentError(f"{path}: {error}") from None
    if len(found) != 1:
        raise InvalidArgumentError(f"{path} holds {len(found)} requests, where one is needed")
    name, names = name_of(found[0]), dns_names(found[0])
    if device.common_name and device_key(device.common_name) != device_key(name):
        raise InvalidArgumentError(f"{path} is for {name!r}")
    if device.parameters:
        raise InvalidArgumentError(f"{path} says all there is to say: leave the other columns empty")
    return attrs.evolve(
        device,
        key=device.key or device_key(name),
        name=device.name or name,
        common_name=name,
        dns_names=tuple(names),
        # From wherever it is read again.
        csr=str(path),
        request=requests_pem(found).decode(),
    )


def _check(
    devices: Collection[Device], rules: dict[str, Parameter], keys: Keys
) -> tuple[list[LineProblem], tuple[str, ...]]:
    """Check devices by the rules of the profile, and by what a request can say."""
    from sectigo_async.pki import generate_key, make_csr

    problems: list[LineProblem] = []
    not_checked: set[str] = set()
    password = _password(rules, keys)
    key = generate_key()
    for device in devices:
        params = parameters_of(device)
        found: list[str] = [
            f"{name}: is made here; leave the column out" for name in params if _is_password(rules, name)
        ]
        if keys is Keys.LOCAL:
            found += [
                f"{name}: cannot stand in a CSR; leave it out, or have the keys made by the service"
                for name in device.parameters
                if name not in IN_A_CSR and not _is_password(rules, name)
            ]
            # What else a request of one's own says, the service judges.
            judged = {_COMMON_NAME, _DNS_NAMES, *(() if device.request else IN_A_CSR)}
            sendable = [rule for rule in rules.values() if rule.name in judged]
            said = {name: value for name, value in params.items() if name in {rule.name for rule in sendable}}
            check = check_parameters(sendable, said)
        else:
            check = check_parameters(rules.values(), {**params, **password})
        found += map(str, check.problems)
        not_checked.update(check.not_checked)
        if keys is Keys.LOCAL and not device.request and not found:
            try:
                make_csr(key, device.common_name, dns_names=device.dns_names, subject=device.parameters)
            except InvalidCSRError as error:
                found.append(str(error))
        if found:
            problems.append(LineProblem(line=device.line, message=f"{device.name}: {'; '.join(found)}"))
    return problems, tuple(sorted(not_checked))


def _password(rules: dict[str, Parameter], keys: Keys) -> dict[str, Secret]:
    """Return a password such as every device gets.

    Raises:
        InvalidArgumentError: no password fits the rule.
    """
    rule = _password_rule(rules.values())
    return {} if rule is None or keys is Keys.LOCAL else {rule.name: make_password(rule)}


def _is_password(rules: dict[str, Parameter], name: str) -> bool:
    return "password" in name.lower() or (name in rules and is_secret(rules[name]))


def parameters_of(device: Device) -> dict[str, str]:
    """Return what a device says, as parameters of a profile (api.md 4.5); an empty name is left out."""
    named = {_COMMON_NAME: device.common_name, _DNS_NAMES: "\n".join(device.dns_names)}
    return {name: value for name, value in named.items() if value} | dict(device.parameters)


def _begun_before(devices: Sequence[Device], known: Mapping[str, Entry], folders: Folders) -> list[LineProblem]:
    """Tell of devices that the ledger does not know as ordered, although something may have been ordered for them."""
    problems = []
    for device in devices:
        what = f"{device.name}: the ledger does not know what lies in {folders.of(device)}"
        if device.key not in known and folders.is_begun(device):
            way_out = ", and it may have been paid for: `sectigo-async ledger rebuild` makes it known"
        elif device.key in known and folders.is_issued(device) and known[device.key].state in OPEN:
            way_out = ": it is older than that, put the newer one back, or use `sectigo-async ledger rebuild`"
        else:
            continue
        problems.append(LineProblem(line=device.line, message=what + way_out))
    return problems


def _gone(entries: Iterable[Entry], folders: Folders) -> list[Entry]:
    """Return those whose key or certificate does not lie in their folder any more."""
    return [entry for entry in entries if not folders.is_whole(entry.device)]
