"""Finding and revoking certificates."""

from sectigo_async.config import DEFAULT, Timeout
from sectigo_async.errors import InvalidArgumentError
from sectigo_async.models import FoundCertificates, RevocationReason
from sectigo_async.transport import Transport
from sectigo_async.wire import calls


class Certificates:
    """Issued certificates: `client.certificates`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def find(
        self,
        *,
        common_name: str | None = None,
        serial_number: int | str | None = None,
        timeout: Timeout = DEFAULT,
    ) -> FoundCertificates:
        """Search by common name, by serial number, or by both.

        Args:
            common_name: common name of the subject.
            serial_number: a number, or hex digits in any of the usual spellings.
            timeout: seconds for the whole call.

        Raises:
            InvalidArgumentError: neither is given, or the serial number is none.
        """
        if not common_name and serial_number in {None, ""}:
            raise InvalidArgumentError("nothing to search for", hint="give a common name, a serial number, or both")
        return await self._transport.send(calls.find(common_name, serial_number), timeout=timeout)

    async def revoke(
        self,
        *,
        profile_id: int,
        serial_number: int | str,
        reason: RevocationReason = RevocationReason.UNSPECIFIED,
        timeout: Timeout = DEFAULT,
    ) -> None:
        """Revoke one certificate. It cannot be undone.

        Args:
            profile_id: the profile that issued it.
            serial_number: a number, or hex digits in any of the usual spellings.
            reason: why, by RFC 5280.
            timeout: seconds for the whole call.

        Raises:
            NotFoundError: the profile has issued no such certificate.
            OutcomeUnknownError: it may or may not have been revoked; `find` tells.
        """
        await self._transport.send(calls.revoke(profile_id, serial_number, reason), timeout=timeout)
