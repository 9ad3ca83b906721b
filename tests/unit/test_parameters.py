"""The rules of a profile: what they refuse, and what a hostile one cannot do."""

import re
import time

import pytest

from sectigo_async import InvalidArgumentError, Parameter, Secret
from sectigo_async.parameters import Fit, check_parameters, check_value, is_secret, make_password


def rule(pattern: str = "", *, name: str = "x", required: bool = True, message: str = "") -> Parameter:
    return Parameter(name=name, validation_pattern=pattern, required=required, message=message)


@pytest.mark.parametrize(
    ("pattern", "value", "fit"),
    [
        ("^[A-Z]{2}$", "DE", Fit.YES),
        ("^[A-Z]{2}$", "de", Fit.NO),
        ("[A-Z]{2}", "DEU", Fit.NO),
        ("", "anything", Fit.YES),
        # Java, and not Python's own dialect.
        (r"\p{Alpha}+", "Zuerich", Fit.YES),
        (r"\p{L}+", "Zürich", Fit.NOT_CHECKED),
        (r"(?=.*\p{Punct}).{8,}", "abcdefg$", Fit.YES),
        (r"[\p{Punct}a]+", "a$^~", Fit.YES),
        (r"\W+", "é", Fit.YES),
        (r"[^\d]+", "٣", Fit.YES),
        (r"\w+", "é", Fit.NO),
        (r"\v", "\n", Fit.NOT_CHECKED),
        (r"\0101", "A", Fit.NOT_CHECKED),
        (r"[^a[b]]", "b", Fit.NOT_CHECKED),
        (r"[a-z&&[^b]]+", "abc", Fit.NO),
        (r"[a-z[0-9]]+", "a1", Fit.YES),
        (r"a++b", "aab", Fit.YES),
        (r"(?=.*\d)(?=.*[a-z]).{8,}", "abcdefg8", Fit.YES),
        # What cannot be read here.
        (r"\Qa.b\E", "a.b", Fit.NOT_CHECKED),
        (r"\p{javaLowerCase}+", "abc", Fit.NOT_CHECKED),
        ("(", "a", Fit.NOT_CHECKED),
        ("[a--b]", "a", Fit.NOT_CHECKED),
    ],
)
def test_patterns(pattern: str, value: str, fit: Fit) -> None:
    assert check_value(rule(pattern), value) is fit


def test_an_empty_value_fits_what_is_not_required() -> None:
    assert check_value(rule("^a$", required=False), "") is Fit.YES
    assert check_value(rule("^a$"), "") is Fit.NO


@pytest.mark.parametrize(
    "pattern",
    [
        "^(a|aa)+$",
        "^(a|a?)+$",
        "(.*?,){60}z",
        "((a{1000}){1000}){1000}",
        "(?:" * 60 + "a" + "{1,9})" * 60,
        "(a{1000}[)]b){1000}",
        "([(]a{1000}){1000}",
        "(" * 3000 + ")" * 3000,
        "a" * 100_000,
    ],
    ids=lambda pattern: pattern[:20],
)
def test_a_hostile_pattern_takes_neither_time_nor_memory(pattern: str) -> None:
    started = time.monotonic()

    check_value(rule(pattern), "a" * 5000 + "!")

    assert time.monotonic() - started < 5, "bounded; far below a minute even on a slow machine"


def test_all_problems_at_once_and_no_value_in_them() -> None:
    rules = [
        rule("^.{8,64}$", name="pkcs12Password", message="must have 8 to 64 characters"),
        rule("^[A-Z]{2}$", name="countryName"),
        rule(r"\Q", name="odd", required=False),
        rule(name="commonName"),
        rule(name="free", required=False),
    ]

    found = check_parameters(
        rules, {"pkcs12Password": Secret("hunter2"), "countryName": "de", "odd": "x", "foo": "1"}
    )

    assert [str(problem) for problem in found.problems] == [
        "foo: the profile takes no such parameter",
        "pkcs12Password: must have 8 to 64 characters",
        "countryName: must match ^[A-Z]{2}$",
        "commonName: is required",
    ]
    assert found.not_checked == ("odd",)
    assert "hunter2" not in str(found)
    assert not check_parameters(rules[3:], {"commonName": "a"}).problems


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        "^.{8,64}$",
        "^(?=.*[A-Z])(?=.*[a-z])(?=.*[0-9])(?=.*[^A-Za-z0-9]).{12,}$",
        "^[a-f0-9]{32}$",
        "^[A-Za-z]{20,30}$",
        "^[0-9]+$",
        ".{20}",
        r"\Qnot checked\E",
    ],
)
def test_a_password_is_made_to_fit(pattern: str) -> None:
    made = {make_password(rule(pattern)).reveal() for _ in range(20)}

    assert len(made) == 20
    if "Q" not in pattern:
        assert all(re.fullmatch(pattern or ".{24}", password) for password in made)


def test_a_rule_that_allows_no_strong_password_is_told() -> None:
    with pytest.raises(InvalidArgumentError, match="at most 8") as caught:
        make_password(rule("^.{1,8}$", message="at most 8"))

    assert caught.value.hint == "choose one yourself"


def test_what_is_secret() -> None:
    assert is_secret(rule(name="pkcs12Password"))
    assert is_secret(Parameter(name="phrase", input_type="PASSWORD"))
    assert not is_secret(rule(name="commonName"))


def test_slow_patterns_in_their_hundreds_take_bounded_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sectigo_async.parameters._TIME_FOR_ALL", 0.0)
    rules = [rule("(a|aa)+$", name=str(number)) for number in range(300)]

    found = check_parameters(rules, {str(number): "a" * 50 + "!" for number in range(300)})

    assert len(found.not_checked) >= 299
