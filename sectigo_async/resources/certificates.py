"""Finding and revoking certificates."""

import logging

from sectigo_async.clock import Clock
from sectigo_async.config import DEFAULT, Timeout
from sectigo_async.errors import InvalidArgumentError, NoReplyError, OutcomeUnknownError, ServiceError
from sectigo_async.models import FoundCertificates, RevocationReason, normalise_serial_number
from sectigo_async.transport import Transport
from sectigo_async.wire import calls

_log = logging.getLogger("sectigo_async.certificates")


class Certificates:
    """Issued certificates: `client.certificates`."""

    def __init__(self, transport: Transport, clock: Clock) -> None:
        self._transport = transport
        self._clock = clock

    async def find(
        self,
        *,
        common_name: str | None = None,
        serial_number: int | str | None = None,
        timeout: Timeout = DEFAULT,
    ) -> FoundCertificates:
        """Search by common name, by serial number, or by both (api.md 1a, certificates/find).

        Args:
            common_name: common name of the subject.
            serial_number: a number, or hex digits in any of the usual spellings.
            timeout: seconds for the whole call.

        Returns:
            What was found; nothing found is no error. `total_count` may be more than `items`.

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
        """Revoke one certificate (api.md 1a, certificates/{profile}/revoke). It cannot be undone.

        Args:
            profile_id: the profile that issued it.
            serial_number: a number, or hex digits in any of the usual spellings.
            reason: why, by RFC 5280.
            timeout: seconds for the whole call.

        Raises:
            InvalidArgumentError: the serial number is none, or the reason is none of RFC 5280.
            NotFoundError: the profile has issued no such certificate.
            OutcomeUnknownError: it may or may not have been revoked, and a search does not show it as revoked.
        """
        call = calls.revoke(profile_id, serial_number, reason)
        serial = normalise_serial_number(serial_number)
        limit = self._transport.limit(timeout)
        started = self._clock.monotonic()
        try:
            await self._transport.send(call, timeout=limit)
        except OutcomeUnknownError as error:
            unknown = error
        else:
            _tell(profile_id, serial, reason)
            return
        unknown.serial_number = serial
        left = None if limit is None else limit - (self._clock.monotonic() - started)
        if RevocationReason(reason) is RevocationReason.REMOVE_FROM_CRL or not await self._is_revoked(unknown, left):
            unknown.hint = "search for its serial number: if it is not REVOKED a minute from now, revoke it again"
            raise unknown
        _tell(profile_id, serial, reason)

    async def _is_revoked(self, unknown: OutcomeUnknownError, left: float | None) -> bool:
        """Say whether a search shows the certificate as revoked, in the seconds that are left."""
        if left is not None and left <= 0:
            return False
        try:
            found = await self.find(serial_number=unknown.serial_number, timeout=left)
        except (ServiceError, NoReplyError):
            return False
        return bool(found.items) and all(item.status.upper() == "REVOKED" for item in found.items)


def _tell(profile_id: int, serial: str, reason: RevocationReason) -> None:
    """Log what was revoked."""
    words = RevocationReason(reason).name.lower().replace("_", " ")
    _log.info(
        "revoked the certificate with serial number %s, issued under profile %d: %s",
        serial,
        profile_id,
        words,
        extra={"profile_id": profile_id, "serial_number": serial, "reason": words},
    )
