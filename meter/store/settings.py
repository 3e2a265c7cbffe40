"""What every process of a deployment must agree on, as the store keeps it from the first start on."""

from __future__ import annotations

from collections.abc import Mapping

from meter.store.base import StoreMismatch

PARTITIONS = "partitions"
MOVING = ">"
"""Stands between two numbers of partitions while `meter repartition` is under way. No process takes it for its own."""


def check_settings(kept: Mapping[str, str], settings: Mapping[str, str]) -> None:
    """Raises `StoreMismatch` when a setting is not the one that the store was made with."""
    wrong = [name for name, value in settings.items() if kept.get(name, value) != value]
    if wrong == [PARTITIONS]:
        raise StoreMismatch(other_partitions(kept[PARTITIONS], settings[PARTITIONS]))
    if wrong:
        found = "; ".join(f"{name} is {kept[name]} in the store and {settings[name]} here" for name in wrong)
        raise StoreMismatch(f"{found}; it is fixed at the first start")


def other_partitions(kept: str, ours: str) -> str:
    """Why a process may not work on a store that has, or is being brought to, another number of partitions."""
    was, moving, to = kept.partition(MOVING)
    if moving:
        return (
            f"`meter repartition {to}` has begun and not ended: the deployment is between {was} and {to} partitions. "
            f"Run it (again) to its end, then set METER_PARTITIONS={to}"
        )
    return (
        f"partitions is {kept} in the store and {ours} here: set METER_PARTITIONS={kept}, or let `meter repartition` "
        "change it"
    )
