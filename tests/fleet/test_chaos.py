"""Workers that are killed and frozen while the service has faults, and a judge that believes the sandbox alone."""

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from sectigo_async.fleet import Database
from sectigo_async.issuance import DeviceState, Keys, Options
from tests.chaos.harness import ROOT, Service, faults
from tests.fleet.test_run import HEARTBEAT, Site

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(600)]

OPTIONS = Options(batch_size=int(os.environ.get("SIZE", "10")), settle=3.0, at_once=20)


@attrs.define
class Crew:
    """Workers in processes of their own, some of which come to harm."""

    site: Site
    url: str
    log: Path
    kills_wanted: int
    processes: list[subprocess.Popen[bytes]] = attrs.field(factory=list)
    kills: int = 0

    def add(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.fleet.worker_process"]
                + [self.site.service.url, self.url, str(self.site.directory), str(HEARTBEAT)],
                cwd=ROOT,
                stdout=log,
                stderr=log,
            )
        self.processes.append(process)
        return process

    async def suffer(self, chance: random.Random) -> None:
        """Kill one after another, and freeze one for longer than it takes to be given up."""
        frozen = self.processes[0]
        await asyncio.sleep(4)
        os.kill(frozen.pid, signal.SIGSTOP)
        asleep = True
        for turn in range(self.kills_wanted):
            await asyncio.sleep(chance.uniform(0.5, 4))
            victim = chance.choice(self.processes[1:])
            victim.kill()
            victim.wait()
            self.processes.remove(victim)
            self.kills += 1
            self.add()
            if asleep and turn == 3:
                os.kill(frozen.pid, signal.SIGCONT)
                asleep = False


@pytest.fixture
def crew_url(database: str) -> str:
    return database


@pytest.mark.parametrize("keys", Keys)
async def test_each_device_gets_one_certificate_whatever_befalls_workers(
    keys: Keys, database: str, tmp_path: Path
) -> None:
    names = [f"gw{number}.example.com" for number in range(int(os.environ.get("DEVICES", "200")))]
    with Service(faults(0.3), seed=5) as service:
        site = Site(service, Database.at(database), tmp_path / "out")
        crew = Crew(site, database, tmp_path / "workers.log", int(os.environ.get("KILLS", "12")))
        for _ in range(4):
            crew.add()
        harm = asyncio.create_task(crew.suffer(random.Random(7)))
        try:
            fleet = await site.put_in(names, keys=keys, options=OPTIONS)
            if fleet.parked:
                # What was sent last, nothing proves: a person looks in the portal, and decides.
                await asyncio.sleep(OPTIONS.settle)
                fleet = await site.put_in(names, keys=keys, options=attrs.evolve(OPTIONS, resubmit=True))
        finally:
            harm.cancel()
            await asyncio.wait([harm])
            for process in crew.processes:
                process.send_signal(signal.SIGCONT)
                process.kill()
                process.wait()
        print(
            "kills",
            crew.kills,
            "orders",
            service.orders,
            {s.value: n for s, n in fleet.counts.items() if n},
            fleet.halted,
        )
        issued = Counter(one.common_name for one in service.issued())
    assert fleet.counts[DeviceState.DONE] == len(names), crew.log.read_text()[-3000:]
    assert issued == Counter(names)
