"""The loop around one call: tokens, retries, and what is never sent twice."""

import asyncio
import gzip
import json
import re
import traceback
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Callable

import httpx
import pytest
from pytest_httpx import HTTPXMock

from sectigo_async import Config, Secret, SectigoClient
from sectigo_async.errors import (
    BadRequestError,
    CallTimeoutError,
    ClientCertificateRequiredError,
    ConfigurationError,
    ConnectFailedError,
    InvalidCredentialsError,
    NoReplyError,
    NotAuthorizedError,
    NotFoundError,
    OutcomeUnknownError,
    PermissionDeniedError,
    RateLimitError,
    SectigoError,
    ServerError,
    ServiceError,
    SignInRequiredError,
    UnexpectedReplyError,
)
from sectigo_async.testing import FakeClock

BASE = "https://iot.sectigo.com"
DEVICES = f"{BASE}/api/v1/devices"
ORDER = f"{BASE}/api/v1/batches/createSingleCertBatch"
CANARY = "canary-93b1"


async def order(client: SectigoClient) -> None:
    await client.batches.create(authority_id=1, name="gateway-7", params={"pkcs12Password": Secret(CANARY)})


@pytest.mark.usefixtures("signed_in")
@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, BadRequestError),
        (403, PermissionDeniedError),
        (404, NotFoundError),
        (418, UnexpectedReplyError),
        (429, RateLimitError),
        (500, ServerError),
        (503, ServerError),
    ],
)
async def test_errors_keep_all_that_the_service_said(
    httpx_mock: HTTPXMock, client: SectigoClient, status: int, kind: type[ServiceError]
) -> None:
    body = {"status": status, "message": "no such thing", "errorCode": 77, "timestamp": 1607618132805}
    httpx_mock.add_response(url=f"{BASE}/api/v1/batches/24", status_code=status, json=body, is_reusable=True)

    with pytest.raises(kind) as caught:
        await client.batches.get(24)

    error = caught.value
    assert (error.status, error.code, error.server_message) == (status, 77, "no such thing")
    assert (error.method, error.path) == ("GET", "/api/v1/batches/24")
    assert error.timestamp is not None
    assert error.timestamp.year == 2020
    assert "no such thing" in str(error)
    assert error.retryable is (status in {429, 503})


@pytest.mark.usefixtures("signed_in")
@pytest.mark.parametrize(
    ("content_type", "body", "words"),
    [
        ("application/json", b'{"message":"plain json"}', "plain json"),
        ("text/plain;charset=UTF-8", b"Batch is  not\nreadable", "Batch is not readable"),
        ("text/plain", b'{"message":"json in disguise"}', "json in disguise"),
        ("", b"", "no explanation given"),
        ("application/json", b"[1,2]", "[1,2]"),
        ("application/json", b'{"message":null}', '{"message":null}'),
        ("text/plain", b"\x1b[31mred\x1b[0m \xff", "[31mred"),
    ],
)
async def test_error_words_are_found_in_any_media_type(
    httpx_mock: HTTPXMock, client: SectigoClient, content_type: str, body: bytes, words: str
) -> None:
    httpx_mock.add_response(url=DEVICES, status_code=400, content=body, headers={"content-type": content_type})

    with pytest.raises(BadRequestError) as caught:
        await client.licenses.get()

    assert words in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.usefixtures("signed_in")
@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b"<!doctype html><title>Portal</title>"),
        (404, b"<html>nginx</html>"),
        (200, b"not json"),
        (200, b"[]"),
        (200, b"null"),
        (200, b"[" * 200_000),
        (302, b""),
    ],
)
async def test_what_this_api_does_not_answer(
    httpx_mock: HTTPXMock, client: SectigoClient, status: int, body: bytes
) -> None:
    httpx_mock.add_response(url=DEVICES, status_code=status, content=body, headers={"location": "https://evil"})

    with pytest.raises(UnexpectedReplyError):
        await client.licenses.get()

    assert {request.url.host for request in httpx_mock.get_requests()} == {"iot.sectigo.com"}


