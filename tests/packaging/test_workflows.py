"""What the hosting service runs keeps to the rules that its own checks do not know."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

ROOT = Path(__file__).parents[2]
WORKFLOWS = ["ci", "release"]


def read(name: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((ROOT / f".github/workflows/{name}.yml").read_text())
    return document


@pytest.mark.parametrize("name", WORKFLOWS)
def test_every_action_is_pinned(name: str) -> None:
    used = [step["uses"] for job in read(name)["jobs"].values() for step in job["steps"] if "uses" in step]

    assert used
    assert [use for use in used if not re.fullmatch(r"[\w./-]+@(v\d+\.\d+\.\d+|[0-9a-f]{40})", use)] == []


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_job_may_write_only_where_it_has_to(name: str) -> None:
    document = read(name)
    granted = {"": document["permissions"]} | {
        title: job["permissions"] for title, job in document["jobs"].items() if "permissions" in job
    }
    writes = {title: {scope for scope, may in rights.items() if may != "read"} for title, rights in granted.items()}

    needed = {"release": {"publish": {"id-token", "attestations"}, "page": {"contents"}}, "ci": {}}
    assert {title: scopes for title, scopes in writes.items() if scopes} == needed[name]


def test_nothing_is_published_but_what_was_tested_and_approved() -> None:
    jobs = read("release")["jobs"]

    assert jobs["publish"]["environment"] == "release"
    assert (jobs["publish"]["needs"], jobs["test"]["needs"]) == ("test", "build")
    assert [title for title, job in jobs.items() if "make sbom" in str(job)] == ["build"]


def test_every_python_that_the_package_names_is_tested() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = [line.rpartition(" ")[2] for line in project["classifiers"] if re.search(r":: 3\.\d+$", line)]
    jobs = read("ci")["jobs"] | read("release")["jobs"]

    matrices = {title: job["strategy"]["matrix"]["python"] for title, job in jobs.items() if "strategy" in job}
    assert matrices == {"linux": named, "desktop": named, "test": named}
