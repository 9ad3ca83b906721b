"""A sandbox that listens while a test runs, whatever loop the test has."""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self, TypeVar

from sectigo_async.client import SectigoClient
from sectigo_async.clock import Clock
from sectigo_async.config import Config
from sectigo_async.credentials import CredentialStore
from sectigo_async.errors import ConfigurationError
from sectigo_async.journal import Journal
from sectigo_async.secrets import Secret
from sectigo_async.testing.clock import FakeClock

if TYPE_CHECKING:
    from cryptography import x509

    from sectigo_async.sandbox import FaultRule, SandboxConfig, Stats

T = TypeVar("T")

_PATIENCE: Final = 30


class RunningSandbox:
    """A sandbox on a socket of this machine, in a thread of its own, while its `with` block runs.

    It needs no event loop of the caller, so it serves a synchronous fixture and any plugin for asyncio alike.

    Args:
        config: its settings; those of `default_config` when not given.
        clock: all its time, and that of the clients that `client` makes; a `FakeClock` of today when not given.

    Attributes:
        sandbox: the sandbox itself. It belongs to the thread: look at it between calls, and change nothing.
        clock: its time.
        url: where it listens, once the block is entered.
        username: who signs in.
        password: their password.

    Raises:
        ConfigurationError: the extra `sandbox` is not installed.
        StateError: the file of `SandboxConfig.state` cannot be used.
    """

    def __init__(self, config: "SandboxConfig | None" = None, clock: Clock | None = None) -> None:
        config = config or default_config()
        from sectigo_async.sandbox import Sandbox

        self.clock: Clock = clock or FakeClock(start=time.time())
        self.sandbox: Sandbox = Sandbox(config, self.clock)
        self.username: str = config.username
        self.password: str = config.password
        self.url: str = ""
        self._listens: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name="sectigo-sandbox", daemon=True)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # noqa: BLE001 - it is raised where the block is entered
            if not self._listens.done():
                self._listens.set_exception(error)
        finally:
            self.sandbox.close()

    async def _serve(self) -> None:
        from sectigo_async.sandbox import SandboxServer

        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        async with SandboxServer(self.sandbox) as server:
            self.url = server.url
            self._listens.set_result(None)
            await self._end.wait()

    def __enter__(self) -> Self:
        self._thread.start()
        self._listens.result(_PATIENCE)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(_PATIENCE)

    def client(
        self,
        *,
        username: str | None = None,
        password: str | Secret | None = None,
        config: Config | None = None,
        store: CredentialStore | None = None,
        journal: Journal | None = None,
        clock: Clock | None = None,
    ) -> SectigoClient:
        """Return a new client of this sandbox, to be entered with `async with`.

        It shares the sandbox's clock: where it waits, an order moves on, and no real time passes.

        Args:
            username: who signs in; the sandbox's account when not given.
            password: their password; the right one when not given.
            config: time-outs and limits; `Config.create(url)` when not given.
            store: as for `SectigoClient`.
            journal: as for `SectigoClient`.
            clock: its time, where it is not the sandbox's.
        """
        return SectigoClient(
            username=username or self.username,
            password=password or self.password,
            config=config or Config.create(self.url),
            store=store,
            journal=journal,
            clock=clock or self.clock,
        )

    def root(self) -> "x509.Certificate":
        """Return the root certificate: what to give as `trust=`."""
        from cryptography import x509

        return x509.load_pem_x509_certificate(self.sandbox.ca_pem())

    def set_faults(self, *rules: "FaultRule") -> None:
        """Put these faults in force, in the place of those before; none ends all trouble.

        A fault that takes time takes it from the clock: a `FakeClock` moves on, and nobody waits.

        Raises:
            ValueError: a rule names no route of the service, or a value that cannot be.
        """
        from sectigo_async.sandbox import parse_faults

        checked = parse_faults([rule.document() for rule in rules])
        self._do(lambda: self.sandbox.faults.replace(checked))

    def stats(self) -> "Stats":
        """Return what clients have done so far: `orders`, `logins`, `polls`, `faults` and more."""
        return self._do(self.sandbox.stats)

    def reset_tokens(self) -> None:
        """Forget every token, as a restart of the service would: each call must sign in anew."""
        self._do(self.sandbox.reset_tokens)

    def _do(self, work: Callable[[], T]) -> T:
        """Do something in the thread that the sandbox belongs to."""

        async def do() -> T:
            return work()

        return asyncio.run_coroutine_threadsafe(do(), self._loop).result(_PATIENCE)


def default_config() -> "SandboxConfig":
    """Return the settings of a sandbox that issues at once.

    Raises:
        ConfigurationError: the extra `sandbox` is not installed.
    """
    try:
        from sectigo_async.sandbox import SandboxConfig
    except ImportError as error:
        missing = error.name
    else:
        return SandboxConfig(issue_delay=0)
    raise ConfigurationError(
        f"the simulator is an extra, and {missing} is not installed", hint="pip install 'sectigo-async[sandbox]'"
    )
