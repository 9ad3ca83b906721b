"""The pytest plugin, as users have it: in a pytest of its own, with the plugins and settings of theirs."""

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

from sectigo_async.sandbox import SandboxConfig
from sectigo_async.testing import RunningSandbox

PLUGIN = 'pytest_plugins = ["sectigo_async.testing.plugin"]\n'

TESTS = """
import pytest

from sectigo_async import BatchStatus, SectigoClient
from sectigo_async.errors import OutcomeUnknownError, RateLimitError
from sectigo_async.pki import ChainStatus, generate_key
from sectigo_async.sandbox import Fault, FaultRule, SandboxConfig

@pytest.fixture
def anyio_backend():
    return "asyncio"


{mark}
async def test_a_client_issues(sectigo_client_factory, sectigo_sandbox, tmp_path):
    async with sectigo_client_factory() as client:
        issued = await client.issue(
            common_name="gw7.example.com", profile_id=42, directory=tmp_path, trust=[sectigo_sandbox.root()]
        )
    assert issued.certificate.chain_check.status is ChainStatus.VERIFIED
    assert sectigo_sandbox.stats()["orders"] == 1


class TestSlow:
    @pytest.fixture
    def sectigo_sandbox_config(self):
        return SandboxConfig(issue_delay=3600)

    {mark}
    async def test_an_hour_of_issuing_takes_no_time(self, sectigo_client_factory, sectigo_clock):
        before = sectigo_clock.time()
        async with sectigo_client_factory() as client:
            await client.issue(common_name="x.example.com", profile_id=42, key=generate_key(), timeout=None)
        assert sectigo_clock.time() - before >= 3600

    {mark}
    async def test_the_test_moves_time(self, sectigo_client_factory, sectigo_clock):
        async with sectigo_client_factory() as client:
            batch = await client.batches.create(
                authority_id=3,
                params={{"commonName": "gw7", "serialNumber": "SN-7", "pkcs12Password": "secrtpasswrd"}},
            )
            assert batch.status is BatchStatus.CREATED
            sectigo_clock.advance(3600)
            assert (await client.batches.get(batch.batch_id)).status is BatchStatus.READY_FOR_DOWNLOAD


{mark}
async def test_it_fails_as_told(sectigo_client_factory, sectigo_sandbox, sectigo_clock):
    async with sectigo_client_factory() as client:
        sectigo_sandbox.set_faults(FaultRule(route="POST /api/v1/batches/upload", fault=Fault.LOST_REPLY))
        with pytest.raises(OutcomeUnknownError):
            await client.issue(common_name="x.example.com", profile_id=42, key=generate_key())
        sectigo_sandbox.set_faults(FaultRule(route="*", fault=Fault.RATE_LIMIT, retry_after=40))
        with pytest.raises(RateLimitError):
            await client.licenses.get()
        sectigo_sandbox.set_faults()
        assert (await client.licenses.get()).ordered == 1
    assert max(sectigo_clock.sleeps) >= 40
    assert sectigo_sandbox.stats()["faults"]["lost-reply"] == 1


{mark}
async def test_from_env(sectigo_environ, sectigo_sandbox):
    async with SectigoClient.from_env() as client:
        await client.licenses.get()
        sectigo_sandbox.reset_tokens()
        await client.licenses.get()
    assert sectigo_sandbox.stats()["logins"] == 2


def test_each_test_has_its_own(sectigo_sandbox):
    assert sectigo_sandbox.stats()["orders"] == 0
    with pytest.raises(ValueError, match="unknown route"):
        sectigo_sandbox.set_faults(FaultRule(route="PUT /nowhere", fault=Fault.LATENCY, seconds=1))
"""
COUNT = 6

ASYNCIO = ("-p", "no:anyio", "-o", "asyncio_default_fixture_loop_scope=function", "-o")
NO_ASYNCIO = ("-p", "no:asyncio")

Pytest = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run_pytest(tmp_path: Path) -> Pytest:
    """Run pytest in a folder of the test's own, with every warning an error and none of this project's settings."""
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    (tmp_path / "conftest.py").write_text(PLUGIN)

    def run(tests: str, *options: str, code: int = 0, **settings: str) -> "subprocess.CompletedProcess[str]":
        (tmp_path / "test_it.py").write_text(tests)
        made = subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *(options or NO_ASYNCIO)],
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)} | settings,
            capture_output=True,
            text=True,
            check=False,
            timeout=50,
        )
        assert made.returncode == code, made.stdout + made.stderr
        return made

    return run


