"""The Python API of plans and subscriptions, a part of `Credits` in meter/client/credits.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal

from meter.client.calls import Calls, CreditAmount
from meter.contract.answers import Refusal
from meter.contract.plans import Plan, PlanPage, Subscription, SubscriptionPage

BillingPeriod = Literal["daily", "weekly", "monthly", "yearly"]
Rollover = Mapping[str, object]
"""`max_amount` or `percent`, and `valid_days`."""
Rules = Mapping[str, Mapping[str, object]]
"""By their ids: members of `NewBudget` and `NewRateLimit` of `meter.contract.rules`."""


class PlanCalls(Calls):
    """Plans, who has them, and the allocation. Every method raises `Unavailable` when the call was not decided."""

    async def create_plan(
        self,
        name: str,
        credit_limit: CreditAmount,
        price: CreditAmount,
        billing_period: BillingPeriod,
        *,
        plan_id: str | None = None,
        description: str | None = None,
        validity_days: int | None = None,
        rollover: Rollover | None = None,
        priority: int = 10,
        only: Sequence[str] | None = None,
        rate_card: str | None = None,
        price_multiplier: CreditAmount | None = None,
        budgets: Rules | None = None,
        rate_limits: Rules | None = None,
        plan_group: str = "default",
        active: bool = True,
        idempotency_key: str | None = None,
    ) -> Plan | Refusal:
        """Creates a plan. A `plan_id` or `idempotency_key` makes the call safe to repeat."""
        body = _plan_body(
            name,
            credit_limit,
            price,
            billing_period,
            description,
            validity_days,
            rollover,
            priority,
            only,
            rate_card,
            price_multiplier,
            plan_group,
            budgets,
            rate_limits,
            active=active,
        )
        body["plan_id"] = plan_id
        return await self._call("create_plan", Plan, body=body, key=idempotency_key)

    async def plans(self, *, limit: int = 50, cursor: str = "") -> PlanPage | Refusal:
        """A page of plans."""
        return await self._call("plans", PlanPage, query={"limit": str(limit), "cursor": cursor})

    async def plan(self, plan_id: str) -> Plan | Refusal:
        """Reads a plan."""
        return await self._call("plan", Plan, path={"plan_id": plan_id})

    async def update_plan(
        self,
        plan_id: str,
        name: str,
        credit_limit: CreditAmount,
        price: CreditAmount,
        billing_period: BillingPeriod,
        *,
        description: str | None = None,
        validity_days: int | None = None,
        rollover: Rollover | None = None,
        priority: int = 10,
        only: Sequence[str] | None = None,
        rate_card: str | None = None,
        price_multiplier: CreditAmount | None = None,
        budgets: Rules | None = None,
        rate_limits: Rules | None = None,
        plan_group: str = "default",
        active: bool = True,
        idempotency_key: str | None = None,
    ) -> Plan | Refusal:
        """Replaces what a plan says; for those who have it, from their next period on."""
        body = _plan_body(
            name,
            credit_limit,
            price,
            billing_period,
            description,
            validity_days,
            rollover,
            priority,
            only,
            rate_card,
            price_multiplier,
            plan_group,
            budgets,
            rate_limits,
            active=active,
        )
        return await self._call("update_plan", Plan, path={"plan_id": plan_id}, body=body, key=idempotency_key)

    async def delete_plan(self, plan_id: str, *, idempotency_key: str | None = None) -> Plan | Refusal:
        """Withdraws a plan; those who have it go on."""
        return await self._call("delete_plan", Plan, path={"plan_id": plan_id}, key=idempotency_key)

    async def subscribe(
        self,
        user_id: str,
        plan_id: str,
        *,
        auto_renew: bool | None = None,
        time_zone: str | None = None,
        anchor_at: datetime | None = None,
        metadata: Mapping[str, object] | None = None,
        dry_run: bool = False,
        idempotency_key: str | None = None,
    ) -> Subscription | Refusal:
        """Gives a user a plan, and the credits of the first period; it renews, in UTC, unless said otherwise.

        With the plan that the user has: sets what is not None.
        """
        body = {
            "plan_id": plan_id,
            "auto_renew": auto_renew,
            "time_zone": time_zone,
            "anchor_at": anchor_at,
            "metadata": metadata,
            "dry_run": dry_run or None,
        }
        return await self._call("subscribe", Subscription, path={"user_id": user_id}, body=body, key=idempotency_key)

    async def subscriptions(self, user_id: str, *, limit: int = 50, cursor: str = "") -> SubscriptionPage | Refusal:
        """A page of a user's subscriptions, one per plan group."""
        query = {"limit": str(limit), "cursor": cursor}
        return await self._call("subscriptions", SubscriptionPage, path={"user_id": user_id}, query=query)

    async def upgrade(
        self,
        user_id: str,
        plan_id: str,
        *,
        when: Literal["now", "period_end"] = "now",
        proration: Literal["none", "difference"] = "none",
        dry_run: bool = False,
        idempotency_key: str | None = None,
    ) -> Subscription | Refusal:
        """Changes to another plan of the same group, up or down; `UpgradeRequest` says what becomes of the credits."""
        body = {"plan_id": plan_id, "when": when, "proration": proration, "dry_run": dry_run or None}
        return await self._call("upgrade", Subscription, path={"user_id": user_id}, body=body, key=idempotency_key)

    async def unsubscribe(
        self,
        user_id: str,
        *,
        plan_group: str = "default",
        when: Literal["now", "period_end"] = "now",
        unspent: Literal["stay", "void"] = "stay",
        idempotency_key: str | None = None,
    ) -> Subscription | Refusal:
        """Ends a subscription. What is unspent of its period stays until it expires, or is void at the end."""
        query = {"plan_group": plan_group, "when": when, "unspent": unspent}
        path = {"user_id": user_id}
        return await self._call("unsubscribe", Subscription, path=path, query=query, key=idempotency_key)


def _plan_body(
    name: str,
    credit_limit: CreditAmount,
    price: CreditAmount,
    billing_period: BillingPeriod,
    description: str | None,
    validity_days: int | None,
    rollover: Rollover | None,
    priority: int,
    only: Sequence[str] | None,
    rate_card: str | None,
    price_multiplier: CreditAmount | None,
    plan_group: str,
    budgets: Rules | None,
    rate_limits: Rules | None,
    *,
    active: bool,
) -> dict[str, object]:
    return {
        "name": name,
        "description": description,
        "credit_limit": credit_limit,
        "price": price,
        "billing_period": billing_period,
        "validity_days": validity_days,
        "rollover": rollover,
        "priority": priority,
        "only": only,
        "rate_card": rate_card,
        "price_multiplier": price_multiplier,
        "budgets": budgets,
        "rate_limits": rate_limits,
        "plan_group": plan_group,
        "active": active,
    }
