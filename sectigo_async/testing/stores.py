"""What every credential store must do, as tests to inherit."""

import asyncio
from typing import ClassVar

from sectigo_async.credentials import CredentialStore, Item, Login
from sectigo_async.secrets import Secret


class CredentialStoreContract:
    """Tests for a `CredentialStore` of your own.

    Inherit from it in a class that your test runner collects, and say how the store is made:

    ```python
    class TestVaultStore(CredentialStoreContract):
        def make_store(self) -> CredentialStore:
            return VaultStore(...)
    ```

    Each test gets a new instance of that class and expects a store in which nothing is kept. The tests are plain
    functions, so that any plugin for asyncio may run beside them.

    Attributes:
        durable: whether a second store made by `make_store` finds what the first has kept.
    """

    durable: ClassVar[bool] = True

    _login = Login("https://iot.sectigo.com", "ops")
    _texts = ("x", "Grüße, 日本 🔑", ' "quoted" \\ ', "two\nlines\r\n", "x" * 1000)

    def make_store(self) -> CredentialStore:
        """Return the store to test."""
        raise NotImplementedError

    def test_what_was_never_kept_is_none(self) -> None:
        """There is no error and no value before anything was kept."""
        assert all(self._load(self.make_store(), item) is None for item in Item)

    def test_what_was_kept_is_found_as_it_was(self) -> None:
        """Every text comes back unchanged, and the last one counts."""
        store = self.make_store()
        for text in self._texts:
            self._save(store, Item.PASSWORD, text)
            found = self._load(self.make_store() if self.durable else store, Item.PASSWORD)
            assert found == text

    def test_what_was_erased_is_gone(self) -> None:
        """Erasing takes one item, and does no harm where there is nothing."""
        store = self.make_store()
        self._save(store, Item.PASSWORD, "one")
        self._save(store, Item.REFRESH_TOKEN, "other")
        for _ in range(2):
            asyncio.run(store.erase(self._login, Item.PASSWORD))
        assert self._load(store, Item.PASSWORD) is None
        assert self._load(store, Item.REFRESH_TOKEN) == "other"

    def test_logins_and_items_do_not_mix(self) -> None:
        """Another endpoint, another user and another item each find nothing, or their own."""
        store = self.make_store()
        logins = [
            Login(endpoint, username)
            for endpoint in ("https://iot.sectigo.com", "http://127.0.0.1:8831")
            for username in ("ops", "OPS", "ops#1")
        ]
        kept = {(login, item): f"{login} {item}" for login in logins for item in (Item.PASSWORD, Item.REFRESH_TOKEN)}
        for (login, item), text in kept.items():
            assert self._load(store, item, login) is None
            self._save(store, item, text, login)
        for (login, item), text in kept.items():
            assert self._load(store, item, login) == text

    def test_a_cancelled_save_leaves_the_old_or_the_new(self) -> None:
        """Whenever it is cancelled, no half of a value is found."""
        store = self.make_store()
        old, new = "old" * 100, "new" * 100

        async def cancel_after(steps: int) -> None:
            saving = asyncio.create_task(store.save(self._login, Item.PASSWORD, Secret(new)))
            for _ in range(steps):
                await asyncio.sleep(0)
            saving.cancel()
            await asyncio.wait([saving])

        for steps in range(5):
            self._save(store, Item.PASSWORD, old)
            asyncio.run(cancel_after(steps))
            assert self._load(store, Item.PASSWORD) in {old, new}

    def test_it_has_a_name_and_shows_no_secret(self) -> None:
        """The name is told to people; neither it nor the representation holds what is kept."""
        store = self.make_store()
        self._save(store, Item.PASSWORD, "canary-93b1")
        assert store.name
        assert (
            "canary-93b1" not in f"{store!r} {store} {store.name} {vars(store) if hasattr(store, '__dict__') else ''}"
        )

    def _load(self, store: CredentialStore, item: Item, login: Login = _login) -> str | None:
        found = asyncio.run(store.load(login, item))
        return None if found is None else found.reveal()

    def _save(self, store: CredentialStore, item: Item, text: str, login: Login = _login) -> None:
        asyncio.run(store.save(login, item, Secret(text)))
