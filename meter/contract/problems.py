"""The error catalogue: RFC 9457 problems with a stable `type`, plus the seed's `detail` and `code`.

`type` is a path on the sidecar itself (`GET /problems/{slug}` describes it). A policy denial is never a 5xx, because
gateways replace those or let them through (GATEWAYS.md section 8).
"""

from __future__ import annotations

from dataclasses import dataclass

import orjson

TYPE_PREFIX = "/problems/"
CONTENT_TYPE = b"application/problem+json"


@dataclass(frozen=True, slots=True)
class Problem:
    """One kind of refusal. `remedy` tells a caller what to do about it."""

    slug: str
    status: int
    title: str
    remedy: str

    @property
    def type(self) -> str:
        """The stable identifier that clients compare."""
        return TYPE_PREFIX + self.slug

    @property
    def code(self) -> str:
        """The seed's word for it: INSUFFICIENT_CREDITS."""
        return self.slug.upper().replace("-", "_")

    def body(self, detail: str, members: bytes = b"") -> bytes:
        """The JSON text; `members` are further JSON members without braces."""
        head = orjson.dumps(
            {
                "type": self.type,
                "title": self.title,
                "status": self.status,
                "detail": detail,
                "code": self.code,
            }
        )
        return head[:-1] + b"," + members + b"}" if members else head


