"""Runs killed anywhere, as by kill -9, and taken up again: one order for each device, and every file right."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos import driver
from tests.chaos.harness import Driver, Kind, Scenario, Service

KINDS = [Kind("server", 1), Kind("local", 1), Kind("local", 3), Kind("local", 500)]


@pytest.fixture(scope="module")
def process() -> Iterator[Driver]:
    with Driver() as running:
        yield running


def count_points(process: Driver, kind: Kind, directory: Path) -> int:
    """Return how many fail points a run has that nobody kills, and check that run."""
    with Service() as service:
        scenario = Scenario(process, service, kind, directory)
        ending = scenario.run()
        assert ending.code == driver.DONE, ending
        scenario.check()
        return ending.points


def kill_and_finish(process: Driver, kind: Kind, directory: Path, *points: int) -> int:
    """Kill a run at these points, one process after the other, finish it, and return how many died."""
    with Service() as service:
        scenario = Scenario(process, service, kind, directory)
        for point in points:
            scenario.run(point)
        scenario.finish()
        scenario.check()
        return scenario.kills


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_run_killed_here_and_there_and_again_when_taken_up_orders_nothing_twice(
    process: Driver, kind: Kind, tmp_path: Path
) -> None:
    total = count_points(process, kind, tmp_path / "unharmed")

    for point in range(1, total, total // 8):
        kills = kill_and_finish(process, kind, tmp_path / str(point), point, max(1, point // 2))
        assert kills >= 1