@pytest.mark.usefixtures("signed_in")
async def test_reads_are_sent_again_with_growing_pauses(
    httpx_mock: HTTPXMock, client: SectigoClient, clock: FakeClock
) -> None:
    httpx_mock.add_exception(httpx.ConnectError("refused"), url=DEVICES)
    httpx_mock.add_exception(httpx.ReadTimeout("slow"), url=DEVICES)
    httpx_mock.add_response(url=DEVICES, status_code=503, headers={"retry-after": "7"})
    httpx_mock.add_response(url=DEVICES, json={"ordered": 1})

    assert (await client.licenses.get()).ordered == 1

    assert len(clock.sleeps) == 3
    assert clock.sleeps[0] <= 0.5
    assert clock.sleeps[1] <= 1.0
    assert clock.sleeps[2] == 7.0


@pytest.mark.usefixtures("signed_in")
@pytest.mark.parametrize(
    ("problem", "kind"),
    [
        (httpx.ConnectError("refused"), ConnectFailedError),
        (httpx.ReadTimeout("slow"), CallTimeoutError),
        (httpx.ReadError("reset"), NoReplyError),
    ],
)
async def test_reads_give_up_after_some_attempts(
    httpx_mock: HTTPXMock, client: SectigoClient, problem: Exception, kind: type[SectigoError]
) -> None:
    httpx_mock.add_exception(problem, url=DEVICES, is_reusable=True)

    with pytest.raises(kind) as caught:
        await client.licenses.get()

    assert caught.value.retryable
    assert len(httpx_mock.get_requests(url=DEVICES)) == client.config.attempts


@pytest.mark.usefixtures("signed_in")
@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_an_order_answered_5xx_is_unknown_and_not_repeated(
    httpx_mock: HTTPXMock, client: SectigoClient, status: int
) -> None:
    httpx_mock.add_response(url=ORDER, method="PUT", status_code=status, json={"message": "oops"})

    with pytest.raises(OutcomeUnknownError) as caught:
        await order(client)

    assert caught.value.subject == 'batch "gateway-7"'
    assert "oops" in str(caught.value)
    assert not caught.value.retryable


@pytest.mark.usefixtures("signed_in")
@pytest.mark.parametrize(
    "problem",
    [
        httpx.ReadTimeout("slow"),
        httpx.ReadError("reset"),
        httpx.WriteError("reset"),
        httpx.WriteTimeout("slow"),
        httpx.RemoteProtocolError("cut"),
    ],
)
async def test_an_order_that_may_have_been_sent_is_unknown_and_not_repeated(
    httpx_mock: HTTPXMock, client: SectigoClient, problem: Exception
) -> None:
    httpx_mock.add_exception(problem, url=ORDER)

    with pytest.raises(OutcomeUnknownError):
        await order(client)


@pytest.mark.usefixtures("signed_in")
@pytest.mark.parametrize("body", [b"", b"null", b"{}", b'{"batchId":', b"<html>"])
async def test_an_order_whose_reply_cannot_be_read_is_unknown(
    httpx_mock: HTTPXMock, client: SectigoClient, body: bytes
) -> None:
    httpx_mock.add_response(url=ORDER, method="PUT", status_code=201, content=body)

    with pytest.raises(OutcomeUnknownError):
        await order(client)


@pytest.mark.usefixtures("signed_in")
@pytest.mark.parametrize("problem", [httpx.ConnectError("refused"), httpx.ConnectTimeout("slow")])
async def test_an_order_that_was_not_sent_is_sent_again(
    httpx_mock: HTTPXMock, client: SectigoClient, problem: Exception
) -> None:
    httpx_mock.add_exception(problem, url=ORDER)
    httpx_mock.add_response(url=ORDER, method="PUT", json={"batchId": 24})

    await order(client)

    assert len(httpx_mock.get_requests(url=ORDER)) == 2


@pytest.mark.usefixtures("signed_in")
@pytest.mark.parametrize(
    ("status", "kind"), [(400, BadRequestError), (429, RateLimitError), (403, PermissionDeniedError)]
)
async def test_an_order_that_was_refused_is_known_not_to_have_run(
    httpx_mock: HTTPXMock, client: SectigoClient, status: int, kind: type[SectigoError]
) -> None:
    httpx_mock.add_response(url=ORDER, method="PUT", status_code=status, is_reusable=status == 429)

    with pytest.raises(kind):
        await order(client)


