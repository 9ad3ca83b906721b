"""Runs that are killed and taken up again, and a judge that believes the sandbox and the disk, never the ledger."""

import asyncio
import hashlib
import json
import math
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import attrs
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key, pkcs12

from sectigo_async.sandbox import Sandbox, SandboxConfig, SandboxServer
from sectigo_async.sandbox.faults import ANY_ROUTE, Fault, FaultRule
from sectigo_async.sandbox.records import Issued
from tests.chaos import driver
from tests.chaos.driver import Ending, Job

ROOT = Path(__file__).parents[2]

_BALANCE = 1_000_000
_PATIENCE = 30.0
_MOST_ATTEMPTS = 100
_FILES = {"privkey.pem", "cert.pem", "chain.pem", "fullchain.pem", "issue.json"}
_FILES_WITH_BUNDLE = _FILES | {"bundle.p12", "bundle.p12.password"}


def faults(rate: float) -> tuple[FaultRule, ...]:
    """Return rules by which this part of all requests meets a fault, each kind as often as any other."""
    kinds = (
        Fault.CUT_BEFORE,
        Fault.LOST_REPLY,
        Fault.CUT_MID_BODY,
        Fault.ERROR_BEFORE,
        Fault.ERROR_AFTER,
        Fault.RATE_LIMIT,
        Fault.LATENCY,
    )
    share = rate / len(kinds)
    # Only what no rule before has struck is left to the next.
    return tuple(
        FaultRule(route=ANY_ROUTE, fault=fault, rate=share / (1 - share * number), seconds=0.05)
        for number, fault in enumerate(kinds)
    )


class Service:
    """A sandbox on a socket, in a thread of its own; it issues at once.

    Args:
        rules: its faults.
        seed: of these.
        delay: seconds until it has issued, where that is not at once.
    """

    def __init__(self, rules: Sequence[FaultRule] = (), seed: int = 0, delay: float = 0) -> None:
        self.sandbox = Sandbox(SandboxConfig(issue_delay=delay, balance=_BALANCE, faults=tuple(rules), seed=seed))
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    async def _serve(self) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        async with SandboxServer(self.sandbox) as self._server:
            self.url = self._server.url
            self._ready.set()
            await self._end.wait()

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(_PATIENCE)
        return self

    def __exit__(self, *_: object) -> None:
        # It takes a moment to end, which nobody has to wait for.
        self._loop.call_soon_threadsafe(self._end.set)

    def wait_until_idle(self) -> None:
        """Return once every request that a dead client has sent has run."""
        asyncio.run_coroutine_threadsafe(self._idle(), self._loop).result(_PATIENCE)

    async def _idle(self) -> None:
        state = self._server._server.server_state
        # A connection that nobody has accepted yet is in no list: twice idle is idle.
        for _ in range(2):
            await asyncio.sleep(0.002)
            while state.connections or state.tasks:
                await asyncio.sleep(0.002)

    @property
    def orders(self) -> int:
        """How many orders were placed."""
        return len(self.sandbox.ledger._batches)

    def issued(self) -> list[Issued]:
        """Return every certificate that was issued."""
        return [one for batch in self.sandbox.ledger._batches.values() for one in batch.issued]


class Driver:
    """The process that runs what is to be killed; see `tests.chaos.driver`."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", driver.__name__],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def run(self, job: Job) -> Ending:
        """Do a job in a process of its own."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(attrs.asdict(job)) + "\n")
        self._process.stdin.flush()
        return Ending(**json.loads(self._process.stdout.readline()))


@attrs.frozen
class Kind:
    """What is issued.

    Attributes:
        keys: where keys are made; see `Job`.
        batch_size: how many devices go into an order.
        devices: how many there are.
    """

    keys: str
    batch_size: int
    devices: int = 4

    def __str__(self) -> str:
        return f"{self.keys}-{self.batch_size}"

    @property
    def orders(self) -> int:
        """How many orders that takes."""
        return math.ceil(self.devices / self.batch_size)

    @property
    def names(self) -> list[str]:
        """The common names."""
        return [f"gw{number}.example.com" for number in range(self.devices)]

    def listed(self) -> str:
        """Return the list of devices."""
        lines = [f"{name},{name} www.{name},SN-{number:04}" for number, name in enumerate(self.names)]
        return "\n".join(["common_name,dns_names,serialNumber", *lines])


