"""The HTTP surface as data: one row per call. Routes, the Python client and the OpenAPI document are made from it."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel

from meter.contract import answers, plans, requests, webhooks


@dataclass(frozen=True, slots=True)
class Row:
    """One call. `path` is below `prefix`; `query` and `body` are what it takes, `answer` what it gives.

    `keyed`: it takes an Idempotency-Key.
    """

    name: str
    method: str
    prefix: str
    path: str
    summary: str
    answer: type[BaseModel]
    body: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    status: int = 200
    keyed: bool = False


CREDITS = "/credits"

ROWS = (
    Row("add", "POST", CREDITS, "/add", "Add credits to a user", answers.Added, requests.AddRequest, keyed=True),
    Row(
        "deduct",
        "POST",
        CREDITS,
        "/deduct",
        "Spend credits in one step",
        answers.Deducted,
        requests.DeductRequest,
        keyed=True,
    ),
    Row(
        "reserve",
        "POST",
        CREDITS,
        "/reservations",
        "Hold credits",
        answers.Reserved,
        requests.ReserveRequest,
        status=201,
        keyed=True,
    ),
    Row(
        "reservations",
        "GET",
        CREDITS,
        "/reservations",
        "List a user's open reservations",
        answers.ReservationPage,
        query=requests.ReservationsQuery,
    ),
    Row("reservation", "GET", CREDITS, "/reservations/{reservation_id}", "Read a reservation", answers.Reservation),
    Row(
        "commit",
        "POST",
        CREDITS,
        "/reservations/{reservation_id}/commit",
        "Settle a reservation for what was used",
        answers.Committed,
        requests.CommitRequest,
        keyed=True,
    ),
    Row(
        "release",
        "POST",
        CREDITS,
        "/reservations/{reservation_id}/release",
        "Give a reservation back",
        answers.Released,
        requests.ReleaseRequest,
        keyed=True,
    ),
    Row(
        "extend",
        "POST",
        CREDITS,
        "/reservations/{reservation_id}/extend",
        "Give a reservation more time or credits",
        answers.Extended,
        requests.ExtendRequest,
        keyed=True,
    ),
    Row(
        "refund",
        "POST",
        CREDITS,
        "/refund",
        "Give back part of a charge",
        answers.Refunded,
        requests.RefundRequest,
        keyed=True,
    ),
    Row(
        "batch",
        "POST",
        CREDITS,
        "/batch",
        "Run several operations",
        answers.BatchAnswer,
        requests.BatchRequest,
        keyed=True,
    ),
    Row(
        "balance",
        "GET",
        CREDITS,
        "/balance/{user_id}",
        "Read a balance, now or at a past time",
        answers.Balance,
        query=requests.BalanceQuery,
    ),
    Row(
        "history",
        "GET",
        CREDITS,
        "/history/{user_id}",
        "List a user's transactions",
        answers.TransactionPage,
        query=requests.HistoryQuery,
    ),
    Row(
        "expiring",
        "GET",
        CREDITS,
        "/expiring/{user_id}",
        "List grants that end soon",
        answers.GrantPage,
        query=requests.ExpiringQuery,
    ),
    Row(
        "grants",
        "GET",
        CREDITS,
        "/grants/{user_id}",
        "List grants in burn order",
        answers.GrantPage,
        query=requests.GrantsQuery,
    ),
    Row(
        "void",
        "POST",
        CREDITS,
        "/grants/{user_id}/{grant_id}/void",
        "End a grant early",
        answers.Voided,
        requests.VoidRequest,
        keyed=True,
    ),
    Row(
        "explain",
        "GET",
        CREDITS,
        "/explain/{user_id}",
        "Tell what a deduct would do now",
        answers.Explanation,
        query=requests.ExplainQuery,
    ),
    Row("user", "GET", CREDITS, "/users/{user_id}", "Read what an account may do", answers.User),
    Row(
        "configure",
        "PATCH",
        CREDITS,
        "/users/{user_id}",
        "Change what an account may do",
        answers.User,
        requests.UserRequest,
        keyed=True,
    ),
    Row("plans", "GET", CREDITS, "/plans", "List plans", plans.PlanPage, query=plans.PlansQuery),
    Row(
        "create_plan",
        "POST",
        CREDITS,
        "/plans",
        "Create a plan",
        plans.Plan,
        plans.CreatePlanRequest,
        status=201,
        keyed=True,
    ),
    Row("plan", "GET", CREDITS, "/plans/{plan_id}", "Read a plan", plans.Plan),
    Row("update_plan", "PUT", CREDITS, "/plans/{plan_id}", "Change a plan", plans.Plan, plans.PlanRequest),
    Row("delete_plan", "DELETE", CREDITS, "/plans/{plan_id}", "Withdraw a plan", plans.Plan),
    Row(
        "subscriptions",
        "GET",
        CREDITS,
        "/subscriptions/{user_id}",
        "List a user's subscriptions",
        plans.SubscriptionPage,
        query=requests.Query,
    ),
    Row(
        "subscribe",
        "PUT",
        CREDITS,
        "/subscriptions/{user_id}",
        "Assign a plan",
        plans.Subscription,
        plans.SubscribeRequest,
    ),
    Row(
        "upgrade",
        "POST",
        CREDITS,
        "/subscriptions/{user_id}/upgrade",
        "Change the plan of a user",
        plans.Subscription,
        plans.UpgradeRequest,
    ),
    Row(
        "unsubscribe",
        "DELETE",
        CREDITS,
        "/subscriptions/{user_id}",
        "End a subscription",
        plans.Subscription,
        query=plans.UnsubscribeQuery,
    ),
    Row("allocate", "POST", CREDITS, "/jobs/allocate", "Grant what is due", plans.Allocated),
    Row("expire", "POST", CREDITS, "/jobs/expire", "End credits and holds that are due", plans.Expired),
    Row(
        "webhooks",
        "GET",
        CREDITS,
        "/webhooks",
        "List the endpoints that are told of alerts",
        webhooks.WebhookPage,
        query=requests.Query,
    ),
    Row(
        "create_webhook",
        "POST",
        CREDITS,
        "/webhooks",
        "Add an endpoint",
        webhooks.WebhookWithSecret,
        webhooks.WebhookRequest,
        status=201,
    ),
    Row(
        "update_webhook",
        "PUT",
        CREDITS,
        "/webhooks/{webhook_id}",
        "Change what an endpoint is told of, or let it rest",
        webhooks.Webhook,
        webhooks.WebhookChangeRequest,
    ),
    Row(
        "delete_webhook",
        "DELETE",
        CREDITS,
        "/webhooks/{webhook_id}",
        "Remove an endpoint",
        webhooks.Webhook,
    ),
    Row(
        "rotate_webhook",
        "POST",
        CREDITS,
        "/webhooks/{webhook_id}/rotate",
        "Give an endpoint a new secret; for a day the old one signs as well",
        webhooks.WebhookWithSecret,
    ),
    Row(
        "test_webhook",
        "POST",
        CREDITS,
        "/webhooks/{webhook_id}/test",
        "Send a test to an endpoint",
        webhooks.Delivery,
    ),
    Row(
        "notifications",
        "GET",
        CREDITS,
        "/notifications",
        "List what was sent and how it went, newest first",
        webhooks.DeliveryPage,
        query=webhooks.NotificationsQuery,
    ),
    Row(
        "retry_notification",
        "POST",
        CREDITS,
        "/notifications/{notification_id}/retry",
        "Send a notification again, under the same id",
        webhooks.Delivery,
    ),
    Row("clock", "GET", "", "/test-clock", "Read the test clock", answers.Clock),
    Row("set_clock", "PUT", "", "/test-clock", "Freeze or move the test clock", answers.Clock, requests.ClockRequest),
)

BY_NAME = {row.name: row for row in ROWS}
