"""What became of orders whose outcome is unknown: reconcile."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sectigo_async import Order, OrderState, Reconciliation, SectigoClient
from sectigo_async.errors import LedgerError
from sectigo_async.issuance import ledgers_of, read_ledger
from sectigo_async_cli import exit_codes
from sectigo_async_cli.commands.batches import ORDER_COLUMNS
from sectigo_async_cli.context import Settings, settings
from sectigo_async_cli.fleets import open_place, place_of
from sectigo_async_cli.issuing import check_login
from sectigo_async_cli.options import Settle, WaitLimit
from sectigo_async_cli.options import register as add
from sectigo_async_cli.run import noting, report, run_client
from sectigo_async_cli.streams import say

if TYPE_CHECKING:
    from sectigo_async.fleet import Database
    from sectigo_async.resources import Batches

    Place = Path | Database

_COLUMNS = {name: ORDER_COLUMNS[name] for name in ("orderId", "state", "batchId")} | {"reason": "Why"}


def reconcile(
    ctx: typer.Context,
    *,
    order_ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="ORDER...", help="Orders that `batches` lists; all when left out."),
    ] = None,
    settle: Settle = 900.0,
    scan: Annotated[int, typer.Option(min=1, help="How many batch ids are looked at for one order.")] = 1000,
    timeout: WaitLimit = 600.0,
    batch: Annotated[
        int | None, typer.Option(min=0, help="Say which batch the order is, where you have found out.")
    ] = None,
    not_ordered: Annotated[
        bool, typer.Option("--not-ordered", help="Say that the order was not placed, where you have made sure.")
    ] = False,
    ledger: Annotated[
        str | None,
        typer.Option(metavar="DIR|URL", help="Orders of the bulk run that had this as --out, or as --ledger."),
    ] = None,
) -> None:
    """Find out what became of orders whose outcome is unknown. Nothing is ordered.

    It looks for the batch of each. An order counts as not placed only once one shows that was sent after the settle
    time; until then, and where nobody can tell, it stays unknown, and the exit code is 6.

    Example: sectigo-async reconcile
    """
    chosen = settings(ctx)
    where = None if ledger is None else place_of(chosen, ledger, "--ledger")
    decided = batch is not None or not_ordered
    if batch is not None and not_ordered:
        raise typer.BadParameter("choose one", param_hint="--batch, --not-ordered")
    if decided and len(order_ids or ()) != 1:
        raise typer.BadParameter("name the one order that is meant", param_hint="--batch, --not-ordered")

    async def job(client: SectigoClient) -> None:
        results: list[Reconciliation] = []
        trouble: LedgerError | None = None
        with noting("nothing was ordered"):
            places = await asyncio.to_thread(_places, where)
            await _check_names(chosen, client, order_ids or [], places, where)
            for place in places:
                try:
                    async with _batches(client, place) as batches:
                        orders = _chosen_orders(await batches.orders(), order_ids)
                        if decided:
                            results += [await _decide(batches, order, batch) for order in orders]
                        else:
                            results += await batches.reconcile(orders, settle=settle, scan=scan, timeout=timeout)
                except LedgerError as error:
                    if len(places) == 1:
                        raise
                    trouble = error
        if trouble is not None:
            report(trouble, chosen)
        _show(chosen, results, where)
        if trouble is not None:
            raise typer.Exit(exit_codes.exit_code(trouble))

    run_client(ctx, job)


def _places(where: "Place | None") -> "list[Place | None]":
    """Return the ledgers that are meant: those of renewals belong to that of a directory."""
    return [*ledgers_of(where)] or [where] if isinstance(where, Path) else [where]


async def _check_names(
    chosen: Settings,
    client: SectigoClient,
    wanted: list[str],
    places: "Sequence[Place | None]",
    ledger: "Place | None",
) -> None:
    """See that each order that is named is there, before anything is done about another.

    Raises:
        typer.BadParameter: one is not.
    """
    known: set[str] = set()
    for place in places:
        with suppress(LedgerError):
            known |= await _known(client, place)
    if missing := [name for name in wanted if name not in known]:
        listed = chosen.command(*(["batches"] if ledger is None else ["ledger", "status", str(ledger)]))
        raise typer.BadParameter(f"there is no order {missing[0]!r}; {listed} lists them", param_hint="ORDER")


async def _known(client: SectigoClient, place: "Place | None") -> set[str]:
    """Return the ids of the orders that are known in a place."""
    if isinstance(place, Path):
        return {order.order_id for order in (await read_ledger(place)).orders}
    async with _batches(client, place) as batches:
        return {order.order_id for order in await batches.orders()}


@asynccontextmanager
async def _batches(client: SectigoClient, place: "Place | None") -> AsyncIterator["Batches"]:
    """Give the verbs, with the ledger of a bulk run as the journal where one is named."""
    if place is None:
        yield client.batches
        return
    if isinstance(place, Path):
        run = (await read_ledger(place)).run
    else:
        from sectigo_async.fleet import read_fleet

        run = (await read_fleet(place)).run
    check_login(client, run)
    async with open_place(client, place, run) as ledger:
        yield client.batches.under(ledger)


def _chosen_orders(orders: tuple[Order, ...], wanted: list[str] | None) -> list[Order]:
    """Return the orders that are meant: those of unknown outcome, where none are named."""
    if not wanted:
        return [order for order in orders if order.state is OrderState.UNKNOWN]
    by_id = {order.order_id: order for order in orders}
    return [by_id[name] for name in wanted if name in by_id]


def _of(place: "Place | None") -> list[str]:
    return [] if place is None else ["--ledger", str(place)]


async def _decide(batches: "Batches", order: Order, batch: int | None) -> Reconciliation:
    if order.state is not OrderState.UNKNOWN:
        known = order.state.value if order.batch_id is None else f"batch {order.batch_id}"
        raise typer.BadParameter(f"order {order.order_id} is known: {known}", param_hint="ORDER")
    return Reconciliation(order=await batches.decide(order, batch), reason="you said so")


def _show(chosen: Settings, results: list[Reconciliation], directory: "Place | None") -> None:
    """Show what was found, and end with the exit code for it.

    Raises:
        typer.Exit: the outcome of some is still unknown.
    """
    documents = [
        result.order.document()
        | {"reason": result.reason, "candidates": [candidate.batch_id for candidate in result.candidates]}
        for result in results
    ]
    chosen.output.emit(documents, _COLUMNS, prose=("reason",))
    for result in results:
        if result.order.batch_id is not None and directory is None:
            way_on = chosen.command("download", "-i", str(result.order.batch_id), "--extract")
            chosen.output.note(f"order {result.order.order_id} is batch {result.order.batch_id}: go on with {way_on}")
    unknown = [result.order for result in results if result.order.state is OrderState.UNKNOWN]
    for order in unknown:
        decide = " or ".join(
            chosen.command("reconcile", *_of(directory), order.order_id, *words)
            for words in (("--batch", "ID"), ("--not-ordered",))
        )
        say(f"order {order.order_id} ({order.subject}) is still unknown: do not repeat it; decide with {decide}")
    if unknown:
        raise typer.Exit(exit_codes.OUTCOME_UNKNOWN)


def register(app: typer.Typer) -> None:
    """Add this command to `app`."""
    add(app, reconcile)