async def test_a_401_is_answered_by_one_refresh_and_one_replay_even_of_an_order(
    httpx_mock: HTTPXMock, client: SectigoClient, mint: Callable[..., str]
) -> None:
    httpx_mock.add_response(url=f"{BASE}/auth/pwd", json={"accessToken": mint("1"), "refreshToken": mint("r")})
    httpx_mock.add_response(url=ORDER, method="PUT", status_code=401)
    httpx_mock.add_response(url=f"{BASE}/auth/refresh", json={"accessToken": mint("2")})
    httpx_mock.add_response(url=ORDER, method="PUT", json={"batchId": 24})

    await order(client)

    tokens = [request.headers["authorization"] for request in httpx_mock.get_requests(url=ORDER)]
    assert tokens == [f"Bearer {mint('1')}", f"Bearer {mint('2')}"]


async def test_a_second_401_is_not_answered_again(
    httpx_mock: HTTPXMock, client: SectigoClient, mint: Callable[..., str]
) -> None:
    httpx_mock.add_response(url=f"{BASE}/auth/pwd", json={"accessToken": mint("1"), "refreshToken": mint("r")})
    httpx_mock.add_response(url=f"{BASE}/auth/refresh", json={"accessToken": mint("2")})
    httpx_mock.add_response(url=DEVICES, status_code=401, json={"message": "go away"}, is_reusable=True)

    with pytest.raises(SignInRequiredError, match="go away"):
        await client.licenses.get()

    assert len(httpx_mock.get_requests(url=DEVICES)) == 2


async def test_refresh_refused_means_signing_in_with_the_password(
    httpx_mock: HTTPXMock, client: SectigoClient, mint: Callable[..., str]
) -> None:
    for name in ("1", "2"):
        httpx_mock.add_response(url=f"{BASE}/auth/pwd", json={"accessToken": mint(name), "refreshToken": mint("r")})
    httpx_mock.add_response(url=DEVICES, status_code=401)
    httpx_mock.add_response(url=f"{BASE}/auth/refresh", status_code=403)
    httpx_mock.add_response(url=DEVICES, json={})

    await client.licenses.get()


async def test_a_thousand_calls_that_meet_a_401_cause_one_refresh(
    httpx_mock: HTTPXMock, client: SectigoClient, mint: Callable[..., str]
) -> None:
    httpx_mock.add_response(url=f"{BASE}/auth/pwd", json={"accessToken": mint("1"), "refreshToken": mint("r")})
    httpx_mock.add_response(url=f"{BASE}/auth/refresh", json={"accessToken": mint("2")})

    def answer(request: httpx.Request) -> httpx.Response:
        good = request.headers["authorization"] == f"Bearer {mint('2')}"
        return httpx.Response(200 if good else 401, json={})

    httpx_mock.add_callback(answer, url=DEVICES, is_reusable=True)

    async with asyncio.TaskGroup() as group:
        for _ in range(1000):
            group.create_task(client.licenses.get())

    assert len(httpx_mock.get_requests(url=f"{BASE}/auth/refresh")) == 1
    assert len(httpx_mock.get_requests(url=f"{BASE}/auth/pwd")) == 1


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, InvalidCredentialsError), (403, NotAuthorizedError), (307, ClientCertificateRequiredError)],
)
async def test_sign_in_refused(
    httpx_mock: HTTPXMock, client: SectigoClient, status: int, kind: type[SectigoError]
) -> None:
    httpx_mock.add_response(url=f"{BASE}/auth/pwd", status_code=status, headers={"location": "https://evil.example"})

    with pytest.raises(kind) as caught:
        await order(client)

    assert caught.value.hint
    assert len(httpx_mock.get_requests()) == 1


async def test_a_refused_password_is_never_sent_again(httpx_mock: HTTPXMock, client: SectigoClient) -> None:
    httpx_mock.add_response(url=f"{BASE}/auth/pwd", status_code=401)

    for _ in range(3):
        with pytest.raises(InvalidCredentialsError):
            await client.licenses.get()

    assert len(httpx_mock.get_requests()) == 1


