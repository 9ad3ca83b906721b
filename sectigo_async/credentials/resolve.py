"""The precedence of credentials, in one function."""

import os
from collections.abc import Mapping

import attrs

from sectigo_async.secrets import Secret


@attrs.frozen(kw_only=True)
class Credentials:
    """Who signs in, and where each part came from.

    Attributes:
        username: the user name, where one is known.
        password: the password, where one is known.
        username_source: `argument`, `SECTIGO_USERNAME`, or empty.
        password_source: `argument`, `SECTIGO_PASSWORD`, or empty.
    """

    username: str | None
    password: Secret | None
    username_source: str
    password_source: str


def resolve_credentials(
    username: str | None,
    password: str | Secret | None,
    *,
    environ: Mapping[str, str] | None = None,
) -> Credentials:
    """Decide which user name and password are used.

    Each of the two, on its own, is

    1. the argument, if it is given and not empty;
    2. `SECTIGO_USERNAME` and `SECTIGO_PASSWORD` of the environment.

    Args:
        username: the caller's own choice.
        password: the caller's own choice.
        environ: the environment; `os.environ` when not given.
    """
    variables = os.environ if environ is None else environ
    name = username or variables.get("SECTIGO_USERNAME") or None
    secret = password or variables.get("SECTIGO_PASSWORD") or None
    return Credentials(
        username=name,
        password=Secret(secret) if secret else None,
        username_source="argument" if username else "SECTIGO_USERNAME" if name else "",
        password_source="argument" if password else "SECTIGO_PASSWORD" if secret else "",
    )
