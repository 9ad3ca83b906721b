"""The rules of a profile's parameters: what an order breaks is known before it is sent.

Patterns come from the service and are hostile until proven good; they are Java's (api.md 1c), which the `regex`
library understands for the most part. One that it does not is "not checked", and never a reason to refuse a value.
"""

import enum
import functools
import re
import secrets
import string
import time
from collections.abc import Callable, Iterable, Mapping

import attrs

from sectigo_async.errors import InvalidArgumentError
from sectigo_async.models import Parameter
from sectigo_async.secrets import Secret

_PATTERN_TIME = 0.25
_TIME_FOR_ALL = 5.0
_LONGEST_PATTERN = 4096
_LONGEST_VALUE = 65536
_LARGEST_PATTERN = 100_000
_TOKENS = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\{\d*,?\d*\}|.", re.DOTALL)
_MEANS_ANOTHER_THING_IN_JAVA = re.compile(r"--|\|\||~~|\\[v0NRXGQE]|\[\^[^\]]*\[")
_UNICODE_IN_JAVA = re.compile(r"\\[pPbB]|\(\?[a-zA-Z-]*[iuU]")
_PUNCTUATION = r"[!-/:-@\[-`{-~]"

_ALPHANUMERIC = string.ascii_letters + string.digits
_SYMBOLS = "!#%+-.=_"
_KINDS = (string.ascii_uppercase, string.ascii_lowercase, string.digits, _SYMBOLS)
_PASSWORDS = 20


class Fit(enum.Enum):
    """Whether a value fits a pattern."""

    YES = "yes"
    NO = "no"
    NOT_CHECKED = "not checked"
    """The pattern cannot be read here, or took too long."""


@attrs.frozen
class Problem:
    """What is wrong with one parameter of an order. It never repeats the value.

    Attributes:
        name: the parameter.
        message: what is wrong, in the service's own words where it has some.
    """

    name: str
    message: str

    def __str__(self) -> str:
        return f"{self.name}: {self.message}"


@attrs.frozen
class ParameterCheck:
    """What checking the parameters of an order found.

    Attributes:
        problems: what the service would refuse.
        not_checked: parameters whose pattern could not be used.
    """

    problems: tuple[Problem, ...] = ()
    not_checked: tuple[str, ...] = ()


def is_secret(parameter: Parameter) -> bool:
    """Say whether a parameter's value must not be shown: a password, by its input type or its name."""
    return "password" in f"{parameter.input_type} {parameter.name}".lower()


def check_value(parameter: Parameter, value: str) -> Fit:
    """Say whether `value` fits the pattern of `parameter` (blocking, at most a quarter of a second).

    An empty value fits where the parameter is not required.
    """
    if not value:
        return Fit.NO if parameter.required else Fit.YES
    pattern = parameter.validation_pattern
    if not pattern:
        return Fit.YES
    if len(value) > _LONGEST_VALUE or not _is_reasonable(pattern):
        return Fit.NOT_CHECKED
    import regex

    try:
        # Version 1 has Java's nested sets; \w, \d and \s are ASCII there, and so is its \p{Punct}, unlike that of
        # Unicode. `concurrent` lets other threads run meanwhile.
        compiled = regex.compile(pattern.replace(r"\p{Punct}", _PUNCTUATION), regex.VERSION1 | regex.ASCII)
        found = compiled.fullmatch(value, timeout=_PATTERN_TIME, concurrent=True)
    except Exception:  # noqa: BLE001 - a hostile pattern fails in ways that are nobody's to list
        return Fit.NOT_CHECKED
    if found is None and not value.isascii() and _UNICODE_IN_JAVA.search(pattern):
        return Fit.NOT_CHECKED
    return Fit.NO if found is None else Fit.YES


@functools.lru_cache(maxsize=256)
def _is_reasonable(pattern: str) -> bool:
    """Say whether a pattern is one to compile: `regex` unrolls counted repeats, nested ones without bound."""
    if len(pattern) > _LONGEST_PATTERN or _MEANS_ANOTHER_THING_IN_JAVA.search(pattern):
        return False
    return _unrolled_size(pattern) <= _LARGEST_PATTERN


def _unrolled_size(pattern: str) -> int:
    """Return about how many elements a pattern has with its counted repeats written out; rather too many."""
    sizes, last = [0], 0
    for token in _TOKENS.findall(pattern):
        if token == "(":  # noqa: S105 - a parenthesis
            sizes.append(0)
            last = 0
        elif token == ")":  # noqa: S105 - another
            last = sizes[-1]
            if len(sizes) > 1:
                sizes.pop()
                sizes[-1] += last
        elif token[0] == "{" and any(char.isdigit() for char in token):
            times = max(int(number[:9]) for number in re.findall(r"\d+", token))
            sizes[-1] += last * max(times - 1, 0)
            last *= max(times, 1)
        else:
            last = 1
            sizes[-1] += 1
    return sum(sizes)


def check_parameters(parameters: Iterable[Parameter], params: Mapping[str, str | Secret]) -> ParameterCheck:
    """Check the parameters of an order against the rules of its profile; tell all problems at once (blocking).

    It takes about five seconds at most; what is left over then counts as not checked.

    Args:
        parameters: the rules, as `profiles.parameters` returns them.
        params: the parameters of the order, by name.
    """
    rules = {parameter.name: parameter for parameter in parameters}
    problems = [Problem(name, "the profile takes no such parameter") for name in params if name not in rules]
    not_checked: list[str] = []
    until = time.monotonic() + _TIME_FOR_ALL
    for name, rule in rules.items():
        if time.monotonic() > until:  # Slow patterns in their hundreds are a block, too.
            not_checked.append(name)
            continue
        given = params.get(name, "")
        value = given.reveal() if isinstance(given, Secret) else given
        match check_value(rule, value):
            case Fit.NO:
                broken = rule.message or f"must match {rule.validation_pattern}"
                problems.append(Problem(name, broken if value else "is required"))
            case Fit.NOT_CHECKED:
                not_checked.append(name)
    return ParameterCheck(tuple(problems), tuple(not_checked))


def make_password(parameter: Parameter | None = None) -> Secret:
    """Make a password of 128 random bits or more that fits the pattern of `parameter` (blocking).

    Args:
        parameter: the rule that it must fit; none where nothing is known of it.

    Raises:
        InvalidArgumentError: no such password fits; the person must choose one.
    """
    makers: tuple[Callable[[], str], ...] = (
        lambda: _random(_ALPHANUMERIC, 24),
        _of_all_kinds,
        lambda: _random(string.ascii_letters, 24),
        lambda: secrets.token_hex(16),
        lambda: _random(string.ascii_letters + string.digits + string.punctuation, 20),
        lambda: _random(string.digits, 40),
    )
    for make in makers:
        for _ in range(_PASSWORDS):
            made = make()
            if parameter is None or check_value(parameter, made) is not Fit.NO:
                return Secret(made)
    raise InvalidArgumentError(
        f"no password of 128 bits fits the rule of the profile: {parameter.message if parameter else ''}",
        hint="choose one yourself",
    )


def _random(alphabet: str, length: int) -> str:
    return "".join(secrets.choice(alphabet) for _ in range(length))


def _of_all_kinds() -> str:
    """Return a password with letters of both cases, digits and symbols: 24 random ones besides one of each."""
    letters = [secrets.choice(kind) for kind in _KINDS] + list(_random(_ALPHANUMERIC, 24))
    secrets.SystemRandom().shuffle(letters)
    return "".join(letters)
