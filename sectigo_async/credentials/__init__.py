"""Where credentials come from, and where they are kept.

`resolve` is the only place that decides who signs in, where and with what. A store keeps the refresh token and the
password of a login: `KeyringStore` in the operating system's keyring, `FileStore` in clear text, `MemoryStore`
nowhere. `SharedLogin` is what the processes of one login share.
"""

from sectigo_async.credentials.accounts import Account, Accounts
from sectigo_async.credentials.keyring_store import KeyringStore
from sectigo_async.credentials.login import Login
from sectigo_async.credentials.records import StoredToken
from sectigo_async.credentials.resolve import Credentials, Found, Resolved, Setting, open_store, resolve
from sectigo_async.credentials.shared import SharedLogin
from sectigo_async.credentials.state import state_directory
from sectigo_async.credentials.stores import (
    CredentialStore,
    FileStore,
    Item,
    MemoryStore,
    RefreshTokenFile,
    read_secret_file,
    without_newline,
)

__all__ = [
    "Account",
    "Accounts",
    "CredentialStore",
    "Credentials",
    "FileStore",
    "Found",
    "Item",
    "KeyringStore",
    "Login",
    "MemoryStore",
    "RefreshTokenFile",
    "Resolved",
    "Setting",
    "SharedLogin",
    "StoredToken",
    "open_store",
    "read_secret_file",
    "resolve",
    "state_directory",
    "without_newline",
]
