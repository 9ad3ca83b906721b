"""Everything that can go wrong, under one root.

```
SectigoError
├── ConfigurationError              endpoint, environment or option that cannot work
├── InvalidArgumentError            a value that no call can take (a ValueError too)
├── AuthenticationError             signing in failed
│   ├── InvalidCredentialsError     the service refused user name and password
│   ├── NotAuthorizedError          right password, but the account may not use the API
│   ├── ClientCertificateRequiredError  the account signs in with a TLS client certificate
│   ├── SignInRequiredError         no password at hand, or the tokens are no longer accepted
│   └── CredentialStoreError        the place where a login is kept cannot be used
│       ├── KeyringUnavailableError there is no keyring, or none that is safe
│       ├── KeyringLockedError      the keyring is locked, and nobody unlocked it
│       └── KeyringTimeoutError     the keyring did not answer in time
├── ServiceError                    the service answered, but not with what was asked for
│   ├── BadRequestError             400, 409, 422: the service says what is wrong with the request
│   ├── PermissionDeniedError       403
│   ├── NotFoundError               404
│   ├── RateLimitError              429
│   ├── ServerError                 5xx
│   └── UnexpectedReplyError        a reply that this API does not give
├── NoReplyError                    no answer came
│   ├── ConnectFailedError          the request was not sent
│   └── CallTimeoutError            time ran out
├── OutcomeUnknownError             an order or revocation may or may not have run: look before repeating it
├── JournalError                    the order journal cannot be used
│   └── LedgerError                 the ledger of a bulk run cannot be used, or not so
│       ├── LedgerDamagedError      it is damaged: it can be rebuilt
│       └── LedgerInUseError        another run is at work with it
├── BatchError                      carries the batch
│   ├── BatchFailed                 it will never be ready for download
│   ├── BatchNotReady               it cannot be downloaded yet
│   └── WaitTimeout                 it was not ready in time; wait again with its id
└── PkiError                        keys, requests, certificates and archives
    ├── InvalidCSRError             not a certificate signing request
    ├── ArchiveError                an archive that is damaged or hostile
    ├── WrongPasswordError          the PKCS#12 password does not fit
    └── FileError                   a file cannot be read, or must not be overwritten
```

`str(error)` says what failed in one line, with the service's own words; `error.hint` says what to do next.
"""

from typing import TYPE_CHECKING

from sectigo_async import text

if TYPE_CHECKING:
    from datetime import datetime

    from sectigo_async.models import Batch, Order

__all__ = [
    "ArchiveError",
    "AuthenticationError",
    "BadRequestError",
    "BatchError",
    "BatchFailed",
    "BatchNotReady",
    "CallTimeoutError",
    "ClientCertificateRequiredError",
    "ConfigurationError",
    "ConnectFailedError",
    "CredentialStoreError",
    "FileError",
    "InvalidArgumentError",
    "InvalidCSRError",
    "InvalidCredentialsError",
    "JournalError",
    "KeyringLockedError",
    "KeyringTimeoutError",
    "KeyringUnavailableError",
    "LedgerDamagedError",
    "LedgerError",
    "LedgerInUseError",
    "NoReplyError",
    "NotAuthorizedError",
    "NotFoundError",
    "OutcomeUnknownError",
    "PermissionDeniedError",
    "PkiError",
    "RateLimitError",
    "SectigoError",
    "ServerError",
    "ServiceError",
    "SignInRequiredError",
    "UnexpectedReplyError",
    "WaitTimeout",
    "WrongPasswordError",
]


def _restore(kind: type["SectigoError"], args: tuple[object, ...], state: dict[str, object]) -> "SectigoError":
    error = kind.__new__(kind, *args)
    # A copy has notes of its own.
    error.__dict__.update(state | {name: list(value) for name, value in state.items() if isinstance(value, list)})
    return error


