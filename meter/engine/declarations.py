"""Every operation by its name."""

from __future__ import annotations

from collections.abc import Mapping

from meter.engine import operations, upkeep
from meter.engine.answers import Declared

DECLARED: Mapping[str, Declared] = {one.name: one for one in (*operations.DECLARED, *upkeep.DECLARED)}
