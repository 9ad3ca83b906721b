"""The ledgers of bulk runs: ledger status, ledger audit, ledger rebuild."""

import asyncio
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from sectigo_async import OrderState, SectigoClient
from sectigo_async.errors import LedgerDamagedError, LedgerError
from sectigo_async.issuance import (
    DeviceState,
    Finding,
    Keys,
    LedgerCopy,
    Run,
    SqliteLedger,
    audit_ledger,
    ledgers_of,
    read_ledger,
    rebuild_ledger,
)
from sectigo_async_cli import exit_codes
from sectigo_async_cli.commands.expiring import duration
from sectigo_async_cli.context import settings
from sectigo_async_cli.issuing import NAMES, check_login, in_words, open_ledger, read_list, tell_problems
from sectigo_async_cli.options import WaitLimit
from sectigo_async_cli.options import register as add
from sectigo_async_cli.run import noting, run, run_client
from sectigo_async_cli.streams import say
from sectigo_async_cli.targets import check_profile_is_named, profile_target

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


def status(
    ctx: typer.Context,
    *,
    directory: Directory,
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

    async def job() -> None:
        places = await asyncio.to_thread(ledgers_of, directory) or [directory]
        copies = {place: await read_ledger(place) for place in places}
        chosen.output.emit([_status(place, copy) for place, copy in copies.items()], _STATUS_COLUMNS)
        late = False
        for place, copy in copies.items():
            oldest = _oldest_open(copy)
            if oldest is not None and datetime.now(UTC) - oldest > limit:
                late = True
                count = sum(entry.state in _OPEN for entry in copy.entries)
                since = f"{oldest:%Y-%m-%d %H:%M} UTC"
                say(f"{place}: {count:,} devices are ordered, or may be, and not saved, the first since {since}")
        if check and late:
            raise typer.Exit(exit_codes.PARTLY_DONE)

    run(chosen, job)


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
    directory: Directory,
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

    async def job(client: SectigoClient) -> None:
        check_login(client, (await read_ledger(directory)).run)
        found = await audit_ledger(client, directory, after=after, timeout=timeout)
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
    timeout: WaitLimit = 3600.0,
) -> None:
    """Make a ledger anew that was lost or damaged, from the folders and from what the service has. Orders nothing.

    A damaged ledger is kept beside the new one. What a ledger knows already stays as it is.

    Example: sectigo-async ledger rebuild certs/ devices.csv -p 42 --after 4711
    """
    chosen = settings(ctx)

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
            kept = await _set_aside(directory)
            async with open_ledger(client, directory, run, only_look=False) as ledger:
                base = None if file == "-" else Path(file).parent
                rebuilt = await rebuild_ledger(
                    client, ledger, directory, listed, base=base, after=after, timeout=timeout
                )
        tell_problems(rebuilt.problems)
        if rebuilt.problems:
            say("error: nothing was changed. Mend these and run the same command again.")
            raise typer.Exit(exit_codes.USAGE)
        document: dict[str, object] = {NAMES[state]: rebuilt.states.get(state, 0) for state in _TAKEN_IN}
        more = {"known": rebuilt.known, "untouched": rebuilt.untouched, "damaged": kept and str(kept)}
        chosen.output.emit(document | more)
        chosen.output.note(
            f"taken in: {in_words(rebuilt.states)}; known before: {rebuilt.known:,}; never ordered from here:"
            f" {rebuilt.untouched:,}"
        )
        if rebuilt.states.get(DeviceState.UNKNOWN):
            say("what is unknown may have been ordered: the same issue command looks for it again")
            raise typer.Exit(exit_codes.OUTCOME_UNKNOWN)

    run_client(ctx, job)


_TAKEN_IN = (DeviceState.DONE, DeviceState.VERIFY_FAILED, DeviceState.ORDERED, DeviceState.UNKNOWN)


async def _set_aside(directory: Path) -> Path | None:
    """Move a ledger away where it is damaged, and say so."""
    try:
        await read_ledger(directory)
    except LedgerDamagedError as error:
        kept = await SqliteLedger.set_aside(directory)
        say(f"{error}. It is kept in {kept}")
        return kept
    except LedgerError:
        pass  # There is none; or whoever opens it is told what else it is.
    return None


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