_CATALOGUE = (
    Problem("invalid-key", 401, "No such API key", "Send a key that has not ended; GET /credits/keys lists them."),
    Problem("missing-identity", 401, "No identity", "Send an API key, or the header that names the user."),
    Problem("invalid-id", 400, "Invalid id", "Name one user and one request, in headers that are there once."),
    Problem("invalid-estimate", 400, "Invalid estimate", "Send one plain number that is not negative."),
    Problem("invalid-path", 400, "Invalid path", "Send a path that every server reads alike (meter proxy)."),
    Problem("invalid-usage", 400, "Invalid usage", "Send one plain number that is not negative."),
    Problem("insufficient-credits", 402, "Insufficient credits", "Add credits, or ask for a smaller amount."),
    Problem("budget-reached", 402, "Budget reached", "`violations` has each budget, and when its window ends."),
    Problem("account-suspended", 403, "Account suspended", "Lift the suspension with PATCH /credits/users/{user_id}."),
    Problem("key-not-allowed", 403, "API key may not", "`scope` or `model` says what the key is not for."),
    Problem("foreign-origin", 403, "Page of another origin", "METER_ALLOWED_ORIGINS names the pages that may call."),
    Problem("host-not-allowed", 403, "Called by another name", "METER_ALLOWED_HOSTS adds names of this sidecar."),
    Problem("not-found", 404, "Not found", "Check the path against /openapi.json."),
    Problem("reservation-not-found", 404, "Reservation not found", "Check the id; finished ones are kept for a day."),
    Problem("grant-not-found", 404, "Grant not found", "List the grants of the user."),
    Problem("transaction-not-found", 404, "Transaction not found", "Use the transaction_id of a charge."),
    Problem("top-up-not-found", 404, "No top-up is set", "Set one with PUT /credits/users/{user_id}/top-up."),
    Problem("payment-event-refused", 400, "No event of the provider", "METER_PAYMENTS_SECRET is what it signs with."),
    Problem("budget-not-found", 404, "Budget not found", "List them with GET /credits/users/{user_id}."),
    Problem("user-not-found", 404, "User not found", "Check the user_id; who was anonymised is not known either."),
    Problem("method-not-allowed", 405, "Method not allowed", "Use a method of the Allow header."),
    Problem("reservation-committed", 409, "Reservation already committed", "`charged` says for how much."),
    Problem("reservation-released", 409, "Reservation already released", "Reserve anew."),
    Problem("reservation-expired", 409, "Reservation expired", "Reserve anew, with a longer ttl_seconds."),
    Problem("request-id-reused", 409, "Request id used before", "Give every request an id of its own."),
    Problem("grant-exists", 409, "Grant exists", "Choose another grant_id, or repeat the first call as it was."),
    Problem("grant-over", 409, "Grant already ended", "An expired or voided grant cannot be voided."),
    Problem("refund-exceeds-charge", 409, "Refund exceeds charge", "`left` can still be refunded."),
    Problem("adjustment-exceeds-credits", 409, "More than is free", "`left` can be taken."),
    Problem("not-refundable", 409, "Not a charge", "Only deducts and commits can be refunded."),
    Problem("plan-not-found", 404, "Plan not found", "List the plans with GET /credits/plans."),
    Problem("rate-card-not-found", 404, "Rate card not found", "List them with GET /credits/rate-cards."),
    Problem("rate-card-version-not-found", 404, "No such version", "List them with GET …/versions."),
    Problem("subscription-not-found", 404, "Subscription not found", "Assign a plan with PUT."),
    Problem("key-not-found", 404, "API key not found", "List them with GET /credits/keys."),
    Problem("key-over", 409, "API key has ended", "Make a new one with POST /credits/keys."),
    Problem("code-not-found", 404, "No such promo code", "Check what was typed in; GET /credits/codes lists them."),
    Problem("code-ended", 409, "Promo code has ended", "Make another one with POST /credits/codes."),
    Problem("code-used-up", 409, "Promo code is used up", "Make another one with POST /credits/codes."),
    Problem("code-redeemed", 409, "Promo code redeemed before", "`grant_id` is what the user got for it."),
    Problem("code-exists", 409, "Promo code exists", "Choose another text; `code_id` is the code that has it."),
    Problem("plan-inactive", 409, "Plan inactive", "Choose an active plan."),
    Problem("plan-exists", 409, "Plan exists", "Choose another plan_id, or change the plan with PUT."),
    Problem("subscription-exists", 409, "Subscription exists", "Change it with POST …/upgrade."),
    Problem("subscription-fixed", 409, "Fixed while it runs", "End it with DELETE, then assign the plan anew."),
    Problem("subscription-set-aside", 409, "Subscription set aside", "`detail` has the cause; or end it with DELETE."),
    Problem("webhook-not-found", 404, "Endpoint not found", "List the endpoints with GET /credits/webhooks."),
    Problem("webhook-exists", 409, "Endpoint exists", "Delete it first, or rotate its secret."),
    Problem("too-many-plans", 409, "Too many plans", "Delete one; METER_PLANS_MAX is the limit."),
    Problem("too-many-accounts", 409, "Accounts of nothing", "Add credits; METER_RESERVATIONS_MAX is the limit."),
    Problem("too-many-keys", 409, "Too many API keys", "Revoke some; METER_KEYS_MAX is the limit."),
    Problem("too-many-webhooks", 409, "Too many endpoints", "Delete one; METER_WEBHOOKS_MAX is the limit."),
    Problem("notification-not-found", 404, "Notification not found", "List them with GET /credits/notifications."),
    Problem("account-in-use", 409, "Account in use", "`detail` says what to end first."),
    Problem("busy", 409, "Changed meanwhile", "Try again."),
    Problem("clock-backwards", 409, "The test clock only moves forward", "Name a later time."),
    Problem("body-too-large", 413, "Body too large", "Send less; METER_BODY_MAX_BYTES is the limit."),
    Problem("unsupported-media-type", 415, "Unsupported media type", "Send application/json."),
    Problem("validation-error", 422, "Request not valid", "`errors` points at each fault."),
    Problem("idempotency-key-reused", 422, "Key used for another body", "Use a new key for a new operation."),
    Problem("unknown-model", 422, "Model without a price", "Put a line for it into the rate card, or one for `*`."),
    Problem("reservation-not-priced", 422, "Reservation not priced", "Commit an amount instead of a usage."),
    Problem("operations-span-partitions", 422, "An atomic batch spans partitions", "Send one batch per user or team."),
    Problem("batch-not-applied", 424, "Not applied", "Another operation of the atomic batch was refused."),
    Problem("malformed-request", 400, "Not HTTP", "Send an HTTP/1.1 request; the connection is closed."),
    Problem("request-timeout", 408, "Request too slow", "Send the whole request at once; the connection is closed."),
    Problem("head-too-large", 431, "Head too large", "Send fewer or shorter headers; the connection is closed."),
    Problem("malformed-json", 400, "Malformed JSON", "Send a JSON object."),
    Problem("invalid-idempotency-key", 400, "Invalid Idempotency-Key", "1 to 128 visible ASCII characters."),
    Problem("invalid-actor", 400, "Invalid X-Actor", "1 to 128 visible ASCII characters."),
    Problem("rate-limited", 429, "Rate limited", "Wait as long as Retry-After says."),
    Problem("too-many-reservations", 429, "Too many open reservations", "Commit or release some."),
    Problem("too-many-grants", 429, "Too many grants", "METER_GRANTS_MAX is the limit per account."),
    Problem("internal-error", 500, "Internal error", "The log of the sidecar has this id."),
    Problem("not-implemented", 501, "Not implemented", "A later version has it."),
    Problem("upstream-unreachable", 502, "Upstream unreachable", "Try again; nothing was charged (meter proxy)."),
    Problem("too-many-connections", 503, "Too many connections", "Use fewer; METER_CONNECTIONS_MAX is the limit."),
    Problem("too-many-large-requests", 503, "Too much to read", "Try again, or send less at once (meter proxy)."),
    Problem("draining", 503, "Draining", "Send requests elsewhere: /readyz of a process that is about to end."),
    Problem("metering-unavailable", 503, "Metering unavailable", "Try again; /readyz says what is wrong."),
    Problem("upstream-timeout", 504, "Upstream timeout", "Try again; nothing was charged (meter proxy)."),
)

PROBLEMS = {problem.slug: problem for problem in _CATALOGUE}
