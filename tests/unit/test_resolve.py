"""Who signs in where, and with what: arguments, environment, account, keyring, in that order."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from sectigo_async import (
    Config,
    ConfigurationError,
    Environment,
    FileStore,
    KeyringStore,
    Secret,
    SectigoClient,
    SystemClock,
)
from sectigo_async.credentials import Account, Accounts, RefreshTokenFile, resolve, state_directory
from sectigo_async.errors import CredentialStoreError
from sectigo_async.variables import VARIABLES

ROOT = Path(__file__).parents[2]
PRODUCTION = "https://iot.sectigo.com"
LAB = Account(endpoint="http://127.0.0.1:8831", environment="testing", username="lab", store="file")


def accounts(**named: Account) -> None:
    for name, account in named.items():
        Accounts(state_directory()).save(name, account)


async def password(**arguments: Any) -> tuple[str, str] | None:
    found = resolve(**arguments)
    shared = found.credentials.share(found.config.endpoint, SystemClock())
    secret = await found.credentials.find_password(shared)
    return None if secret is None else (secret.secret.reveal(), secret.source)


async def test_the_password_is_the_argument_then_the_environment_then_what_is_kept(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("of the file\n")
    kept = {"SECTIGO_USERNAME": "ops", "SECTIGO_CREDENTIAL_STORE": "file"}
    in_file = kept | {"SECTIGO_PASSWORD_FILE": str(tmp_path / "password")}
    in_variable = kept | {"SECTIGO_PASSWORD": "of the variable"}

    assert await password(environ=kept) is None
    found = resolve(environ=kept)
    await found.credentials.share(PRODUCTION, SystemClock()).save_password(Secret("of the store"))

    assert await password(environ=kept) == ("of the store", "file")
    assert await password(environ=in_file) == ("of the file", "SECTIGO_PASSWORD_FILE")
    assert await password(environ=in_variable) == ("of the variable", "SECTIGO_PASSWORD")
    assert await password(environ=in_file, password="of the caller") == ("of the caller", "argument")
    (tmp_path / "password").write_text("changed")
    assert await password(environ=in_file) == ("changed", "SECTIGO_PASSWORD_FILE")


@pytest.mark.parametrize(
    ("environ", "store"),
    [
        ({}, KeyringStore),
        ({"SECTIGO_CREDENTIAL_STORE": "auto"}, KeyringStore),
        ({"SECTIGO_CREDENTIAL_STORE": "keyring"}, KeyringStore),
        ({"SECTIGO_CREDENTIAL_STORE": "File"}, FileStore),
        ({"SECTIGO_CREDENTIAL_STORE": "memory"}, type(None)),
        ({"SECTIGO_PASSWORD": "x"}, type(None)),
        ({"SECTIGO_PASSWORD_FILE": "x"}, type(None)),
        ({"SECTIGO_ACCESS_TOKEN": "x"}, type(None)),
        ({"SECTIGO_REFRESH_TOKEN_FILE": "x"}, RefreshTokenFile),
        ({"SECTIGO_REFRESH_TOKEN_FILE": "x", "SECTIGO_PASSWORD": "x"}, RefreshTokenFile),
    ],
)
def test_no_keyring_is_asked_where_the_secret_is_given(environ: Mapping[str, str], store: type) -> None:
    assert isinstance(resolve(environ={"SECTIGO_USERNAME": "ops"} | dict(environ)).credentials.store, store)


def test_nothing_is_shared_where_nothing_is_to_be_kept() -> None:
    found = resolve(environ={"SECTIGO_USERNAME": "ops", "SECTIGO_CREDENTIAL_STORE": "memory"})

    assert found.credentials.directory is None


def test_each_value_on_its_own() -> None:
    environ = {"SECTIGO_USERNAME": "ops", "SECTIGO_ENDPOINT": "http://127.0.0.1:1", "SECTIGO_ENVIRONMENT": "testing"}
    found = resolve(username="eve", environ=environ)

    assert (found.credentials.username, found.config.endpoint) == ("eve", "http://127.0.0.1:1")
    assert found.settings["SECTIGO_USERNAME"].source == "argument"
    assert found.settings["SECTIGO_ENDPOINT"].source == "environment"
    assert found.settings["SECTIGO_PROFILE"].source == "default"
    assert found.account == ""
    assert resolve(environ={"SECTIGO_USERNAME": "", "SECTIGO_ENDPOINT": ""}).config.endpoint == PRODUCTION


def test_the_default_account_is_used_only_where_it_agrees() -> None:
    accounts(default=LAB)

    for environ in ({}, {"SECTIGO_USERNAME": "lab"}, {"SECTIGO_ENDPOINT": "HTTP://127.0.0.1:8831/"}):
        found = resolve(environ=environ)
        assert (found.credentials.username, found.config.endpoint) == ("lab", LAB.endpoint)
        assert isinstance(found.credentials.store, FileStore)
        assert found.account == "default"
    other = resolve(environ={"SECTIGO_ENDPOINT": "http://127.0.0.1:9"})
    assert (other.credentials.username, other.account) == (None, "")
    other = resolve(environ={"SECTIGO_USERNAME": "ops"})
    assert (other.config.endpoint, other.account) == (PRODUCTION, "")


def test_an_account_named_by_the_caller_comes_before_the_variables_of_another_login() -> None:
    accounts(lab=LAB)
    environ = {
        "SECTIGO_USERNAME": "ops",
        "SECTIGO_PASSWORD": "x",
        "SECTIGO_ENDPOINT": PRODUCTION,
        "SECTIGO_ENVIRONMENT": "production",
        "SECTIGO_ACCESS_TOKEN": "x",
        "SECTIGO_REFRESH_TOKEN_FILE": "x",
    }
    found = resolve(account="lab", environ=environ)

    assert (found.credentials.username, found.config.endpoint) == ("lab", LAB.endpoint)
    assert found.config.environment is Environment.TESTING
    assert (found.credentials.password, found.credentials.access_token) == (None, None)
    assert isinstance(found.credentials.store, FileStore)
    with pytest.raises(ConfigurationError, match="and not 'ops'"):
        resolve(environ=environ | {"SECTIGO_ACCOUNT": "lab"})
    with pytest.raises(ConfigurationError, match="and not 'ops'"):
        resolve(account="lab", username="ops", environ={})
    with pytest.raises(ConfigurationError, match="no account 'moon'"):
        resolve(account="moon", environ={})


@pytest.mark.parametrize(
    ("arguments", "used"),
    [
        ({}, True),
        ({"endpoint": "http://127.0.0.1:1/", "username": "ops"}, True),
        ({"endpoint": "http://127.0.0.1:2"}, False),
        ({"username": "eve"}, False),
    ],
)
def test_the_secrets_of_the_environment_are_for_its_user_and_endpoint(
    arguments: dict[str, Any], caplog: pytest.LogCaptureFixture, *, used: bool
) -> None:
    environ = {"SECTIGO_USERNAME": "ops", "SECTIGO_ENDPOINT": "http://127.0.0.1:1", "SECTIGO_PASSWORD": "x"}
    environ |= {"SECTIGO_ACCESS_TOKEN": "y"}
    credentials = resolve(environ=environ, **arguments).credentials

    assert (credentials.password is not None, credentials.access_token is not None) == (used, used)
    assert ("SECTIGO_PASSWORD" in caplog.text) is not used
    assert resolve(environ=environ, password="z", **arguments).credentials.password == Secret("z")


def test_a_home_directory_of_nobody_is_told() -> None:
    with pytest.raises(ConfigurationError, match="SECTIGO_CA_BUNDLE"):
        resolve(environ={"SECTIGO_CA_BUNDLE": "~nosuchuser/ca.pem"})


def test_the_library_finds_what_login_has_kept() -> None:
    accounts(default=LAB, lab=LAB)

    assert SectigoClient.from_env(environ={}).config.endpoint == LAB.endpoint
    assert SectigoClient.from_env(account="lab", environ={}).config.endpoint == LAB.endpoint
    assert SectigoClient().config == Config.create(), "unless asked, nothing of this machine is used"


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"version":2,"accounts":{}}', '{"version":1,"accounts":[1]}'])
def test_a_list_of_accounts_that_is_damaged_is_told(content: str) -> None:
    accounts(default=LAB)
    (state_directory() / "accounts.json").write_text(content)

    with pytest.raises(CredentialStoreError, match=r"accounts\.json") as caught:
        resolve(environ={})

    assert "move it away" in caught.value.hint


def test_a_machine_without_home_directories_can_still_sign_in(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> Path:
        raise RuntimeError("no home")

    monkeypatch.setattr(Path, "home", nowhere)

    assert resolve(environ={"SECTIGO_USERNAME": "ops", "SECTIGO_PASSWORD": "x"}).credentials.directory is None
    with pytest.raises(CredentialStoreError, match="home directory"):
        resolve(environ={"SECTIGO_USERNAME": "ops"})


def test_the_configuration_comes_from_the_environment(tmp_path: Path) -> None:
    config = resolve(
        environ={
            "SECTIGO_CLIENT_CERT": "~/client.pem",
            "SECTIGO_CLIENT_KEY": str(tmp_path / "client.key"),
            "SECTIGO_LOGIN_HOST": "login.example.com, OTHER.example.com:444",
            "SECTIGO_CA_BUNDLE": "ca.pem",
            "SECTIGO_TRUST_ANCHORS": "roots.pem",
        }
    ).config

    assert config.client_certificate is not None
    assert config.client_certificate.certificate == Path.home() / "client.pem"
    assert config.client_certificate.key == tmp_path / "client.key"
    assert config.login_hosts == ("login.example.com:443", "other.example.com:444")
    assert (config.ca_bundle, config.trust_anchors) == (Path("ca.pem"), Path("roots.pem"))


def test_the_table_of_variables_is_complete_sorted_by_meaning_and_documented() -> None:
    sources = [*(ROOT / "sectigo_async").rglob("*.py"), *(ROOT / "cli").rglob("*.py")]
    named = {name for path in sources for name in re.findall(r"\bSECTIGO_[A-Z_]*[A-Z]\b", path.read_text())}
    assert named == {variable.name for variable in VARIABLES}

    table = "| Variable | Meaning | Without it |\n|---|---|---|\n"
    table += "".join(f"| `{v.name}` | {v.meaning} | {v.default or '-'} |\n" for v in VARIABLES)
    assert table in (ROOT / "docs" / "signing-in.md").read_text()
