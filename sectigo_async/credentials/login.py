"""Who signs in where: what every stored secret is bound to."""

import hashlib

import attrs

from sectigo_async.errors import ConfigurationError


def _no_control_characters(_: object, __: object, value: str) -> None:
    if not value.isprintable():
        raise ConfigurationError("a user name has no control characters", hint="check SECTIGO_USERNAME")


@attrs.frozen
class Login:
    """One user of one endpoint.

    Attributes:
        endpoint: the normalised endpoint of `Config`.
        username: who signs in.
    """

    endpoint: str
    username: str = attrs.field(validator=_no_control_characters)

    @property
    def file_name(self) -> str:
        """A name for this login's files that tells neither endpoint nor user."""
        return hashlib.sha256(f"{self.endpoint}\n{self.username}".encode()).hexdigest()[:32]
