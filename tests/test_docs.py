"""The documents: what they link to is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")]
_LINK = re.compile(r"\]\(([^)\s]+)\)")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_link_leads_somewhere(document: Path) -> None:
    links = [link.partition("#")[0] for link in _LINK.findall(document.read_text()) if "://" not in link]

    assert [link for link in links if link and not (document.parent / link).exists()] == []


def test_the_table_of_folders_names_every_folder_and_door() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    folders = {f"{path.parent.name}/" for path in (ROOT / "meter").glob("*/__init__.py")}
    doors = {path.name for path in (ROOT / "meter").glob("[!_]*.py")}

    assert [name for name in sorted(folders | doors) if f"`meter/{name}`" not in text] == []
