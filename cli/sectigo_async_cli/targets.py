"""What a command works on: profiles by id or name, batches by id; asked for where nobody says."""

import asyncio
from pathlib import Path

import attrs
import typer

from sectigo_async import Authority, SectigoClient, SectigoError, ServiceError
from sectigo_async_cli.context import Settings
from sectigo_async_cli.prompts import ask, choose
from sectigo_async_cli.streams import say

_LONGEST_ID = 18
_QUESTION = "Profile to order under:"


@attrs.frozen(kw_only=True)
class Target:
    """What to order under.

    Attributes:
        order_id: the id that the order carries: of the authority or the profile, as it was named.
        profile_id: the profile, whose parameters the order takes.
        authority: the authority, where it is known.
        asked: whether a person was asked for it.
    """

    order_id: int
    profile_id: int
    authority: Authority | None = None
    asked: bool = False


def missing(option: str, advice: str) -> typer.BadParameter:
    """Return the usage error for what nobody said."""
    return typer.BadParameter(f"missing: {advice}", param_hint=option)


async def order_target(
    chosen: Settings, client: SectigoClient, given: int | None, option: str, *, question: str = _QUESTION
) -> Target:
    """Return what to order under: what the command names, what `-P` names, or what a person chooses.

    Args:
        chosen: the options.
        client: lists the authorities.
        given: id of an authority or a profile.
        option: the option that names it.
        question: what to ask a person.

    Raises:
        typer.BadParameter: nobody says, or it may be either of two.
    """
    named = str(given) if given is not None else _default_profile(chosen)
    check_profile_is_named(chosen, given, option)
    number = _id(named)
    try:
        listed = await client.authorities.list()
    except ServiceError as error:
        if number is None:
            raise
        say(f"warning: whether {number} is an authority or a profile is not checked: {error}")
        listed = ()
    if not named:
        authority = await _choose_authority(client, listed, question)
        order_id = authority.profile_id if authority.profile_id is not None else authority.id
        return Target(order_id=order_id, profile_id=order_id, authority=authority, asked=True)
    if number is None:
        authority = _named(listed, named)
        number = authority.profile_id
        assert number is not None
        return Target(order_id=number, profile_id=number, authority=authority)
    of_authority = [authority for authority in listed if authority.id == number]
    of_profile = [authority for authority in listed if authority.profile_id == number]
    if of_authority and of_profile and of_authority[0] not in of_profile:
        first, second = of_authority[0], of_profile[0]
        raise typer.BadParameter(
            f"{number} is both authority {first.id}, which has profile {first.profile_id} ({first.profile_name!r}), "
            f"and profile {number} ({second.profile_name!r}) of authority {second.id}: name the first by its "
            f"profile, {first.profile_id}, or the second by its authority, {second.id}",
            param_hint=option,
        )
    authorities = of_authority or of_profile
    profile_id = authorities[0].profile_id if authorities else number
    return Target(
        order_id=number,
        profile_id=number if profile_id is None else profile_id,
        authority=authorities[0] if authorities else None,
    )


async def profile_target(
    chosen: Settings, client: SectigoClient, given: int | None, option: str, *, question: str = _QUESTION
) -> Target:
    """Return the profile that a command names by its id, or as `order_target` finds it."""
    named = _default_profile(chosen)
    number = given if given is not None else _id(named)
    if number is not None:
        return Target(order_id=number, profile_id=number)
    return await order_target(chosen, client, None, option, question=question)


def check_profile_is_named(chosen: Settings, given: int | None, option: str) -> None:
    """Raise an error where nobody names a profile, and nobody can be asked.

    Raises:
        typer.BadParameter: so it is.
    """
    if given is None and not _default_profile(chosen) and not chosen.interactive:
        raise missing(option, f"name one with {option}, or for all commands with -P or SECTIGO_PROFILE")


def _default_profile(chosen: Settings) -> str:
    return (chosen.profile or chosen.environ.get("SECTIGO_PROFILE") or "").strip()


def _id(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= _LONGEST_ID else None


def _named(listed: tuple[Authority, ...], name: str) -> Authority:
    found = [
        authority
        for authority in listed
        if authority.profile_id is not None and authority.profile_name.casefold() == name.casefold()
    ]
    if len({authority.profile_id for authority in found}) == 1:
        return found[0]
    said = "the name of several profiles" if found else "neither an id nor the name of a profile"
    offered = ", ".join(f"{authority.profile_id} ({authority.profile_name!r})" for authority in found or listed)
    raise typer.BadParameter(f"{name!r} is {said}; there are {offered}", param_hint="--profile")


async def _choose_authority(client: SectigoClient, listed: tuple[Authority, ...], question: str) -> Authority:
    if not listed:
        raise typer.BadParameter("your account may order under no authority", param_hint="--profile")
    async with asyncio.TaskGroup() as group:
        left = [group.create_task(balance(client, authority)) for authority in listed]
    choices = [(_offer(authority, count.result()), authority) for authority, count in zip(listed, left, strict=True)]
    return await choose(question, choices)


def _offer(authority: Authority, count: int | None) -> str:
    state = "balance unknown" if count is None else f"{count:,} left"
    ids = f"profile {authority.profile_id}, authority {authority.id}"
    return f"{authority.profile_name} ({ids}, {state if authority.enabled else 'disabled'})"


async def balance(client: SectigoClient, authority: Authority) -> int | None:
    """Return how many certificates are left to order; `None` where the service does not tell."""
    try:
        return await client.authorities.balance(authority.id)
    except SectigoError:
        return None


async def file_target(chosen: Settings, given: Path | None, question: str, metavar: str) -> Path:
    """Return the file or directory that a command names, or that a person answers.

    Raises:
        typer.BadParameter: nobody says.
    """
    if given is not None:
        return given
    if not chosen.interactive:
        raise missing(metavar, "name one")
    return Path(_from_home(await ask(question, check=_path_problem)))


def _from_home(text: str) -> str:
    """Return a path with the home directory in the place of `~`."""
    return str(Path(text).expanduser())


def _path_problem(text: str) -> str:
    try:
        return "" if text and Path(_from_home(text)).exists() else "there is nothing of that name"
    except (OSError, RuntimeError, ValueError) as error:
        return f"no file: {getattr(error, 'strerror', None) or error}"


async def batch_target(chosen: Settings, given: int | None, option: str = "--id") -> int:
    """Return the id of the batch that a command names, or that a person answers.

    Raises:
        typer.BadParameter: nobody says.
    """
    if given is not None:
        return given
    if not chosen.interactive:
        raise missing(option, f"name the batch with {option}, as the order told it")

    def check(text: str) -> str:
        return "" if _id(text) is not None else "an id is a number, as the order told it"

    return int(await ask("Id of the batch:", check=check))
