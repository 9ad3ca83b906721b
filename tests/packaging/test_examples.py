"""The examples: each runs by itself, tells what it should, and leaves nothing behind."""

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from examples.credential_store import EncryptedStore
from sectigo_async import CredentialStore, Secret
from sectigo_async.credentials import Item, Login
from sectigo_async.errors import CredentialStoreError
from sectigo_async.testing import CredentialStoreContract

EXAMPLES = Path(__file__).parents[2] / "examples"
SAYS = {
    "bulk.py": r"(gw\d\.example\.com verified [0-9A-F]+ .*\n){3}(gw\d\.example\.com verified [0-9A-F]+ .*\n){3}",
    "ca_and_proxy.py": r"TLSv1\.\d\ngw7\.example\.com verified\n.*: True",
    "credential_store.py": r"signed in 1 time, refreshed 1 time\nkept, encrypted: refresh-token",
    "own_key.py": r"READY_FOR_DOWNLOAD\nkey match True, .* chain verified\nwritten: bundle\.p12 .*privkey",
    "progress.py": r"^200 of 200 verified",
    "quickstart.py": r"gw8\.example\.com .* verified\nkept in",
    "renew.py": r"^first night: 0\nrenewed gw1\.example\.com\nrenewed gw2\.example\.com\nanother night: 0",
    "resume.py": r"^killed .*\n(sent before.*\n)*batch \d+ verified\norders in all: 1",
    "tracing.py": r"^verified\nPOST /auth/pwd 200 in a trace\n(.*\n)+.*download 429 .*\n.*download 200 in a trace",
}
PROGRESS = r"\[\.{30}\] 0/200 .*ordered\n(.*\n)+\[#{30}\] 200/200 "


def test_every_example_is_tried() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(SAYS)


@pytest.mark.parametrize("name", SAYS)
def test_an_example_runs(name: str, tmp_path: Path) -> None:
    made = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / name)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "TMPDIR": str(tmp_path)},
    )

    assert made.returncode == 0, made.stderr
    assert re.search(SAYS[name], made.stdout), made.stdout
    assert re.search(PROGRESS, made.stderr) if name == "progress.py" else not made.stderr, made.stderr
    assert not list(tmp_path.iterdir())


class TestEncryptedStore(CredentialStoreContract):
    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path: Path) -> None:
        self.directory = tmp_path / "secrets"

    def make_store(self) -> CredentialStore:
        return EncryptedStore(self.directory, bytes(32))

    def test_files_tell_nothing_and_are_of_no_use_elsewhere(self) -> None:
        ops, other = Login("https://iot.sectigo.com", "ops"), Login("https://iot.sectigo.com", "other")
        asyncio.run(self.make_store().save(ops, Item.PASSWORD, Secret("canary-93b1")))
        (file,) = self.directory.iterdir()
        assert b"canary" not in file.read_bytes()

        file.rename(self.directory / file.name.replace(ops.file_name, other.file_name))

        with pytest.raises(CredentialStoreError, match="was not written with this key"):
            asyncio.run(self.make_store().load(other, Item.PASSWORD))