async def test_without_a_password_nothing_is_sent(httpx_mock: HTTPXMock) -> None:
    async with SectigoClient(username="ops") as client:
        with pytest.raises(SignInRequiredError, match="no password"):
            await client.licenses.get()

    assert not httpx_mock.get_requests()


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"accessToken":""}', b'{"accessToken":7}', b"canary-token"])
async def test_a_sign_in_without_a_token_is_an_authentication_error_that_quotes_nothing(
    httpx_mock: HTTPXMock, client: SectigoClient, body: bytes
) -> None:
    from sectigo_async.errors import AuthenticationError

    httpx_mock.add_response(url=f"{BASE}/auth/pwd", content=body)

    with pytest.raises(AuthenticationError) as caught:
        await client.licenses.get()

    assert "canary-token" not in str(caught.value)


async def test_a_failed_sign_in_never_makes_an_order_ambiguous(httpx_mock: HTTPXMock, client: SectigoClient) -> None:
    httpx_mock.add_exception(httpx.ReadTimeout("slow"), url=f"{BASE}/auth/pwd")

    with pytest.raises(NoReplyError):
        await order(client)


async def _hang(_: httpx.Request) -> httpx.Response:
    await asyncio.sleep(3600)
    raise AssertionError


@pytest.mark.usefixtures("signed_in")
async def test_timeout_bounds_the_whole_call(httpx_mock: HTTPXMock, client: SectigoClient) -> None:
    httpx_mock.add_callback(_hang, url=DEVICES)
    httpx_mock.add_callback(_hang, url=ORDER)

    with pytest.raises(CallTimeoutError, match=r"0\.05 s"):
        await client.licenses.get(timeout=0.05)
    with pytest.raises(OutcomeUnknownError, match=r"0\.05 s"):
        await client.batches.create(authority_id=1, name="gateway-7", params={}, timeout=0.05)


@pytest.mark.usefixtures("signed_in")
async def test_a_cancelled_order_stays_cancelled_and_names_itself(
    httpx_mock: HTTPXMock, client: SectigoClient
) -> None:
    started = asyncio.Event()

    async def hang(request: httpx.Request) -> httpx.Response:
        started.set()
        return await _hang(request)

    httpx_mock.add_callback(hang, url=ORDER)
    task = asyncio.create_task(order(client))
    await started.wait()
    task.cancel()

    with pytest.raises(asyncio.CancelledError) as caught:
        await task

    assert any("gateway-7" in note for note in caught.value.__notes__)


@pytest.mark.usefixtures("signed_in")
async def test_a_reply_that_is_too_long_is_not_read_to_its_end(httpx_mock: HTTPXMock, clock: FakeClock) -> None:
    httpx_mock.add_response(url=DEVICES, content=b" " * 2000, is_reusable=True)
    config = Config(endpoint=BASE, environment=Config.create(BASE).environment, reply_limit=1000, attempts=1)

    async with SectigoClient(username="ops", password="x", config=config, clock=clock) as client:
        with pytest.raises(UnexpectedReplyError, match="longer than"):
            await client.licenses.get()


@pytest.mark.usefixtures("signed_in")
async def test_no_secret_hangs_on_an_error(httpx_mock: HTTPXMock, client: SectigoClient, signed_in: str) -> None:
    httpx_mock.add_exception(httpx.ReadError("reset"), url=ORDER)

    with pytest.raises(OutcomeUnknownError) as caught:
        await order(client)

    error: BaseException | None = caught.value
    shown = []
    while error is not None:
        lines = traceback.TracebackException.from_exception(error, capture_locals=True).format()
        shown.append("".join(lines) + repr(vars(error)))
        error = error.__cause__ or error.__context__
    # The locals of this test function itself hold the token that the fixture gave it.
    text = "\n".join(shown).replace(f"signed_in = {signed_in!r}", "")
    assert CANARY not in text
    assert signed_in not in text


