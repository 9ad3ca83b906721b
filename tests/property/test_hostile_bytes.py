"""Whatever the service sends, a typed error or a result comes out, and nothing else."""

import asyncio
import io
import json
import zipfile
from collections.abc import Awaitable, Callable

import attrs
import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sectigo_async import Archive, BatchStatus, Secret, SectigoClient, SectigoError
from sectigo_async.auth.token import read_claims
from sectigo_async.errors import PkiError
from sectigo_async.models import normalise_serial_number, parse_date
from sectigo_async.pki import generate_key, make_csr, read_requests
from sectigo_async.testing import FakeClock
from sectigo_async.wire.retry import retry_delay

CSR = make_csr(generate_key(), "gw7.example.com")
TOKENS = {"accessToken": "a.b.c", "refreshToken": "a.b.c"}

CALLS: dict[str, Callable[[SectigoClient], Awaitable[object]]] = {
    "auth/refresh": lambda client: client.licenses.get(),
    "createSingleCertBatch": lambda client: client.batches.create(authority_id=1, params={}),
    "upload": lambda client: client.batches.upload(profile_id=1, requests=CSR),
    "detail": lambda client: client.batches.get(1),
    "status": lambda client: client.batches.status(1),
    "processing_info": lambda client: client.batches.processing_info(1),
    "download": lambda client: client.batches.download(1),
    "devices": lambda client: client.licenses.get(),
    "authorities": lambda client: client.authorities.list(),
    "balance": lambda client: client.authorities.balance(1),
    "profiles": lambda client: client.profiles.list(),
    "profile": lambda client: client.profiles.get(1),
    "parameters": lambda client: client.profiles.parameters(1),
    "organization": lambda client: client.organizations.current(),
    "find": lambda client: client.certificates.find(common_name="x"),
    "revoke": lambda client: client.certificates.revoke(profile_id=1, serial_number=1),
    "wait": lambda client: client.batches.wait(1, timeout=100),
}

documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["batchId", "id", "profileId", "status", "items", "message", "errorCode", "name"])
            | st.text(),
            inner,
            max_size=5,
        )
    ),
    max_leaves=10,
)
bodies = st.binary(max_size=200) | documents.map(lambda document: json.dumps(document).encode())
statuses = st.sampled_from([200, 201, 204, 301, 307, 400, 401, 403, 404, 409, 418, 429, 500, 503, 599])
media_types = st.sampled_from(
    ["", "application/json", "application/json;charset=UTF-8", "text/plain", "text/html", "\x7f"]
)
waits = st.sampled_from(["", "0", "7", "-1", "soon", "9" * 40, "Wed, 21 Oct 2015 07:28:00 GMT"])


headers = st.dictionaries(
    st.sampled_from(
        ["content-encoding", "location", "date", "set-cookie", "content-disposition", "transfer-encoding"]
    )
    | st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=10),
    st.sampled_from(["gzip", "deflate", "gzip, gzip", "br", "chunked", "/x", "https://elsewhere.example.com/"])
    | st.text(st.characters(max_codepoint=255), max_size=30),
    max_size=3,
)


@attrs.frozen(kw_only=True)
class Answer:
    """A reply that a service, or what stands before it, might give."""

    status: int
    body: bytes
    headers: dict[str, str]


answers = st.builds(
    lambda status, body, media_type, wait, more: Answer(
        status=status, body=body, headers={"content-type": media_type, "retry-after": wait} | more
    ),
    statuses | st.integers(200, 599),
    bodies,
    media_types,
    waits,
    headers,
)


@pytest.mark.parametrize("name", CALLS)
@settings(max_examples=60, deadline=None)
@given(answers)
def test_any_reply_to_any_call(name: str, given_answer: Answer) -> None:
    assert_typed(name, given_answer)


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", CALLS)
@settings(max_examples=600, deadline=None)
@given(answers)
def test_any_of_10_200_replies_to_any_call(name: str, given_answer: Answer) -> None:
    assert_typed(name, given_answer)


