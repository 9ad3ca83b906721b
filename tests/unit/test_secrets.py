import copy
import pickle

import pytest

from sectigo_async import Secret
from sectigo_async.errors import InvalidArgumentError
from sectigo_async.wire import calls

CANARY = "canary-93b1"


def test_secret_shows_only_when_asked() -> None:
    secret = Secret(CANARY)

    shown = f"{secret} {secret!r} {secret!s:>20} {[secret]}"

    assert CANARY not in shown
    assert secret.reveal() == CANARY
    assert Secret(secret) == secret
    assert Secret("other") != secret
    assert secret != CANARY


def test_secret_is_not_pickled_or_copied_into_something_else() -> None:
    with pytest.raises(TypeError):
        pickle.dumps(Secret(CANARY))
    with pytest.raises(TypeError):
        copy.deepcopy(Secret(CANARY))


def test_descriptions_of_requests_do_not_show_the_secrets_in_them() -> None:
    order = calls.create_batch(1, "name", {"pkcs12Password": Secret(CANARY)})
    login = calls.sign_in("ops", Secret(CANARY))
    refresh = calls.refresh(Secret(CANARY))

    assert CANARY not in f"{order!r} {login!r} {refresh!r}"
    assert all(CANARY.encode() in (call.body or b"") for call in (order, login, refresh))


@pytest.mark.parametrize("value", [42, None, b"bytes", ["list"], object()])
def test_a_parameter_that_is_no_text_is_refused_not_ordered_as_its_repr(value: object) -> None:
    with pytest.raises(InvalidArgumentError, match="pkcs12Password"):
        calls.create_batch(1, "name", {"pkcs12Password": value})  # type: ignore[dict-item]


def test_a_secret_that_is_no_text_is_refused_without_showing_it() -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        Secret(f"m\udcfcller-{CANARY}")

    assert CANARY not in repr(caught.value)
