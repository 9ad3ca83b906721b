"""Profiles: under which rules certificates are issued."""

import attrs

from sectigo_async.models.base import Model


@attrs.frozen(kw_only=True)
class Profile(Model):
    """A profile in the list of those the user sees (api.md 1a, profiles).

    Attributes:
        profile_id: its id.
        algorithms: key algorithms it allows, in the service's words.
        ca: the authority behind it.
    """

    profile_id: int
    algorithms: tuple[str, ...] = ()
    ca: str = ""


@attrs.frozen(kw_only=True)
class ProfileDetail(Model):
    """A profile in full (api.md 1a, profiles/{id}).

    Attributes:
        profile_name: its name.
        profile_id: its id.
        raw_profile_config: its configuration, a text.
        name: another name.
        key_algorithm_info: the key algorithms in words.
    """

    profile_name: str = ""
    profile_id: int
    raw_profile_config: str = ""
    name: str = ""
    key_algorithm_info: str = ""


@attrs.frozen(kw_only=True)
class Parameter(Model):
    """A parameter that an order under a profile takes (api.md 1c, Param).

    Attributes:
        name: the key in `params` of an order.
        input_type: the service's word for how it is entered.
        required: whether an order without it is refused.
        placeholder: an example, or nothing.
        validation_pattern: a regular expression in Java's dialect, from the service: hostile until proven good.
        message: what the service says when the pattern does not match.
        value: a default, or nothing.
        title: what it is called for people.
        scopes: the service's words for where it applies.
        dynamic: a flag of the service.
    """

    name: str
    input_type: str = ""
    required: bool = False
    placeholder: object = None
    validation_pattern: str = ""
    message: str = ""
    value: object = None
    title: str = ""
    scopes: tuple[str, ...] = ()
    dynamic: bool = False
