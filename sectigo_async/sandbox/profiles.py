"""Profiles: which parameters an order takes, and how they are judged."""

import re
from collections.abc import Mapping
from enum import Enum

import attrs
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from sectigo_async.sandbox.errors import ServiceError


class KeyKind(Enum):
    """Keys that the service makes for an order without a CSR."""

    RSA_2048 = "RSA 2048"
    EC_P256 = "EC P-256"

    def generate(self) -> rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey:
        """Return a new private key."""
        if self is KeyKind.RSA_2048:
            return rsa.generate_private_key(public_exponent=65537, key_size=2048)
        return ec.generate_private_key(ec.SECP256R1())


@attrs.frozen(kw_only=True)
class Parameter:
    """One parameter of a profile (Param in api.md 1c)."""

    name: str
    title: str
    placeholder: str
    pattern: str
    message: str
    required: bool = True
    input_type: str = "text"

    def problem(self, value: str) -> str | None:
        """Return what is wrong with `value`, without repeating it: it may be a password."""
        if not value:
            return f"{self.name} is required" if self.required else None
        if re.fullmatch(self.pattern, value) is None:
            return f"{self.name}: {self.message}"
        return None


@attrs.frozen(kw_only=True)
class Profile:
    """What certificates of one kind look like."""

    profile_id: int
    name: str
    key_kind: KeyKind
    parameters: tuple[Parameter, ...]

    @property
    def requires_dns_name(self) -> bool:
        """Whether a certificate without a DNS name is refused."""
        return any(parameter.name == "dNSName" and parameter.required for parameter in self.parameters)

    def check(self, values: Mapping[str, str], *, complete: bool = True) -> None:
        """Refuse parameters that break the rules, naming every problem at once.

        Args:
            values: the `profileParams` of an order.
            complete: whether required ones must be there; for CSRs the CSR says what they would.
        """
        problems = [
            problem
            for parameter in self.parameters
            if complete or parameter.name in values
            if (problem := parameter.problem(values.get(parameter.name, "")))
        ]
        known = {parameter.name for parameter in self.parameters}
        problems += [f"unknown parameter {name!r}" for name in values if name not in known]
        if problems:
            raise ServiceError(400, f"Invalid profile parameters: {'; '.join(problems)}")


@attrs.frozen(kw_only=True)
class Authority:
    """What certificates of one profile are bought under."""

    authority_id: int
    profile: Profile
