"""Bulk issuance: issue."""

import asyncio
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sectigo_async import SectigoClient
from sectigo_async.errors import InvalidArgumentError
from sectigo_async.files import make_directory
from sectigo_async.issuance import (
    Access,
    DeviceList,
    DeviceState,
    Issuance,
    Keys,
    Ledger,
    Options,
    Plan,
    Run,
    make_plan,
    write_reports,
)
from sectigo_async.pki import load_certificates
from sectigo_async_cli import exit_codes
from sectigo_async_cli.context import Settings, settings
from sectigo_async_cli.fleets import LedgerUrl, database_of, open_place
from sectigo_async_cli.issuing import (
    GOES_ON,
    NAMES,
    WORKERS_GO_ON,
    Going,
    OnAmbiguous,
    WhenAmbiguous,
    exit_code,
    in_words,
    read_list,
    tell_problems,
    watch,
)
from sectigo_async_cli.options import Settle, WaitLimit
from sectigo_async_cli.options import register as add
from sectigo_async_cli.ordering import agree
from sectigo_async_cli.run import noting, run_client
from sectigo_async_cli.streams import say
from sectigo_async_cli.targets import check_profile_is_named, profile_target

if TYPE_CHECKING:
    from cryptography import x509

    from sectigo_async.fleet import Database, FleetRun

_MOST_TOLD = 20


def issue(
    ctx: typer.Context,
    *,
    file: Annotated[str, typer.Argument(metavar="FILE", help="Devices as CSV or JSON Lines; - for standard input.")],
    profile: Annotated[
        int | None, typer.Option("--profile", "-p", min=0, help="Id of the profile to order under.")
    ] = None,
    out: Annotated[
        Path, typer.Option(help="Where the folders of the devices are kept, and the ledger unless --ledger is given.")
    ],
    ledger: LedgerUrl = None,
    keys: Annotated[
        Keys, typer.Option(help="Where private keys are made: local sends CSRs, server brings PKCS#12.")
    ] = Keys.LOCAL,
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, max=5000, help="CSRs in one order; 25 until one has succeeded, then 500, if left out."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the list, tell what would be ordered, and order nothing.")
    ] = False,
    skip_invalid: Annotated[
        bool, typer.Option("--skip-invalid", help="Order the lines with which nothing is wrong.")
    ] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Order again for devices that failed before.")
    ] = False,
    encoding: Annotated[str | None, typer.Option(help="Encoding of FILE where it is not UTF-8, e.g. cp1252.")] = None,
    trust: Annotated[Path | None, typer.Option(help="PEM file with the roots that chains must lead to.")] = None,
    mode: Annotated[str, typer.Option(help="Mode of the files: 0600, or 0640 for --group, too.")] = "0600",
    group: Annotated[str | None, typer.Option(help="Group that may read the files, with --mode 0640.")] = None,
    settle: Settle = 900.0,
    on_ambiguous: WhenAmbiguous = OnAmbiguous.WAIT,
    max_open: Annotated[int, typer.Option(min=1, help="Devices that are ordered and not saved at most.")] = 2000,
    max_concurrency: Annotated[int, typer.Option(min=1, max=100, help="Calls under way at once at most.")] = 20,
    timeout: WaitLimit = 3600.0,
) -> None:
    """Order certificates for a list of devices, save and check them. This spends a licence for each.

    The same command, run again after anything, goes on where it stopped, and orders nothing twice. Each device gets
    a folder in --out, with key, certificate and chain. The header of FILE names parameters of the profile;
    common_name is needed, and dns_names, id and csr are known, too.

    With --ledger it hands the list to workers, looks on, and may be left: see `sectigo-async worker`.

    Example: sectigo-async issue devices.csv -p 42 --out certs/
    """
    chosen = settings(ctx)
    database = database_of(chosen, ledger)
    access = _access(mode, group)
    options = Options(
        batch_size=batch_size,
        at_once=max_concurrency,
        most_open=max_open,
        settle=settle,
        resubmit=on_ambiguous is OnAmbiguous.RESUBMIT,
        timeout=timeout,
        access=access,
    )

    async def job(client: SectigoClient) -> None:
        with noting("nothing was ordered"):
            check_profile_is_named(chosen, profile, "--profile")
            listed = await read_list(file, encoding)
            roots = trust or client.config.trust_anchors
            anchors = None if roots is None else await asyncio.to_thread(load_certificates, roots)
            target = await profile_target(chosen, client, profile, "--profile")
        run = Run(
            endpoint=client.config.endpoint, username=client.username or "", profile_id=target.profile_id, keys=keys
        )
        if not dry_run:
            await asyncio.to_thread(make_directory, out, access)
        async with open_place(client, database or out, run, only_look=dry_run) as opened:
            with noting("nothing was ordered"):
                if database is not None and not dry_run:
                    await _see_where_keys_are(opened, out)
                base = None if file == "-" else Path(file).parent
                plan = await make_plan(client, opened, out, listed, base=base, retry_failed=retry_failed)
                plan = _judge(chosen, listed, plan, skip_invalid=skip_invalid, dry_run=dry_run)
                _tell(chosen, listed, plan)
                if dry_run:
                    chosen.output.emit(_plan_document(plan))
                    return
                if plan.devices and chosen.interactive:
                    await agree(_question(plan, target.profile_id))
            issuance = (
                Issuance(client, opened, out, plan, options=options, trust=anchors)
                if database is None
                else _fleet_run(database, opened, out, plan, options=options, trust=anchors)
            )
            try:
                await watch(chosen, issuance, plan, note=GOES_ON if database is None else WORKERS_GO_ON)
            finally:
                left_out = {entry.device.key for entry in plan.left_out}
                entries = [entry for entry in await opened.entries() if entry.device.key not in left_out]
                await asyncio.to_thread(write_reports, out, entries, access=access)
        _end(chosen, issuance, plan, out, database)

    run_client(ctx, job)


