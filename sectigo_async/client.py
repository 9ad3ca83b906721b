"""The client: wires everything together and owns what it opened."""

import json as json_module
import os
import re
import ssl
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import httpx

from sectigo_async._version import __version__
from sectigo_async.auth import TokenManager
from sectigo_async.clock import Clock, SystemClock
from sectigo_async.config import DEFAULT, Config, Environment, Timeout
from sectigo_async.connections import open_connections
from sectigo_async.credentials import TokenStore, resolve_credentials
from sectigo_async.errors import ConfigurationError, InvalidArgumentError
from sectigo_async.exchange import Exchanger
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
from sectigo_async.transport import Transport, auth_sender
from sectigo_async.wire import calls
from sectigo_async.wire.reply import Reply

if TYPE_CHECKING:
    from cryptography import x509

    from sectigo_async.pki import PrivateKey

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
        ssl_context: TLS context; by default one that trusts what the operating system trusts.
        proxy: URL of a proxy; by default what HTTPS_PROXY and NO_PROXY say, never for this machine.
        token_store: keeps the access token between processes; by default it ends with the client.
        clock: time, for tests.

    Attributes:
        authorities: certificate authorities and what is left to order.
        batches: ordering, waiting, downloading.
        certificates: finding and revoking.
        licenses: licence counters.
        organizations: the user's organisation.
        profiles: profiles and their parameters.
        config: the configuration in force.

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
        proxy: str | None = None,
        token_store: TokenStore | None = None,
        clock: Clock | None = None,
    ) -> None:
        if config is not None and (endpoint is not None or environment is not None):
            raise ConfigurationError(
                "give either config or endpoint and environment", hint="Config.create takes both"
            )
        self.config = config or Config.create(endpoint, environment)
        credentials = resolve_credentials(username, password, environ={})
        self._owned: list[httpx.AsyncBaseTransport] = []
        if transport is None:
            # Signing in has a connection of its own: it never waits for calls that wait for it.
            for_calls, for_signing_in = self._owned = [
                open_connections(self.config, ssl_context=ssl_context, proxy=proxy) for _ in range(2)
            ]
        elif ssl_context is not None or proxy is not None:
            raise ConfigurationError(
                "give either transport, or ssl_context and proxy", hint="a transport brings its own connections"
            )
        else:
            for_calls = for_signing_in = transport
        self._clock = clock or SystemClock()
        agent = f"sectigo-async/{__version__}"
        tokens = TokenManager(
            send=auth_sender(Exchanger(for_signing_in, self.config, agent), self.config),
            credentials=credentials,
            clock=self._clock,
            store=token_store,
        )
        sender = Transport(Exchanger(for_calls, self.config, agent), tokens, self.config, self._clock)
        self._transport = sender
        self.authorities = Authorities(sender)
        self.batches = Batches(sender, self._clock)
        self.certificates = Certificates(sender)
        self.licenses = LicenseCounters(sender)
        self.organizations = Organizations(sender)
        self.profiles = Profiles(sender)

    @classmethod
    def from_env(cls, *, environ: Mapping[str, str] | None = None) -> "SectigoClient":
        """Make a client from SECTIGO_USERNAME, SECTIGO_PASSWORD, SECTIGO_ENDPOINT and SECTIGO_ENVIRONMENT.

        Args:
            environ: the environment; `os.environ` when not given.

        Raises:
            ConfigurationError: the endpoint is no URL, or does not fit the environment.
        """
        variables = os.environ if environ is None else environ
        found = resolve_credentials(None, None, environ=variables)
        return cls(
            username=found.username,
            password=found.password,
            endpoint=variables.get("SECTIGO_ENDPOINT") or None,
            environment=variables.get("SECTIGO_ENVIRONMENT") or None,
        )

    def __repr__(self) -> str:
        return f"SectigoClient(endpoint={self.config.endpoint!r})"

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

    async def sign_in(self) -> None:
        """Make sure that there is a token, which every call does by itself.

        Raises:
            AuthenticationError: no token can be had.
            NoReplyError: the service did not answer.
        """
        await self._transport.sign_in()

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

        Without `trust` the chain is "root not pinned", never "verified".

        Args:
            common_name: common name of the certificate.
            profile_id: the profile to order under.
            directory: where the folder is made; or
            key: the caller's own key.
            dns_names: DNS names; `common_name` alone when not given.
            subject: further parts of the subject; see `pki.make_csr`.
            trust: roots to check the chain against.
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