def test_a_client_belongs_to_one_event_loop(httpx_mock: HTTPXMock, mint: Callable[..., str]) -> None:
    httpx_mock.add_response(url=f"{BASE}/auth/pwd", json={"accessToken": mint("1")})
    httpx_mock.add_response(url=DEVICES, json={})
    client = SectigoClient(username="ops", password="x")
    asyncio.run(client.licenses.get())

    with pytest.raises(ConfigurationError, match="event loop"):
        asyncio.run(client.licenses.get())


@pytest.mark.usefixtures("signed_in")
async def test_parameters_of_an_order_are_not_logged(
    httpx_mock: HTTPXMock, client: SectigoClient, signed_in: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", logger="sectigo_async")
    httpx_mock.add_response(url=ORDER, method="PUT", json={"batchId": 24})

    await order(client)

    assert "/api/v1/batches/createSingleCertBatch" in caplog.text
    assert CANARY not in caplog.text
    assert signed_in not in caplog.text
    assert json.loads(httpx_mock.get_requests(url=ORDER)[0].content)["profileParams"]["pkcs12Password"] == CANARY


@pytest.mark.usefixtures("signed_in")
@pytest.mark.parametrize("status", [302, 307, 408, 410, 418, 499])
async def test_an_order_whose_answer_proves_nothing_is_unknown(
    httpx_mock: HTTPXMock, client: SectigoClient, status: int
) -> None:
    httpx_mock.add_response(url=ORDER, method="PUT", status_code=status)

    with pytest.raises(OutcomeUnknownError):
        await order(client)


@pytest.mark.usefixtures("signed_in")
async def test_secrets_that_the_service_echoes_are_masked(
    httpx_mock: HTTPXMock, client: SectigoClient, signed_in: str
) -> None:
    body = {"message": f"rejected value [{CANARY}] of {signed_in}"}
    httpx_mock.add_response(url=ORDER, method="PUT", status_code=400, json=body)

    with pytest.raises(BadRequestError) as caught:
        await order(client)

    shown = f"{caught.value} {vars(caught.value)}"
    assert "rejected value [***" in shown
    assert CANARY not in shown
    assert signed_in not in shown


@pytest.mark.parametrize("status", [400, 500, 302])
async def test_a_refused_sign_in_is_not_quoted(httpx_mock: HTTPXMock, client: SectigoClient, status: int) -> None:
    body = {"accessToken": "canary-token", "password": CANARY}
    httpx_mock.add_response(url=f"{BASE}/auth/pwd", status_code=status, json=body)

    with pytest.raises(SectigoError) as caught:
        await client.licenses.get()

    shown = f"{caught.value} {vars(caught.value)}"
    assert "canary-token" not in shown
    assert CANARY not in shown


@pytest.mark.parametrize("token", ["tök-canary", "canary\ninjected: header", "canary\x00", " "])
async def test_a_token_that_cannot_stand_in_a_header_is_refused_unseen(
    httpx_mock: HTTPXMock, client: SectigoClient, token: str
) -> None:
    from sectigo_async.errors import AuthenticationError

    httpx_mock.add_response(url=f"{BASE}/auth/pwd", json={"accessToken": token})

    with pytest.raises(AuthenticationError) as caught:
        await order(client)

    assert "canary" not in str(caught.value)


@pytest.mark.usefixtures("signed_in")
async def test_an_archive_may_be_longer_than_any_other_reply(httpx_mock: HTTPXMock, clock: FakeClock) -> None:
    import attrs

    archive = b"PK\x05\x06" + bytes(16) + (2000).to_bytes(2, "little") + bytes(2000)
    httpx_mock.add_response(url=f"{BASE}/api/v1/batches/1/download", content=archive)
    config = attrs.evolve(Config.create(BASE), reply_limit=1000)

    async with SectigoClient(username="ops", password="x", config=config, clock=clock) as client:
        assert (await client.batches.download(1)).raw == archive


def test_errors_survive_being_copied_and_pickled() -> None:
    import copy
    import pickle

    error = NotFoundError("gone", status=404, method="GET", path="/x", code=7, hint="look elsewhere")

    for made in (copy.copy(error), pickle.loads(pickle.dumps(error))):  # noqa: S301
        assert type(made) is NotFoundError
        assert (str(made), made.status, made.code, made.hint) == ("gone", 404, 7, "look elsewhere")


def test_messages_are_one_printable_line_whatever_they_are_made_of() -> None:
    assert str(SectigoError("first\nsecond \x1b[31mred\u202e")) == "first second [31mred"


@pytest.mark.usefixtures("signed_in")
@pytest.mark.parametrize("secret", ["pä55-wörd", 'ab"cd\\ef', "abcdef"])
@pytest.mark.parametrize("ascii_only", [True, False])
async def test_secrets_are_masked_as_json_writes_them_too(
    httpx_mock: HTTPXMock, client: SectigoClient, secret: str, ascii_only: bool
) -> None:
    body = json.dumps({"errors": [f"bad value {secret}!"]}, ensure_ascii=ascii_only).encode()
    httpx_mock.add_response(url=ORDER, method="PUT", status_code=400, content=body)

    with pytest.raises(BadRequestError) as caught:
        await client.batches.create(
            authority_id=1, params={"pkcs12Password": Secret(secret), "other": Secret(secret[:3] + "x")}
        )

    shown = f"{caught.value} {caught.value.excerpt}"
    for form in (secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]):
        assert form not in shown