async def _see_where_keys_are(opened: Ledger, out: Path) -> None:
    from sectigo_async.fleet import PostgresLedger, keys_are_kept_in

    assert isinstance(opened, PostgresLedger)
    await keys_are_kept_in(opened, out)


def _fleet_run(
    database: "Database",
    opened: Ledger,
    out: Path,
    plan: Plan,
    *,
    options: Options,
    trust: "Iterable[x509.Certificate] | None",
) -> "FleetRun":
    """Return the run of a plan that workers are to carry out."""
    from sectigo_async.fleet import FleetRun, PostgresLedger

    assert isinstance(opened, PostgresLedger)
    return FleetRun(database, opened, out, plan, options=options, trust=trust)


def _access(mode: str, group: str | None) -> Access:
    """Return who may read what is written.

    Raises:
        typer.BadParameter: there is no such group, or the mode is none for keys.
    """
    try:
        number = int(mode, 8)
    except ValueError:
        raise typer.BadParameter(f"{mode!r} is no mode; use 0600 or 0640", param_hint="--mode") from None
    try:
        return Access(mode=number, group=None if group is None else _group_id(group))
    except InvalidArgumentError as error:
        raise typer.BadParameter(f"{error}: {error.hint}", param_hint="--mode") from None


def _group_id(group: str) -> int:
    try:
        import grp

        return grp.getgrnam(group).gr_gid
    except (ImportError, KeyError):
        raise typer.BadParameter(f"there is no group {group!r}", param_hint="--group") from None


def _judge(chosen: Settings, listed: DeviceList, plan: Plan, *, skip_invalid: bool, dry_run: bool) -> Plan:
    """Tell of all that speaks against a plan, and return it where it can be carried out.

    Raises:
        typer.Exit: it cannot.
        InvalidArgumentError: there are too few licences.
    """
    tell_problems(plan.problems)
    if plan.problems and not skip_invalid:
        lines = len({problem.line for problem in plan.problems})
        total = len({problem.line for problem in listed.problems} | {device.line for device in listed.devices})
        say(
            f"error: {lines:,} of {total:,} lines cannot be ordered; nothing was ordered. Mend them and run the same"
            " command again, or order the others with --skip-invalid."
        )
        if dry_run:
            chosen.output.emit(_plan_document(plan))
        raise typer.Exit(exit_codes.USAGE)
    plan = plan.without_problems()
    if plan.lacking:
        raise InvalidArgumentError(
            f"{len(plan.devices):,} licences are needed, and {plan.balance:,} are left",
            hint="buy more, or shorten the list",
        )
    return plan


