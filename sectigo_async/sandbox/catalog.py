"""The default data: the manual's authority 1 and profile 42, and two more of the kinds that tenants have."""

from typing import Final

from sectigo_async.sandbox.errors import ServiceError
from sectigo_async.sandbox.profiles import Authority, KeyKind, Parameter, Profile

ECOSYSTEM_ID: Final = 100
ECOSYSTEM_NAME: Final = "TRISA"

_LABEL = "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_DOMAIN = rf"(\*\.)?{_LABEL}(\.{_LABEL})*"

_COMMON_NAME = Parameter(
    name="commonName",
    title="Common Name",
    placeholder="example.com",
    pattern=rf"^(?=.{{1,64}}$){_DOMAIN}$",
    message="must be a domain name of at most 64 characters",
)
_DEVICE_NAME = Parameter(
    name="commonName",
    title="Device Name",
    placeholder="gateway-7",
    pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}$",
    message="must be 1 to 64 letters, digits, spaces, dots, underscores or hyphens",
)
_PASSWORD = Parameter(
    name="pkcs12Password",
    title="PKCS#12 Password",
    placeholder="at least 8 characters",
    pattern="^.{8,64}$",
    message="must have 8 to 64 characters",
    input_type="password",
)


def _dns_name(*, required: bool) -> Parameter:
    return Parameter(
        name="dNSName",
        title="DNS Names",
        placeholder="example.com, one name per line",
        pattern=rf"^{_DOMAIN}(\n{_DOMAIN})*$",
        message="must be domain names, one per line",
        required=required,
        input_type="textarea",
    )


def _subject_text(name: str, title: str, placeholder: str) -> Parameter:
    return Parameter(
        name=name,
        title=title,
        placeholder=placeholder,
        pattern="^.{1,64}$",
        message="must have 1 to 64 characters",
    )


_TRISA_PARAMETERS = (_COMMON_NAME, _dns_name(required=True), _PASSWORD)

AUTHORITIES: Final = (
    Authority(
        authority_id=1,
        profile=Profile(profile_id=42, name="TRISA Profile", key_kind=KeyKind.RSA_2048, parameters=_TRISA_PARAMETERS),
    ),
    Authority(
        authority_id=2,
        profile=Profile(
            profile_id=85,
            name="TRISA End Entity Certificate",
            key_kind=KeyKind.EC_P256,
            parameters=(
                *_TRISA_PARAMETERS,
                _subject_text("organizationName", "Organization Name", "Example Ltd"),
                _subject_text("localityName", "Locality Name", "Menlo Park"),
                _subject_text("stateOrProvinceName", "State or Province Name", "California"),
                Parameter(
                    name="countryName",
                    title="Country Name",
                    placeholder="US",
                    pattern="^[A-Z]{2}$",
                    message="must be an ISO 3166 country code of two capital letters",
                ),
            ),
        ),
    ),
    Authority(
        authority_id=3,
        profile=Profile(
            profile_id=117,
            name="IoT Device",
            key_kind=KeyKind.EC_P256,
            parameters=(
                _DEVICE_NAME,
                _dns_name(required=False),
                _PASSWORD,
                Parameter(
                    name="serialNumber",
                    title="Device Serial Number",
                    placeholder="SN-0001",
                    pattern="^[A-Z0-9-]{4,32}$",
                    message="must be 4 to 32 capital letters, digits or hyphens",
                ),
                Parameter(
                    name="deviceType",
                    title="Device Type",
                    placeholder="gateway",
                    pattern="^(actuator|camera|gateway|sensor)$",
                    message="must be one of actuator, camera, gateway, sensor",
                    required=False,
                    input_type="select",
                ),
            ),
        ),
    ),
)


def authority(authority_id: int) -> Authority:
    """Return the authority with this id, or refuse with 404."""
    for candidate in AUTHORITIES:
        if candidate.authority_id == authority_id:
            return candidate
    raise ServiceError(404, f"Authority {authority_id} not found")


def authority_of_profile(profile_id: int) -> Authority:
    """Return the authority that sells this profile, or refuse with 404."""
    for candidate in AUTHORITIES:
        if candidate.profile.profile_id == profile_id:
            return candidate
    raise ServiceError(404, f"Profile {profile_id} not found")


def authority_or_profile(either_id: int) -> Authority:
    """Return the authority that an order means: the manual passes profile ids as `authorityId`."""
    for candidate in AUTHORITIES:
        if either_id in {candidate.authority_id, candidate.profile.profile_id}:
            return candidate
    raise ServiceError(404, f"Authority or profile {either_id} not found")
