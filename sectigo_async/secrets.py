"""Secrets that do not show: masked in `repr`, `str` and f-strings, refused by `pickle`."""

import hmac
from typing import NoReturn, final

from sectigo_async.errors import InvalidArgumentError

__all__ = ["Secret"]

_MASK = "**********"


@final
class Secret:
    """A string that is shown only when asked for by name.

    Args:
        value: the secret text.

    Raises:
        InvalidArgumentError: the text cannot be sent as UTF-8.
    """

    __slots__ = ("_value",)

    def __init__(self, value: "str | Secret") -> None:
        self._value: str = value.reveal() if isinstance(value, Secret) else value
        if any("\ud800" <= char <= "\udfff" for char in self._value):
            # Refused here, because the error of the encoder would show the text.
            self._value = value = ""
            raise InvalidArgumentError(
                "a secret is not valid text", hint="it must be UTF-8; look at the locale of this process"
            )

    def reveal(self) -> str:
        """Return the text itself. The caller sees to it that it goes nowhere else."""
        return self._value

    def __repr__(self) -> str:
        return f"Secret('{_MASK}')"

    def __str__(self) -> str:
        return _MASK

    def __format__(self, spec: str) -> str:
        return format(_MASK, spec)

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._value.encode(), other._value.encode())

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __reduce__(self) -> NoReturn:
        msg = "a Secret is not pickled"
        raise TypeError(msg)
