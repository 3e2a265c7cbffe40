"""The HTTP surface as data: one row per call. Routes, the Python client and the OpenAPI document are made from it."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel

from meter import model, notification_model, plan_model, request_model


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
    Row("add", "POST", CREDITS, "/add", "Add credits to a user", model.Added, request_model.AddRequest, keyed=True),
    Row(
        "deduct",
        "POST",
        CREDITS,
        "/deduct",
        "Spend credits in one step",
        model.Deducted,
        request_model.DeductRequest,
        keyed=True,
    ),
    Row(
        "reserve",
        "POST",
        CREDITS,
        "/reservations",
        "Hold credits",
        model.Reserved,
        request_model.ReserveRequest,
        status=201,
        keyed=True,
    ),
    Row(
        "reservations",
        "GET",
        CREDITS,
        "/reservations",
        "List a user's open reservations",
        model.ReservationPage,
        query=request_model.ReservationsQuery,
    ),
    Row("reservation", "GET", CREDITS, "/reservations/{reservation_id}", "Read a reservation", model.Reservation),
    Row(
        "commit",
        "POST",
        CREDITS,
        "/reservations/{reservation_id}/commit",
        "Settle a reservation for what was used",
        model.Committed,
        request_model.CommitRequest,
        keyed=True,
    ),
    Row(
        "release",
        "POST",
        CREDITS,
        "/reservations/{reservation_id}/release",
        "Give a reservation back",
        model.Released,
        request_model.ReleaseRequest,
        keyed=True,
    ),
    Row(
        "extend",
        "POST",
        CREDITS,
        "/reservations/{reservation_id}/extend",
        "Give a reservation more time or credits",
        model.Extended,
        request_model.ExtendRequest,
        keyed=True,
    ),
    Row(
        "refund",
        "POST",
        CREDITS,
        "/refund",
        "Give back part of a charge",
        model.Refunded,
        request_model.RefundRequest,
        keyed=True,
    ),
    Row(
        "batch",
        "POST",
        CREDITS,
        "/batch",
        "Run several operations",
        model.BatchAnswer,
        request_model.BatchRequest,
        keyed=True,
    ),
    Row(
        "balance",
        "GET",
        CREDITS,
        "/balance/{user_id}",
        "Read a balance, now or at a past time",
        model.Balance,
        query=request_model.BalanceQuery,
    ),
    Row(
        "history",
        "GET",
        CREDITS,
        "/history/{user_id}",
        "List a user's transactions",
        model.TransactionPage,
        query=request_model.HistoryQuery,
    ),
    Row(
        "expiring",
        "GET",
        CREDITS,
        "/expiring/{user_id}",
        "List grants that end soon",
        model.GrantPage,
        query=request_model.ExpiringQuery,
    ),
    Row(
        "grants",
        "GET",
        CREDITS,
        "/grants/{user_id}",
        "List grants in burn order",
        model.GrantPage,
        query=request_model.GrantsQuery,
    ),
    Row(
        "void",
        "POST",
        CREDITS,
        "/grants/{user_id}/{grant_id}/void",
        "End a grant early",
        model.Voided,
        request_model.VoidRequest,
        keyed=True,
    ),
    Row(
        "explain",
        "GET",
        CREDITS,
        "/explain/{user_id}",
        "Tell what a deduct would do now",
        model.Explanation,
        query=request_model.ExplainQuery,
    ),
    Row("user", "GET", CREDITS, "/users/{user_id}", "Read what an account may do", model.User),
    Row(
        "configure",
        "PATCH",
        CREDITS,
        "/users/{user_id}",
        "Change what an account may do",
        model.User,
        request_model.UserRequest,
        keyed=True,
    ),
    Row("plans", "GET", CREDITS, "/plans", "List plans", plan_model.PlanPage, query=plan_model.PlansQuery),
    Row(
        "create_plan",
        "POST",
        CREDITS,
        "/plans",
        "Create a plan",
        plan_model.Plan,
        plan_model.CreatePlanRequest,
        status=201,
        keyed=True,
    ),
    Row("plan", "GET", CREDITS, "/plans/{plan_id}", "Read a plan", plan_model.Plan),
    Row("update_plan", "PUT", CREDITS, "/plans/{plan_id}", "Change a plan", plan_model.Plan, plan_model.PlanRequest),
    Row("delete_plan", "DELETE", CREDITS, "/plans/{plan_id}", "Withdraw a plan", plan_model.Plan),
    Row(
        "subscriptions",
        "GET",
        CREDITS,
        "/subscriptions/{user_id}",
        "List a user's subscriptions",
        plan_model.SubscriptionPage,
        query=request_model.Query,
    ),
    Row(
        "subscribe",
        "PUT",
        CREDITS,
        "/subscriptions/{user_id}",
        "Assign a plan",
        plan_model.Subscription,
        plan_model.SubscribeRequest,
    ),
    Row(
        "upgrade",
        "POST",
        CREDITS,
        "/subscriptions/{user_id}/upgrade",
        "Change the plan of a user",
        plan_model.Subscription,
        plan_model.UpgradeRequest,
    ),
    Row(
        "unsubscribe",
        "DELETE",
        CREDITS,
        "/subscriptions/{user_id}",
        "End a subscription",
        plan_model.Subscription,
        query=plan_model.UnsubscribeQuery,
    ),
    Row("allocate", "POST", CREDITS, "/jobs/allocate", "Grant what is due", plan_model.Allocated),
    Row("expire", "POST", CREDITS, "/jobs/expire", "End credits and holds that are due", plan_model.Expired),
    Row(
        "webhooks",
        "GET",
        CREDITS,
        "/webhooks",
        "List the endpoints that are told of alerts",
        notification_model.WebhookPage,
        query=request_model.Query,
    ),
    Row(
        "create_webhook",
        "POST",
        CREDITS,
        "/webhooks",
        "Add an endpoint",
        notification_model.WebhookWithSecret,
        notification_model.WebhookRequest,
        status=201,
    ),
    Row(
        "update_webhook",
        "PUT",
        CREDITS,
        "/webhooks/{webhook_id}",
        "Change what an endpoint is told of, or let it rest",
        notification_model.Webhook,
        notification_model.WebhookChangeRequest,
    ),
    Row(
        "delete_webhook",
        "DELETE",
        CREDITS,
        "/webhooks/{webhook_id}",
        "Remove an endpoint",
        notification_model.Webhook,
    ),
    Row(
        "rotate_webhook",
        "POST",
        CREDITS,
        "/webhooks/{webhook_id}/rotate",
        "Give an endpoint a new secret; for a day the old one signs as well",
        notification_model.WebhookWithSecret,
    ),
    Row(
        "test_webhook",
        "POST",
        CREDITS,
        "/webhooks/{webhook_id}/test",
        "Send a test to an endpoint",
        notification_model.Delivery,
    ),
    Row(
        "notifications",
        "GET",
        CREDITS,
        "/notifications",
        "List what was sent and how it went, newest first",
        notification_model.DeliveryPage,
        query=notification_model.NotificationsQuery,
    ),
    Row(
        "retry_notification",
        "POST",
        CREDITS,
        "/notifications/{notification_id}/retry",
        "Send a notification again, under the same id",
        notification_model.Delivery,
    ),
    Row("clock", "GET", "", "/test-clock", "Read the test clock", model.Clock),
    Row(
        "set_clock", "PUT", "", "/test-clock", "Freeze or move the test clock", model.Clock, request_model.ClockRequest
    ),
)

BY_NAME = {row.name: row for row in ROWS}
