"""Every operation by its name."""

from __future__ import annotations

from collections.abc import Mapping

from meter.engine import api_keys, operations, priced, top_ups, upkeep
from meter.engine.answers import Declared

DECLARED: Mapping[str, Declared] = {
    one.name: one
    for one in (*operations.DECLARED, *priced.DECLARED, *upkeep.DECLARED, *api_keys.DECLARED, *top_ups.DECLARED)
}
