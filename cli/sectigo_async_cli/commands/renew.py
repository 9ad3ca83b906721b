"""Renewing what a bulk run issued, and revoking what was renewed: renew."""

import asyncio
import shlex
import shutil
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import attrs
import typer
from cryptography import x509

from sectigo_async import RevocationReason, SectigoClient
from sectigo_async.errors import BadRequestError, FileError, NotFoundError, PermissionDeniedError
from sectigo_async.issuance import (
    DeviceList,
    DeviceState,
    Entry,
    Installed,
    Issuance,
    Keys,
    Options,
    Plan,
    Renewals,
    Run,
    SqliteLedger,
    Superseded,
    make_plan,
)
from sectigo_async.pki import load_certificates
from sectigo_async_cli import exit_codes
from sectigo_async_cli.commands.certificates import revoke_once
from sectigo_async_cli.commands.expiring import duration
from sectigo_async_cli.context import Settings, settings
from sectigo_async_cli.hooks import run_hook
from sectigo_async_cli.issuing import (
    GOES_ON,
    NAMES,
    OnAmbiguous,
    WhenAmbiguous,
    exit_code,
    in_words,
    open_ledger,
    watch,
)
from sectigo_async_cli.options import Settle, WaitLimit
from sectigo_async_cli.options import register as add
from sectigo_async_cli.ordering import agree
from sectigo_async_cli.prompts import confirm
from sectigo_async_cli.run import noting, run_client
from sectigo_async_cli.streams import say

_COLUMNS = {"folder": "Folder", "commonName": "Common name", "serialNumber": "Serial number", "notAfter": "Expires"}


def renew(
    ctx: typer.Context,
    *,
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="What issue had as --out.")],
    within: Annotated[
        str, typer.Option(help="How soon a certificate expires that is renewed: 12h, 30d, 4w.")
    ] = "30d",
    max_orders: Annotated[
        int, typer.Option(min=0, help="How many certificates are ordered at most; those that expire next come first.")
    ] = 50,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell what would be done, and do nothing.")] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Order again what the service refused before.")
    ] = False,
    deploy_hook: Annotated[
        str | None,
        typer.Option(
            metavar="CMD",
            help="Program, with arguments, to run once after changes; it reads the folders that changed from standard"
            " input, one a line, and has five minutes.",
        ),
    ] = None,
    trust: Annotated[Path | None, typer.Option(help="PEM file with the roots that chains must lead to.")] = None,
    settle: Settle = 900.0,
    on_ambiguous: WhenAmbiguous = OnAmbiguous.WAIT,
    revoke_superseded: Annotated[
        bool,
        typer.Option("--revoke-superseded", help="Renew nothing; revoke the certificates whose place others took."),
    ] = False,
    after: Annotated[
        str | None, typer.Option(help="With --revoke-superseded: how long ago that has to be; 14d if left out.")
    ] = None,
    timeout: WaitLimit = 3600.0,
) -> None:
    """Renew the certificates that issue saved and that expire soon. This spends a licence for each.

    Each gets a new key and a new folder, generation-2 and so on, in the folder of its device; the link live there
    leads to the files in use, and changes in one step. Run again, it goes on with what it ordered before.

    Example: sectigo-async renew certs/ --within 30d --deploy-hook "systemctl reload nginx"
    """
    chosen = settings(ctx)
    hook = _hook(deploy_hook)
    limit, age = duration(within), duration(after or "14d", "--after")
    if after is not None and not revoke_superseded:
        raise typer.BadParameter("it goes with --revoke-superseded", param_hint="--after")
    if hook and revoke_superseded:
        raise typer.BadParameter("nothing is renewed with --revoke-superseded", param_hint="--deploy-hook")
    renewals = Renewals(directory)
    options = Options(settle=settle, resubmit=on_ambiguous is OnAmbiguous.RESUBMIT, timeout=timeout)

    async def job(client: SectigoClient) -> None:
        if revoke_superseded:
            await _revoke(chosen, client, renewals, age, dry_run=dry_run)
            return
        with noting("nothing was ordered"):
            roots = trust or client.config.trust_anchors
            anchors = None if roots is None else await asyncio.to_thread(load_certificates, roots)
            in_use, problems = await asyncio.to_thread(renewals.in_use)
            if not in_use and not problems:
                raise FileError(f"{directory} holds nothing that issue saved", hint="name what issue had as --out")
        renewal = _Renewal(chosen, client, renewals, options, anchors, problems, left=max_orders)
        due = [one for one in in_use if one.not_after <= datetime.now(UTC) + limit]
        if any(one.not_after - one.not_before <= limit for one in due):
            say(f"warning: some of these certificates live no longer than {within}: each run renews them again")
        if dry_run:
            await renewal.show(due, retry_failed=retry_failed)
        else:
            await asyncio.to_thread(renewal.link, in_use)
            await renewal.run(in_use, due, retry_failed=retry_failed)
            if hook is not None:
                await renewal.deploy(hook)
        renewal.end(due, dry_run=dry_run)

    run_client(ctx, job)


