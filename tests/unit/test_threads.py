"""Work in threads that is not left half done."""

import asyncio
import threading

import pytest

from sectigo_async.threads import run_to_end


async def test_result_and_error_come_through() -> None:
    assert await run_to_end(int, "7") == 7
    with pytest.raises(ValueError, match="x"):
        await run_to_end(int, "x")


@pytest.mark.parametrize("fails", [False, True])
async def test_however_often_it_is_cancelled_the_work_comes_to_its_end_first(fails: bool) -> None:
    go_on, done = threading.Event(), threading.Event()

    def work() -> None:
        go_on.wait(10)
        done.set()
        if fails:
            raise OSError

    task = asyncio.create_task(run_to_end(work))
    for _ in range(3):
        await asyncio.sleep(0.01)
        task.cancel()
    assert not task.done()
    go_on.set()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert done.is_set()
