"""The pages hang together, wherever they are read."""

import re
from pathlib import Path
from types import ModuleType

import pytest

import sectigo_async
from sectigo_async import credentials, errors, fleet, issuance, pki, sandbox, testing

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"\]\((?![a-z]+:|#)([^)#\s]+)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_of_the_repository(page: Path) -> None:
    missing = [link for link in LINK.findall(page.read_text()) if not (page.parent / link).exists()]

    assert not missing


@pytest.mark.parametrize(
    "module",
    [sectigo_async, credentials, errors, fleet, issuance, pki, sandbox, testing],
    ids=lambda module: module.__name__,
)
def test_every_public_name_has_its_place_in_the_api_pages(module: ModuleType) -> None:
    words = set(re.findall(r"\w+", "".join(page.read_text() for page in (ROOT / "docs/api").glob("*.md"))))
    # The page of the errors shows the whole module.
    told = words | set(errors.__all__)

    assert set(module.__all__) <= told
