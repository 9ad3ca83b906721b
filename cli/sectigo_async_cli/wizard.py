"""The parameters of an order: from options, checked by the profile's rules, and asked for where they are missing."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

import attrs
import typer

from sectigo_async import Parameter, Secret, SectigoClient
from sectigo_async.errors import InvalidArgumentError, NotFoundError, ServiceError
from sectigo_async.parameters import Fit, ParameterCheck, check_parameters, check_value, is_secret
from sectigo_async.pki import is_dns_name
from sectigo_async_cli.prompts import Check, ask, ask_secret
from sectigo_async_cli.streams import say

Params = dict[str, str | Secret]

PASSWORD = "pkcs12Password"  # noqa: S105 - the name of the parameter
_OPTIONS = {
    "commonName": "--domain",
    "dNSName": "--san",
    PASSWORD: "--password-file",
    "organizationName": "--organization",
    "countryName": "--country",
    "stateOrProvinceName": "--state",
    "localityName": "--locality",
}
_TAKEN_BY_SOME = ("countryName", "stateOrProvinceName", "localityName")


@attrs.frozen
class Rules:
    """What a profile asks of an order.

    Attributes:
        parameters: its parameters; `None` where the service does not tell.
    """

    parameters: tuple[Parameter, ...] | None

    @classmethod
    async def of_profile(cls, client: SectigoClient, profile_id: int) -> "Rules":
        """Return the rules of a profile.

        Raises:
            NotFoundError: there is no such profile.
        """
        try:
            return cls(await client.profiles.parameters(profile_id) or None)
        except NotFoundError as error:
            error.hint = "nothing was ordered; `sectigo-async authorities` shows authorities and profiles"
            raise
        except ServiceError as error:
            problem = str(error)
        say(f"warning: the parameters are not checked before ordering: {problem}")
        return cls(None)

    def get(self, name: str) -> Parameter | None:
        """Return the parameter of that name, where the profile takes it."""
        return next((one for one in self.parameters or () if one.name == name), None)

    def takes(self, name: str) -> bool:
        """Say whether an order may have that parameter, as far as is known."""
        return self.parameters is None or self.get(name) is not None

    async def check(self, params: Mapping[str, str | Secret]) -> ParameterCheck:
        """Return what is wrong with the parameters of an order."""
        if self.parameters is None:
            return ParameterCheck()
        return await asyncio.to_thread(check_parameters, self.parameters, params)


def from_options(rules: Rules, given: Mapping[str, str | None], sans: Sequence[str], extra: Iterable[str]) -> Params:
    """Return the parameters that the options of a command say.

    Args:
        rules: what the profile takes.
        given: values by the name of their parameter.
        sans: further DNS names.
        extra: `KEY=VALUE` for any parameter.

    Raises:
        typer.BadParameter: a value is given twice, or is no `KEY=VALUE`.
    """
    params: Params = {}
    for name, value in given.items():
        if not value:
            continue
        if name in _TAKEN_BY_SOME and not rules.takes(name):
            # The Go CLI leaves them out without a word.
            say(f"warning: left out, since the profile takes no {name}")
            continue
        params[name] = value
    for text in extra:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            # It is not repeated: it may be a password with a slip in it.
            raise typer.BadParameter("one is not KEY=VALUE", param_hint="--param")
        if name in params:
            raise typer.BadParameter(f"{name} is given twice", param_hint="--param")
        parameter = rules.get(name)
        secret = is_secret(parameter or Parameter(name=name))
        if secret:
            say(f"warning: {name} on the command line can be seen by others on this machine")
        params[name] = Secret(value) if secret else value
    if sans:
        if "dNSName" in params:
            raise typer.BadParameter("dNSName is given twice", param_hint="--san, --param")
        # The common name comes first (api.md 4.5), where it is a DNS name.
        first = str(params.get("commonName", ""))
        params["dNSName"] = "\n".join(dict.fromkeys([*([first] if is_dns_name(first) else []), *sans]))
    return params


def add_dns_name(rules: Rules, params: Params) -> None:
    """Name the common name as DNS name too, as the Go CLI does, where the profile takes it and nobody said."""
    name, rule = params.get("commonName"), rules.get("dNSName")
    if "dNSName" in params or not isinstance(name, str) or not rules.takes("dNSName"):
        return
    if rule is None or rule.required or check_value(rule, name) is not Fit.NO:
        params["dNSName"] = name


def is_incomplete(rules: Rules, params: Params) -> bool:
    """Say whether something is missing that a person has to be asked for."""
    required = {one.name for one in rules.parameters or () if one.required} - {PASSWORD}
    if rules.parameters is None:
        required = {"commonName"}
    if "commonName" in params:
        required -= {"dNSName"}
    return bool(required - set(params))


async def ask_for(rules: Rules, params: Params) -> None:
    """Ask a person for each parameter that is not given yet, and add the answers."""
    for parameter in rules.parameters or (Parameter(name="commonName", required=True),):
        if parameter.name not in params and (answer := await _ask_one(parameter, params)):
            params[parameter.name] = answer


async def _ask_one(parameter: Parameter, params: Params) -> str | Secret:
    title = parameter.title or parameter.name
    if parameter.name == PASSWORD:
        parameter = attrs.evolve(parameter, required=False)
        title += ", empty to have one made"
    elif not parameter.required:
        title += ", optional"
    check = partial(_judge, parameter)
    if is_secret(parameter):
        return await _ask_twice(title, check)
    default = parameter.value if isinstance(parameter.value, str) else ""
    hint = str(parameter.placeholder or "").replace("\n", " ")
    if parameter.name != "dNSName":
        return await ask(f"{title}:", default=default, hint=hint, check=check)
    if parameter.required:
        default = default or str(params.get("commonName", ""))
    names = await ask(
        f"{title}, with blanks between:", default=default, hint=hint, check=lambda text: check(_lines(text))
    )
    return _lines(names)


async def _ask_twice(title: str, check: Check) -> Secret:
    """Return a secret that a person types twice: a slip would lock what is paid for."""
    while True:
        text = await ask_secret(f"{title}:", check=check)
        if not text or await ask_secret("Once more:") == text:
            return Secret(text)
        say("these were not the same")


def _lines(text: str) -> str:
    """Return names with blanks or commas between as the service wants them: one per line (api.md 4.5)."""
    return "\n".join(text.replace(",", " ").split())


def _judge(parameter: Parameter, value: str) -> str:
    """Return what is wrong with a value; nothing where it will do."""
    if check_value(parameter, value) is not Fit.NO:
        return ""
    if not value:
        return "an answer is needed"
    return parameter.message or f"must match {parameter.validation_pattern}"


def refuse(check: ParameterCheck, profile_id: int) -> None:
    """Raise an error for parameters that the service would refuse; tell what could not be checked.

    Args:
        check: what checking them found.
        profile_id: the profile whose rules they break.

    Raises:
        InvalidArgumentError: there are such.
    """
    for name in check.not_checked:
        say(f"note: {name} is not checked before ordering: the profile's pattern for it cannot be used here")
    if not check.problems:
        return
    told = "; ".join(str(problem) for problem in check.problems)
    options = dict.fromkeys(_OPTIONS.get(problem.name, f"--param {problem.name}=") for problem in check.problems)
    raise InvalidArgumentError(
        f"nothing was ordered: {told}",
        hint=f"see {', '.join(options)}; `sectigo-async profiles -i {profile_id} --params` shows what it takes",
    )
