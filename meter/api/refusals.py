"""What each call of the surface can refuse, by slug of the error catalogue. A test finds exactly these."""

from __future__ import annotations

from collections.abc import Mapping

_NO_CREDITS = ("insufficient-credits", "account-suspended")
_FINISHED = ("reservation-not-found", "reservation-committed", "reservation-released", "reservation-expired")
OF_EVERY_CALL = ("metering-unavailable",)
OF_A_BODY = ("malformed-json", "body-too-large", "unsupported-media-type", "validation-error")
OF_A_KEY = ("invalid-idempotency-key", "idempotency-key-reused")
# What a call can refuse besides that.
REFUSALS: Mapping[str, tuple[str, ...]] = {
    "add": ("grant-exists", "too-many-grants"),
    "deduct": _NO_CREDITS,
    "reserve": (*_NO_CREDITS, "too-many-reservations"),
    "reservations": ("not-implemented",),
    "reservation": ("reservation-not-found",),
    "commit": ("insufficient-credits", *_FINISHED),
    "release": tuple(slug for slug in _FINISHED if slug != "reservation-released"),  # answers as the first time
    "extend": (*_NO_CREDITS, *_FINISHED),
    "refund": ("transaction-not-found", "refund-exceeds-charge", "not-refundable"),
    "batch": ("operations-span-partitions",),
    "void": ("grant-not-found", "grant-over"),
    "create_plan": ("plan-exists",),
    "plan": ("plan-not-found",),
    "update_plan": ("plan-not-found", "busy"),
    "delete_plan": ("plan-not-found", "busy"),
    "subscribe": ("plan-not-found", "plan-inactive", "subscription-exists", "busy"),
    "upgrade": ("plan-not-found", "plan-inactive", "subscription-not-found", "busy"),
    "unsubscribe": ("subscription-not-found", "busy"),
    "create_webhook": ("webhook-exists", "busy"),
    "update_webhook": ("webhook-not-found", "busy"),
    "delete_webhook": ("webhook-not-found", "busy"),
    "rotate_webhook": ("webhook-not-found", "busy"),
    "test_webhook": ("webhook-not-found",),
    "retry_notification": ("notification-not-found", "busy"),
    "clock": ("not-found",),
    "set_clock": ("not-found", "clock-backwards"),
}
# The same for the calls of gateways.
OF_GATEWAYS: Mapping[str, tuple[str, ...]] = {
    "authorize": (
        *("missing-identity", "invalid-id", "invalid-estimate", *_NO_CREDITS, "request-id-reused"),
        *("too-many-reservations", "validation-error"),
    ),
    "gateway_commit": ("missing-identity", "invalid-id", "invalid-usage", *_FINISHED),
    "logs": ("body-too-large", "unsupported-media-type", "validation-error"),
}
