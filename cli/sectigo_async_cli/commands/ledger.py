"""The ledgers of bulk runs: ledger status, ledger audit, ledger rebuild."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import attrs
import typer
from cryptography import x509

from sectigo_async import OrderState, SectigoClient
from sectigo_async.errors import LedgerDamagedError, LedgerError
from sectigo_async.issuance import (
    Device,
    DeviceList,
    DeviceState,
    Finding,
    Keys,
    LedgerCopy,
    LineProblem,
    Rebuilt,
    Renewals,
    Run,
    SqliteLedger,
    audit_ledger,
    ledgers_of,
    read_ledger,
    rebuild_ledger,
)
from sectigo_async.pki import load_certificates
from sectigo_async_cli import exit_codes
from sectigo_async_cli.commands.expiring import duration
from sectigo_async_cli.context import Settings, settings
from sectigo_async_cli.fleets import LedgerUrl, database_of, open_place, place_of
from sectigo_async_cli.issuing import NAMES, check_login, in_words, read_list, tell_problems
from sectigo_async_cli.options import WaitLimit
from sectigo_async_cli.options import register as add
from sectigo_async_cli.run import noting, report, run, run_client
from sectigo_async_cli.streams import say
from sectigo_async_cli.targets import check_profile_is_named, profile_target

if TYPE_CHECKING:
    from sectigo_async.fleet import Database

_OPEN = {DeviceState.UNKNOWN, DeviceState.ORDERED}
_STATUS_COLUMNS = {
    "directory": "Directory",
    **{name: state.value.capitalize() for state, name in NAMES.items()},
    "oldestOpen": "Oldest open order",
}
_AUDIT_COLUMNS = {
    "batchId": "Batch",
    "batchName": "Name",
    "size": "Size",
    "created": "Created",
    "reason": "What it is",
}

Directory = Annotated[Path, typer.Argument(metavar="DIR", help="What issue had as --out.")]
Place = Annotated[
    str | None,
    typer.Argument(metavar="DIR|URL", help="What issue had as --out, or as --ledger; SECTIGO_LEDGER, if left out."),
]


def status(
    ctx: typer.Context,
    *,
    which: Place = None,
    check: Annotated[
        bool, typer.Option("--check", help="Exit with 5 if what may be paid for is not saved after --max-age.")
    ] = False,
    max_age: Annotated[
        str | None, typer.Option(help="With --check: how long an order may take, like 12h, 2d, 1w; 1d if left out.")
    ] = None,
) -> None:
    """Tell how the devices of a bulk run, and of its renewals, stand. It asks no service; the run may be going on.

    Example: sectigo-async ledger status certs/ --check --max-age 2d
    """
    chosen = settings(ctx)
    limit = duration(max_age or "1d", "--max-age")
    if max_age is not None and not check:
        raise typer.BadParameter("it goes with --check", param_hint="--max-age")

    where = place_of(chosen, which, "DIR|URL")

    async def job() -> None:
        if not isinstance(where, Path):
            await _status_of_fleet(chosen, where, limit if check else None)
            return
        places = await asyncio.to_thread(ledgers_of, where) or [where]
        copies: dict[Path, LedgerCopy] = {}
        unreadable: list[LedgerError] = []
        for place in places:
            try:
                copies[place] = await read_ledger(place)
            except LedgerError as error:
                unreadable.append(error)
        if len(unreadable) == len(places):
            raise unreadable[0]
        chosen.output.emit([_status(place, copy) for place, copy in copies.items()], _STATUS_COLUMNS)
        late = False
        for place, copy in copies.items():
            oldest = _oldest_open(copy)
            if oldest is not None and datetime.now(UTC) - oldest > limit:
                late = True
                count = sum(entry.state in _OPEN for entry in copy.entries)
                since = f"{oldest:%Y-%m-%d %H:%M} UTC"
                say(f"{place}: {count:,} devices are ordered, or may be, and not saved, the first since {since}")
        codes = [report(error, chosen) for error in unreadable]
        codes += [exit_codes.PARTLY_DONE] if check and late else []
        if codes:
            raise typer.Exit(codes[0])

    run(chosen, job)


async def _status_of_fleet(chosen: Settings, database: "Database", limit: timedelta | None) -> None:
    """Tell how a run on several machines stands.

    Raises:
        typer.Exit: what may be paid for is not saved after `limit`.
    """
    from sectigo_async.fleet import read_fleet

    found = await read_fleet(database)
    counts, oldest = found.standing.counts, found.oldest_open
    document = {
        "directory": str(database),
        "endpoint": found.run.endpoint,
        "username": found.run.username,
        "profileId": found.run.profile_id,
        "keys": found.run.keys.value,
        "inUse": found.standing.workers > 0,
        **{name: counts[state] for state, name in NAMES.items()},
        "unknownOrders": list(found.unknown_orders),
        "oldestOpen": oldest.isoformat() if oldest else None,
        "workers": found.standing.workers,
        "openChunks": found.standing.open_chunks,
        "halted": found.standing.halted,
    }
    chosen.output.emit([document], _STATUS_COLUMNS | {"workers": "Workers"})
    if found.standing.halted:
        say(f"no more is ordered: {found.standing.halted}")
    if limit is not None and oldest is not None and datetime.now(UTC) - oldest > limit:
        count = sum(counts[state] for state in _OPEN)
        since = f"{oldest:%Y-%m-%d %H:%M} UTC"
        say(f"{database}: {count:,} devices are ordered, or may be, and not saved, the first since {since}")
        raise typer.Exit(exit_codes.PARTLY_DONE)


def _status(place: Path, copy: LedgerCopy) -> dict[str, object]:
    counts = Counter(entry.state for entry in copy.entries)
    oldest = _oldest_open(copy)
    return {
        "directory": str(place),
        "endpoint": copy.run.endpoint,
        "username": copy.run.username,
        "profileId": copy.run.profile_id,
        "keys": copy.run.keys.value,
        "inUse": copy.in_use,
        **{name: counts[state] for state, name in NAMES.items()},
        "unknownOrders": [order.order_id for order in copy.orders if order.state is OrderState.UNKNOWN],
        "oldestOpen": oldest.isoformat() if oldest else None,
    }


def _oldest_open(copy: LedgerCopy) -> datetime | None:
    """Return when the oldest order was sent that may be paid for and is not saved."""
    wanted = {entry.order_id for entry in copy.entries if entry.state in _OPEN}
    return min((order.sent_at for order in copy.orders if order.order_id in wanted), default=None)


def audit(
    ctx: typer.Context,
    *,
    which: Place = None,
    after: Annotated[
        int | None, typer.Option(min=0, help="Begin after this batch id; by what the ledger knows, if left out.")
    ] = None,
    timeout: WaitLimit = 3600.0,
) -> None:
    """List the batches at the service that no device of a bulk run owns. Nothing is ordered or changed.

    It looks at one batch id after another. Exit code 5 says that something was paid for twice.

    Example: sectigo-async ledger audit certs/
    """
    chosen = settings(ctx)
    where = place_of(chosen, which, "DIR|URL")

    async def job(client: SectigoClient) -> None:
        if isinstance(where, Path):
            check_login(client, (await read_ledger(where)).run)
            found = await audit_ledger(client, where, after=after, timeout=timeout)
        else:
            from sectigo_async.fleet import audit_fleet, read_fleet

            check_login(client, (await read_fleet(where)).run)
            found = await audit_fleet(client, where, after=after, timeout=timeout)
        chosen.output.emit([_finding(one) for one in found], _AUDIT_COLUMNS, prose=("reason",))
        twice = [one for one in found if one.is_paid_twice]
        if twice:
            say(f"{len(twice):,} batches were ordered for devices that have another: ask the service for the money")
            raise typer.Exit(exit_codes.PARTLY_DONE)
        if any(one.order is not None for one in found):
            raise typer.Exit(exit_codes.OUTCOME_UNKNOWN)

    run_client(ctx, job)


def _finding(one: Finding) -> dict[str, object]:
    created = one.batch.creation_date
    return {
        "batchId": one.batch.batch_id,
        "batchName": one.batch.batch_name,
        "size": one.batch.size,
        "created": created.isoformat() if created else None,
        "orderId": one.order.order_id if one.order else None,
        "devices": list(one.devices),
        "paidTwice": one.is_paid_twice,
        "reason": one.reason,
    }


def rebuild(
    ctx: typer.Context,
    *,
    directory: Directory,
    file: Annotated[str, typer.Argument(metavar="FILE", help="The devices, as issue had them.")],
    profile: Annotated[
        int | None, typer.Option("--profile", "-p", min=0, help="Id of the profile they were ordered under.")
    ] = None,
    keys: Annotated[Keys, typer.Option(help="Where their private keys were made.")] = Keys.LOCAL,
    encoding: Annotated[str | None, typer.Option(help="Encoding of FILE where it is not UTF-8, e.g. cp1252.")] = None,
    after: Annotated[
        int | None,
        typer.Option(min=0, help="A batch id older than the run: what is not saved is looked for from there."),
    ] = None,
    trust: Annotated[Path | None, typer.Option(help="PEM file with the roots that chains must lead to.")] = None,
    ledger: LedgerUrl = None,
    timeout: WaitLimit = 3600.0,
) -> None:
    """Make a ledger anew that was lost or damaged, from the folders and from what the service has. Orders nothing.

    A damaged ledger is kept beside the new one. What a ledger knows already stays as it is.

    Example: sectigo-async ledger rebuild certs/ devices.csv -p 42 --after 4711
    """
    chosen = settings(ctx)
    database = database_of(chosen, ledger)

    async def job(client: SectigoClient) -> None:
        with noting("nothing was ordered"):
            check_profile_is_named(chosen, profile, "--profile")
            listed = await read_list(file, encoding)
            target = await profile_target(chosen, client, profile, "--profile")
            run = Run(
                endpoint=client.config.endpoint,
                username=client.username or "",
                profile_id=target.profile_id,
                keys=keys,
            )
            roots = trust or client.config.trust_anchors
            anchors = None if roots is None else await asyncio.to_thread(load_certificates, roots)
            base = None if file == "-" else Path(file).parent
            rebuilding = _Rebuilding(client, after, anchors, timeout)
            await rebuilding.of(directory, run, listed, base, database)
            if not rebuilding.problems and database is None:
                await rebuilding.of_renewals(directory)
        tell_problems(rebuilding.problems)
        if rebuilding.problems:
            say("error: mend these and run the same command again.")
            raise typer.Exit(exit_codes.USAGE)
        states = rebuilding.states
        document: dict[str, object] = {NAMES[state]: states[state] for state in _TAKEN_IN}
        known, untouched = rebuilding.known, rebuilding.untouched
        chosen.output.emit(document | {"known": known, "untouched": untouched, "damaged": rebuilding.kept})
        chosen.output.note(
            f"taken in: {in_words(states)}; known before: {known:,}; never ordered from here: {untouched:,}"
        )
        if states[DeviceState.UNKNOWN]:
            say("what is unknown may have been ordered: the same issue command looks for it again")
            raise typer.Exit(exit_codes.OUTCOME_UNKNOWN)

    run_client(ctx, job)


_TAKEN_IN = (DeviceState.DONE, DeviceState.VERIFY_FAILED, DeviceState.ORDERED, DeviceState.UNKNOWN)


@attrs.define
class _Rebuilding:
    """Rebuilds the ledger of a run, and those of its renewals.

    Attributes:
        states: how many devices were taken in, by their state.
        known: how many were known before.
        untouched: how many of the list were never ordered from here.
        problems: what is wrong with the list.
        kept: where damaged ledgers are kept.
    """

    client: SectigoClient
    after: int | None
    trust: Sequence[x509.Certificate] | None
    timeout: float
    states: Counter[DeviceState] = attrs.field(factory=Counter)
    known: int = 0
    untouched: int = 0
    problems: tuple[LineProblem, ...] = ()
    kept: list[str] = attrs.field(factory=list)

    async def of(
        self,
        place: Path,
        run: Run,
        listed: DeviceList,
        base: Path | None = None,
        database: "Database | None" = None,
    ) -> Rebuilt:
        """Rebuild one, in a database where one is given; put it aside before where its file is damaged."""
        if database is None:
            await self._set_aside(place)
        async with open_place(self.client, database or place, run) as ledger:
            rebuilt = await rebuild_ledger(
                self.client,
                ledger,
                place,
                listed,
                base=base,
                after=self.after,
                trust=self.trust,
                timeout=self.timeout,
            )
        self.problems += rebuilt.problems
        self.states.update(rebuilt.states)
        self.known += rebuilt.known
        self.untouched += rebuilt.untouched
        return rebuilt

    async def _set_aside(self, place: Path) -> None:
        try:
            await read_ledger(place)
        except LedgerDamagedError as error:
            kept = await SqliteLedger.set_aside(place)
            say(f"{error}. It is kept in {kept}")
            self.kept.append(str(kept))
        except LedgerError:
            pass  # There is none; or whoever opens it is told what else it is.

    async def of_renewals(self, directory: Path) -> None:
        """Rebuild those of renewals: what was begun for certificates that are in use."""
        renewals = Renewals(directory)
        in_use, _ = await asyncio.to_thread(renewals.in_use)
        groups: dict[tuple[int, Keys], list[Device]] = {}
        seen: set[str] = set()
        for one in in_use:
            here = one.keys is not None and one.endpoint == self.client.config.endpoint
            if here and one.keys is not None and one.device.key not in seen:
                seen.add(one.device.key)
                groups.setdefault((one.profile_id, one.keys), []).append(one.device)
        for (profile_id, keys), devices in groups.items():
            place = renewals.place(profile_id, keys)
            if not place.is_dir():
                continue
            endpoint, username = self.client.config.endpoint, self.client.username or ""
            run = Run(endpoint=endpoint, username=username, profile_id=profile_id, keys=keys)
            listed = DeviceList(devices=tuple(devices), problems=(), empty_lines=0)
            rebuilt = await self.of(place, run, listed)
            self.untouched -= rebuilt.untouched


def register(app: typer.Typer) -> None:
    """Add these commands to `app`."""
    group = typer.Typer(
        name="ledger",
        help="Look at the ledger of a bulk run, or make it anew.\n\nExample: sectigo-async ledger status certs/",
        short_help="Look at the ledger of a bulk run, or make it anew.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    for command in (status, audit, rebuild):
        add(group, command)
    app.add_typer(group)
