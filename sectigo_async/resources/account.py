"""What the account may use: authorities, profiles, its organisation and licence counters.

Every verb raises `AuthenticationError`, `ServiceError` or `NoReplyError`; see `sectigo_async.errors`.
"""

from sectigo_async.config import DEFAULT, Timeout
from sectigo_async.models import Authority, Licenses, Organization, Parameter, Profile, ProfileDetail
from sectigo_async.transport import Transport
from sectigo_async.wire import calls


class Authorities:
    """Authorities the user may issue under: `client.authorities`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def list(self, *, timeout: Timeout = DEFAULT) -> tuple[Authority, ...]:
        """Return the authorities of the user's ecosystem.

        Args:
            timeout: seconds for the whole call.
        """
        return await self._transport.send(calls.authorities(), timeout=timeout)

    async def balance(self, authority_id: int, *, timeout: Timeout = DEFAULT) -> int:
        """Return how many certificates the user may still order under an authority.

        This, not `Authority.balance`, is what an order is measured by (api.md 1c).

        Args:
            authority_id: id of the authority.
            timeout: seconds for the whole call.
        """
        return await self._transport.send(calls.balance(authority_id), timeout=timeout)


class Profiles:
    """Profiles the user may order under: `client.profiles`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def list(self, *, timeout: Timeout = DEFAULT) -> tuple[Profile, ...]:
        """Return the profiles the user sees.

        Args:
            timeout: seconds for the whole call.
        """
        return await self._transport.send(calls.profiles(), timeout=timeout)

    async def get(self, profile_id: int, *, timeout: Timeout = DEFAULT) -> ProfileDetail:
        """Return a profile in full.

        Args:
            profile_id: id of the profile.
            timeout: seconds for the whole call.
        """
        return await self._transport.send(calls.profile_detail(profile_id), timeout=timeout)

    async def parameters(self, profile_id: int, *, timeout: Timeout = DEFAULT) -> tuple[Parameter, ...]:
        """Return the parameters that an order under a profile takes.

        Args:
            profile_id: id of the profile.
            timeout: seconds for the whole call.
        """
        return await self._transport.send(calls.profile_parameters(profile_id), timeout=timeout)


class Organizations:
    """The user's organisation: `client.organizations`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def current(self, *, timeout: Timeout = DEFAULT) -> Organization:
        """Return the organisation of the current user.

        Args:
            timeout: seconds for the whole call.
        """
        return await self._transport.send(calls.organization(), timeout=timeout)


class LicenseCounters:
    """Licence counters: `client.licenses`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def get(self, *, timeout: Timeout = DEFAULT) -> Licenses:
        """Return how many certificates were ordered and issued.

        Args:
            timeout: seconds for the whole call.
        """
        return await self._transport.send(calls.licenses(), timeout=timeout)
