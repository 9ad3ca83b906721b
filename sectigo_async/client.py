"""The client: wires everything together and owns what it opened."""

import json as json_module
import re
import ssl
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import httpx

from sectigo_async._version import __version__
from sectigo_async.auth import SignIn, TokenManager
from sectigo_async.clock import Clock, SystemClock
from sectigo_async.config import DEFAULT, Config, Environment, Timeout
from sectigo_async.connections import client_certificate_context, open_connections
from sectigo_async.credentials import Credentials, CredentialStore, MemoryStore, resolve, state_directory
from sectigo_async.errors import ConfigurationError, InvalidArgumentError
from sectigo_async.exchange import Exchanger
from sectigo_async.journal import Journal, MemoryJournal
from sectigo_async.resources import (
    Authorities,
    Batches,
    Certificates,
    Issued,
    LicenseCounters,
    Organizations,
    Profiles,
    Wish,
    issue,
)
from sectigo_async.secrets import Secret
from sectigo_async.threads import run_to_end
from sectigo_async.transport import AuthSender, Probe, Transport
from sectigo_async.wire import calls
from sectigo_async.wire.reply import Reply

if TYPE_CHECKING:
    from cryptography import x509

    from sectigo_async.pki import PrivateKey

_USER_AGENT = f"sectigo-async/{__version__}"
_PATH = re.compile(r"/(?!/)[!-\"$-~]*")