@pytest.mark.usefixtures("signed_in")
async def test_a_text_that_holds_a_short_secret_is_not_shown_at_all(
    httpx_mock: HTTPXMock, client: SectigoClient
) -> None:
    httpx_mock.add_response(url=ORDER, method="PUT", status_code=400, json={"message": "bad password"})

    with pytest.raises(BadRequestError, match="not shown"):
        await client.batches.create(authority_id=1, params={"pkcs12Password": Secret("a")})


@pytest.mark.usefixtures("signed_in")
async def test_a_value_that_is_no_text_is_refused_without_showing_the_others(client: SectigoClient) -> None:
    from sectigo_async.errors import InvalidArgumentError

    with pytest.raises(InvalidArgumentError) as caught:
        await client.batches.create(authority_id=1, params={"commonName": "a\udc80", "p": Secret(CANARY)})

    assert CANARY not in repr(vars(caught.value)) + repr(caught.value)
    assert caught.value.__context__ is None


@pytest.mark.usefixtures("signed_in")
@pytest.mark.parametrize(
    ("header", "waited"),
    [
        ("7", 7),
        ("0", 0),
        ("9" * 40, 60),
        ("Wed, 25 Nov 2026 10:00:09 GMT", 9),
        ("Wed, 25 Nov 2026 09:00:00 GMT", 0),
        ("Wed, 25 Nov 2099 10:00:00 GMT", 60),
        ("Wed, 25 Nov 2026 10:00:09 -0000", 9),
    ],
)
async def test_the_service_says_how_long_to_wait(
    httpx_mock: HTTPXMock, client: SectigoClient, clock: FakeClock, header: str, waited: float
) -> None:
    headers = {"retry-after": header, "date": "Wed, 25 Nov 2026 10:00:00 GMT"}
    httpx_mock.add_response(url=DEVICES, status_code=429, headers=headers)
    httpx_mock.add_response(url=DEVICES, json={"ordered": 1, "issued": 1})

    await client.licenses.get()

    assert clock.sleeps == [waited]


@pytest.mark.usefixtures("signed_in")
@pytest.mark.parametrize(
    "header", ["soon", "-1", "1.5", "", "Wed, 99 Nov 2026 10:00:00 GMT", "1 Jan 0001 0:0:0 +9999"]
)
async def test_garbage_asks_for_nothing(
    httpx_mock: HTTPXMock, client: SectigoClient, clock: FakeClock, header: str
) -> None:
    headers = {"retry-after": header, "date": "Wed, 25 Nov 2026 10:00:00 GMT"}
    httpx_mock.add_response(url=DEVICES, status_code=503, headers=headers)
    httpx_mock.add_response(url=DEVICES, json={"ordered": 1, "issued": 1})

    await client.licenses.get()

    assert len(clock.sleeps) == 1
    assert clock.sleeps[0] <= 0.5