def passed(made: "subprocess.CompletedProcess[str]") -> int:
    found = re.search(r"(\d+) passed in", made.stdout)
    assert found is not None, made.stdout
    return int(found[1])


@pytest.mark.parametrize(
    ("mark", "options"),
    [
        pytest.param("", (*ASYNCIO, "asyncio_mode=auto"), id="pytest-asyncio auto"),
        pytest.param("", (*ASYNCIO, "asyncio_mode=auto", "-n", "2"), id="xdist"),
        pytest.param("@pytest.mark.asyncio", (*ASYNCIO, "asyncio_mode=strict"), id="pytest-asyncio strict"),
        pytest.param("@pytest.mark.anyio", NO_ASYNCIO, id="anyio"),
    ],
)
def test_it_works_with_every_plugin_for_asyncio(run_pytest: Pytest, mark: str, options: tuple[str, ...]) -> None:
    assert passed(run_pytest(TESTS.format(mark=mark), *options)) == COUNT


SYNCHRONOUS = """
def test_it(sectigo_sandbox):
    assert sectigo_sandbox.url.startswith("http://127.0.0.1:")
"""


def test_nobody_gets_it_unasked(run_pytest: Pytest, tmp_path: Path) -> None:
    (tmp_path / "conftest.py").unlink()

    assert "fixture 'sectigo_sandbox' not found" in run_pytest(SYNCHRONOUS, code=1).stdout
    assert passed(run_pytest(SYNCHRONOUS, *NO_ASYNCIO, "-p", "sectigo_async.testing.plugin")) == 1


def test_without_the_extra_a_fixture_tells_how_to_install_it(run_pytest: Pytest, tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text("import sys; sys.modules['uvicorn'] = None\n" + PLUGIN)
    untouched = (
        "from sectigo_async.testing import FakeClock\ndef test_other(sectigo_clock): sectigo_clock.advance(1)\n"
    )

    said = run_pytest(untouched + SYNCHRONOUS, code=1).stdout

    assert "uvicorn is not installed: pip install 'sectigo-async[sandbox]'" in said
    assert "1 passed, 1 error" in said
    assert "Traceback" not in said


def test_no_setting_of_this_machine_reaches_a_client_of_the_environment(run_pytest: Pytest, tmp_path: Path) -> None:
    tests = dedent("""
        import asyncio
        from sectigo_async import SectigoClient

        def test_it(sectigo_environ, sectigo_sandbox):
            async def ask():
                async with SectigoClient.from_env() as client:
                    await client.licenses.get()
            asyncio.run(ask())
            assert sectigo_sandbox.stats()["logins"] == 1
    """)

    run_pytest(
        tests,
        SECTIGO_ENDPOINT="https://iot.sectigo.com",
        SECTIGO_ACCESS_TOKEN="of.another.login",
        SECTIGO_ACCOUNT="prod",
        SECTIGO_CREDENTIAL_STORE="file",
    )

    assert not list(tmp_path.glob(".local/**/*token*"))


def test_a_sandbox_that_cannot_listen_says_so(run_pytest: Pytest) -> None:
    tests = dedent("""
        import pytest
        import sectigo_async.sandbox
        from sectigo_async.testing import RunningSandbox

        def test_it(monkeypatch):
            class Refused(sectigo_async.sandbox.SandboxServer):
                def __init__(self, sandbox):
                    super().__init__(sandbox, "192.0.2.1")
            monkeypatch.setattr(sectigo_async.sandbox, "SandboxServer", Refused)
            with pytest.raises(OSError, match="cannot listen on 192.0.2.1"), RunningSandbox():
                pass
    """)

    run_pytest(tests)


def test_a_sandbox_with_a_file_goes_on_in_the_next_one(tmp_path: Path) -> None:
    config = SandboxConfig(state=tmp_path / "sandbox.db", issue_delay=0)
    roots = []
    for _ in range(2):
        with RunningSandbox(config) as running:
            roots.append(running.root())
            asyncio.run(_sign_in(running))

    assert roots[0] == roots[1]
    with RunningSandbox(config) as running:
        assert running.stats()["logins"] == 2


async def _sign_in(running: RunningSandbox) -> None:
    async with running.client() as client:
        await client.sign_in()
