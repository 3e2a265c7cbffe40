"""What the pages are made of: files of others as they were published, nothing inline, and a small script of ours."""

from __future__ import annotations

import re
from hashlib import sha256
from importlib.resources import files
from pathlib import Path

from meter.console.answering import STATIC
from tests.console.conftest import Browser

FOLDER = Path(str(files("meter.console")))
AXE = Path(__file__).parent / "axe" / "axe.min.js"
AXE_SHA256 = "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c"
VENDORED = {"htmx.min.js", "uplot.min.js", "uplot.min.css", "inter.woff2", "mono.woff2"}
SCRIPT_MAX_BYTES = 3_072


def test_vendored_files_are_what_was_published_and_have_their_licences() -> None:
    rows = re.findall(r"^\| (\S+) \| .* \| .*(licences/\S+) \| ([0-9a-f]{64}) \|$", _text("VENDORED.md"), re.MULTILINE)
    assert {name for name, _, _ in rows} == {
        "htmx.min.js",
        "uplot.min.js",
        "uplot.min.css",
        "inter.woff2",
        "mono.woff2",
    }
    for name, licence, told in rows:
        assert sha256((FOLDER / "static" / name).read_bytes()).hexdigest() == told, name
        assert len(_text(licence)) > 500
    assert sha256(AXE.read_bytes()).hexdigest() == AXE_SHA256


def _text(name: str) -> str:
    return (FOLDER / "static" / name).read_text()


def test_every_file_is_served_once_and_kept(open_console: Browser) -> None:
    there = {path.name for path in (FOLDER / "static").iterdir() if path.is_file()} - {"VENDORED.md"}
    assert there == STATIC
    for name in STATIC:
        found = open_console.http.get(f"/console/static/{name}")
        assert found.status_code == 200 and found.content == (FOLDER / "static" / name).read_bytes()
        again = open_console.http.get(f"/console/static/{name}", headers={"if-none-match": found.headers["etag"]})
        assert again.status_code == 304


def test_our_script_is_small() -> None:
    assert len(_text("console.js").encode()) <= SCRIPT_MAX_BYTES


def test_no_template_has_what_the_policy_forbids() -> None:
    """Neither styles nor scripts in the markup, nor attributes that htmx would compile to code."""
    templates = sorted((FOLDER / "templates").glob("*.html"))
    assert len(templates) > 5
    for path in templates:
        text = path.read_text()
        forbidden = r"<style|\sstyle=|<script(?![^>]*\bsrc=)|\son\w+=|hx-on|js:|\|\s*safe\b|javascript:"
        assert not re.search(forbidden, text), path.name
        for form in re.findall(r'<form[^>]*method="post".*?</form>', text, re.DOTALL):
            assert 'name="token"' in form or path.name == "login.html", path.name
