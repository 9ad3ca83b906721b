"""What mkdocs.yml leaves to code: pages that lie outside docs/, and what a reader of the site must not meet."""

import ast
import logging
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

_log = logging.getLogger("mkdocs.hooks.site")

ROOT = Path(__file__).parents[1]
# On the hosting service these lie above docs/; in the site they are pages like the others.
OUTSIDE = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "examples/": "examples.md",
}
_LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)#\s]+)")
_FOREIGN = re.compile(r'<(?:script|img|iframe|source)\b[^>]*\bsrc="(?:https?:)?//|<link\b[^>]*\bhref="(?:https?:)?//')
# Docstrings name the facts they are built on; those are notes of the developers.
_NOTES = re.compile(r"\s*\(api\.md [^()]*\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that lie outside docs/."""
    for source, uri in OUTSIDE.items():
        text = _examples() if source == "examples/" else _from_the_top((ROOT / source).read_text(encoding="utf-8"))
        files.append(File.generated(config, uri, content=text))
    return files


def on_page_markdown(markdown: str, *, page: Page, **_: Any) -> str:
    """Let links that leave docs/ lead to the pages of the site."""
    up = "../" * (page.file.src_uri.count("/") + 1)
    down = "../" * page.file.src_uri.count("/")
    return _LINK.sub(lambda link: _moved(link[1], up, down), markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Leave out what only developers can look up."""
    return _NOTES.sub("", html)


def on_post_page(output: str, *, page: Page, **_: Any) -> str:
    """Say in which language a page is, and look that it loads nothing from elsewhere."""
    if _FOREIGN.search(output):
        _log.warning("%s loads something from elsewhere", page.file.src_uri)
    if page.file.src_uri.startswith("de/"):
        return output.replace('<html lang="en"', '<html lang="de"', 1)
    return output


def _moved(target: str, up: str, down: str) -> str:
    """Return where a link leads in the site; `up` leads to the top of the repository, `down` to that of docs/."""
    page = OUTSIDE.get(target.removeprefix(up)) if target.startswith(up) else None
    return f"{down}{page}" if page else target


def _from_the_top(text: str) -> str:
    """Return a page of the top as one that lies in docs/."""
    return _LINK.sub(lambda link: OUTSIDE.get(link[1], link[1].removeprefix("docs/")), text)


def _examples() -> str:
    """Return a page with the examples."""
    parts = ["# Examples\n"]
    for path in sorted((ROOT / "examples").glob("*.py"), reverse=True):
        text = path.read_text(encoding="utf-8")
        code = text.split('"""', 2)[2].strip()
        parts.append(f"## {path.name}\n\n{ast.get_docstring(ast.parse(text))}\n\n```python\n{code}\n```\n")
    return "\n".join(parts)
