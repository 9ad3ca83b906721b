"""Named accounts: which user of which endpoint `login` signed in, and where it keeps the secrets. No secrets here."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import attrs
from attrs.validators import in_, instance_of

from sectigo_async.credentials.login import Login
from sectigo_async.credentials.state import make_private
from sectigo_async.credentials.stores import OTHERS_MAY_WRITE, read_file
from sectigo_async.errors import ConfigurationError, CredentialStoreError, FileError
from sectigo_async.files import write_private

DEFAULT_ACCOUNT = "default"
_VERSION = 1
_LONGEST_NAME = 64
_LOCK_WAIT = 10.0


@attrs.frozen(kw_only=True)
class Account:
    """What a name stands for.

    Attributes:
        endpoint: the normalised endpoint of `Config`.
        environment: what the endpoint is for.
        username: who signs in.
        store: name of the store that keeps the secrets: `keyring` or `file`.
    """

    endpoint: str = attrs.field(validator=instance_of(str))
    environment: str = attrs.field(validator=instance_of(str))
    username: str = attrs.field(validator=instance_of(str))
    store: str = attrs.field(validator=in_(("keyring", "file")))


class Accounts:
    """The list of accounts, in a 0600 file of the state directory.

    Args:
        directory: the state directory.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / "accounts.json"

    def get(self, name: str) -> Account | None:
        """Return the account of that name, or `None`.

        Raises:
            CredentialStoreError: the list cannot be read.
        """
        return self._load().get(name)

    def save(self, name: str, account: Account) -> None:
        """Add an account, or replace the one of that name.

        Raises:
            ConfigurationError: the name is none.
            CredentialStoreError: the list cannot be read or written.
        """
        if not name.isprintable() or not name.strip() or len(name) > _LONGEST_NAME:
            raise ConfigurationError(
                f"{name!r} is not a name for an account", hint=f"use 1 to {_LONGEST_NAME} characters"
            )
        self._change(lambda accounts: accounts | {name: account})

    def of_login(self, login: Login) -> dict[str, Account]:
        """Return the accounts that stand for a login, by name.

        Raises:
            CredentialStoreError: the list cannot be read.
        """
        return {
            name: account
            for name, account in self._load().items()
            if (account.endpoint, account.username) == (login.endpoint, login.username)
        }

    def remove(self, *names: str) -> None:
        """Remove accounts; nothing happens where there are none.

        Raises:
            CredentialStoreError: the list cannot be read or written.
        """
        self._change(lambda accounts: {name: account for name, account in accounts.items() if name not in names})

    def _load(self) -> dict[str, Account]:
        text, problem = read_file(self._path, forbidden=OTHERS_MAY_WRITE)
        if problem:
            raise CredentialStoreError(problem, hint="move it away and sign in again")
        if text is None:
            return {}
        try:
            document = json.loads(text.reveal())
            if document["version"] == _VERSION:
                return {str(name): Account(**fields) for name, fields in document["accounts"].items()}
            problem = f"{self._path} is of another version"
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            problem = f"{self._path} is not a list of accounts that this version can read"
        raise CredentialStoreError(problem, hint="move it away and sign in again")

    def _change(self, change: Callable[[dict[str, Account]], dict[str, Account]]) -> None:
        import filelock

        make_private(self._path.parent)
        problem = ""
        try:
            with filelock.FileLock(self._path.with_suffix(".lock"), mode=0o600, timeout=_LOCK_WAIT):
                self._store(change(self._load()))
        except (OSError, NotImplementedError) as error:  # A time-out is an OSError too.
            problem = str(error)
        if problem:
            raise CredentialStoreError(f"the list of accounts cannot be changed: {problem}", hint="try again")

    def _store(self, accounts: Mapping[str, Account]) -> None:
        document = {
            "version": _VERSION,
            "accounts": {name: attrs.asdict(account) for name, account in accounts.items()},
        }
        problem = ""
        try:
            write_private(self._path, json.dumps(document, indent=2).encode() + b"\n", overwrite=True)
        except FileError as error:
            problem = str(error)
        if problem:
            raise CredentialStoreError(problem, hint="see that there is room, and that you may write there")
