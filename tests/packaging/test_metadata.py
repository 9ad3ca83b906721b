"""What is built and installed."""

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

import sectigo_async


def test_version_comes_from_one_place() -> None:
    assert importlib.metadata.version("sectigo-async") == sectigo_async.__version__


def test_extras_are_those_the_readme_names() -> None:
    extras = set(importlib.metadata.metadata("sectigo-async").get_all("Provides-Extra") or [])

    assert extras == {"cli", "fleet", "sandbox", "all", "dev"}


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_without_its_extra_the_command_says_how_to_install_it(missing: str) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; from sectigo_async_cli import main; main()"

    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert result.returncode == 1
    assert "pip install 'sectigo-async[cli]'" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("command", ["serve", "demo"])
def test_without_the_simulator_its_commands_say_how_to_install_it(command: str, tmp_path: Path) -> None:
    code = f"import sys; sys.modules['uvicorn'] = None; sys.argv[1:] = [{command!r}]\n"
    code += "from sectigo_async_cli import main; main()"

    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)

    assert result.returncode == 1
    assert "pip install 'sectigo-async[sandbox]'" in result.stderr
    assert not list(tmp_path.iterdir())