def _tell(chosen: Settings, listed: DeviceList, plan: Plan) -> None:
    """Say what a run is going to do."""
    parts = [f"{len(plan.devices):,} to order"]
    parts += [f"{len(plan.changed):,} of them changed"] if plan.changed else []
    parts += [f"{plan.namesakes:,} of them with the common name of one that is done"] if plan.namesakes else []
    parts += [f"{plan.ordered:,} ordered before"] if plan.ordered else []
    parts += [f"{len(plan.unknown):,} of unknown outcome"] if plan.unknown else []
    parts += [f"{plan.done:,} done"] if plan.done else []
    parts += [f"{plan.verify_failed:,} to check again"] if plan.verify_failed else []
    parts += [f"{len(plan.failed):,} failed before (--retry-failed orders again)"] if plan.failed else []
    parts += [f"{len(plan.left_out):,} of an earlier list left out"] if plan.left_out else []
    parts += [f"{listed.empty_lines:,} empty lines"] if listed.empty_lines else []
    left = "" if plan.balance is None else f"; {plan.balance:,} licences left"
    chosen.output.note(f"{', '.join(parts)}{left}")
    for entry in plan.gone[:_MOST_TOLD]:
        say(f"{entry.device.name} is done, but its key or its certificate is gone: put its folder back from a copy")
    if len(plan.gone) > _MOST_TOLD:
        say(f"and {len(plan.gone) - _MOST_TOLD:,} more like these")
    if plan.not_checked:
        names = ", ".join(plan.not_checked)
        chosen.output.note(f"the profile's rule for {names} cannot be checked here")


def _plan_document(plan: Plan) -> dict[str, object]:
    return {
        "toOrder": [device.name for device in plan.devices],
        "changed": [device.name for device in plan.changed],
        "failed": [entry.device.name for entry in plan.failed],
        "ordered": plan.ordered,
        "unknown": len(plan.unknown),
        "done": plan.done,
        "verifyFailed": plan.verify_failed,
        "gone": [entry.device.name for entry in plan.gone],
        "leftOut": [entry.device.name for entry in plan.left_out],
        "problems": [{"line": problem.line, "message": problem.message} for problem in plan.problems],
        "balance": plan.balance,
    }


def _question(plan: Plan, profile_id: int) -> str:
    count = len(plan.devices)
    left = "" if plan.balance is None else f" of the {plan.balance:,} left"
    noun = "licence" if count == 1 else "licences"
    return f"Order under profile {profile_id}? It spends {count:,} {noun}{left}."


def _end(chosen: Settings, issuance: Going, plan: Plan, out: Path, database: "Database | None") -> None:
    """Tell how a run ended, and end with the exit code for it.

    Raises:
        typer.Exit: not all is done.
    """
    counts = issuance.counts - Counter(entry.state for entry in plan.left_out)
    document: dict[str, object] = {name: counts[state] for state, name in NAMES.items()}
    document |= {"unknownOrders": [order.order_id for order in issuance.parked], "halted": issuance.halted}
    chosen.output.emit(document | {"results": str(out / "results.csv")})
    code = exit_codes.INTERRUPTED if issuance.stopped else exit_code(counts)
    code = exit_codes.PARTLY_DONE if code == exit_codes.DONE and plan.gone else code
    if code == exit_codes.DONE:
        return
    say(f"{in_words(counts)}{f'; {issuance.halted}' if issuance.halted else ''}")
    if counts[DeviceState.FAILED] or counts[DeviceState.VERIFY_FAILED]:
        say(f"what failed, and why, is in {out / 'errors.csv'}")
    if counts[DeviceState.UNKNOWN]:
        ledger = chosen.command("reconcile", "--ledger", str(database or out))
        say(f"do not order again what is unknown: the same command looks for it again; or decide with {ledger}")
    if code in {exit_codes.PENDING, exit_codes.INTERRUPTED}:
        say(GOES_ON if database is None or code == exit_codes.PENDING else WORKERS_GO_ON)
    raise typer.Exit(code)


def register(app: typer.Typer) -> None:
    """Add this command to `app`."""
    add(app, issue)
