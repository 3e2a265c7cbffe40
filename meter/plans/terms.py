"""The terms of plans over time: a period has those that its plan had when it began (docs/plans.md, rule 4). Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from meter.store.plan_rows import PlanRow, PlanTermsRow


class CannotPlan(Exception):
    """A subscription cannot be worked out; the message says why. Others can."""


class Terms:
    """The terms of some plans, each list by time. They count for periods that begin after `from_ms`, the first
    from ever: what is due at the moment of a change comes before it.
    """

    def __init__(self, by_plan: Mapping[str, Sequence[PlanTermsRow]]) -> None:
        self._by_plan = by_plan

    def at(self, plan_id: str, at_ms: int) -> PlanTermsRow:
        """What a plan grants to a period that begins then. Raises `CannotPlan` for a plan that nobody made."""
        rows = self._of(plan_id)
        return next((row for row in reversed(rows) if row.from_ms < at_ms), rows[0])

    def last_ms(self, plan_id: str, at_ms: int) -> int | None:
        """The last time at which a period gets the terms of `at_ms`; None when they have not been changed since."""
        return next((row.from_ms for row in self._of(plan_id) if row.from_ms >= at_ms), None)

    def _of(self, plan_id: str) -> Sequence[PlanTermsRow]:
        rows = self._by_plan.get(plan_id)
        if not rows:
            raise CannotPlan(f"the plan {plan_id} is gone from the store")
        return rows


def terms_of(plan: PlanRow) -> PlanTermsRow:
    """What a plan grants since its last change."""
    return PlanTermsRow(
        plan_id=plan.plan_id,
        version=plan.version,
        from_ms=plan.updated_at_ms,
        credit_limit=plan.credit_limit,
        billing_period=plan.billing_period,
        validity_days=plan.validity_days,
        rollover_max=plan.rollover_max,
        rollover_percent=plan.rollover_percent,
        rollover_days=plan.rollover_days,
        priority=plan.priority,
        only=plan.only,
        rate_card=plan.rate_card,
        price_multiplier=plan.price_multiplier,
        rules=plan.rules,
    )


def same_terms(plan: PlanRow, other: PlanRow) -> bool:
    """Whether two versions of a plan grant the same."""
    bare = {"version": 0, "from_ms": 0}
    return terms_of(plan).model_copy(update=bare) == terms_of(other).model_copy(update=bare)
