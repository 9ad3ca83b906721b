"""Workers that are killed and frozen while the service has faults, and a judge that believes the sandbox alone."""

import asyncio
import hashlib
import math
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from subprocess import Popen

import attrs
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from sectigo_async.issuance import DeviceState, Keys, Options
from tests.chaos.harness import Service, faults
from tests.fleet.site import Site

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(600)]

SETTLE = 3.0
WORKERS = 4
KILLS = 12
ASLEEP = 8.0
"""Seconds for which a worker is frozen: longer than it takes to count as gone."""


def key_of(directory: Path, name: str) -> str:
    """Return the SHA-256 of the public key that belongs to a device's private one."""
    path = directory / name / "privkey.pem"
    assert path.stat().st_mode & 0o777 == 0o600
    key = load_pem_private_key(path.read_bytes(), None)
    return hashlib.sha256(key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


async def kill(site: Site, workers: list["Popen[bytes]"], times: int) -> None:
    """Kill one worker after another at random, with one to take the place of each; leave the first alone."""
    chance = random.Random(7)  # noqa: S311 - what is drawn is no secret
    for _ in range(times):
        await asyncio.sleep(chance.uniform(0.3, 3))
        number = chance.randrange(1, len(workers))
        workers[number].kill()
        workers[number].wait()
        workers[number] = site.start_worker()


async def freeze(worker: "Popen[bytes]") -> None:
    """Stop a worker for longer than it takes to count as gone, then let it go on."""
    await asyncio.sleep(3)
    os.kill(worker.pid, signal.SIGSTOP)
    await asyncio.sleep(ASLEEP)
    os.kill(worker.pid, signal.SIGCONT)


async def issue(site: Site, names: Sequence[str], keys: Keys, options: Options, kills: int) -> None:
    with site.workers(WORKERS) as workers:
        harm = [asyncio.create_task(kill(site, workers, kills)), asyncio.create_task(freeze(workers[0]))]
        fleet = await site.put_in(names, keys=keys, options=options, faults=faults(0.3))
        await asyncio.gather(*harm)
        if fleet.parked:
            # What was sent last nothing proves: a person looks in the portal, and decides.
            await asyncio.sleep(SETTLE)
            fleet = await site.put_in(names, keys=keys, options=attrs.evolve(options, resubmit=True))
    assert +fleet.counts == Counter({DeviceState.DONE: len(names)}), site.log.read_text()[-2000:]


async def test_two_thousand_devices_get_one_certificate_each(database: str, tmp_path: Path) -> None:
    """Four workers, of which some are killed and one is frozen, and a service where every third request fails."""
    names = [f"gw{number}.example.com" for number in range(2000)]
    began = time.monotonic()
    with Service(seed=5) as service:
        site = Site(service, database, tmp_path / "out", tmp_path / "workers.log")
        await issue(site, names, Keys.LOCAL, Options(batch_size=25, settle=SETTLE), KILLS)
        issued = service.issued()
        print(f"{time.monotonic() - began:.0f} s, {service.orders} orders for {len(names)} devices")  # noqa: T201

        assert service.orders == math.ceil(len(names) / 25)
    assert Counter(one.common_name for one in issued) == Counter(names)
    assert {one.common_name: one.key_sha256 for one in issued} == {
        name: key_of(site.directory, name) for name in names
    }


@pytest.mark.chaos
async def test_keys_made_by_the_service_are_ordered_once_each(database: str, tmp_path: Path) -> None:
    names = [f"gw{number}.example.com" for number in range(300)]
    with Service(seed=6) as service:
        site = Site(service, database, tmp_path / "out", tmp_path / "workers.log")
        await issue(site, names, Keys.SERVER, Options(settle=SETTLE), 3 * KILLS)

        assert service.orders == len(names)
        assert Counter(one.common_name for one in service.issued()) == Counter(names)
