"""What the package offers, and what it costs to import."""

import importlib
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import sectigo_async
from sectigo_async import errors, resources

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


@pytest.mark.parametrize("name", PACKAGES)
def test_no_public_name_leaks_any(name: str) -> None:
    module = importlib.import_module(name)

    leaks = {
        f"{public}: {annotation}"
        for public in module.__all__
        for annotation in _annotations(getattr(module, public))
        if re.search(r"\bAny\b", annotation)
    }
    assert not leaks


def _annotations(thing: object) -> Iterator[str]:
    """Yield the annotations that a user of a class or function meets, those of its public members included."""
    if isinstance(thing, property):
        thing = thing.fget
    elif isinstance(thing, classmethod | staticmethod):
        thing = thing.__func__
    if inspect.isclass(thing):
        members = [member for name, member in vars(thing).items() if name == "__init__" or not name.startswith("_")]
        yield from (str(kind) for name, kind in inspect.get_annotations(thing).items() if not name.startswith("_"))
        yield from (annotation for member in members for annotation in _annotations(member))
    elif inspect.isfunction(thing):
        yield from map(str, inspect.get_annotations(thing).values())


def test_every_verb_of_the_client_is_in_the_file_that_type_checkers_read() -> None:
    program = (Path(__file__).parents[1] / "typing" / "public_api.py").read_text(encoding="utf-8")
    homes = {
        "authorities": resources.Authorities,
        "batches": resources.Batches,
        "certificates": resources.Certificates,
        "licenses": resources.LicenseCounters,
        "organizations": resources.Organizations,
        "profiles": resources.Profiles,
    }
    verbs = {f"client.{home}.{verb}(" for home, kind in homes.items() for verb in vars(kind) if verb[0] != "_"}
    verbs |= {f".{verb}(" for verb in vars(sectigo_async.SectigoClient) if verb[0] != "_"}

    assert not {verb for verb in verbs if verb not in program}


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
