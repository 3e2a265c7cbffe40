"""The examples of plans, subscriptions and notifications, in the order of the story of `meter.api.examples`."""

from __future__ import annotations

from collections.abc import Mapping

from meter.openapi.example import NOW, Example, JsonObject

_USER_2 = {"user_id": "user-2"}
_PRO = {"plan_id": "pro"}
_PLAN_BODY_WITHOUT_ID: JsonObject = {
    "name": "Pro",
    "description": "For teams",
    "credit_limit": 1000,
    "price": 9.99,
    "billing_period": "monthly",
    "validity_days": 60,
    "rollover": {"percent": 20, "valid_days": 30},
}
_PLAN_BODY: JsonObject = {**_PLAN_BODY_WITHOUT_ID, **_PRO}
_PLAN: JsonObject = {
    **_PLAN_BODY,
    "rollover": {"max_amount": None, "percent": 20, "valid_days": 30},
    "id": "pro",
    "priority": 10,
    "plan_group": "default",
    "active": True,
    "created_at": NOW,
    "updated_at": NOW,
}
_SUBSCRIPTION: JsonObject = {
    **_USER_2,
    **_PRO,
    "subscription_id": "s_0123456789ab",
    "plan_group": "default",
    "state": "active",
    "auto_renew": True,
    "anchor_at": NOW,
    "time_zone": "Europe/Berlin",
    "period": 0,
    "period_started_at": NOW,
    "next_period_at": "2026-02-01T12:00:00.000Z",
    "next_plan_id": None,
    "created_at": NOW,
    "updated_at": NOW,
}

_WEBHOOK_ID = {"webhook_id": "w_d9edd8944d47ab5285"}
_SECRET = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="  # noqa: S105 - an example
_WEBHOOK: JsonObject = {
    **_WEBHOOK_ID,
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
    "target": _WEBHOOK_ID["webhook_id"],
    "state": "due",
    "attempts": 0,
    "status": None,
    "error": None,
    "data": {"message": "A test of this endpoint."},
    "created_at": NOW,
    "attempted_at": None,
    "next_attempt_at": NOW,
}

PLAN_EXAMPLES: Mapping[str, Example] = {
    "create_plan": Example(_PLAN, _PLAN_BODY),
    "plans": Example({"items": [_PLAN], "next_cursor": None}),
    "plan": Example(_PLAN, path=_PRO),
    "update_plan": Example({**_PLAN, "price": 12}, {**_PLAN_BODY_WITHOUT_ID, "price": "12.00"}, path=_PRO),
    "subscribe": Example(_SUBSCRIPTION, {**_PRO, "time_zone": "Europe/Berlin"}, path=_USER_2),
    "subscriptions": Example({"items": [_SUBSCRIPTION], "next_cursor": None}, path=_USER_2),
    "upgrade": Example(_SUBSCRIPTION, {**_PRO, "when": "period_end"}, path=_USER_2),
    "allocate": Example({"allocated": 0, "more": False}),
    "expire": Example({"transactions": 0, "more": False}),
    "unsubscribe": Example({**_SUBSCRIPTION, "state": "ended"}, path=_USER_2, query={"unspent": "void"}),
    "delete_plan": Example({**_PLAN, "price": 12}, path=_PRO),
}

NOTIFICATION_EXAMPLES: Mapping[str, Example] = {
    "create_webhook": Example({**_WEBHOOK, "secret": _SECRET}, {"url": _WEBHOOK["url"], "kinds": _WEBHOOK["kinds"]}),
    "webhooks": Example({"items": [_WEBHOOK], "next_cursor": None}),
    "update_webhook": Example(_WEBHOOK, {"kinds": _WEBHOOK["kinds"]}, path=_WEBHOOK_ID),
    "rotate_webhook": Example({**_WEBHOOK, "secret": _SECRET}, path=_WEBHOOK_ID),
    "test_webhook": Example(_DELIVERY, path=_WEBHOOK_ID),
    "notifications": Example({"items": [_DELIVERY], "next_cursor": None}, query={"state": "due"}),
    "retry_notification": Example(_DELIVERY, path={"notification_id": str(_DELIVERY["notification_id"])}),
    "delete_webhook": Example({**_WEBHOOK, "state": "deleted"}, path=_WEBHOOK_ID),
}