def _hook(command: str | None) -> list[str] | None:
    """Return the words of a command.

    Raises:
        typer.BadParameter: it is none, or there is no such program.
    """
    if command is None:
        return None
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--deploy-hook") from None
    if not words or shutil.which(words[0]) is None:
        name = words[0] if words else command
        raise typer.BadParameter(f"there is no program {name!r}", param_hint="--deploy-hook")
    return words


@attrs.define
class _Renewal:
    """One go at renewing.

    Attributes:
        problems: what kept something from being renewed.
        left: how many certificates may still be ordered.
        counts: how many renewals of this go are in each state.
        installed: the folders whose files in use changed.
        waiting: how many certificates are due, and not ordered, since no more may be.
        stopped: whether somebody stopped it.
    """

    chosen: Settings
    client: SectigoClient
    renewals: Renewals
    options: Options
    trust: Sequence[x509.Certificate] | None
    problems: list[str]
    left: int = attrs.field(kw_only=True)
    counts: Counter[DeviceState] = attrs.field(factory=Counter)
    installed: list[str] = attrs.field(factory=list)
    waiting: int = 0
    stopped: bool = False

    def link(self, in_use: Iterable[Installed]) -> None:
        """See that each device has its link, and that nothing is left half done."""
        for one in in_use:
            try:
                self.renewals.link(one.folder)
            except FileError as error:
                self.problems.append(str(error))

    async def run(self, in_use: Iterable[Installed], due: Sequence[Installed], *, retry_failed: bool) -> None:
        """Order what is due, and fetch and install what is there."""
        for (profile_id, keys), some in self._groups(in_use, due).items():
            place = self.renewals.place(profile_id, keys)
            if self.stopped or not (some or SqliteLedger.exists(place)):
                continue
            async with open_ledger(self.client, place, self._run(profile_id, keys), only_look=False) as ledger:
                with noting("nothing was ordered"):
                    plan = await self._plan(ledger, place, some, retry_failed=retry_failed)
                    if plan.devices and self.chosen.interactive:
                        await agree(_question(plan, profile_id))
                before = {entry.device.key for entry in await ledger.entries({DeviceState.DONE})}
                issuance = Issuance(self.client, ledger, place, plan, options=self.options, trust=self.trust)
                await watch(self.chosen, issuance, plan)
                await self._install(ledger, place, _by_serial(in_use))
                self._count(await ledger.entries(), some, before)
                self.stopped = issuance.stopped
                if issuance.parked:
                    decide = self.chosen.command("reconcile", "--ledger", str(self.renewals.directory))
                    say(f"renewals of unknown outcome are looked for again next time; or decide with {decide}")

    def _count(self, entries: Iterable[Entry], due: Iterable[Installed], before: Collection[str]) -> None:
        """Count what became of what was due."""
        folders = {one.device.key: str(one.folder) for one in due}
        for entry in entries:
            folder = folders.get(entry.device.key)
            if folder is None:
                continue
            if entry.device.key not in before:
                self.counts[entry.state] += 1
                self.problems += [f"{entry.device.name}: {entry.error}"] if entry.error else []
            elif folder not in self.installed:
                there = any(Path(folder).glob("generation-*"))
                way_out = "turn it" if there else "the new ones are gone from there: put them back from a copy"
                self.problems.append(
                    f"{folder} was renewed before, and its link leads to the former files: {way_out}"
                )

    async def show(self, due: Sequence[Installed], *, retry_failed: bool) -> None:
        """Find out what would be ordered."""
        for (profile_id, keys), some in self._groups(due, due).items():
            place = self.renewals.place(profile_id, keys)
            async with open_ledger(self.client, place, self._run(profile_id, keys), only_look=True) as ledger:
                plan = await self._plan(ledger, place, some, retry_failed=retry_failed)
            self.counts[DeviceState.PLANNED] += len(plan.devices)
            self.counts[DeviceState.ORDERED] += plan.ordered
            self.counts[DeviceState.UNKNOWN] += len(plan.unknown)

    async def _plan(self, ledger: SqliteLedger, place: Path, due: Sequence[Installed], *, retry_failed: bool) -> Plan:
        """Return what is to be ordered: nothing, where the profile cannot be ordered under any more."""
        listed = DeviceList(devices=tuple(one.device for one in due), problems=(), empty_lines=0)
        try:
            plan = await make_plan(self.client, ledger, place, listed, retry_failed=retry_failed)
        except (BadRequestError, NotFoundError, PermissionDeniedError) as error:
            self.problems += [f"{one.folder} cannot be renewed: {error}" for one in due] or [str(error)]
            return Plan()
        folders = {one.device.line: one.folder for one in due}
        self.problems += [f"{folders[problem.line]}: {problem.message}" for problem in plan.problems]
        plan = plan.without_problems()
        most = self.left if plan.balance is None else min(self.left, plan.balance)
        if plan.lacking:
            self.problems.append(f"{len(plan.devices):,} licences are needed, and {plan.balance:,} are left")
        self.waiting += max(0, len(plan.devices) - most)
        plan = plan.first(most)
        self.left -= len(plan.devices)
        return plan

    async def _install(self, ledger: SqliteLedger, place: Path, folders: Mapping[str, Mapping[str, Path]]) -> None:
        for entry in await ledger.entries({DeviceState.DONE}):
            some = folders.get(entry.device.key, {})
            # Of copies, the one that has the name under which it was ordered.
            now = some.get(entry.device.name) or next(iter(some.values()), None)
            try:
                folder = await asyncio.to_thread(self.renewals.install, place, entry.device, now)
            except FileError as error:
                self.problems.append(f"{error}. {error.hint}")
            else:
                self.installed += [] if folder is None else [str(folder)]

    async def deploy(self, hook: Sequence[str]) -> None:
        """Run the hook, if anything changed since it last went well."""
        changed = await asyncio.to_thread(self.renewals.changed)
        if not changed:
            return
        with noting("the deploy hook runs again next time"):
            problem = await run_hook(hook, "".join(f"{folder}\n" for folder in changed).encode())
        if problem:
            self.problems.append(f"the deploy hook {problem}; it runs again next time")
        else:
            await asyncio.to_thread(self.renewals.forget_changed)

    def end(self, due: Sequence[Installed], *, dry_run: bool) -> None:
        """Tell what was done, and end with the exit code for it.

        Raises:
            typer.Exit: not all is done.
        """
        for problem in self.problems:
            say(problem)
        document = {name: self.counts[state] for state, name in NAMES.items()}
        self.chosen.output.emit(
            {"due": len(due), **document, "waiting": self.waiting, "installed": self.installed}
            | {"problems": len(self.problems)}
        )
        if self.waiting:
            say(f"{self.waiting:,} more are due: raise --max-orders, or run it again")
        if dry_run:
            return
        code = exit_codes.INTERRUPTED if self.stopped else exit_code(self.counts)
        if code == exit_codes.DONE and self.problems:
            code = exit_codes.PARTLY_DONE
        elif code == exit_codes.DONE and self.waiting:
            code = exit_codes.PENDING
        if code in {exit_codes.PENDING, exit_codes.INTERRUPTED, exit_codes.OUTCOME_UNKNOWN}:
            say(f"{in_words(self.counts)}; {GOES_ON}")
        if code != exit_codes.DONE:
            raise typer.Exit(code)

    def _run(self, profile_id: int, keys: Keys) -> Run:
        endpoint, username = self.client.config.endpoint, self.client.username or ""
        return Run(endpoint=endpoint, username=username, profile_id=profile_id, keys=keys)

    def _groups(
        self, in_use: Iterable[Installed], due: Sequence[Installed]
    ) -> dict[tuple[int, Keys], list[Installed]]:
        """Return what is due by what its run has in common; take note of what cannot be renewed from here."""
        groups: dict[tuple[int, Keys], list[Installed]] = {}
        for one in in_use:
            here = one.endpoint == self.client.config.endpoint
            if here and one.keys is not None:
                groups.setdefault((one.profile_id, one.keys), []).extend([one] if one in due else [])
            elif one in due:
                why = "its key is not here: issue takes a new CSR" if here else f"it was issued by {one.endpoint}"
                self.problems.append(f"{one.folder} cannot be renewed: {why}")
        return groups


