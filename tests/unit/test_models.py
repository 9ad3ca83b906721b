from datetime import UTC, datetime

import pytest

from sectigo_async import Batch, BatchStatus, FoundCertificates, ProcessingInfo, RevocationReason
from sectigo_async.errors import InvalidArgumentError
from sectigo_async.models import Authority, Model, Organization, normalise_serial_number, parse_date
from sectigo_async.wire.converter import ShapeError, structure

# api.md 1c: a reply of a real account, names made anonymous.
BATCH = {
    "batchId": 24,
    "orderNumber": 1024,
    "creationDate": "2020-12-10T16:35:32.805+0000",
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


def test_batch_of_the_service_is_read_and_gives_the_same_document_back() -> None:
    batch = structure(BATCH, Batch)

    assert batch.batch_id == 24
    assert batch.status is BatchStatus.CREATED
    assert batch.creation_date == datetime(2020, 12, 10, 16, 35, 32, 805000, UTC)
    assert batch.document() == BATCH
    assert list(batch.document()) == list(BATCH)


def test_what_is_missing_or_null_has_its_default_and_what_is_new_is_kept() -> None:
    batch = structure({"batchId": 7, "orderNumber": None, "batchName": None, "colour": {"deep": [1]}}, Batch)

    assert (batch.order_number, batch.batch_name, batch.size) == (None, "", 0)
    assert batch.raw["colour"] == {"deep": [1]}
    assert list(batch.document()) == [*BATCH, "colour"]


def test_unknown_status_is_unknown_with_its_text_and_a_date_that_cannot_be_read_is_kept_raw() -> None:
    batch = structure({"batchId": 7, "status": "FROZEN_SOLID", "creationDate": "tomorrow"}, Batch)

    assert batch.status is BatchStatus.UNKNOWN
    assert batch.status_text == "FROZEN_SOLID"
    assert batch.creation_date is None
    assert batch.document()["creationDate"] == "tomorrow"


@pytest.mark.parametrize(
    ("document", "shape", "path"),
    [
        ([], Batch, "$"),
        ({}, Batch, "batchId"),
        ({"batchId": "many"}, Batch, "$.batch_id"),
        ({"batchId": 1, "active": "no"}, Batch, "$.active"),
        ({"batchId": True}, Batch, "$.batch_id"),
        ({"batchId": 1, "batchName": []}, Batch, "$.batch_name"),
        ([{"id": 1}, {"id": {}}], tuple[Authority, ...], "$"),
        ({"organizationId": 1, "authorities": "all"}, Organization, "$.authorities"),
        ({"items": {"0": {}}}, FoundCertificates, "$.items"),
    ],
)
def test_wrong_types_are_told_with_their_path(document: object, shape: type[object], path: str) -> None:
    with pytest.raises(ShapeError) as caught:
        structure(document, shape)

    assert path in str(caught.value)


def test_device_id_was_a_number_until_2022_and_serials_are_normalised() -> None:
    found = structure(
        {
            "totalCount": "2",
            "items": [{"deviceId": 9, "serialNumber": "00:af:01"}, {"deviceId": "x", "serialNumber": "?"}],
        },
        FoundCertificates,
    )

    assert found.total_count == 2
    assert [(item.device_id, item.serial_number) for item in found.items] == [("9", "AF01"), ("x", "?")]


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("READY_FOR_DOWNLOAD", BatchStatus.READY_FOR_DOWNLOAD),
        ("Ready for download", BatchStatus.READY_FOR_DOWNLOAD),
        (" Processing\n", BatchStatus.PROCESSING),
        ("Failed", BatchStatus.FAILED),
        ("Not Acceptable. Status: REJECTED", BatchStatus.REJECTED),
        ("Not Acceptable. Status: BROKEN", BatchStatus.BROKEN),
        ("Not Acceptable. Status: SOMETHING_NEW", BatchStatus.NOT_ACCEPTABLE),
        ("Not Acceptable. Status: ", BatchStatus.NOT_ACCEPTABLE),
        ("NOT_ACCEPTABLE", BatchStatus.NOT_ACCEPTABLE),
        ("Pending Issue", BatchStatus.PROCESSING),
        ("Batch Issued Partly", BatchStatus.PARTLY_ISSUED),
        ("Zip removed after expiration", BatchStatus.REMOVED_AFTER_EXPIRATION),
        ("", BatchStatus.UNKNOWN),
        ("COLLECTED", BatchStatus.COLLECTED),
    ],
)
def test_the_three_vocabularies_of_batch_status(text: str, status: BatchStatus) -> None:
    assert BatchStatus.parse(text) is status


