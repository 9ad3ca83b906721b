"""The JSON documents of the wire (api.md 1c), field by field in the manual's order."""

import json
from datetime import UTC, datetime
from typing import Any, Final

from sectigo_async.sandbox.catalog import AUTHORITIES, ECOSYSTEM_ID, ECOSYSTEM_NAME
from sectigo_async.sandbox.ledger import Certificate
from sectigo_async.sandbox.profiles import Authority, Parameter, Profile
from sectigo_async.sandbox.records import Batch, Issued, Status

_ORGANIZATION_ID: Final = 42
_USER_ID: Final = 10
_ORDER_NUMBER_OFFSET: Final = 1000
_UNDER_WAY: Final = {Status.CREATED, Status.PROCESSING}


def timestamp(seconds: float) -> str:
    """Return a wall time in the service's form, like `2020-12-10T16:35:32.805+0000` (api.md 4.9)."""
    return f"{datetime.fromtimestamp(seconds, UTC).isoformat(timespec='milliseconds')[:-6]}+0000"


def batch_document(batch: Batch, status: Status) -> dict[str, Any]:
    """Return a Batch.

    `downloadable` is true from the start, as in the sample from a real account, and says nothing about readiness;
    it turns false where a batch fails.
    """
    return {
        "batchId": batch.batch_id,
        "orderNumber": batch.batch_id + _ORDER_NUMBER_OFFSET,
        "creationDate": timestamp(batch.created),
        "profile": batch.authority.profile.name,
        "size": batch.size,
        "status": status.value,
        "active": False,
        "batchName": batch.name,
        "rejectReason": batch.reject_reason(status),
        "generatorParametersValues": None,
        "userId": _USER_ID,
        "downloadable": status in _UNDER_WAY or status is Status.READY,
        "rejectable": status in _UNDER_WAY,
    }


def status_sentence(status: Status) -> str:
    """Return what `/status` says in plain text (api.md 2)."""
    match status:
        case Status.CREATED | Status.PROCESSING:
            return "Processing"
        case Status.READY:
            return "Ready for download"
        case Status.FAILED:
            return "Failed"
        case Status.REJECTED | Status.BROKEN:
            return f"Not Acceptable. Status: {status}"


def processing_document(batch: Batch, now: float) -> dict[str, int]:
    """Return the counters of a batch at the monotonic time `now`."""
    settled = batch.outcomes[: batch.settled(now)]
    success = sum(isinstance(outcome, Issued) for outcome in settled)
    return {"active": batch.size - len(settled), "success": success, "failed": len(settled) - success}


def authority_document(authority: Authority, balance: int) -> dict[str, Any]:
    """Return an Authority; `balance` is what was bought, not what is left (api.md 1c)."""
    return {
        "id": authority.authority_id,
        "ecosystemId": ECOSYSTEM_ID,
        "signerCertificateId": 0,
        "ecosystemName": ECOSYSTEM_NAME,
        "balance": balance,
        "enabled": True,
        "profileId": authority.profile.profile_id,
        "profileName": authority.profile.name,
    }


def profile_document(profile: Profile) -> dict[str, Any]:
    """Return a Profile as the list has it."""
    return {
        "profileId": profile.profile_id,
        "algorithms": ["RSA", "EC"],
        "ca": "sectigo-async sandbox, not trusted: issuing CA",
    }


def profile_detail_document(profile: Profile) -> dict[str, Any]:
    """Return an extended profile; `rawProfileConfig` is a string that holds JSON (api.md 1a)."""
    raw = {
        "keyAlgorithm": profile.key_kind.value,
        "subjectAlternativeName": {"dNSName": {"required": profile.requires_dns_name}},
        "extendedKeyUsage": ["serverAuth", "clientAuth"],
    }
    return {
        "profileName": profile.name,
        "profileId": profile.profile_id,
        "rawProfileConfig": json.dumps(raw),
        "name": profile.name,
        "keyAlgorithmInfo": profile.key_kind.value,
    }


def parameter_document(parameter: Parameter) -> dict[str, Any]:
    """Return a Param."""
    return {
        "name": parameter.name,
        "inputType": parameter.input_type,
        "required": parameter.required,
        "placeholder": parameter.placeholder,
        "validationPattern": parameter.pattern,
        "message": parameter.message,
        "value": None,
        "title": parameter.title,
        "scopes": ["USER"],
        "dynamic": False,
    }


def organization_document(balance: int) -> dict[str, Any]:
    """Return the Organization of the current user."""
    return {
        "organizationId": _ORGANIZATION_ID,
        "organizationName": "Example Ltd",
        "address": "1 Example Street, Menlo Park, California, US",
        "primaryContactName": "Demo Operator",
        "primaryContactEmail": "operator@example.com",
        "primaryContactPhone": "+1 555 0100",
        "manufactureId": "",
        "logo": "",
        "authorities": [authority_document(authority, balance) for authority in AUTHORITIES],
        "ecosystemId": ECOSYSTEM_ID,
        "organizationParameters": {},
        "orgStatus": "ACTIVE",
    }


def certificate_document(certificate: Certificate, *, revoked: bool) -> dict[str, Any]:
    """Return one item of a search."""
    return {
        "deviceId": certificate.device_id,
        "commonName": certificate.issued.common_name,
        "serialNumber": certificate.serial_number,
        "creationDate": timestamp(certificate.batch.created),
        "status": "REVOKED" if revoked else "ISSUED",
    }
