"""Writes docs/openapi.json, the document of a deployment with the default settings: `python -m tests.openapi_file`.

It is committed so that a change of the API is seen as one, and so that clients can be generated from it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import orjson

from meter.openapi.document import document

PLACE = Path(__file__).parent.parent / "docs" / "openapi.json"


_ENUM_MAX = 100


def text() -> str:
    """The document, one member a line."""
    return json.dumps(_short(json.loads(orjson.dumps(document()))), indent=1, ensure_ascii=False) + "\n"


def _short(value: Any) -> Any:
    """Without the names of all time zones, which are those of the machine."""
    if isinstance(value, list):
        return [_short(one) for one in value]
    if not isinstance(value, dict):
        return value
    kept = {name: one for name, one in value.items() if name != "enum" or len(one) < _ENUM_MAX}
    return {name: _short(one) for name, one in kept.items()}


if __name__ == "__main__":
    PLACE.write_text(text())
    sys.stdout.write(f"{PLACE}\n")