@pytest.mark.parametrize(
    ("given", "normal"),
    [(0xAF01, "AF01"), ("af01", "AF01"), ("0xAF01", "AF01"), ("00:AF:01", "AF01"), ("AF 01", "AF01"), ("0", "0")],
)
def test_serial_numbers_in_any_spelling(given: int | str, normal: str) -> None:
    assert normalise_serial_number(given) == normal


@pytest.mark.parametrize("given", ["", "xyz", "12-34", -1, "0x"])
def test_what_is_no_serial_number(given: int | str) -> None:
    with pytest.raises(InvalidArgumentError):
        normalise_serial_number(given)


@pytest.mark.parametrize(
    "value",
    [
        "2020-12-10T16:35:32.805+0000",
        "2020-12-10T16:35:32.805+00:00",
        "2020-12-10T16:35:32.805",
        "2020-12-10T17:35:32.805+0100",
        1607618132805,
    ],
)
def test_dates_are_aware(value: object) -> None:
    assert parse_date(value) == datetime(2020, 12, 10, 16, 35, 32, 805000, UTC)


@pytest.mark.parametrize("value", ["", "soon", None, True, [], 10**30])
def test_dates_that_cannot_be_read(value: object) -> None:
    assert parse_date(value) is None


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", 0),
        ("unspecified", 0),
        ("keycompromise", 1),
        ("CA Compromise", 2),
        ("affiliation changed", 3),
        ("SUPERSEDED", 4),
        ("cessation of operation", 5),
        ("certificate hold", 6),
        ("remove from crl", 8),
        ("privilege withdrawn", 9),
        ("aa compromise", 10),
    ],
)
def test_revocation_reasons_of_rfc_5280(text: str, code: int) -> None:
    assert RevocationReason.parse(text) == code


@pytest.mark.parametrize("text", ["7", "value 7 is not used", "because"])
def test_revocation_reasons_that_are_none(text: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        RevocationReason.parse(text)

    assert "key compromise" in caught.value.hint


def test_batch_tells_whether_certificates_are_missing() -> None:
    done = Batch(batch_id=1, status=BatchStatus.READY_FOR_DOWNLOAD)

    assert not done.partial
    assert Batch(batch_id=1, status=BatchStatus.PARTLY_ISSUED).partial
    assert Batch(batch_id=1, processing=ProcessingInfo(success=2, failed=1)).partial
    assert not Batch(batch_id=1, processing=ProcessingInfo(success=3)).partial


def test_models_made_by_hand_have_documents_too() -> None:
    made: Model = Organization(organization_id=3, authorities=(Authority(id=1, profile_name="P"),))

    document = made.document()

    assert document["organizationId"] == 3
    assert isinstance(document["authorities"], list)
    assert document["authorities"][0]["profileName"] == "P"


def test_a_wrapper_in_wrappers_is_only_a_wrapper() -> None:
    assert BatchStatus.parse("Not Acceptable. Status: " * 5000) is BatchStatus.NOT_ACCEPTABLE


def test_what_was_ordered_with_is_not_shown() -> None:
    batch = structure({"batchId": 1, "generatorParametersValues": {"pkcs12Password": "canary"}}, Batch)

    assert "canary" not in repr(batch)
