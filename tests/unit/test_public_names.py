"""What the package offers, and what it costs to import."""

import importlib
import inspect
import subprocess
import sys

import pytest

import sectigo_async
from sectigo_async import errors

PACKAGES = [
    "sectigo_async",
    "sectigo_async.errors",
    "sectigo_async.models",
    "sectigo_async.pki",
    "sectigo_async.credentials",
    "sectigo_async.issuance",
    "sectigo_async.sandbox",
    "sectigo_async.testing",
]


@pytest.mark.parametrize("name", PACKAGES)
def test_all_is_sorted_and_equals_reality(name: str) -> None:
    module = importlib.import_module(name)
    offered = {public: getattr(module, public) for public in module.__all__}

    found = {public for public, thing in vars(module).items() if _is_ours(thing) and not public.startswith("_")}
    assert found <= set(offered)
    assert list(module.__all__) == sorted(set(module.__all__))


def _is_ours(thing: object) -> bool:
    return (inspect.isclass(thing) or inspect.isfunction(thing)) and thing.__module__.startswith("sectigo_async")


def test_every_error_is_public_has_one_root_and_stands_in_the_drawing() -> None:
    found = {name: kind for name, kind in vars(errors).items() if inspect.isclass(kind)}

    assert set(found) == set(errors.__all__)
    assert all(issubclass(kind, errors.SectigoError) for kind in found.values())
    drawing = (errors.__doc__ or "").split("```")[1]
    assert all(f" {name} " in drawing or drawing.strip().startswith(name) for name in found)


@pytest.mark.parametrize("name", PACKAGES)
def test_every_public_name_says_what_it_is_for(name: str) -> None:
    module = importlib.import_module(name)
    things = [getattr(module, public) for public in module.__all__]

    assert module.__doc__
    assert all(inspect.getdoc(thing) for thing in things if inspect.isclass(thing) or inspect.isfunction(thing))


def test_import_loads_nothing_that_most_programs_do_not_need() -> None:
    heavy = {
        "asn1crypto",
        "cryptography",
        "keyring",
        "typer",
        "starlette",
        "uvicorn",
        "truststore",
        "platformdirs",
        "sqlite3",
    }
    code = f"import sys; from sectigo_async import SectigoClient; print(sorted({heavy!r} & set(sys.modules)))"

    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert output.strip() == "[]"


def test_making_a_client_touches_neither_keyring_nor_event_loop() -> None:
    code = (
        "import sys, sectigo_async; sectigo_async.SectigoClient(username='ops', password='x');"
        "print(sorted({'cryptography', 'keyring'} & set(sys.modules)))"
    )

    output = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)

    assert output.stdout.strip() == "[]"


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError):
        _ = sectigo_async.Archives
