"""docs/testing.md: all that it shows is run as a reader would run it."""

import os
import re
import subprocess
import sys
from pathlib import Path

from sectigo_async.testing import CredentialStoreContract, LedgerContract

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(?:python|ini)\n# (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TEST = re.compile(r"^ *(?:async )?def test_", re.MULTILINE)


def test_every_test_of_the_page_passes(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "testing.md").read_text()
    files = dict(BLOCK.findall(page))
    assert len(files) == page.count("```python\n") + page.count("```ini\n"), "each block says which file it is"
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    inherited = sum(
        name.startswith("test_") for kind in (CredentialStoreContract, LedgerContract) for name in dir(kind)
    )
    shown = sum(len(TEST.findall(text)) for text in files.values())

    made = subprocess.run(
        [sys.executable, "-m", "pytest", "-W", "error", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )

    assert f"{shown + inherited} passed in" in made.stdout, made.stdout


def test_every_fixture_stands_in_the_table_of_the_page() -> None:
    page = (ROOT / "docs" / "testing.md").read_text()
    plugin = (ROOT / "sectigo_async" / "testing" / "plugin.py").read_text()

    fixtures = set(re.findall(r"^@pytest\.fixture\ndef (\w+)", plugin, re.MULTILINE))
    assert fixtures == set(re.findall(r"^\| `(sectigo_\w+)` \|", page, re.MULTILINE))
