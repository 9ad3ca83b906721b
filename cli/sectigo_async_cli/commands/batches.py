"""What became of orders: batches, wait."""

import asyncio
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from sectigo_async import Batch, BatchStatus, OrderState, SectigoClient, SectigoError, WaitTimeout
from sectigo_async_cli import exit_codes
from sectigo_async_cli.context import Settings, settings
from sectigo_async_cli.options import BatchId, WaitLimit
from sectigo_async_cli.options import register as add
from sectigo_async_cli.output import Format, record
from sectigo_async_cli.progress import describe, follow, last_seen, status_word, warn_if_partial
from sectigo_async_cli.run import noting, report, run, run_client
from sectigo_async_cli.streams import is_live, is_terminal, say, spinner
from sectigo_async_cli.targets import batch_target

_WATCH_LIMIT = 24 * 3600.0
_COLUMNS = {
    "batchId": "Batch",
    "status": "Status",
    "size": "Size",
    "profile": "Profile",
    "batchName": "Name",
    "creationDate": "Ordered",
}

ORDER_COLUMNS = {
    "orderId": "Order",
    "state": "State",
    "batchId": "Batch",
    "size": "Size",
    "batchName": "Name",
    "commonNames": "Common names",
    "sentAt": "Sent",
}


def batches(
    ctx: typer.Context,
    *,
    batch_id: BatchId = None,
    info: Annotated[bool, typer.Option("--info", "-I", help="Show how many of its certificates are done.")] = False,
    status: Annotated[bool, typer.Option("--status", "-s", help="Show only its status.")] = False,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Show it anew at each change, until it is ready or has failed.")
    ] = False,
    unknown: Annotated[
        bool, typer.Option("--unknown", help="List only orders that nobody knows the outcome of; see reconcile.")
    ] = False,
) -> None:
    """Show a batch; without --id, list the orders that were sent from this machine.

    Example: sectigo-async batches -i 24 --status
    """
    chosen = settings(ctx)
    if info + status + watch + unknown > 1:
        raise typer.BadParameter("choose one", param_hint="--info, --status, --watch, --unknown")
    if unknown and batch_id is not None:
        raise typer.BadParameter("lists orders, and takes no id", param_hint="--unknown")
    if batch_id is None and not (info or status or watch):
        run(chosen, lambda: list_orders(chosen, unknown=unknown))
        return

    async def job(client: SectigoClient) -> None:
        number = await batch_target(chosen, batch_id)
        if info:
            chosen.output.emit((await client.batches.processing_info(number)).document())
        elif status:
            told = await client.batches.status(number)
            known = told.status is not BatchStatus.UNKNOWN
            word = told.status.value if known else told.text.upper().replace(" ", "_")
            chosen.output.emit({"batchId": number, "status": word}, text=word)
        elif watch:
            try:
                await _watch(chosen, client, number)
            except asyncio.CancelledError as cancelled:
                cancelled.add_note("the batch goes on by itself")
                raise
        else:
            batch = await client.batches.get(number)
            chosen.remember(batch)
            chosen.output.emit(batch.document())

    run_client(ctx, job)


async def list_orders(chosen: Settings, *, unknown: bool) -> None:
    """Show the orders of the journal; nobody is signed in."""
    orders = await chosen.journal().orders()
    shown = [order for order in orders if not unknown or order.state is OrderState.UNKNOWN]
    chosen.output.emit([order.document() for order in shown], ORDER_COLUMNS)
    if not unknown and (count := sum(order.state is OrderState.UNKNOWN for order in orders)):
        noun = "order" if count == 1 else "orders"
        say(f"{count} {noun} of unknown outcome: find out with {chosen.command('reconcile')}")


async def _watch(chosen: Settings, client: SectigoClient, number: int) -> None:
    watched = client.batches.watch(number, timeout=_WATCH_LIMIT)
    if not is_live(sys.stdout) or chosen.output.format not in {Format.AUTO, Format.TABLE}:
        first = True
        async for batch in watched:
            if not chosen.output.emit_next(_document(batch), first=first):
                return
            first = False
        return
    from rich.console import Console
    from rich.live import Live

    with spinner.hushed(), Live(console=Console(markup=False, highlight=False)) as live:
        async for batch in watched:
            live.update(record(_document(batch) | {"processing": describe(batch)}), refresh=True)


def _document(batch: Batch) -> dict[str, object]:
    """Return a batch with its counters; `None` where they are not known."""
    counters = None if batch.processing is None else batch.processing.document()
    return batch.document() | {"status": status_word(batch), "processing": counters}


def wait(
    ctx: typer.Context,
    *,
    batch_ids: Annotated[list[int] | None, typer.Argument(metavar="ID...", min=0, help="Ids of batches.")] = None,
    timeout: WaitLimit = 1800.0,
) -> None:
    """Wait until batches are ready for download. Nothing is ordered, so it can be taken up again at any time.

    Example: sectigo-async wait 24 25 --timeout 600
    """
    chosen = settings(ctx)

    async def job(client: SectigoClient) -> None:
        numbers = list(dict.fromkeys(batch_ids or [await batch_target(chosen, None, "ID")]))
        with noting(f"nothing is lost: go on with {chosen.command('wait', *map(str, numbers))}"):
            results = await follow(chosen, client, numbers, timeout=timeout)
        documents = [_document(batch) for result in results if (batch := last_seen(result))]
        if documents or not is_terminal():
            chosen.output.emit(documents, _COLUMNS)
        _conclude(chosen, results)

    run_client(ctx, job)


def _conclude(chosen: Settings, results: Sequence[Batch | SectigoError]) -> None:
    """Report what failed, and end with the exit code for all of it.

    Raises:
        typer.Exit: not all batches are ready.
    """
    codes = []
    for result in results:
        if isinstance(result, WaitTimeout):
            result.hint = f"nothing is lost: go on with {chosen.command('wait', str(result.batch.batch_id))}"
        if isinstance(result, SectigoError):
            codes.append(report(result, chosen))
    for result in results:
        if isinstance(result, Batch):
            warn_if_partial(result)
    failed = [code for code in codes if code != exit_codes.PENDING]
    if failed and len(codes) < len(results):
        raise typer.Exit(exit_codes.PARTLY_DONE)
    if codes:
        raise typer.Exit(failed[0] if failed else exit_codes.PENDING)


def register(app: typer.Typer) -> None:
    """Add these commands to `app`."""
    for command in (batches, wait):
        add(app, command)
