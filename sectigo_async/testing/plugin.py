"""A pytest plugin: fixtures that give your tests a simulated service, without an account and without money.

Nobody gets it unasked. Name it in the `conftest.py` at the top of your tests

```python
pytest_plugins = ["sectigo_async.testing.plugin"]
```

or on the command line, `pytest -p sectigo_async.testing.plugin`. It needs `pip install 'sectigo-async[sandbox]'`.

The fixtures are plain functions, and each is made anew for each test. They work with pytest-asyncio in either mode,
with anyio on asyncio, and in tests that are not asynchronous. To change one, define a fixture of its name in your
`conftest.py`, module or class:

```python
@pytest.fixture
def sectigo_sandbox_config() -> SandboxConfig:
    return SandboxConfig(issue_delay=600, balance=2)
```
"""

import os
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from sectigo_async.client import SectigoClient
from sectigo_async.errors import ConfigurationError
from sectigo_async.testing.clock import FakeClock
from sectigo_async.testing.running import RunningSandbox, default_config

if TYPE_CHECKING:
    from sectigo_async.sandbox import SandboxConfig

__all__ = [
    "sectigo_client_factory",
    "sectigo_clock",
    "sectigo_environ",
    "sectigo_sandbox",
    "sectigo_sandbox_config",
]


@pytest.fixture
def sectigo_clock() -> FakeClock:
    """The time of the sandbox and of the clients that the factory makes; it starts now, and `advance` moves it."""
    return FakeClock(start=time.time())


@pytest.fixture
def sectigo_sandbox_config() -> "SandboxConfig":
    """The settings of the sandbox: it issues at once. Define this fixture anew to change them."""
    try:
        return default_config()
    except ConfigurationError as error:
        problem = f"{error}: {error.hint}"
    pytest.fail(problem, pytrace=False)


@pytest.fixture
def sectigo_sandbox(sectigo_sandbox_config: "SandboxConfig", sectigo_clock: FakeClock) -> Iterator[RunningSandbox]:
    """A sandbox that listens on this machine: `url`, `username`, `password`, `root()`, `set_faults()`, `stats()`."""
    with RunningSandbox(sectigo_sandbox_config, sectigo_clock) as running:
        yield running


@pytest.fixture
def sectigo_client_factory(sectigo_sandbox: RunningSandbox) -> Callable[..., SectigoClient]:
    """What makes clients of the sandbox, to be entered with `async with`: see `RunningSandbox.client`."""
    return sectigo_sandbox.client


@pytest.fixture
def sectigo_environ(sectigo_sandbox: RunningSandbox, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The SECTIGO_ variables that lead `SectigoClient.from_env()`, and programs started by a test, to the sandbox.

    All others are taken away, and nothing is kept between processes. Such a client has the machine's own clock: an
    order that takes time is only ready once the test moves `sectigo_clock`.
    """
    for name in [name for name in os.environ if name.startswith("SECTIGO_")]:
        monkeypatch.delenv(name)
    variables = {
        "SECTIGO_ENDPOINT": sectigo_sandbox.url,
        "SECTIGO_ENVIRONMENT": "testing",
        "SECTIGO_USERNAME": sectigo_sandbox.username,
        "SECTIGO_PASSWORD": sectigo_sandbox.password,
        "SECTIGO_CREDENTIAL_STORE": "memory",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return variables