class SectigoError(Exception):
    """The root of every error this package raises.

    Args:
        message: what failed, in one line.
        hint: what to do next, in one line; empty where there is nothing to say.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        # Server text stands in messages, and messages end on terminals and in logs.
        super().__init__(text.one_line(message, 4 * text.LONGEST_LINE))
        self.hint = hint

    def __reduce__(self) -> tuple[object, ...]:
        # The arguments of the constructors are not kept, so copies and pickles are made from what they made.
        return _restore, (type(self), self.args, self.__dict__)

    @property
    def retryable(self) -> bool:
        """Whether the same call may be made again without spending anything twice."""
        return False


class ConfigurationError(SectigoError):
    """An endpoint, environment or option that cannot work."""


class InvalidArgumentError(SectigoError, ValueError):
    """A value that no call can take. Nothing was sent."""


class AuthenticationError(SectigoError):
    """Signing in failed; no order was sent."""


class InvalidCredentialsError(AuthenticationError):
    """The service refused user name and password (401). Never tried again: accounts lock (api.md 3)."""


class NotAuthorizedError(AuthenticationError):
    """User name and password are right, but the account may not use the API (403)."""


class ClientCertificateRequiredError(AuthenticationError):
    """The account must sign in with a TLS client certificate (307), and there is none, or nowhere safe to send it."""


class SignInRequiredError(AuthenticationError):
    """There is no password at hand, or the service no longer accepts the tokens."""


class CredentialStoreError(AuthenticationError):
    """The place where a login is kept cannot be used: the keyring, a file, or the lock that guards them."""


class KeyringUnavailableError(CredentialStoreError):
    """There is no keyring of the operating system, or none that keeps a secret secret."""


class KeyringLockedError(CredentialStoreError):
    """The keyring is locked, and nobody unlocked it."""


class KeyringTimeoutError(CredentialStoreError):
    """The keyring did not answer in time."""


class ServiceError(SectigoError):
    """The service answered, but not with what was asked for (api.md 1c, Error).

    Attributes:
        status: HTTP status code.
        code: the service's `errorCode`, where it gave one.
        server_message: the service's own words, where it gave some.
        timestamp: when the service says it happened (aware), where it says so.
        method: HTTP method of the request that this answers.
        path: path of the request that this answers.
        excerpt: the first characters of the raw reply.
        retry_after: seconds the service asked to wait, where it did.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int,
        method: str,
        path: str,
        code: int | None = None,
        server_message: str = "",
        timestamp: "datetime | None" = None,
        excerpt: str = "",
        retry_after: float | None = None,
        hint: str = "",
    ) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.method = method
        self.path = path
        self.code = code
        self.server_message = server_message
        self.timestamp = timestamp
        self.excerpt = excerpt
        self.retry_after = retry_after

    @property
    def retryable(self) -> bool:
        """Whether the service may answer the same read differently a little later."""
        return self.status in {429, 502, 503, 504}


class BadRequestError(ServiceError):
    """The service says what is wrong with the request (400, 409, 422). Nothing was ordered."""


class PermissionDeniedError(ServiceError):
    """The account may not do this, or the object belongs to somebody else (403)."""


class NotFoundError(ServiceError):
    """The service does not know this id (404)."""


class RateLimitError(ServiceError):
    """Too many requests (429)."""


class ServerError(ServiceError):
    """The service failed (5xx)."""


class UnexpectedReplyError(ServiceError):
    """A reply that this API does not give: not JSON, a wrong shape, a redirect, or a web page."""


class NoReplyError(SectigoError):
    """No answer came.

    Attributes:
        method: HTTP method of the request.
        path: path of the request.
    """

    def __init__(self, message: str, *, method: str, path: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.method = method
        self.path = path

    @property
    def retryable(self) -> bool:
        """Always true: raised only where repeating spends nothing twice."""
        return True


class ConnectFailedError(NoReplyError):
    """No connection could be made, so the request was not sent."""


class CallTimeoutError(NoReplyError):
    """Time ran out before the whole answer was there."""


class OutcomeUnknownError(SectigoError):
    """An order or revocation was sent and no usable answer came: it may or may not have run.

    Never repeat it blindly: look first whether it ran.

    Attributes:
        subject: what was ordered or revoked, e.g. `batch "gateway-7"`.
        order: the order, where it is one: `batches.reconcile([error.order])` looks for it.
        serial_number: the certificate, where it is a revocation: `certificates.find` tells whether it is revoked.
    """

    def __init__(
        self,
        message: str,
        *,
        subject: str,
        hint: str = "",
        order: "Order | None" = None,
        serial_number: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.subject = subject
        self.order = order
        self.serial_number = serial_number


class JournalError(SectigoError):
    """The order journal cannot be read or written. Where an order was about to be sent, it was not."""


class LedgerError(JournalError):
    """The ledger of a bulk run cannot be read or written, or what was asked of it does not fit what stands in it."""


class LedgerDamagedError(LedgerError):
    """The ledger of a bulk run is damaged. What is known of its devices elsewhere makes it anew."""


class LedgerInUseError(LedgerError):
    """Another run is at work with this ledger."""


class BatchError(SectigoError):
    """Something about one batch.

    Attributes:
        batch: the batch as last seen.
    """

    def __init__(self, message: str, *, batch: "Batch", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.batch = batch


class BatchFailed(BatchError):
    """The batch will never be ready for download; `batch.reject_reason` may say why."""


class BatchNotReady(BatchError):
    """The batch cannot be downloaded yet."""


class WaitTimeout(BatchError):
    """The batch was not ready in time. Nothing is lost: wait again with its id."""


class PkiError(SectigoError):
    """Something about keys, requests, certificates or archives."""


class InvalidCSRError(PkiError):
    """Not a certificate signing request, or one that is damaged."""


class ArchiveError(PkiError):
    """An archive that is damaged, or that no honest service sends."""


class WrongPasswordError(PkiError):
    """The password does not open the PKCS#12 file."""


class FileError(PkiError):
    """A file cannot be read or written, or must not be overwritten."""
