"""The documents: what they link to is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.settings_document import PLACE, document

ROOT = Path(__file__).parent.parent
DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")]

"""Variables that are read elsewhere than by `Settings`, or that a page misspells on purpose."""
OF_OTHERS = {"METER_URL", "METER_KEY", "METER_KEY_FILE", "METER_SIMULATOR_SEEDS"}
"""Variables that commands and tests read, which are no settings."""
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


def test_the_page_of_settings_is_made_from_the_settings() -> None:
    """`python -m tests.settings_document` makes it anew."""
    assert PLACE.read_text() == document()


def test_every_variable_that_a_document_names_is_read() -> None:
    known = set(re.findall(r"`(METER_[A-Z0-9_]+)`", document())) | OF_OTHERS
    named = {
        f"{path.name}: {name}"
        for path in DOCUMENTS
        if path.name != "CHANGELOG.md"
        for name in re.findall(r"METER_[A-Z0-9]+(?:_[A-Z0-9]+)*(?![A-Z0-9_]|…|\*)", path.read_text())
        if name not in known
    }

    assert sorted(named) == []
