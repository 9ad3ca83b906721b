"""What the account may use: authorities, licences, its organisation."""

from collections.abc import Mapping

import attrs

from sectigo_async.models.base import Model


@attrs.frozen(kw_only=True)
class Authority(Model):
    """A certificate authority with the profile it issues under (api.md 1c, Authority).

    Attributes:
        id: the authority's id.
        ecosystem_id: the ecosystem it belongs to.
        signer_certificate_id: id of its signing certificate.
        ecosystem_name: name of the ecosystem.
        balance: a count of the service; what can be ordered is told by `authorities.balance()`.
        enabled: whether it issues.
        profile_id: the profile to order under.
        profile_name: that profile's name.
    """

    id: int
    ecosystem_id: int | None = None
    signer_certificate_id: int | None = None
    ecosystem_name: str = ""
    balance: int = 0
    enabled: bool = False
    profile_id: int | None = None
    profile_name: str = ""


@attrs.frozen(kw_only=True)
class Licenses(Model):
    """How many certificates the account ordered and was issued (api.md 1a, devices).

    Attributes:
        ordered: certificates ordered.
        issued: certificates issued.
    """

    ordered: int = 0
    issued: int = 0


@attrs.frozen(kw_only=True)
class Organization(Model):
    """The organisation of the current user (api.md 1c, Organization).

    Attributes:
        organization_id: its id.
        organization_name: its name.
        address: its address.
        primary_contact_name: who to ask.
        primary_contact_email: their e-mail address.
        primary_contact_phone: their telephone number.
        manufacture_id: the manufacturer's id.
        logo: its logo.
        authorities: what it may issue under.
        ecosystem_id: the ecosystem it belongs to.
        organization_parameters: parameters of its own.
        org_status: the service's word, e.g. `ACTIVE`; an open vocabulary.
    """

    organization_id: int
    organization_name: str = ""
    address: str = ""
    primary_contact_name: str = ""
    primary_contact_email: str = ""
    primary_contact_phone: str = ""
    manufacture_id: str = ""
    logo: str = ""
    authorities: tuple[Authority, ...] = ()
    ecosystem_id: int | None = None
    organization_parameters: Mapping[str, object] = attrs.field(factory=dict)
    org_status: str = ""
