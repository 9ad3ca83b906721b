"""The service, in front of the simulator.

In a project of its own, this names the plugin: `pytest_plugins = ["sectigo_async.testing.plugin"]`. Here the settings
of the project that it lies in do that.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import httpx
import pytest

from examples.service.app import create_app
from sectigo_async import SectigoClient


@pytest.fixture
def open_service(
    tmp_path: Path,
) -> Callable[[Callable[[], SectigoClient]], AbstractAsyncContextManager[httpx.AsyncClient]]:
    """What starts the service in this process, and gives what talks to it without a socket."""

    @asynccontextmanager
    async def start(make_client: Callable[[], SectigoClient]) -> AsyncIterator[httpx.AsyncClient]:
        app = create_app(make_client, tmp_path)
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://service") as caller,
        ):
            yield caller

    return start


@pytest.fixture
async def service(
    open_service: Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]],
    sectigo_client_factory: Callable[[], SectigoClient],
) -> AsyncIterator[httpx.AsyncClient]:
    """The service, signed in to the simulator."""
    async with open_service(sectigo_client_factory) as caller:
        yield caller
