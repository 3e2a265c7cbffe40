"""The calls about who is told of alerts, and what was sent."""

from __future__ import annotations

from meter.contract import requests, webhooks
from meter.contract.call import Call, Example, JsonObject
from meter.contract.table.story import NOW

TAG = "notifications"
_ID = {"webhook_id": "w_d9edd8944d47ab5285"}
_SECRET = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="  # noqa: S105 - an example
_WEBHOOK: JsonObject = {
    **_ID,
    "url": "https://example.com/meter",
    "description": None,
    "kinds": ["low_credits", "credits_exhausted"],
    "state": "enabled",
    "created_at": NOW,
    "updated_at": NOW,
}
_DELIVERY: JsonObject = {
    "notification_id": "msg_7f350e20f1f5009636194ae4f57b5d",
    "kind": "test",
    "user_id": "",
    "target": _ID["webhook_id"],
    "state": "due",
    "attempts": 0,
    "status": None,
    "error": None,
    "data": {"message": "A test of this endpoint."},
    "created_at": NOW,
    "attempted_at": None,
    "next_attempt_at": NOW,
}

CALLS = (
    Call(
        "webhooks",
        "GET",
        "/webhooks",
        "List the endpoints that are told of alerts",
        TAG,
        webhooks.WebhookPage,
        Example({"items": [_WEBHOOK], "next_cursor": None}),
        query=requests.Query,
    ),
    Call(
        "create_webhook",
        "POST",
        "/webhooks",
        "Add an endpoint",
        TAG,
        webhooks.WebhookWithSecret,
        Example({**_WEBHOOK, "secret": _SECRET}, {"url": _WEBHOOK["url"], "kinds": _WEBHOOK["kinds"]}),
        body=webhooks.WebhookRequest,
        status=201,
        refuses=("webhook-exists", "too-many-webhooks", "busy"),
        keyed=True,
    ),
    Call(
        "update_webhook",
        "PUT",
        "/webhooks/{webhook_id}",
        "Change what an endpoint is told of, or let it rest",
        TAG,
        webhooks.Webhook,
        Example(_WEBHOOK, {"kinds": _WEBHOOK["kinds"]}, path=_ID),
        body=webhooks.WebhookChangeRequest,
        refuses=("webhook-not-found", "busy"),
        keyed=True,
    ),
    Call(
        "delete_webhook",
        "DELETE",
        "/webhooks/{webhook_id}",
        "Remove an endpoint",
        TAG,
        webhooks.Webhook,
        Example({**_WEBHOOK, "state": "deleted"}, path=_ID),
        refuses=("webhook-not-found", "busy"),
        keyed=True,
    ),
    Call(
        "rotate_webhook",
        "POST",
        "/webhooks/{webhook_id}/rotate",
        "Give an endpoint a new secret; for a day the old one signs as well",
        TAG,
        webhooks.WebhookWithSecret,
        Example({**_WEBHOOK, "secret": _SECRET}, path=_ID),
        refuses=("webhook-not-found", "busy"),
        keyed=True,
    ),
    Call(
        "test_webhook",
        "POST",
        "/webhooks/{webhook_id}/test",
        "Send a test to an endpoint",
        TAG,
        webhooks.Delivery,
        Example(_DELIVERY, path=_ID),
        refuses=("webhook-not-found",),
        keyed=True,
    ),
    Call(
        "notifications",
        "GET",
        "/notifications",
        "List what was sent and how it went, newest first",
        TAG,
        webhooks.DeliveryPage,
        Example({"items": [_DELIVERY], "next_cursor": None}, query={"state": "due"}),
        query=webhooks.DeliveriesQuery,
    ),
    Call(
        "retry_notification",
        "POST",
        "/notifications/{notification_id}/retry",
        "Send a notification again, under the same id",
        TAG,
        webhooks.Delivery,
        Example(_DELIVERY, path={"notification_id": str(_DELIVERY["notification_id"])}),
        refuses=("notification-not-found", "busy"),
        keyed=True,
    ),
)
