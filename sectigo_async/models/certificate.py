"""Certificates as the service lists them, and the reasons for revoking one."""

import enum
import re
from datetime import datetime

import attrs

from sectigo_async.errors import InvalidArgumentError
from sectigo_async.models.base import Model, normalise_serial_number


def _lenient_serial_number(value: str) -> str:
    try:
        return normalise_serial_number(value)
    except InvalidArgumentError:
        return value


class RevocationReason(enum.IntEnum):
    """Why a certificate is revoked (RFC 5280 section 5.3.1; 7 is not used)."""

    UNSPECIFIED = 0
    KEY_COMPROMISE = 1
    CA_COMPROMISE = 2
    AFFILIATION_CHANGED = 3
    SUPERSEDED = 4
    CESSATION_OF_OPERATION = 5
    CERTIFICATE_HOLD = 6
    REMOVE_FROM_CRL = 8
    PRIVILEGE_WITHDRAWN = 9
    AA_COMPROMISE = 10

    @property
    def text(self) -> str:
        """The reason in words, e.g. `key compromise`."""
        words = self.name.lower().replace("_", " ")
        return {"aa compromise": "AA compromise", "ca compromise": "CA compromise"}.get(words, words)

    @classmethod
    def parse(cls, text: str) -> "RevocationReason":
        """Read a reason in words, in any case, with or without blanks, `-` and `_`; empty is unspecified.

        Raises:
            InvalidArgumentError: no such reason; the hint lists those there are.
        """
        word = re.sub(r"[\s_-]", "", text).upper()
        if not word:
            return cls.UNSPECIFIED
        for reason in cls:
            if reason.name.replace("_", "") == word:
                return reason
        known = ", ".join(f'"{reason.text}"' for reason in cls)
        raise InvalidArgumentError(f"{text!r} is not a revocation reason", hint=f"use one of {known}")


@attrs.frozen(kw_only=True)
class FoundCertificate(Model):
    """One certificate that a search found (api.md 1c, Find item).

    Attributes:
        device_id: the service's id of the device, a number or a text on the wire.
        common_name: as the service writes it; its exact format is not known (api.md 4.14).
        serial_number: upper-case hex.
        creation_date: when it was issued.
        status: the service's word, e.g. `ISSUED` or `REVOKED`; an open vocabulary.
    """

    device_id: str = ""
    common_name: str = ""
    serial_number: str = attrs.field(default="", converter=_lenient_serial_number)
    creation_date: datetime | None = None
    status: str = ""


@attrs.frozen(kw_only=True)
class FoundCertificates(Model):
    """What a search found.

    Attributes:
        total_count: how many there are; more than `items` if the service pages (api.md 1a).
        items: those it returned.
    """

    total_count: int = 0
    items: tuple[FoundCertificate, ...] = ()
