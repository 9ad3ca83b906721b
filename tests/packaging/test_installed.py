"""The package as a user has it: each test is a process of the Python in which it is installed.

`SECTIGO_TEST_PYTHON` names that Python, `SECTIGO_TEST_EXTRAS` the extras it was installed with, with commas between
them. Without them it is this environment. `make wheels` names many.
"""

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

PYTHON = os.environ.get("SECTIGO_TEST_PYTHON", sys.executable)
EXTRAS = set(os.environ.get("SECTIGO_TEST_EXTRAS", "cli,fleet,sandbox").split(","))
EXTRAS |= {"cli", "fleet", "sandbox"} if "all" in EXTRAS else set()

Run = Callable[..., "subprocess.CompletedProcess[str]"]

needs = {name: pytest.mark.skipif(name not in EXTRAS, reason=f"without extra {name}") for name in ("cli", "fleet")}
needs["demo"] = pytest.mark.skipif(not {"cli", "sandbox"} <= EXTRAS, reason="without extras cli and sandbox")

IMPORT_ALL = """
import importlib, pathlib, sys
extras = set(sys.argv[1:])
homes = {"sectigo_async.sandbox": {"sandbox"}, "sectigo_async_cli.demo": {"cli", "sandbox"}}
homes |= {"sectigo_async.fleet": {"fleet"}, "sectigo_async_cli.": {"cli"}}
homes |= {"sectigo_async.testing.plugin": {"pytest, which its user has"}}
for package in ("sectigo_async", "sectigo_async_cli"):
    root = pathlib.Path(importlib.import_module(package).__file__).parent
    for file in sorted(root.rglob("*.py")):
        name = ".".join(file.relative_to(root.parent).with_suffix("").parts).removesuffix(".__init__")
        if all(needed <= extras for home, needed in homes.items() if name.startswith(home)):
            module = importlib.import_module(name)
            for public in getattr(module, "__all__", ()):
                getattr(module, public)
            print(name)
"""

SIGN_IN_AND_LIST = """
import asyncio, base64, json, httpx
from sectigo_async import SectigoClient

part = base64.urlsafe_b64encode(json.dumps({"iat": 1700000000, "exp": 1700000900}).encode()).decode().rstrip("=")
token = f"e30.{part}.signature"
seen = []

def answer(request):
    seen.append([request.method, request.url.path, request.headers["user-agent"]])
    if request.url.path == "/auth/pwd":
        return httpx.Response(200, json={"accessToken": token, "refreshToken": token})
    assert request.headers["authorization"] == f"Bearer {token}"
    return httpx.Response(200, json=[{"id": 423, "profileId": 42, "profileName": "Gateways"}])

async def main():
    async with SectigoClient(username="ops", password="x", transport=httpx.MockTransport(answer)) as client:
        (authority,) = await client.authorities.list()
    print(json.dumps({"seen": seen, "authority": authority.id}))

asyncio.run(main())
"""


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run a program in an empty folder, with an empty home."""

    def start(*command: str) -> "subprocess.CompletedProcess[str]":
        kept = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT", "TEMP") if name in os.environ}
        home = {"HOME": str(tmp_path / "home"), "USERPROFILE": str(tmp_path / "home")}
        return subprocess.run(
            command, cwd=tmp_path, env=kept | home, capture_output=True, text=True, check=False, timeout=50
        )

    return start


def python(run: Run, code: str, *arguments: str) -> str:
    # Isolated: neither the folder nor PYTHONPATH is looked at.
    result = run(PYTHON, "-I", "-c", code, *arguments)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def program() -> str:
    found = shutil.which("sectigo-async", path=str(Path(PYTHON).parent))
    assert found is not None
    return found


@pytest.mark.skipif(sys.executable == PYTHON, reason="this environment has the checkout installed")
def test_it_is_the_installed_package_that_is_tested(run: Run) -> None:
    code = "import sectigo_async, sectigo_async_cli; print(sectigo_async.__file__, sectigo_async_cli.__file__)"

    assert python(run, code).count("site-packages") == 2


def test_every_module_loads_and_every_public_name_resolves(run: Run) -> None:
    loaded = python(run, IMPORT_ALL, *EXTRAS).splitlines()

    assert {"sectigo_async.client", "sectigo_async.pki", "sectigo_async.testing"} <= set(loaded)
    assert ("sectigo_async_cli.app" in loaded) is ("cli" in EXTRAS)
    assert ("sectigo_async.sandbox" in loaded) is ("sandbox" in EXTRAS)


def test_type_checkers_are_told_that_it_has_types(run: Run) -> None:
    code = "from importlib.resources import files; import sectigo_async, sectigo_async_cli as c\n"
    code += "print(files(sectigo_async).joinpath('py.typed').is_file(), files(c).joinpath('py.typed').is_file())"

    assert python(run, code) == "True True"


def test_signs_in_lists_and_tells_the_version_that_the_metadata_has(run: Run) -> None:
    told = json.loads(python(run, SIGN_IN_AND_LIST))

    assert told["authority"] == 423
    version = python(run, "import importlib.metadata; print(importlib.metadata.version('sectigo-async'))")
    agent = f"sectigo-async/{version}"
    assert told["seen"] == [["POST", "/auth/pwd", agent], ["GET", "/api/v1/authorities/allowed", agent]]


def test_the_command_and_the_library_tell_the_same_version(run: Run) -> None:
    version = python(run, "import sectigo_async; print(sectigo_async.__version__)")

    assert version == importlib.metadata.version("sectigo-async")
    shown = run(program(), "--version")
    assert (shown.returncode, shown.stdout) == (0, f"sectigo-async {version}\n"), shown.stderr


@needs["cli"]
def test_the_command_runs(run: Run) -> None:
    shown = run(program(), "--help")

    assert shown.returncode == 0, shown.stderr
    assert "download" in shown.stdout


@pytest.mark.skipif("cli" in EXTRAS, reason="with extra cli")
def test_without_its_extra_the_command_says_how_to_install_it(run: Run) -> None:
    shown = run(program(), "authorities")

    assert shown.returncode == 1
    assert shown.stderr == "The command line is an extra. Install it with: pip install 'sectigo-async[cli]'\n"


@needs["cli"]
@pytest.mark.skipif("sandbox" in EXTRAS, reason="with extra sandbox")
def test_without_the_simulator_the_demo_says_how_to_install_it(run: Run) -> None:
    shown = run(program(), "demo")

    assert shown.returncode == 1
    assert "pip install 'sectigo-async[sandbox]'" in shown.stderr


@needs["demo"]
def test_the_demo_issues_and_verifies(run: Run, tmp_path: Path) -> None:
    shown = run(program(), "demo")

    assert shown.returncode == 0, shown.stderr
    assert [row["status"] for row in json.loads(shown.stdout)] == ["valid"] * 4 + ["revoked"]
    assert (tmp_path / "demo-certs/gw-1.example.com/cert.pem").is_file()


@needs["fleet"]
def test_the_fleet_has_a_driver_that_needs_no_library_of_the_system(run: Run) -> None:
    code = "import procrastinate, psycopg, psycopg_pool; print(psycopg.pq.__impl__)"

    assert python(run, code) == "binary"
