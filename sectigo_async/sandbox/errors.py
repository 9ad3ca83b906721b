"""The one way in which the simulated service says no."""

from enum import IntEnum


class ErrorCode(IntEnum):
    """Values of `errorCode`.

    That it is a number is known (api.md 1c), which one is not: these are those of the public Spring Security
    JWT example, whose error body and token claims look like the service's.
    """

    GENERAL = 2
    AUTHENTICATION = 10
    TOKEN_EXPIRED = 11


class ServiceError(Exception):
    """A refusal that becomes an error reply.

    Args:
        status: the HTTP status.
        message: what the client is told.
        code: the `errorCode` of the reply.
    """

    def __init__(self, status: int, message: str, code: ErrorCode = ErrorCode.GENERAL) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
