"""The shapes of the replies, field by field (api.md 1a, 1c)."""

import json
import re
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import pytest

from sectigo_async.testing import FakeClock

AUTHORITY = {
    "id": 1,
    "ecosystemId": 100,
    "signerCertificateId": 0,
    "ecosystemName": "TRISA",
    "balance": 1000,
    "enabled": True,
    "profileId": 42,
    "profileName": "TRISA Profile",
}
AUTHENTICATED = [
    ("PUT", "/api/v1/batches/createSingleCertBatch"),
    ("POST", "/api/v1/batches/upload"),
    ("GET", "/api/v1/batches/24"),
    ("GET", "/api/v1/batches/24/status"),
    ("GET", "/api/v1/batches/24/processing_info"),
    ("GET", "/api/v1/batches/24/download"),
    ("GET", "/api/v1/devices"),
    ("GET", "/api/v1/authorities/allowed"),
    ("GET", "/api/v1/authorities/1/balanceavailable"),
    ("GET", "/api/v1/profiles"),
    ("GET", "/api/v1/profiles/42"),
    ("GET", "/api/v1/profiles/42/parameters"),
    ("GET", "/api/v1/organizations/user"),
    ("POST", "/api/v1/certificates/find"),
    ("POST", "/api/v1/certificates/42/revoke"),
]


@pytest.mark.parametrize(("method", "path"), AUTHENTICATED)
async def test_without_a_token_every_call_is_401(
    anonymous: httpx.AsyncClient, assert_error: Callable[..., str], method: str, path: str
) -> None:
    assert_error(await anonymous.request(method, path), 401)


@pytest.mark.parametrize(
    ("method", "path"), [*AUTHENTICATED, ("POST", "/auth/pwd"), ("POST", "/auth/refresh"), ("GET", "/status")]
)
async def test_the_wrong_method_is_405(
    client: httpx.AsyncClient, assert_error: Callable[..., str], method: str, path: str
) -> None:
    reply = await client.request("DELETE", path)
    assert_error(reply, 405)
    assert method in reply.headers["allow"]


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/api/v1/upload",
        "/api/v1/batches",
        "/api/v1/profiles/",
        "/auth/pwd/",
        "/api/v1/batches/x",
        "/api/v1/batches/24/",
    ],
)
async def test_unknown_paths_are_404_and_never_redirect(
    client: httpx.AsyncClient, assert_error: Callable[..., str], path: str
) -> None:
    assert_error(await client.get(path), 404)


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/batches/9999",
        "/api/v1/batches/9999/status",
        "/api/v1/batches/9999/processing_info",
        "/api/v1/batches/9999/download",
        "/api/v1/authorities/42/balanceavailable",
        "/api/v1/profiles/1",
        "/api/v1/profiles/1/parameters",
    ],
)
async def test_unknown_ids_are_404(client: httpx.AsyncClient, assert_error: Callable[..., str], path: str) -> None:
    assert "not found" in assert_error(await client.get(path), 404)


async def test_an_order_is_answered_like_the_manual_s(
    create: Callable[..., Any], params: dict[str, str], clock: FakeClock
) -> None:
    reply = await create(params, authority=42, name="example.com certs")
    assert reply.status_code == 201
    assert reply.headers["content-type"] == "application/json;charset=UTF-8"
    document = reply.json()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+0000", document.pop("creationDate"))
    assert document == {
        "batchId": 24,
        "orderNumber": 1024,
        "profile": "TRISA Profile",
        "size": 1,
        "status": "CREATED",
        "active": False,
        "batchName": "example.com certs",
        "rejectReason": "",
        "generatorParametersValues": None,
        "userId": 10,
        "downloadable": True,
        "rejectable": True,
    }
    assert parsedate_to_datetime(reply.headers["date"]).timestamp() == int(clock.time())


async def test_an_upload_is_answered_by_the_same_document(
    upload: Callable[..., Any], create: Callable[..., Any], make_csr: Callable[..., bytes], device: dict[str, str]
) -> None:
    uploaded, created = await upload(make_csr("example.com")), await create(device)
    assert uploaded.status_code == 200
    assert list(uploaded.json()) == list(created.json())


