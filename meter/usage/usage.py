"""What one response of a metered upstream says was used.

Holds what the upstream reported, as quantities that do not contain each other; prices are not known here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from meter.usage.number import Number

TOKENS = ("input", "cache_read", "cache_write", "output", "reasoning", "audio_input", "audio_output")
"""The dimensions that count tokens; `images`, `seconds`, `search_units` and others count something else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Told by one response. `profile` names the row of meter/usage/profiles.py that was found in it."""

    profile: str
    total: Number
    """What is charged where nothing has a price: the tokens together, or what a total of the upstream's own says where
    that is more; where no tokens are told, everything else that is counted.
    """
    quantities: Mapping[str, Number] = field(default_factory=dict)
    """By dimension, each without the ones that the upstream counts inside of it: `input` is what was neither read from
    a cache nor written to one, `output` is without `reasoning`.
    """
    model: str | None = None
    """As the response names it."""
