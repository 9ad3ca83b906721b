"""Where keys and certificates are kept: a directory, or whatever a user writes."""

import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import aclosing
from pathlib import Path

import pytest
from cryptography import x509

from sectigo_async import SectigoClient
from sectigo_async.errors import FileError
from sectigo_async.issuance import (
    DeviceState,
    DirectorySink,
    Issuance,
    Keys,
    Run,
    Sink,
    SqliteLedger,
    make_plan,
    read_devices,
)
from sectigo_async.pki import load_key
from sectigo_async.sandbox import Sandbox, SandboxConfig, SandboxServer
from sectigo_async.testing import SinkContract


class TestDirectorySink(SinkContract):
    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path) -> None:
        self.directory = tmp_path / "out"

    def make_sink(self) -> Sink:
        return DirectorySink(self.directory)


class MemorySink:
    """As an object store would be: names and contents, and no directories."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def read(self, name: str) -> bytes | None:
        return self.files.get(name)

    def size(self, name: str) -> int | None:
        return None if name not in self.files else len(self.files[name])

    def write(self, files: Mapping[str, bytes], *, overwrite: bool = False) -> None:
        with self._lock:
            for name, content in files.items():
                if not overwrite and self.files.get(name, content) != content:
                    raise FileError(f"{name} is there already")
                self.files[name] = content

    def tidy(self, folders: Iterable[str]) -> None:
        pass

    def where(self, name: str) -> str:
        return f"memory:{name}"


class TestMemorySink(SinkContract):
    def make_sink(self) -> Sink:
        self.sink = getattr(self, "sink", MemorySink())
        return self.sink


def test_what_is_no_file_is_not_read(tmp_path: Path) -> None:
    """A directory, or anything that might never end, is not taken for a file that is not there."""
    (tmp_path / "gw7" / "privkey.pem").mkdir(parents=True)

    with pytest.raises(FileError, match="is no file"):
        DirectorySink(tmp_path).read("gw7/privkey.pem")


@pytest.mark.parametrize("keys", Keys)
async def test_a_run_keeps_everything_in_the_sink_that_it_is_given(tmp_path: Path, keys: Keys) -> None:
    config, sink = SandboxConfig(issue_delay=0), MemorySink()
    names = [f"gw{number}.example.com" for number in range(5)]
    listed = read_devices("\n".join(["common_name", *names]).encode())
    async with (
        SandboxServer(Sandbox(config)) as server,
        SectigoClient(username=config.username, password=config.password, endpoint=server.url) as client,
    ):
        run = Run(endpoint=server.url, username=config.username, profile_id=42, keys=keys)
        async with SqliteLedger.open(tmp_path / "ledger", run) as ledger:
            plan = await make_plan(client, ledger, tmp_path, listed)
            issuance = Issuance(client, ledger, tmp_path, plan, sink=sink)
            async with aclosing(issuance.run()) as events:
                async for _ in events:
                    pass

    assert +issuance.counts == Counter({DeviceState.DONE: len(names)})
    for name in names:
        certificate = x509.load_pem_x509_certificate(sink.files[f"{name}/cert.pem"])
        key = load_key(sink.files[f"{name}/privkey.pem"])
        assert key.public_key() == certificate.public_key()
    assert not list(tmp_path.rglob("*.pem"))