def assert_typed(name: str, given_answer: Answer) -> None:
    """Check that a call ends in time with a result or a `SectigoError`, and with nothing else."""
    refreshing = name == "auth/refresh"
    first = True

    def answer(request: httpx.Request) -> httpx.Response:
        nonlocal first
        if request.url.path == "/auth/pwd":
            return httpx.Response(200, json=TOKENS)
        if refreshing and request.url.path == "/api/v1/devices" and first:
            first = False
            return httpx.Response(401)
        # As a stream: httpx would decode a body at once, where it is the client's to do.
        raw = [(key.encode(), value.encode("latin-1")) for key, value in given_answer.headers.items()]
        return httpx.Response(given_answer.status, headers=raw, stream=httpx.ByteStream(given_answer.body))

    async def use() -> None:
        clock = FakeClock()
        async with SectigoClient(
            username="ops",
            password="x",
            endpoint="http://127.0.0.1",
            transport=httpx.MockTransport(answer),
            clock=clock,
        ) as client:
            said = ""
            try:
                await CALLS[name](client)
            except SectigoError as error:
                said = str(error)
        assert said.isprintable()
        assert len(said) < 2000
        assert clock.monotonic() <= 120

    asyncio.run(use())


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400) | st.binary(max_size=400).map(lambda tail: b"PK\x03\x04" + tail))
def test_any_bytes_as_an_archive_or_request(data: bytes) -> None:
    for read in (lambda: Archive(data).open(password="x"), lambda: read_requests(data)):
        with pytest.raises(PkiError):
            read()


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.text(min_size=1, max_size=20), st.binary(max_size=300)), max_size=4), st.randoms())
def test_any_members_in_an_archive(members: list[tuple[str, bytes]], random: object) -> None:
    del random
    prefixes = [b"", b"\x30\x82\x01\x00", b"\x30\x82\x01\x00\x02\x01\x03", b"-----BEGIN CERTIFICATE-----\n"]
    for prefix in prefixes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for number, (name, content) in enumerate(members):
                archive.writestr(f"{number}{name}".replace("\0", ""), prefix + content)
        with pytest.raises(PkiError):
            Archive(buffer.getvalue()).open(password="x")


@given(st.text())
def test_any_text_as_status_date_token_or_serial(text: str) -> None:
    assert isinstance(BatchStatus.parse(text), BatchStatus)
    date = parse_date(text)
    assert date is None or date.tzinfo is not None
    read_claims(Secret(text))
    try:
        normal = normalise_serial_number(text)
    except ValueError:
        return
    assert normalise_serial_number(normal) == normal


@given(st.integers(min_value=0, max_value=2**200))
def test_serial_numbers_survive_every_spelling(number: int) -> None:
    plain = f"{number:X}"
    pairs = f"{number:x}".zfill(len(plain) + len(plain) % 2)
    colons = ":".join(pairs[i : i + 2] for i in range(0, len(pairs), 2))

    assert {normalise_serial_number(form) for form in (number, plain, plain.lower(), f"0x{plain}", colons)} == {plain}


@given(
    repeatable=st.booleans(),
    sent=st.booleans(),
    status=st.none() | st.integers(100, 599),
    retry_after=st.none() | st.floats(min_value=0, max_value=1e12),
    attempt=st.integers(1, 10),
    attempts=st.integers(1, 10),
    left=st.none() | st.floats(-10, 200),
    jitter=st.floats(0, 1),
)
def test_retry_never_repeats_what_may_have_run(
    *,
    repeatable: bool,
    sent: bool,
    status: int | None,
    retry_after: float | None,
    attempt: int,
    attempts: int,
    left: float | None,
    jitter: float,
) -> None:
    delay = retry_delay(
        repeatable=repeatable,
        sent=sent or status is not None,
        status=status,
        retry_after=retry_after,
        attempt=attempt,
        attempts=attempts,
        left=left,
        jitter=jitter,
    )

    if delay is not None:
        assert 0 <= delay <= 60
        assert attempt < attempts
        assert left is None or delay < left
        assert repeatable or status == 429 or (not sent and status is None)
        assert status in {None, 429, 502, 503, 504}
