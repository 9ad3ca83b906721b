"""The 17 calls of api.md 1a: what is sent and what is read, as written there."""

import json
from collections.abc import Callable
from email import message_from_bytes
from email.message import Message

import httpx
import pytest
from pytest_httpx import HTTPXMock

from sectigo_async import BatchStatus, RevocationReason, Secret, SectigoClient
from sectigo_async.errors import InvalidArgumentError, InvalidCSRError, UnexpectedReplyError
from sectigo_async.pki import generate_key, make_csr
from sectigo_async.testing import FakeClock

BASE = "https://iot.sectigo.com"
JSON = "application/json;charset=UTF-8"
BATCH = {"batchId": 24, "batchName": "example.com certs", "status": "CREATED", "downloadable": True}


def last(httpx_mock: HTTPXMock) -> httpx.Request:
    request = httpx_mock.get_requests()[-1]
    assert isinstance(request, httpx.Request)
    return request


async def test_sign_in_and_default_headers(httpx_mock: HTTPXMock, signed_in: str, client: SectigoClient) -> None:
    httpx_mock.add_response(url=f"{BASE}/api/v1/devices", json={"ordered": 2, "issued": 1})

    counters = await client.licenses.get()

    assert (counters.ordered, counters.issued) == (2, 1)
    login, call = httpx_mock.get_requests()
    assert (login.method, login.url.path) == ("POST", "/auth/pwd")
    assert json.loads(login.content) == {"username": "ops", "password": "canary-93b1"}
    assert "authorization" not in login.headers
    assert call.method == "GET"
    assert call.headers["authorization"] == f"Bearer {signed_in}"
    assert call.headers["accept"] == call.headers["content-type"] == JSON
    assert call.headers["user-agent"].startswith("sectigo-async/")


@pytest.mark.usefixtures("signed_in")
async def test_create_is_a_put_with_string_parameters(httpx_mock: HTTPXMock, client: SectigoClient) -> None:
    url = f"{BASE}/api/v1/batches/createSingleCertBatch"
    httpx_mock.add_response(url=url, method="PUT", status_code=201, json=BATCH)
    params: dict[str, str | Secret] = {
        "commonName": "example.com",
        "dNSName": "example.com\nwww.example.com",
        "pkcs12Password": Secret("pw"),
    }

    batch = await client.batches.create(authority_id=423, name="example.com certs", params=params)

    assert (batch.batch_id, batch.status) == (24, BatchStatus.CREATED)
    assert json.loads(last(httpx_mock).content) == {
        "authorityId": 423,
        "batchName": "example.com certs",
        "profileParams": {
            "commonName": "example.com",
            "dNSName": "example.com\nwww.example.com",
            "pkcs12Password": "pw",
        },
    }


@pytest.mark.usefixtures("signed_in")
async def test_create_without_a_name_makes_a_unique_one(httpx_mock: HTTPXMock, client: SectigoClient) -> None:
    httpx_mock.add_response(method="PUT", status_code=201, json=BATCH, is_reusable=True)

    for _ in range(2):
        await client.batches.create(authority_id=1, params={"commonName": "*.Gw 7.example.com"})

    names = [json.loads(request.content)["batchName"] for request in httpx_mock.get_requests(method="PUT")]
    assert all(name.startswith("gw-7-example-com-") for name in names)
    assert len(set(names)) == 2


@pytest.mark.usefixtures("signed_in")
async def test_upload_is_multipart_of_three_parts(httpx_mock: HTTPXMock, client: SectigoClient) -> None:
    httpx_mock.add_response(url=f"{BASE}/api/v1/batches/upload", method="POST", json=BATCH)
    pem = make_csr(generate_key(), "example.com")

    await client.batches.upload(profile_id=42, requests=pem)

    request = last(httpx_mock)
    assert request.headers["accept"] == JSON
    head = b"Content-Type: " + request.headers["content-type"].encode() + b"\r\n\r\n"
    parts = message_from_bytes(head + request.content).get_payload()
    assert isinstance(parts, list)
    first, second, third = (part for part in parts if isinstance(part, Message))
    assert first.get_param("name", header="content-disposition") == "profileId"
    assert first.get_payload() == "42"
    assert second.get_param("name", header="content-disposition") == "csrBatchRequest"
    assert second.get_filename() == "blob"
    assert second.get_content_type() == "application/json"
    assert json.loads(str(second.get_payload())) == {"profileId": 42, "batchType": "BATCH", "profileParams": {}}
    assert third.get_param("name", header="content-disposition") == "files"
    assert third.get_content_type() == "application/octet-stream"
    assert str(third.get_payload()).encode().strip() == pem.strip()


async def test_upload_of_what_is_no_csr_sends_nothing(httpx_mock: HTTPXMock, client: SectigoClient) -> None:
    with pytest.raises(InvalidCSRError):
        await client.batches.upload(profile_id=42, requests=b"-----BEGIN CERTIFICATE-----")

    assert not httpx_mock.get_requests()