class SectigoClient:
    """An asyncio client of the Sectigo IoT Manager API.

    Use it as `async with SectigoClient(...) as client:`, from one event loop. It signs in at the first call,
    keeps its token fresh, and may be shared by any number of tasks.

    What only reads is sent again after connection errors, time-outs and 429, 502, 503 and 504, a few times and
    with growing pauses. What spends money is never sent again once it may have reached the service.

    Args:
        username: who signs in.
        password: their password.
        endpoint: URL of the service; the production service when not given.
        environment: what the endpoint is for; see `Config.create`.
        config: endpoint, environment, time-outs and limits in one, instead of the two above.
        transport: carries the requests instead of connections of its own; stays the caller's to close.
        ssl_context: TLS context; by default one that trusts what the operating system trusts. Signing in with a
            client certificate has one of its own, which trusts that and `Config.ca_bundle`.
        proxy: URL of a proxy, which may hold a password; by default what HTTPS_PROXY and NO_PROXY say, never for
            this machine. Plain http is refused where the proxy is on another one.
        store: keeps the refresh token, and the password where `login` put it, between processes; these share the
            access token and a lock in the state directory. By default, and with a `MemoryStore`, all ends with the
            process.
        credentials: who signs in, as `credentials.resolve` found it, instead of `username`, `password` and `store`.
        journal: where each order is written down before it is sent; in memory, when not given. With a
            `SqliteJournal`, `batches.reconcile` finds what a process ordered that was killed.
        clock: time, for tests.

    Attributes:
        authorities: certificate authorities and what is left to order.
        batches: ordering, waiting, downloading.
        certificates: finding and revoking.
        licenses: licence counters.
        organizations: the user's organisation.
        profiles: profiles and their parameters.
        config: the configuration in force.
        username: who signs in, where that is known.

    Raises:
        ConfigurationError: the endpoint is no URL, or does not fit the environment.
    """

    def __init__(
        self,
        *,
        username: str | None = None,
        password: str | Secret | None = None,
        endpoint: str | None = None,
        environment: Environment | str | None = None,
        config: Config | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        ssl_context: ssl.SSLContext | None = None,
        proxy: str | Secret | None = None,
        store: CredentialStore | None = None,
        credentials: Credentials | None = None,
        journal: Journal | None = None,
        clock: Clock | None = None,
    ) -> None:
        # No frame on the way of an error holds a password as it was given; a proxy's address may hold one.
        password = Secret(password) if password else None
        proxy = Secret(proxy) if proxy else None
        if config is not None and (endpoint is not None or environment is not None):
            raise ConfigurationError(
                "give either config or endpoint and environment", hint="Config.create takes both"
            )
        if credentials is not None and not (username is None and password is None and store is None):
            raise ConfigurationError(
                "give either credentials, or username, password and store", hint="`credentials.resolve` makes them"
            )
        if transport is not None and (ssl_context is not None or proxy is not None):
            raise ConfigurationError(
                "give either transport, or ssl_context and proxy", hint="a transport brings its own connections"
            )
        self.config: Config = config or Config.create(endpoint, environment)
        self._clock = clock or SystemClock()
        self._proxy = proxy
        self._given_transport = transport
        self._owned: list[httpx.AsyncBaseTransport] = []
        found = credentials or Credentials(
            username=username or None,
            password=password,
            store=store,
            directory=None if store is None or isinstance(store, MemoryStore) else state_directory(),
        )
        self.username: str | None = found.username
        # Signing in has connections of its own: it never waits for calls that wait for it.
        for_calls, for_signing_in = (self._exchanger(ssl_context) for _ in range(2))
        tokens = TokenManager(
            sender=AuthSender(for_signing_in, self.config, self._clock, self._with_certificate),
            credentials=found,
            shared=found.share(self.config.endpoint, self._clock),
            config=self.config,
            clock=self._clock,
        )
        sender = Transport(for_calls, tokens, self.config, self._clock)
        self._transport = sender
        self.authorities: Authorities = Authorities(sender)
        self.batches: Batches = Batches(sender, self._clock, journal or MemoryJournal())
        self.certificates: Certificates = Certificates(sender, self._clock)
        self.licenses: LicenseCounters = LicenseCounters(sender)
        self.organizations: Organizations = Organizations(sender)
        self.profiles: Profiles = Profiles(sender)

    def _exchanger(self, ssl_context: ssl.SSLContext | None) -> Exchanger:
        http = self._given_transport
        if http is None:
            http = self._open(self.config.endpoint, ssl_context, self.config.connections)
            self._owned.append(http)
        return Exchanger(http, self.config, _USER_AGENT)

    def _open(self, origin: str, ssl_context: ssl.SSLContext | None, size: int) -> httpx.AsyncBaseTransport:
        return open_connections(
            origin,
            size=size,
            keep_alive=self.config.keep_alive,
            ssl_context=ssl_context,
            ca_bundle=self.config.ca_bundle,
            proxy=self._proxy,
        )

    @asynccontextmanager
    async def _with_certificate(self, origin: str) -> AsyncIterator[Exchanger]:
        """Give what sends one request to `origin` with the client certificate."""
        certificate = self.config.client_certificate
        assert certificate is not None
        if self._given_transport is not None:
            yield Exchanger(self._given_transport, self.config, _USER_AGENT, base=origin)
            return
        context = await run_to_end(client_certificate_context, certificate, self.config.ca_bundle)
        async with aclosing(self._open(origin, context, 1)) as http:
            yield Exchanger(http, self.config, _USER_AGENT, base=origin)

    @classmethod
    def from_env(
        cls,
        *,
        account: str | None = None,
        environ: Mapping[str, str] | None = None,
        journal: Journal | None = None,
    ) -> "SectigoClient":
        """Make a client from the environment and from what `sectigo-async login` keeps.

        The variables are those of `sectigo_async.variables`, their precedence that of `credentials.resolve`.

        Args:
            account: name of an account that `login` made.
            environ: the environment; `os.environ` when not given.
            journal: where each order is written down before it is sent; in memory, when not given.

        Raises:
            ConfigurationError: values that cannot work, or contradict each other.
            CredentialStoreError: the list of accounts cannot be read.
        """
        found = resolve(account=account, environ=environ)
        return cls(config=found.config, credentials=found.credentials, journal=journal)

    def __repr__(self) -> str:
        config = getattr(self, "config", None)  # Crash reports show half-made clients too.
        return f"SectigoClient(endpoint={config.endpoint if config else None!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Take no more calls, and close the connections that this client opened."""
        async with AsyncExitStack() as stack:
            for owned in self._owned:
                stack.push_async_callback(owned.aclose)
            await self._transport.aclose()

    async def sign_in(self, *, fresh: bool = False) -> SignIn:
        """Make sure that there is a token, which every call does by itself, and tell where it came from.

        Args:
            fresh: sign in with the password, whatever tokens there are. A password that the service has refused
                is not sent again (`credentials.SharedLogin.clear_refusal` has it sent).

        Raises:
            AuthenticationError: no token can be had, or, with `fresh`, the refresh token cannot be kept.
            NoReplyError: the service did not answer.
        """
        return await self._transport.sign_in(fresh=fresh)

    async def probe(self) -> Probe:
        """Ask the endpoint for its front page, without signing in: whether it answers, over which TLS, at what time.

        Returns:
            What was found; any HTTP status counts as an answer. It waits for `Config.connect_timeout` and
            `Config.read_timeout` at most.

        Raises:
            NoReplyError: it did not answer; says why.
        """
        return await self._transport.probe()

    async def request(
        self,
        method: str,
        path: str,
        *,
        json: object = None,
        content: bytes | None = None,
        content_type: str = calls.JSON,
        accept: str = calls.JSON,
        timeout: Timeout = DEFAULT,
    ) -> Reply:
        """Send any request of the same service, with token, retries and errors as everywhere.

        All but GET and HEAD count as not repeatable.

        Args:
            method: HTTP method.
            path: path below the endpoint, query included; never a whole URL.
            json: a document to send as JSON.
            content: bytes to send instead.
            content_type: media type of what is sent.
            accept: media type asked for.
            timeout: seconds for the whole call.

        Returns:
            The reply, read to its end and whatever its media type; its status is 2xx.

        Raises:
            InvalidArgumentError: `path` is no path, or both `json` and `content` are given.
            ServiceError: the service answered with an error.
            OutcomeUnknownError: the request may or may not have run.
        """
        if not _PATH.fullmatch(path) or not re.fullmatch(r"[A-Za-z]+", method):
            raise InvalidArgumentError(
                f"{method} {path!r} is not a request of this service",
                hint="give a method and a path that starts with one slash, like /api/v1/users/current",
            )
        if json is not None and content is not None:
            raise InvalidArgumentError("give either json or content")
        body = content if json is None else json_module.dumps(json).encode()
        call = calls.raw(method, path, body=body, content_type=content_type, accept=accept)
        return await self._transport.send(call, timeout=timeout)

    async def issue(
        self,
        *,
        common_name: str,
        profile_id: int,
        directory: Path | str | None = None,
        key: "PrivateKey | None" = None,
        dns_names: Sequence[str] = (),
        subject: Mapping[str, str] | None = None,
        trust: "Iterable[x509.Certificate] | None" = None,
        timeout: float | None = 1800.0,
    ) -> Issued:
        """Get one certificate for a key that never leaves this machine. This spends a licence.

        With `directory`, a folder named after `common_name` is made in it. The key (`privkey.pem`) and the intent
        (`issue.json`) are durable there before the order is sent, the batch id right after; then follow the
        archive and `cert.pem`, `chain.pem` and `fullchain.pem`. Calling it again with the same arguments goes on
        where it stopped, and never orders again.

        Without `trust` or `Config.trust_anchors` the chain is "root not pinned", never "verified".

        Args:
            common_name: common name of the certificate.
            profile_id: the profile to order under.
            directory: where the folder is made; or
            key: the caller's own key.
            dns_names: DNS names; `common_name` alone when not given.
            subject: further parts of the subject; see `pki.make_csr`.
            trust: roots to check the chain against; those of `Config.trust_anchors` when not given.
            timeout: seconds for all of it; `None` for no limit.

        Returns:
            The certificate with the result of each check; a failed check raises nothing.

        Raises:
            InvalidArgumentError: neither or both of `directory` and `key` are given.
            OutcomeUnknownError: it may or may not have been ordered, now or by an earlier call.
            BatchFailed: the service will not issue it.
            WaitTimeout: it was not ready in time.
            FileError: the folder cannot be used.
        """
        if trust is None and self.config.trust_anchors is not None:
            from sectigo_async.pki import load_certificates

            trust = await run_to_end(load_certificates, self.config.trust_anchors)
        wish = Wish(
            endpoint=self.config.endpoint,
            profile_id=profile_id,
            common_name=common_name,
            dns_names=tuple(dns_names) or (common_name,),
            subject=dict(subject or {}),
        )
        return await issue(
            self.batches, self._clock, wish, directory=directory, key=key, trust=trust, timeout=timeout
        )