async def test_status_is_a_plain_sentence(
    client: httpx.AsyncClient, create: Callable[..., Any], device: dict[str, str], clock: FakeClock
) -> None:
    await create(device)
    reply = await client.get("/api/v1/batches/24/status")
    assert reply.text == "Processing"
    assert reply.headers["content-type"].startswith("text/plain")
    clock.advance(2)
    assert (await client.get("/api/v1/batches/24/status")).text == "Ready for download"


async def test_download_is_a_named_attachment(
    client: httpx.AsyncClient, create: Callable[..., Any], device: dict[str, str], clock: FakeClock
) -> None:
    await create(device)
    clock.advance(2)
    reply = await client.get("/api/v1/batches/24/download", headers={"accept": "application/octet-stream"})
    assert reply.headers["content-type"] == "application/octet-stream"
    assert reply.headers["content-disposition"] == "attachment; filename=24.zip"
    assert reply.content.startswith(b"PK")


async def test_devices_counts_licences(
    client: httpx.AsyncClient, create: Callable[..., Any], device: dict[str, str], clock: FakeClock
) -> None:
    assert (await client.get("/api/v1/devices")).json() == {"ordered": 0, "issued": 0}
    await create(device)
    assert (await client.get("/api/v1/devices")).json() == {"ordered": 1, "issued": 0}
    clock.advance(2)
    assert (await client.get("/api/v1/devices")).json() == {"ordered": 1, "issued": 1}


async def test_authorities(client: httpx.AsyncClient) -> None:
    authorities = (await client.get("/api/v1/authorities/allowed")).json()
    assert authorities[0] == AUTHORITY
    assert [(item["id"], item["profileId"]) for item in authorities] == [(1, 42), (2, 85), (3, 117)]


async def test_balance_is_a_bare_integer(client: httpx.AsyncClient) -> None:
    assert (await client.get("/api/v1/authorities/1/balanceavailable")).text == "1000"


async def test_profiles(client: httpx.AsyncClient) -> None:
    profiles = (await client.get("/api/v1/profiles")).json()
    assert [item["profileId"] for item in profiles] == [42, 85, 117]
    assert profiles[0] == {
        "profileId": 42,
        "algorithms": ["RSA", "EC"],
        "ca": "sectigo-async sandbox, not trusted: issuing CA",
    }


async def test_a_profile_holds_its_configuration_as_a_string(client: httpx.AsyncClient) -> None:
    profile = (await client.get("/api/v1/profiles/42")).json()
    assert list(profile) == ["profileName", "profileId", "rawProfileConfig", "name", "keyAlgorithmInfo"]
    assert profile["profileName"] == "TRISA Profile"
    assert isinstance(json.loads(profile["rawProfileConfig"]), dict)


@pytest.mark.parametrize(
    ("profile", "names"),
    [
        (42, {"commonName", "dNSName", "pkcs12Password"}),
        (
            85,
            {
                "commonName",
                "dNSName",
                "pkcs12Password",
                "organizationName",
                "localityName",
                "stateOrProvinceName",
                "countryName",
            },
        ),
        (117, {"commonName", "pkcs12Password", "serialNumber"}),
    ],
)
async def test_parameters(client: httpx.AsyncClient, profile: int, names: set[str]) -> None:
    parameters = (await client.get(f"/api/v1/profiles/{profile}/parameters")).json()
    assert {item["name"] for item in parameters if item["required"]} == names
    for item in parameters:
        assert list(item) == [
            "name",
            "inputType",
            "required",
            "placeholder",
            "validationPattern",
            "message",
            "value",
            "title",
            "scopes",
            "dynamic",
        ]
        re.compile(item["validationPattern"])
        assert item["message"]
        assert item["title"]


async def test_organization(client: httpx.AsyncClient) -> None:
    organization = (await client.get("/api/v1/organizations/user")).json()
    assert list(organization) == [
        "organizationId",
        "organizationName",
        "address",
        "primaryContactName",
        "primaryContactEmail",
        "primaryContactPhone",
        "manufactureId",
        "logo",
        "authorities",
        "ecosystemId",
        "organizationParameters",
        "orgStatus",
    ]
    assert organization["authorities"][0] == AUTHORITY
    assert organization["orgStatus"] == "ACTIVE"