@pytest.mark.usefixtures("signed_in")
async def test_batch_detail_status_and_counters(httpx_mock: HTTPXMock, client: SectigoClient) -> None:
    httpx_mock.add_response(url=f"{BASE}/api/v1/batches/24", json=BATCH)
    sentence = "Not Acceptable. Status: REJECTED"
    httpx_mock.add_response(
        url=f"{BASE}/api/v1/batches/24/status", text=sentence, headers={"content-type": "text/plain"}
    )
    counters = {"active": 1, "success": 2, "failed": 3}
    httpx_mock.add_response(url=f"{BASE}/api/v1/batches/24/processing_info", json=counters)

    assert (await client.batches.get(24)).batch_name == "example.com certs"
    told = await client.batches.status(24)
    assert (told.status, told.text) == (BatchStatus.REJECTED, sentence)
    assert (await client.batches.processing_info(24)).document() == counters


@pytest.mark.usefixtures("signed_in")
async def test_download_asks_for_bytes_and_ignores_the_suggested_name(
    httpx_mock: HTTPXMock, client: SectigoClient, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("out")
    empty_zip = b"PK\x05\x06" + bytes(18)
    httpx_mock.add_response(
        url=f"{BASE}/api/v1/batches/24/download",
        content=empty_zip,
        headers={"content-disposition": 'attachment; filename="../../evil.sh"'},
    )

    path = await client.batches.download_to(24, folder)

    assert last(httpx_mock).headers["accept"] == "application/octet-stream"
    assert last(httpx_mock).headers["content-type"] == "application/octet-stream"
    assert path == folder / "24.zip"
    assert path.read_bytes() == empty_zip
    assert path.stat().st_mode & 0o777 == 0o600
    assert [child.name for child in folder.iterdir()] == ["24.zip"]
    assert not list(folder.parent.glob("**/evil.sh"))


@pytest.mark.usefixtures("signed_in")
async def test_download_of_what_is_no_zip_leaves_no_file(
    httpx_mock: HTTPXMock, client: SectigoClient, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("out")
    httpx_mock.add_response(url=f"{BASE}/api/v1/batches/24/download", text="not yet, sorry", is_reusable=True)
    ready = BATCH | {"status": "READY_FOR_DOWNLOAD"}
    httpx_mock.add_response(url=f"{BASE}/api/v1/batches/24", json=ready, is_reusable=True)
    httpx_mock.add_response(url=f"{BASE}/api/v1/batches/24/processing_info", status_code=404, is_reusable=True)

    with pytest.raises(UnexpectedReplyError, match=r"no ZIP.*not yet, sorry"):
        await client.batches.download_to(24, folder)
    with pytest.raises(UnexpectedReplyError, match=r"no ZIP.*not yet, sorry"):
        await client.batches.download(24)

    assert not list(folder.iterdir())


@pytest.mark.usefixtures("signed_in")
async def test_authorities_and_their_balance_which_is_a_bare_integer(
    httpx_mock: HTTPXMock, client: SectigoClient
) -> None:
    document = {
        "id": 1,
        "ecosystemId": 100,
        "signerCertificateId": 0,
        "ecosystemName": "TRISA",
        "balance": 10,
        "enabled": True,
        "profileId": 42,
        "profileName": "TRISA Profile",
    }
    httpx_mock.add_response(url=f"{BASE}/api/v1/authorities/allowed", json=[document])
    httpx_mock.add_response(url=f"{BASE}/api/v1/authorities/1/balanceavailable", text="100")

    (authority,) = await client.authorities.list()

    assert authority.document() == document
    assert (authority.profile_id, authority.enabled) == (42, True)
    assert await client.authorities.balance(1) == 100


@pytest.mark.usefixtures("signed_in")
async def test_profiles_and_their_parameters(httpx_mock: HTTPXMock, client: SectigoClient) -> None:
    listed = {"profileId": 42, "algorithms": ["RSA"], "ca": "TRISA CA"}
    detail = {
        "profileName": "TRISA Profile",
        "profileId": 42,
        "rawProfileConfig": "{}",
        "name": "p",
        "keyAlgorithmInfo": "RSA 2048",
    }
    parameter = {
        "name": "commonName",
        "inputType": "text",
        "required": True,
        "placeholder": None,
        "validationPattern": "[a-z.]+",
        "message": "a name",
        "value": None,
        "title": "Common name",
        "scopes": ["SUBJECT"],
        "dynamic": False,
    }
    httpx_mock.add_response(url=f"{BASE}/api/v1/profiles", json=[listed])
    httpx_mock.add_response(url=f"{BASE}/api/v1/profiles/42", json=detail)
    httpx_mock.add_response(url=f"{BASE}/api/v1/profiles/42/parameters", json=[parameter])

    assert [profile.document() for profile in await client.profiles.list()] == [listed]
    assert (await client.profiles.get(42)).document() == detail
    (read,) = await client.profiles.parameters(42)
    assert (read.document(), read.scopes) == (parameter, ("SUBJECT",))


@pytest.mark.usefixtures("signed_in")
async def test_organization(httpx_mock: HTTPXMock, client: SectigoClient) -> None:
    document = {"organizationId": 5, "organizationName": "Acme", "orgStatus": "ACTIVE", "authorities": [{"id": 1}]}
    httpx_mock.add_response(url=f"{BASE}/api/v1/organizations/user", json=document)

    organization = await client.organizations.current()

    assert (organization.organization_name, organization.authorities[0].id) == ("Acme", 1)


@pytest.mark.usefixtures("signed_in")
async def test_find_sends_only_what_is_given(httpx_mock: HTTPXMock, client: SectigoClient) -> None:
    item = {"deviceId": 9, "commonName": "example.com", "serialNumber": "AF", "status": "ISSUED"}
    httpx_mock.add_response(
        url=f"{BASE}/api/v1/certificates/find", json={"totalCount": 1, "items": [item]}, is_reusable=True
    )

    found = await client.certificates.find(common_name="example.com")
    await client.certificates.find(serial_number="00:af:01")

    assert (found.total_count, found.items[0].device_id) == (1, "9")
    sent = [json.loads(request.content) for request in httpx_mock.get_requests()[1:]]
    assert sent == [{"commonName": "example.com"}, {"serialNumber": "AF01"}]
    with pytest.raises(InvalidArgumentError):
        await client.certificates.find()


@pytest.mark.usefixtures("signed_in")
@pytest.mark.parametrize("body", [b"null", b"", b'{"success":true}'])
async def test_revoke_by_profile_and_serial_ignores_the_body(
    httpx_mock: HTTPXMock, client: SectigoClient, body: bytes
) -> None:
    httpx_mock.add_response(url=f"{BASE}/api/v1/certificates/42/revoke", method="POST", content=body)

    await client.certificates.revoke(
        profile_id=42, serial_number=0xAF01, reason=RevocationReason.CESSATION_OF_OPERATION
    )

    assert json.loads(last(httpx_mock).content) == {"reasonCode": 5, "serialNumber": "AF01"}


async def test_refresh_sends_the_bare_token_and_keeps_it_where_none_comes_back(
    httpx_mock: HTTPXMock, client: SectigoClient, mint: Callable[..., str], clock: FakeClock
) -> None:
    refresh = mint("refresh", lifetime=7200)
    httpx_mock.add_response(url=f"{BASE}/auth/pwd", json={"accessToken": mint("one"), "refreshToken": refresh})
    for name in ("two", "three"):
        httpx_mock.add_response(url=f"{BASE}/auth/refresh", method="POST", json={"accessToken": mint(name)})
    httpx_mock.add_response(url=f"{BASE}/api/v1/devices", json={}, is_reusable=True)

    for _ in range(3):
        await client.licenses.get()
        clock.advance(901)

    refreshes = httpx_mock.get_requests(url=f"{BASE}/auth/refresh")
    assert [request.content for request in refreshes] == [refresh.encode()] * 2
    assert all("authorization" not in request.headers for request in refreshes)
    assert all(request.headers["content-type"] == JSON for request in refreshes)
    tokens = [request.headers["authorization"] for request in httpx_mock.get_requests(url=f"{BASE}/api/v1/devices")]
    assert tokens == [f"Bearer {mint(name)}" for name in ("one", "two", "three")]


@pytest.mark.usefixtures("signed_in")
async def test_any_other_path_by_request(httpx_mock: HTTPXMock, client: SectigoClient) -> None:
    httpx_mock.add_response(url=f"{BASE}/api/v1/users/current", json={"userId": 10}, headers={"X-Trace": "1"})

    reply = await client.request("GET", "/api/v1/users/current")

    assert (reply.status, reply.json(), reply.headers["x-trace"]) == (200, {"userId": 10}, "1")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "https://evil.example/"),
        ("GET", "//evil.example/"),
        ("GET", "api/v1/users"),
        ("GET", "/a b"),
        ("GET", "/a\r\nX: y"),
        ("GET", "/a#b"),
        ("GET /", "/a"),
        ("", "/a"),
    ],
)
async def test_request_refuses_what_is_no_path(
    httpx_mock: HTTPXMock, client: SectigoClient, method: str, path: str
) -> None:
    with pytest.raises(InvalidArgumentError):
        await client.request(method, path)

    assert not httpx_mock.get_requests()


@pytest.mark.parametrize("batch_id", [-1, "24", True, None, "../1"])
async def test_ids_are_numbers(httpx_mock: HTTPXMock, client: SectigoClient, batch_id: object) -> None:
    with pytest.raises(InvalidArgumentError):
        await client.batches.get(batch_id)  # type: ignore[arg-type]

    assert not httpx_mock.get_requests()


@pytest.mark.usefixtures("signed_in")
async def test_an_order_is_not_lost_because_a_field_of_its_reply_is_odd(
    httpx_mock: HTTPXMock, client: SectigoClient
) -> None:
    httpx_mock.add_response(method="PUT", status_code=201, json={"batchId": 24, "size": "one", "userId": {}})

    batch = await client.batches.create(authority_id=1, params={})

    assert batch.batch_id == 24
    assert batch.raw["size"] == "one"
