from pathlib import Path

import httpx
import pytest

from sectigo_async import Config, Environment, SectigoClient
from sectigo_async.config import is_loopback
from sectigo_async.errors import ConfigurationError


@pytest.mark.parametrize(
    ("endpoint", "environment", "normalised", "guessed"),
    [
        (None, None, "https://iot.sectigo.com", Environment.PRODUCTION),
        ("https://IOT.sectigo.com:443/", None, "https://iot.sectigo.com", Environment.PRODUCTION),
        ("http://127.0.0.1:8831", None, "http://127.0.0.1:8831", Environment.TESTING),
        ("http://localhost:80", None, "http://localhost", Environment.TESTING),
        ("http://[::1]:8831/", None, "http://[::1]:8831", Environment.TESTING),
        ("https://ca.example.com/iot/", "staging", "https://ca.example.com/iot", Environment.STAGING),
        ("https://ca.example.com", " Docker ", "https://ca.example.com", Environment.DOCKER),
    ],
)
def test_endpoint_is_normalised_and_its_environment_known(
    endpoint: str | None, environment: str | None, normalised: str, guessed: Environment
) -> None:
    config = Config.create(endpoint, environment)

    assert config.endpoint == normalised
    assert config.environment is guessed


@pytest.mark.parametrize(
    ("endpoint", "environment"),
    [
        ("https://ca.example.com", None),
        ("https://ca.example.com", "production"),
        ("http://iot.sectigo.com", "production"),
        ("https://iot.sectigo.com.", "staging"),
        ("https://demo.sectigo.com", "docker"),
        ("https://ca.example.com", "testing"),
        ("http://10.0.0.1", "staging"),
        ("http://localhost.example.com", "testing"),
        ("http://127.0.0.1.nip.io", "testing"),
        ("https://127.0.0.1", "production"),
        ("https://ca.example.com", "nowhere"),
        ("ftp://127.0.0.1", None),
        ("127.0.0.1:8831", None),
        ("http://127.0.0.1:notaport", None),
        ("https://iot.sectigo.com?x=1", None),
    ],
)
def test_endpoint_that_does_not_fit_is_refused(endpoint: str, environment: str | None) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Config.create(endpoint, environment)

    assert caught.value.hint


@pytest.mark.parametrize("environment", [None, "production", "staging", "docker", "testing"])
@pytest.mark.parametrize(
    "host",
    [
        "10.0.0.1",
        "0.0.0.1",
        "localhost.evil",
        "localhost.",
        "127.0.0.1.nip.io",
        "127.0.0.1.",
        "[::ffff:10.0.0.1]",
        "[::]",
        "2130706433",
        "0x7f000001",
        "0x7f.0.0.1",
        "0177.0.0.1",
        "127.1",
        "127.0.0.1@evil.example",
        "evil.example@127.0.0.1",
        "127.0.0.1:80@evil.example",
        "127.0.0.1%40evil.example",
        "127.0.0.1\\.evil.example",
        "127.0.0.1\t.evil.example",
        "\uff11\uff12\uff17.0.0.1",
        "\u24db\u24de\u24d2\u24d0\u24db\u24d7\u24de\u24e2\u24e3",
        "evil.example#127.0.0.1",
        "evil.example?127.0.0.1",
        "iot.sectigo.com",
    ],
)
def test_plain_http_is_for_this_machine_alone_however_another_is_spelt(host: str, environment: str | None) -> None:
    with pytest.raises(ConfigurationError):
        Config.create(f"http://{host}", environment)


def test_password_in_an_endpoint_is_refused_and_not_echoed() -> None:
    with pytest.raises(ConfigurationError) as caught:
        Config.create("https://ops:hunter2@iot.sectigo.com")

    assert "hunter2" not in f"{caught.value!r} {caught.value} {caught.value.hint}"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost", "LOCALHOST"])
def test_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["10.0.0.1", "localhost.evil", "127.0.0.1.evil", "::ffff:10.0.0.1", "0x7f000001"])
def test_not_loopback(host: str) -> None:
    assert not is_loopback(host)


def test_client_takes_its_settings_from_the_environment_only_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECTIGO_ENDPOINT", "http://127.0.0.1:1")

    assert SectigoClient().config.endpoint == "https://iot.sectigo.com"
    assert SectigoClient.from_env().config.endpoint == "http://127.0.0.1:1"


def test_config_and_endpoint_exclude_each_other() -> None:
    with pytest.raises(ConfigurationError):
        SectigoClient(config=Config.create("http://127.0.0.1"), endpoint="http://127.0.0.1")


def test_dotenv_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("SECTIGO_ENDPOINT=http://127.0.0.1:9\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SECTIGO_ENDPOINT", raising=False)

    assert SectigoClient.from_env().config.endpoint == "https://iot.sectigo.com"


def test_the_guard_holds_however_a_config_is_made() -> None:
    import attrs

    with pytest.raises(ConfigurationError):
        Config(endpoint="http://10.0.0.1", environment=Environment.TESTING)
    with pytest.raises(ConfigurationError):
        attrs.evolve(Config.create(), environment=Environment.STAGING)


def test_an_endpoint_that_may_hold_a_password_is_not_echoed() -> None:
    with pytest.raises(ConfigurationError) as caught:
        Config.create("ops:hunter2@iot.sectigo.com")

    assert "hunter2" not in str(caught.value)


def test_however_an_endpoint_is_spelt_its_certificate_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    from sectigo_async import connections

    made: list[object] = []

    class Recorder:
        def __init__(self, *, verify: object, **_: object) -> None:
            made.append(verify)

    monkeypatch.setattr(httpx, "AsyncHTTPTransport", Recorder)
    config = Config(endpoint="HTTPS://IOT.sectigo.com/", environment=Environment.PRODUCTION)
    transport = connections.open_connections(
        config.endpoint, size=1, keep_alive=5, ssl_context=None, ca_bundle=None, proxy=None
    )
    assert isinstance(transport, connections.LeasedTransport)
    transport._connect()

    assert config.endpoint == "https://iot.sectigo.com"
    assert made == [connections.shared_ssl_context(None)]
