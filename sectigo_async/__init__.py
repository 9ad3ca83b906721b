"""An unofficial asyncio client of the Sectigo IoT Manager certificate API.

```python
async with SectigoClient(username="ops", password=..., endpoint=...) as client:
    batch = await client.batches.create(authority_id=42, params={"commonName": "gw7.example.com", ...})
    await client.batches.wait(batch.batch_id)
    archive = await client.batches.download(batch.batch_id)
```

Errors are drawn as a tree in `sectigo_async.errors`. Keys and certificates are in `sectigo_async.pki`, a simulator of
the service in `sectigo_async.sandbox`, helpers for your own tests in `sectigo_async.testing`.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from sectigo_async._version import __version__
from sectigo_async.errors import (
    ArchiveError,
    AuthenticationError,
    BadRequestError,
    BatchError,
    BatchFailed,
    BatchNotReady,
    CallTimeoutError,
    ClientCertificateRequiredError,
    ConfigurationError,
    ConnectFailedError,
    CredentialStoreError,
    FileError,
    InvalidArgumentError,
    InvalidCredentialsError,
    InvalidCSRError,
    JournalError,
    KeyringLockedError,
    KeyringTimeoutError,
    KeyringUnavailableError,
    NoReplyError,
    NotAuthorizedError,
    NotFoundError,
    OutcomeUnknownError,
    PermissionDeniedError,
    PkiError,
    RateLimitError,
    SectigoError,
    ServerError,
    ServiceError,
    SignInRequiredError,
    UnexpectedReplyError,
    WaitTimeout,
    WrongPasswordError,
)

if TYPE_CHECKING:
    from sectigo_async.auth import SignIn
    from sectigo_async.client import SectigoClient
    from sectigo_async.clock import Clock, SystemClock
    from sectigo_async.config import DEFAULT, ClientCertificate, Config, Environment, Timeout
    from sectigo_async.credentials import CredentialStore, FileStore, KeyringStore, MemoryStore
    from sectigo_async.journal import Journal, MemoryJournal, SqliteJournal
    from sectigo_async.models import (
        Authority,
        Batch,
        BatchStatus,
        FoundCertificate,
        FoundCertificates,
        Licenses,
        Order,
        OrderKind,
        OrderState,
        Organization,
        Parameter,
        ProcessingInfo,
        Profile,
        ProfileDetail,
        Reconciliation,
        ReportedStatus,
        RevocationReason,
    )
    from sectigo_async.pki import Archive, IssuedCertificate
    from sectigo_async.resources import Issued
    from sectigo_async.secrets import Secret
    from sectigo_async.transport import Probe
    from sectigo_async.wire.reply import Reply

__all__ = [
    "Archive",
    "ArchiveError",
    "AuthenticationError",
    "Authority",
    "BadRequestError",
    "Batch",
    "BatchError",
    "BatchFailed",
    "BatchNotReady",
    "BatchStatus",
    "CallTimeoutError",
    "ClientCertificate",
    "ClientCertificateRequiredError",
    "Clock",
    "Config",
    "ConfigurationError",
    "ConnectFailedError",
    "CredentialStore",
    "CredentialStoreError",
    "DEFAULT",
    "Environment",
    "FileError",
    "FileStore",
    "FoundCertificate",
    "FoundCertificates",
    "InvalidArgumentError",
    "InvalidCSRError",
    "InvalidCredentialsError",
    "Issued",
    "IssuedCertificate",
    "Journal",
    "JournalError",
    "KeyringLockedError",
    "KeyringStore",
    "KeyringTimeoutError",
    "KeyringUnavailableError",
    "Licenses",
    "MemoryJournal",
    "MemoryStore",
    "NoReplyError",
    "NotAuthorizedError",
    "NotFoundError",
    "Order",
    "OrderKind",
    "OrderState",
    "Organization",
    "OutcomeUnknownError",
    "Parameter",
    "PermissionDeniedError",
    "PkiError",
    "Probe",
    "ProcessingInfo",
    "Profile",
    "ProfileDetail",
    "RateLimitError",
    "Reconciliation",
    "Reply",
    "ReportedStatus",
    "RevocationReason",
    "Secret",
    "SectigoClient",
    "SectigoError",
    "ServerError",
    "ServiceError",
    "SignIn",
    "SignInRequiredError",
    "SqliteJournal",
    "SystemClock",
    "Timeout",
    "UnexpectedReplyError",
    "WaitTimeout",
    "WrongPasswordError",
    "__version__",
]

# Loaded when somebody asks for it: what a program does not use costs it no time.
_HOMES = {
    "sectigo_async.auth": ("SignIn",),
    "sectigo_async.client": ("SectigoClient",),
    "sectigo_async.clock": ("Clock", "SystemClock"),
    "sectigo_async.config": ("ClientCertificate", "Config", "DEFAULT", "Environment", "Timeout"),
    "sectigo_async.credentials": ("CredentialStore", "FileStore", "KeyringStore", "MemoryStore"),
    "sectigo_async.journal": ("Journal", "MemoryJournal", "SqliteJournal"),
    "sectigo_async.models": (
        "Authority",
        "Batch",
        "BatchStatus",
        "FoundCertificate",
        "FoundCertificates",
        "Licenses",
        "Order",
        "OrderKind",
        "OrderState",
        "Organization",
        "Parameter",
        "ProcessingInfo",
        "Profile",
        "ProfileDetail",
        "Reconciliation",
        "ReportedStatus",
        "RevocationReason",
    ),
    "sectigo_async.resources": ("Issued",),
    "sectigo_async.secrets": ("Secret",),
    "sectigo_async.transport": ("Probe",),
    "sectigo_async.wire.reply": ("Reply",),
    "sectigo_async.pki": ("Archive", "IssuedCertificate"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    """Load what is asked for, once."""
    if name not in _HOME:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    found = getattr(import_module(_HOME[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
