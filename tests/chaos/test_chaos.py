"""Runs killed anywhere, as by kill -9, and taken up again: one order for each device, and every file right."""

import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos import driver
from tests.chaos.harness import Driver, Kind, Scenario, Service, faults

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")

KINDS = [Kind("server", 1), Kind("local", 1), Kind("local", 3), Kind("local", 500)]
KILLS = 110
"""At random, for each batch size."""


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
    step = total // 10

    # Threads make some runs shorter than the one whose points were counted: the last ones may not be reached.
    for point in range(1, 8 * step, step):
        kills = kill_and_finish(process, kind, tmp_path / str(point), point, max(1, point // 2))
        assert kills >= 1


@pytest.mark.parametrize("devices", [40, pytest.param(300, marks=pytest.mark.chaos)])
def test_a_naive_retry_orders_twice_which_shows_that_the_faults_bite(
    process: Driver, devices: int, tmp_path: Path
) -> None:
    kind = Kind("naive", 1, devices)
    with Service(faults(0.3)) as service:
        scenario = Scenario(process, service, kind, tmp_path / "naive")
        for number in range(1, devices // 10):
            scenario.run(number * 20)
        scenario.finish()

        print(f"\nnaive retry: {service.orders} orders for {kind.devices} devices, {scenario.kills} kills")
        assert service.orders > kind.devices


@pytest.mark.chaos
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_run_killed_at_any_point_and_again_when_taken_up_orders_nothing_twice(
    process: Driver, kind: Kind, tmp_path: Path
) -> None:
    chance = random.Random(str(kind))  # noqa: S311 - to be repeated
    total = count_points(process, kind, tmp_path / "unharmed")
    kills = 0

    for point in range(1, total + 1):
        directory = tmp_path / str(point)
        kills += kill_and_finish(process, kind, directory, point, chance.randint(1, total))
        shutil.rmtree(directory)

    print(f"\n{kind}: {total} fail points, {kills} kills; {kind.orders} orders for {kind.devices} devices each time")
    # Threads make some runs shorter than the one whose points were counted.
    assert kills > total


@pytest.mark.chaos
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("kind", "longest"), [(Kind("local", 1, 1000), 30_000), (Kind("local", 10, 1000), 10_000)], ids=str
)
def test_1000_devices_get_a_certificate_each_on_a_bad_day_with_random_kills(
    process: Driver, kind: Kind, longest: int, tmp_path: Path
) -> None:
    """Most processes live for a short time, and some long enough to look at every id: for `longest` fail points."""
    chance = random.Random(str(kind))  # noqa: S311 - to be repeated
    kills = lists = 0

    while kills < KILLS:
        lists += 1
        with Service(faults(0.3), seed=lists) as service:
            scenario = Scenario(process, service, kind, tmp_path / str(lists))
            code = driver.FAILED
            # Of the last order no other can show what became of it: that is for `finish` to see to.
            while code not in {driver.DONE, driver.OUTCOME_UNKNOWN} and kills + scenario.kills < KILLS:
                code = scenario.run(int(longest ** chance.random())).code
            scenario.finish()
            scenario.check()
            kills += scenario.kills
            struck = sum(service.sandbox.faults.counts.values())
            print(f"\n{kind}: {service.orders} orders, {scenario.kills} kills, {struck} faults")
