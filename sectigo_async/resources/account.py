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
        """Return the authorities of the user's ecosystem (api.md 1a, authorities/allowed).

        Args:
            timeout: seconds for the whole call.

        Returns:
            The authorities, in the service's order; empty where the user may issue under none.

        Raises:
            ServiceError: the service refuses it; `PermissionDeniedError` where the role does not allow it.
        """
        return await self._transport.send(calls.authorities(), timeout=timeout)

    async def balance(self, authority_id: int, *, timeout: Timeout = DEFAULT) -> int:
        """Return how many certificates the user may still order under an authority.

        This, not `Authority.balance`, is what an order is measured by (api.md 1c).

        Args:
            authority_id: id of the authority (0 or more).
            timeout: seconds for the whole call.

        Returns:
            Number of certificates.

        Raises:
            InvalidArgumentError: the id is no number of 0 or more.
            ServiceError: the service refuses it; `NotFoundError` where it says that there is no such authority.
        """
        return await self._transport.send(calls.balance(authority_id), timeout=timeout)


class Profiles:
    """Profiles the user may order under: `client.profiles`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def list(self, *, timeout: Timeout = DEFAULT) -> tuple[Profile, ...]:
        """Return the profiles the user sees (api.md 1a, profiles).

        Args:
            timeout: seconds for the whole call.

        Returns:
            The profiles in short, in the service's order; `get` tells more of one.

        Raises:
            ServiceError: the service refuses it; `PermissionDeniedError` where the role does not allow it.
        """
        return await self._transport.send(calls.profiles(), timeout=timeout)

    async def get(self, profile_id: int, *, timeout: Timeout = DEFAULT) -> ProfileDetail:
        """Return a profile in full (api.md 1a, profiles/{id}).

        Args:
            profile_id: id of the profile (0 or more).
            timeout: seconds for the whole call.

        Raises:
            InvalidArgumentError: the id is no number of 0 or more.
            ServiceError: the service refuses it; `NotFoundError` where it says that there is no such profile.
        """
        return await self._transport.send(calls.profile_detail(profile_id), timeout=timeout)

    async def parameters(self, profile_id: int, *, timeout: Timeout = DEFAULT) -> tuple[Parameter, ...]:
        """Return the parameters that an order under a profile takes (api.md 1a, profiles/{id}/parameters).

        Args:
            profile_id: id of the profile (0 or more).
            timeout: seconds for the whole call.

        Returns:
            The parameters, in the service's order; `parameters.check_parameters` checks values against them.

        Raises:
            InvalidArgumentError: the id is no number of 0 or more.
            ServiceError: the service refuses it; `NotFoundError` where it says that there is no such profile.
        """
        return await self._transport.send(calls.profile_parameters(profile_id), timeout=timeout)


class Organizations:
    """The user's organisation: `client.organizations`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def current(self, *, timeout: Timeout = DEFAULT) -> Organization:
        """Return the organisation of the current user (api.md 1a, organizations/user).

        Args:
            timeout: seconds for the whole call.

        Raises:
            ServiceError: the service refuses it; `PermissionDeniedError` where the role does not allow it.
        """
        return await self._transport.send(calls.organization(), timeout=timeout)


class LicenseCounters:
    """Licence counters: `client.licenses`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def get(self, *, timeout: Timeout = DEFAULT) -> Licenses:
        """Return how many certificates were ordered and issued (api.md 1a, devices: the path's name misleads).

        Args:
            timeout: seconds for the whole call.

        Raises:
            ServiceError: the service refuses it; `PermissionDeniedError` where the role does not allow it.
        """
        return await self._transport.send(calls.licenses(), timeout=timeout)