@pytest.mark.usefixtures("signed_in")
async def test_what_would_come_too_late_is_not_waited_for(
    httpx_mock: HTTPXMock, client: SectigoClient, clock: FakeClock
) -> None:
    httpx_mock.add_response(url=DEVICES, status_code=429, headers={"retry-after": "40"}, json={"message": "busy"})

    with pytest.raises(RateLimitError, match="busy") as caught:
        await client.licenses.get(timeout=30)

    assert (caught.value.retry_after, clock.sleeps) == (40, [])


@pytest.mark.usefixtures("signed_in")
async def test_an_order_is_sent_again_where_the_service_was_too_busy_to_run_it(
    httpx_mock: HTTPXMock, client: SectigoClient, clock: FakeClock
) -> None:
    httpx_mock.add_response(url=ORDER, method="PUT", status_code=429, headers={"retry-after": "5"})
    httpx_mock.add_response(url=ORDER, method="PUT", status_code=201, json={"batchId": 24})

    await order(client)

    assert clock.sleeps == [5]


@pytest.mark.usefixtures("signed_in")
@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_an_order_is_not_sent_again_after_a_server_error(
    httpx_mock: HTTPXMock, client: SectigoClient, status: int
) -> None:
    httpx_mock.add_response(url=ORDER, method="PUT", status_code=status, headers={"retry-after": "1"})

    with pytest.raises(OutcomeUnknownError):
        await order(client)


@pytest.mark.usefixtures("signed_in")
async def test_json_counts_whatever_it_claims_to_be(httpx_mock: HTTPXMock, client: SectigoClient) -> None:
    headers = {"content-type": "text/html"}
    httpx_mock.add_response(url=DEVICES, json={"ordered": 3, "issued": 1}, headers=headers)
    httpx_mock.add_response(url=DEVICES, status_code=400, json={"message": "no such thing"}, headers=headers)

    assert (await client.licenses.get()).ordered == 3
    with pytest.raises(BadRequestError, match="no such thing"):
        await client.licenses.get()


def zeros(encodings: int) -> bytes:
    """Return 300 MB of zeros, packed so many times."""
    body = bytearray()
    packer = zlib.compressobj(9, wbits=31)
    for _ in range(300):
        body += packer.compress(bytes(1_000_000))
    body += packer.flush()
    for _ in range(encodings - 1):
        body = bytearray(gzip.compress(body))
    return bytes(body)


async def pieces(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), 65_536):
        yield body[start : start + 65_536]


async def endless() -> AsyncIterator[bytes]:
    for _ in range(300):
        yield bytes(1_000_000)


@pytest.mark.parametrize(
    ("body", "encoding", "words"),
    [
        (endless, "", "longer than 8,388,608 bytes"),
        (lambda: pieces(zeros(1)), "gzip", "longer than 8,388,608 bytes"),
        (lambda: pieces(zeros(2)), "gzip, gzip", "encoding that was not asked for"),
        (lambda: pieces(b"x"), "br", "encoding that was not asked for"),
        (lambda: pieces(b"[" * 100_000), "", "the reply is not JSON"),
        (lambda: pieces(b'{"ordered":' * 100_000), "", "the reply is not JSON"),
        (lambda: pieces(b"null"), "", "does not fit"),
        (lambda: pieces(b""), "", "not JSON"),
        (lambda: pieces(b'[{"ordered": 1}]'), "", "does not fit"),
        (lambda: pieces(b'{"ordered": [1]}'), "", "ordered"),
    ],
)
async def test_what_no_service_sends_is_a_typed_error_in_bounded_memory(
    body: Callable[[], AsyncIterator[bytes]], encoding: str, words: str
) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/auth/pwd":
            return httpx.Response(200, json={"accessToken": "a.b.c", "refreshToken": "a.b.c"})
        return httpx.Response(200, headers={"content-encoding": encoding} if encoding else {}, content=stream)

    stream = body()
    transport = httpx.MockTransport(answer)
    async with SectigoClient(username="ops", password="x", endpoint=BASE, transport=transport) as client:
        tracemalloc.start()
        with pytest.raises(UnexpectedReplyError, match=re.escape(words)) as caught:
            await client.licenses.get()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()

    assert peak < 160_000_000
    assert (caught.value.method, caught.value.path) == ("GET", "/api/v1/devices")
