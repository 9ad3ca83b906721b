"""Waiting for batches in sight: a line for each on a terminal, a line for each change elsewhere."""

import asyncio
from collections.abc import Sequence

from sectigo_async import Batch, BatchStatus, SectigoClient, SectigoError
from sectigo_async.errors import BatchError
from sectigo_async_cli.context import Settings
from sectigo_async_cli.streams import flat, say, spinner

_LINES_BESIDE = 4


def describe(batch: Batch) -> str:
    """Return the state of a batch in a few words: its status, and how many certificates are done."""
    counts = batch.processing
    done = f", {counts.success + counts.failed} of {batch.size} done" if counts is not None and batch.size else ""
    failed = f", {counts.failed} failed" if counts is not None and counts.failed else ""
    return f"{status_word(batch)}{done}{failed}"


def status_word(batch: Batch) -> str:
    """Return a batch's status, the service's own word where this version does not know it."""
    return batch.status_text if batch.status is BatchStatus.UNKNOWN else batch.status.value


async def follow(
    chosen: Settings, client: SectigoClient, batch_ids: Sequence[int], *, timeout: float | None
) -> list[Batch | SectigoError]:
    """Wait for batches, and return for each the batch that is ready or the error that ended the wait.

    More batches than the terminal has lines for are told as one number.

    Args:
        chosen: whether and where to tell how it goes.
        client: watches them.
        batch_ids: ids of the batches.
        timeout: seconds until giving up; `None` for never.
    """
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    live = chosen.talks_to_a_terminal and not chosen.output.quiet
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    console = Console(stderr=True)
    progress = Progress(*columns, console=console, transient=True, disable=not live)
    as_number = len(batch_ids) > console.height - _LINES_BESIDE
    summary = progress.add_task(f"0 of {len(batch_ids)} batches done", total=len(batch_ids), visible=as_number)
    done = 0

    async def one(batch_id: int) -> Batch | SectigoError:
        nonlocal done
        line = progress.add_task(f"batch {batch_id}", total=1, visible=not as_number)
        last: Batch | None = None
        try:
            async for batch in client.batches.watch(batch_id, timeout=timeout):
                last = batch
                told = f"batch {batch_id}: {describe(batch)}"
                progress.update(line, description=flat(told))
                if not live:
                    chosen.output.note(told)
        except SectigoError as error:
            return error
        finally:
            done += 1
            progress.update(line, completed=1)
            progress.update(summary, completed=done, description=f"{done} of {len(batch_ids)} batches done")
        assert last is not None
        return last

    with spinner.hushed(), progress:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(batch_id)) for batch_id in batch_ids]
    return [task.result() for task in tasks]


def last_seen(result: Batch | SectigoError) -> Batch | None:
    """Return the batch of a result of `follow`, as it was seen last."""
    if isinstance(result, Batch):
        return result
    return result.batch if isinstance(result, BatchError) else None


def warn_if_partial(batch: Batch) -> None:
    """Say that a batch is ready, but not all of it."""
    if batch.partial:
        failed = batch.processing.failed if batch.processing is not None else "some"
        say(f"warning: batch {batch.batch_id} is ready, but {failed} of its certificates were not issued")
