"""Writes docs/settings.md from meter/config.py: `python -m tests.settings_document`. A test compares the two."""

from __future__ import annotations

import sys
from pathlib import Path
from types import NoneType
from typing import Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo

from meter.config import Settings

PLACE = Path(__file__).parent.parent / "docs" / "settings.md"
HEAD = """# Settings

Environment variables. A wrong one is one line on stderr and exit code 2; one that nobody reads (`METER_REDIS_ULR`) is a
warning that names the nearest. `CREDIT_MONGO_URI` and `CREDIT_MONGO_DB` (default `credit_management`), as
`credit-management` read them, choose MongoDB when `METER_STORE_URL` is not set. `meter doctor` says which of them are
wrong for what they run on, the console's page Health which are in force. This page is made from `meter/config.py`:
`python -m tests.settings_document`.

| variable | default | what it takes | meaning |
|---|---|---|---|
"""


def document() -> str:
    """The whole page."""
    return HEAD + "".join(_row(name, field) for name, field in Settings.model_fields.items())


def _row(name: str, field: FieldInfo) -> str:
    default = str(field.default).lower() if isinstance(field.default, bool) else field.default
    shown = "" if default is None or default == "" else f"`{default}`"
    return f"| `METER_{name.upper()}` | {shown} | {_takes(field)} | {_cell(str(field.description))} |\n"


def _takes(field: FieldInfo) -> str:
    kind = field.annotation
    if get_origin(kind) in (Union, type(int | None)):
        kind = next(one for one in get_args(kind) if one is not NoneType)
    if get_origin(kind) is Literal:
        return ", ".join(f"`{one}`" for one in get_args(kind))
    words: dict[object, str] = {bool: "`true`, `false`", int: "a whole number", float: "a number"}
    word = words.get(kind, "")
    return " ".join([word, *_bounds(field)]).strip()


def _bounds(field: FieldInfo) -> list[str]:
    words = {Ge: "from", Gt: "above", Le: "to", Lt: "below"}
    found = {kind: next((one for one in field.metadata if isinstance(one, kind)), None) for kind in words}
    return [f"{words[kind]} {getattr(one, kind.__name__.lower())}" for kind, one in found.items() if one is not None]


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    PLACE.write_text(document())
    sys.stdout.write(f"{PLACE}\n")
