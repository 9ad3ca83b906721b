import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _nothing_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep the settings, proxies and state of whoever runs the tests out of them."""
    for name in list(os.environ):
        foreign = name.upper().endswith("_PROXY") or name.startswith(("SECTIGO_", "XDG_"))
        if foreign and name != "SECTIGO_TEST_REQUIRE":
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))


@pytest.fixture
def openssl(tmp_path: Path) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Run the openssl command line tool in the test's folder."""
    tool = shutil.which("openssl")
    if tool is None:
        if "openssl" in os.environ.get("SECTIGO_TEST_REQUIRE", "").split(","):
            pytest.fail("openssl is required and not installed")
        pytest.skip("openssl is not installed")

    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [tool, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=30
        )

    return run