def _by_serial(in_use: Iterable[Installed]) -> dict[str, dict[str, Path]]:
    """Return the folders of devices by their names, by the certificates that are in use there."""
    found: dict[str, dict[str, Path]] = {}
    for one in in_use:
        found.setdefault(one.device.key, {})[one.folder.name] = one.folder
    return found


def _question(plan: Plan, profile_id: int) -> str:
    count = len(plan.devices)
    left = "" if plan.balance is None else f" of the {plan.balance:,} left"
    noun = "certificate" if count == 1 else "certificates"
    return f"Renew {count:,} {noun} under profile {profile_id}? It spends a licence{left} for each."


async def _revoke(
    chosen: Settings, client: SectigoClient, renewals: Renewals, age: timedelta, *, dry_run: bool
) -> None:
    """Revoke the certificates whose place others took long enough ago.

    Raises:
        typer.Exit: not all could be revoked.
    """
    found, problems = await asyncio.to_thread(renewals.superseded, after=age, now=datetime.now(UTC))
    problems += [
        f"{one.generation}: it was issued by {one.endpoint}"
        for one in found
        if one.endpoint != client.config.endpoint
    ]
    found = [one for one in found if one.endpoint == client.config.endpoint]
    if found and not dry_run and chosen.interactive:
        question = f"Revoke {len(found):,} superseded certificates? It cannot be undone."
        if not await confirm(question, default=False):
            say("nothing was revoked")
            raise typer.Exit(exit_codes.FAILED)
    revoked: list[Superseded] = []
    for one in () if dry_run else found:
        try:
            await revoke_once(client, one.profile_id, one.serial_number, RevocationReason.SUPERSEDED)
        except (BadRequestError, NotFoundError) as error:
            problems.append(f"{one.generation}: {error}")
            continue
        await asyncio.to_thread(renewals.note_revoked, one)
        chosen.output.note(f"revoked {one.serial_number} ({one.common_name})")
        revoked.append(one)
    documents = [
        {
            "folder": str(one.generation),
            "commonName": one.common_name,
            "serialNumber": one.serial_number,
            "notAfter": one.not_after.isoformat(),
        }
        for one in (found if dry_run else revoked)
    ]
    chosen.output.emit(documents, _COLUMNS)
    for problem in problems:
        say(problem)
    if problems:
        raise typer.Exit(exit_codes.PARTLY_DONE)


def register(app: typer.Typer) -> None:
    """Add this command to `app`."""
    add(app, renew)
