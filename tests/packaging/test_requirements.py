"""The pinned versions agree with each other and with what the package asks for."""

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
LOCKS = {name: f"requirements/{name}.txt" for name in ("all", "dev", "release")}


def pins(file: str) -> dict[str, str]:
    lines = (ROOT / file).read_text().splitlines()
    found = (line.split()[0].partition("==") for line in lines if line[:1].isalnum())
    return {name: version for name, _, version in found}


@pytest.mark.parametrize("lock", LOCKS)
def test_what_the_package_asks_for_is_pinned(lock: str) -> None:
    document = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project, extras = document["project"], document["project"]["optional-dependencies"]
    shipped = [project["dependencies"], extras["cli"], extras["fleet"], extras["sandbox"]]
    groups = {"all": shipped, "dev": [*shipped, extras["dev"]], "release": [document["dependency-groups"]["release"]]}
    asked = [Requirement(line) for group in groups[lock] for line in group if not line.startswith("sectigo-async[")]

    found = pins(LOCKS[lock])
    stale = [str(one) for one in asked if one.name not in found or found[one.name] not in one.specifier]
    assert not stale, "run: make lock"


def test_all_pins_of_one_name_are_the_same() -> None:
    constraints = pins("constraints.txt")

    assert constraints == pins(LOCKS["dev"])
    assert pins(LOCKS["all"]).items() <= constraints.items()


@pytest.mark.parametrize("lock", LOCKS)
def test_every_pin_has_hashes_and_names_no_place(lock: str) -> None:
    text = (ROOT / LOCKS[lock]).read_text()

    entries = text.replace("\\\n", "").splitlines()
    assert all(" --hash=sha256:" in entry for entry in entries if entry[:1].isalnum())
    # Nothing but names, versions and hashes: no option, and so no place, stands in it.
    assert all(entry[:1].isalnum() or not entry.strip(" ") or entry.lstrip().startswith("#") for entry in entries)
    assert "://" not in text
    assert " @ " not in text


def test_constraints_are_names_and_versions_alone() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()[1:]

    assert all("==" in line and not set("/ ;@") & set(line) for line in lines)
    assert lines == sorted(lines)