class Scenario:
    """One list of devices, one sandbox, and as many processes as it takes.

    Args:
        process: runs them.
        service: the sandbox, where nothing was ordered yet.
        kind: what is issued.
        directory: where to; empty.

    Attributes:
        kills: how many processes died at a fail point.
    """

    def __init__(self, process: Driver, service: Service, kind: Kind, directory: Path) -> None:
        self._process = process
        self._service = service
        self._kind = kind
        self._directory = directory
        self._job = Job(
            url=service.url,
            root=service.sandbox.ca_pem().decode(),
            directory=str(directory),
            devices=kind.listed(),
            keys=kind.keys,
            batch_size=kind.batch_size,
            origin=time.time(),
        )
        self.kills = 0

    def run(self, kill_at: int = 0, *, resubmit: bool = False) -> Ending:
        """Run until it ends, or until the fail point; then let the sandbox come to rest."""
        ending = self._process.run(attrs.evolve(self._job, kill_at=kill_at, resubmit=resubmit))
        self._service.wait_until_idle()
        self.kills += ending.killed
        return ending

    def finish(self) -> None:
        """Take it up again until all is done; order anew only where nothing else helps."""
        told = []
        resubmit = False
        for _ in range(_MOST_ATTEMPTS):
            ending = self.run(resubmit=resubmit)
            if ending.code == driver.DONE:
                return
            told.append(ending)
            resubmit = ending.code == driver.OUTCOME_UNKNOWN
        raise AssertionError(f"it does not come to an end: {told}")

    def check(self) -> None:
        """See that each device has one certificate, with all its files, and that nothing else was ordered or left."""
        kind, issued = self._kind, self._service.issued()
        assert self._service.orders == kind.orders
        assert len(issued) == kind.devices
        keys = Counter(one.key_sha256 for one in issued)
        root = x509.load_pem_x509_certificate(self._service.sandbox.ca_pem())
        for name in kind.names:
            digest = self._check_folder(self._directory / name, name, root)
            assert keys[digest] == 1, f"the key of {name} is in {keys[digest]} certificates"
        self._check_all_files()

    def _check_folder(self, folder: Path, name: str, root: x509.Certificate) -> str:
        """Check the files of a device, and return the SHA-256 of its public key."""
        files = {path.name: path.read_bytes() for path in folder.iterdir()}
        assert set(files) == (_FILES_WITH_BUNDLE if self._kind.keys == "server" else _FILES)
        key = load_pem_private_key(files["privkey.pem"], None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        certificate = x509.load_pem_x509_certificate(files["cert.pem"])
        assert certificate.public_key() == key.public_key()
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert set(names.get_values_for_type(x509.DNSName)) == {name, f"www.{name}"}
        assert certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value == name
        assert files["fullchain.pem"] == files["cert.pem"] + files["chain.pem"]
        chain = x509.load_pem_x509_certificates(files["fullchain.pem"])
        for below, above in zip(chain, [*chain[1:], root], strict=True):
            below.verify_directly_issued_by(above)
        record = json.loads(files["issue.json"])
        assert int(record["serial_number"], 16) == certificate.serial_number
        batch = self._service.sandbox.ledger._batches[record["batch_id"]]
        assert certificate.serial_number in {one.serial for one in batch.issued}
        if self._kind.keys == "server":
            password = files["bundle.p12.password"].removesuffix(b"\n")
            bundled, *_ = pkcs12.load_key_and_certificates(files["bundle.p12"], password)
            assert isinstance(bundled, ec.EllipticCurvePrivateKey)
            assert bundled.private_numbers() == key.private_numbers()
        public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return hashlib.sha256(public).hexdigest()

    def _check_all_files(self) -> None:
        """See that nothing is left over, and that others may read nothing."""
        own = self._directory / ".sectigo-async"
        assert {path.name for path in self._directory.iterdir()} == {*self._kind.names, own.name, "results.csv"}
        assert {path.name for path in own.iterdir()} - {"archives"} == {"ledger.sqlite3", "ledger.lock"}
        assert list((own / "archives").iterdir()) == []
        modes = {(path.is_dir(), path.stat().st_mode & 0o777) for path in self._directory.rglob("*")}
        assert modes == {(True, 0o700), (False, 0o600)}
