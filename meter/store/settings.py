"""What every process of a deployment must agree on, as the store keeps it from the first start on."""

from __future__ import annotations

from collections.abc import Mapping

from meter.store.base import StoreMismatch


def check_settings(kept: Mapping[str, str], settings: Mapping[str, str]) -> None:
    """Raises `StoreMismatch` when a setting is not the one that the store was made with."""
    wrong = [
        f"{name} is {kept[name]} in the store and {value} here"
        for name, value in settings.items()
        if kept.get(name, value) != value
    ]
    if wrong:
        raise StoreMismatch(f"{'; '.join(wrong)}; it is fixed at the first start")
