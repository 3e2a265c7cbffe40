"""Rules as requests and plans name them, as members that the scripts read (lua/state/editing.lua), and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, cast

from meter.amount import AmountScale
from meter.contract.rules import BudgetChange, NewBudget, NewRateLimit, PlanBudget, RateLimit, RateLimitChange, Window
from meter.engine.answers import NOTHING
from meter.engine.rules import KEPT, plan_rules_text, read_plan_rules

MILLION = 1_000_000


def is_part(change: BudgetChange | None, scale: AmountScale) -> bool:
    """Whether a budget of requests has a limit that is not whole."""
    if change is None or change.unit != "requests" or change.limit is None:
        return False
    return bool(change.limit % scale.units_per_credit)


def budget_members(change: BudgetChange | None, scale: AmountScale, *, whole: bool = False) -> tuple[str, ...] | None:
    """The members of a budget as a change names them; of one that is null its default. `whole`: all are said."""
    if change is None:
        return None
    said, limit = set(BudgetChange.model_fields) if whole else change.model_fields_set, KEPT
    if change.limit is not None:
        count, rest = divmod(change.limit, scale.units_per_credit)
        limit = f"{change.limit}:" + ("" if rest else str(count))
    window = change.window or KEPT
    zone = (change.time_zone or "UTC") if "time_zone" in said else KEPT
    mode = (change.mode or "enforce")[0] if "mode" in said else KEPT
    unit = (change.unit or "credits")[0] if "unit" in said else KEPT
    parts = sorted({round(part * MILLION) for part in change.alert_at or ()})
    alerts = ("+".join(map(str, parts)) or NOTHING) if "alert_at" in said else KEPT
    return limit, window, zone, mode, unit, NOTHING if whole else KEPT, alerts


def limit_members(change: RateLimitChange | None, *, whole: bool = False) -> tuple[str, ...] | None:
    """The members of a rate limit likewise."""
    if change is None:
        return None
    said = set(RateLimitChange.model_fields) if whole else change.model_fields_set
    kind, limit = (KEPT if value is None else str(value) for value in (change.kind, change.limit))
    per_ms = str((change.per_seconds or 60) * 1000) if "per_seconds" in said else KEPT
    burst = ("*" if change.burst is None else str(change.burst)) if "burst" in said else KEPT
    rest = (NOTHING, NOTHING, "e") if whole else (KEPT, KEPT, KEPT)
    return kind, limit, per_ms, burst, *rest


def faults_of(budgets: Mapping[str, NewBudget], scale: AmountScale) -> list[tuple[str, str]]:
    """What is wrong with the budgets of a plan: where, and what."""
    parts = [name for name, one in budgets.items() if is_part(one, scale)]
    return [(f"/budgets/{name}/limit", "must be whole: it counts requests") for name in parts]


def plan_rules_of(
    budgets: Mapping[str, NewBudget] | None, limits: Mapping[str, NewRateLimit] | None, scale: AmountScale
) -> str | None:
    """What the store keeps of the rules of a plan; None of one that has none."""
    if not budgets and not limits:
        return None
    return plan_rules_text(
        {name: budget_members(one, scale, whole=True) or () for name, one in (budgets or {}).items()},
        {name: limit_members(one, whole=True) or () for name, one in (limits or {}).items()},
    )


def rules_in(text: str | None, scale: AmountScale) -> tuple[dict[str, PlanBudget], dict[str, RateLimit]]:
    """The rules of a plan, from what the store keeps."""
    budgets, limits = ({}, {}) if text is None else read_plan_rules(text)
    return (
        {name: _budget(members, scale) for name, members in budgets.items()},
        {name: _limit(members) for name, members in limits.items()},
    )


def _budget(members: list[str], scale: AmountScale) -> PlanBudget:
    limit, window, zone, mode, unit, _, alerts = members
    return PlanBudget(
        limit=scale.credits(int(limit.partition(":")[0])),
        window=cast("Window", window),
        time_zone=zone,
        unit="credits" if unit == "c" else "requests",
        mode="enforce" if mode == "e" else "observe",
        alert_at=[] if alerts == NOTHING else [int(part) / MILLION for part in alerts.split("+")],
    )


def _limit(members: list[str]) -> RateLimit:
    kind, limit, per_ms, burst, *_ = members
    known = cast("Literal['requests', 'concurrent']", kind)
    if kind == "concurrent":
        return RateLimit(kind=known, limit=int(limit))
    many = int(limit) if burst == "*" else int(burst)
    return RateLimit(kind=known, limit=int(limit), per_seconds=int(per_ms) // 1000, burst=many)
