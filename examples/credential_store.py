"""A place of your own for passwords and tokens: files that are encrypted with a key from elsewhere.

Run it with `python examples/credential_store.py`; it needs `pip install 'sectigo-async[sandbox]'`. A store is a class
with `name`, `load`, `save` and `erase`; `sectigo_async.testing.CredentialStoreContract` tests it. One for a vault
looks the same, with a request in the place of a file.
"""

import asyncio
import os
import tempfile
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from sectigo_async import Config, Secret, SectigoClient
from sectigo_async.credentials import Credentials, Item, Login
from sectigo_async.errors import CredentialStoreError, FileError
from sectigo_async.pki import write_private
from sectigo_async.sandbox import Sandbox, SandboxConfig, SandboxServer

_NONCE = 12


class EncryptedStore:
    """Keeps each item in a file, encrypted with AES-GCM; what belongs to one login is of no use under another.

    Args:
        directory: where the files lie; made if it is missing.
        key: 16, 24 or 32 bytes, for example from a key management service.
    """

    name = "encrypted files"

    def __init__(self, directory: Path, key: bytes) -> None:
        self._directory = directory
        self._cipher = AESGCM(key)

    async def load(self, login: Login, item: Item) -> Secret | None:
        """Return what is kept, or `None`."""
        path = self._path(login, item)
        try:
            data = await asyncio.to_thread(path.read_bytes)
        except FileNotFoundError:
            return None
        except OSError as error:
            problem = f"cannot read {path}: {error.strerror}"
        else:
            try:
                text = self._cipher.decrypt(data[:_NONCE], data[_NONCE:], _bound_to(login, item))
            except (InvalidTag, ValueError):
                problem = f"{path} was not written with this key"
            else:
                return Secret(text.decode())
        # Raised here, where no error with what was read hangs on it.
        raise CredentialStoreError(problem, hint="sign in again, with the key that is in force")

    async def save(self, login: Login, item: Item, value: Secret) -> None:
        """Keep `value` in place of what was kept before; when this returns, it is durable."""
        nonce = os.urandom(_NONCE)
        data = nonce + self._cipher.encrypt(nonce, value.reveal().encode(), _bound_to(login, item))
        if problem := await asyncio.to_thread(self._write, self._path(login, item), data):
            raise CredentialStoreError(problem, hint="look at the directory")

    async def erase(self, login: Login, item: Item) -> None:
        """Forget what is kept; nothing happens where there is nothing."""
        try:
            await asyncio.to_thread(self._path(login, item).unlink, missing_ok=True)
        except OSError as error:
            problem = f"cannot remove {self._path(login, item)}: {error.strerror}"
        else:
            return
        raise CredentialStoreError(problem, hint="remove it by hand")

    def _write(self, path: Path, data: bytes) -> str:
        """Write a file and return what went wrong, if anything."""
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Whole or not at all, 0600, and on the disk.
            write_private(path, data, overwrite=True)
        except (OSError, FileError) as error:
            return str(error)
        return ""

    def _path(self, login: Login, item: Item) -> Path:
        return self._directory / f"{login.file_name}.{item.value}"


def _bound_to(login: Login, item: Item) -> bytes:
    return f"{login.endpoint}\n{login.username}\n{item.value}".encode()


async def main() -> None:
    """Sign in with a password; then, as another program would, with the refresh token that was kept."""
    sandbox = Sandbox(SandboxConfig(issue_delay=0))
    with tempfile.TemporaryDirectory() as directory:
        store = EncryptedStore(Path(directory) / "secrets", AESGCM.generate_key(256))
        async with SandboxServer(sandbox) as server:
            for password in (Secret("demo-password"), None):
                # As `SectigoClient(username=..., store=store)`, which has the user's own directory for the lock.
                credentials = Credentials(
                    username="demo", password=password, store=store, directory=Path(directory), cache=False
                )
                async with SectigoClient(config=Config.create(server.url), credentials=credentials) as client:
                    print("left to order:", await client.authorities.balance(1))
        stats = sandbox.stats()
        print(f"signed in {stats['logins']} time, refreshed {stats['refreshes']} time")
        files = await asyncio.to_thread(lambda: list((Path(directory) / "secrets").iterdir()))
        print("kept, encrypted:", *sorted(path.suffix.removeprefix(".") for path in files))


if __name__ == "__main__":
    asyncio.run(main())
