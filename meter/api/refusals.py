"""The problem of each refusal: from the words of the scripts to those of the wire."""

from __future__ import annotations

from collections.abc import Mapping

from meter.contract.rules import RULES_MAX
from meter.engine.answers import (
    BACKWARDS,
    BUDGET_REACHED,
    ENDED,
    EXCEEDS,
    EXISTS,
    FINISHED,
    INCOMPLETE_RULE,
    INSUFFICIENT,
    INVALID_KEY,
    KEY_REUSED,
    LIVE,
    MODEL_NOT_ALLOWED,
    NO_RULE,
    NO_TOP_UP,
    NOT_FOUND,
    NOT_PRICED,
    OUTBOX_FULL,
    OVER,
    OVERFLOW,
    PENDING,
    RATE_LIMITED,
    RATES_MISSING,
    SCOPE_MISSING,
    SUSPENDED,
    TOO_MANY,
    TOO_MANY_RESTRICTIONS,
    TOO_MANY_RULES,
    UNBOUNDED,
    UNCOUNTABLE,
    UNKNOWN_MODEL,
    UNPRICED,
    Declared,
    Refusal,
)
from meter.engine.api_keys import KEY
from meter.engine.operations import ADJUST, CONFIGURE, GRANT, RELEASE, VOID
from meter.engine.restrictions import RESTRICTIONS_MAX
from meter.engine.top_ups import TOP_UP

SLUGS: Mapping[str, tuple[str, ...]] = {
    INSUFFICIENT.word: ("insufficient-credits",),
    BUDGET_REACHED.word: ("budget-reached",),
    RATE_LIMITED.word: ("rate-limited",),
    INCOMPLETE_RULE.word: ("validation-error",),
    NO_TOP_UP.word: ("top-up-not-found",),
    NO_RULE.word: ("validation-error",),
    TOO_MANY_RULES.word: ("validation-error",),
    SUSPENDED.word: ("account-suspended",),
    KEY_REUSED.word: ("idempotency-key-reused",),
    EXISTS.word: ("grant-exists",),
    OVER.word: ("grant-over",),
    LIVE.word: ("account-in-use",),
    EXCEEDS.word: ("refund-exceeds-charge",),
    ENDED.word: ("validation-error",),
    OVERFLOW.word: ("validation-error",),
    OUTBOX_FULL.word: ("metering-unavailable",),
    NOT_FOUND.word: ("reservation-not-found",),
    TOO_MANY.word: ("too-many-reservations",),
    TOO_MANY_RESTRICTIONS.word: ("validation-error",),
    FINISHED.word: ("reservation-committed", "reservation-released", "reservation-expired"),
    BACKWARDS.word: ("clock-backwards",),
    UNKNOWN_MODEL.word: ("unknown-model",),
    NOT_PRICED.word: ("reservation-not-priced",),
    UNPRICED.word: ("validation-error",),
    UNBOUNDED.word: ("validation-error",),
    UNCOUNTABLE.word: ("validation-error",),
    RATES_MISSING.word: ("metering-unavailable",),
    INVALID_KEY.word: ("invalid-key",),
    SCOPE_MISSING.word: ("key-not-allowed",),
    MODEL_NOT_ALLOWED.word: ("key-not-allowed",),
    PENDING.word: (),
}
"""The problems that a refusal can be; PENDING is none, it is answered with 202."""
_SLUGS_OF: Mapping[tuple[str, str], tuple[str, ...]] = {
    (VOID.name, NOT_FOUND.word): ("grant-not-found",),
    (ADJUST.name, NOT_FOUND.word): ("grant-not-found",),
    (ADJUST.name, EXCEEDS.word): ("adjustment-exceeds-credits",),
    (GRANT.name, TOO_MANY.word): ("too-many-grants",),
    (CONFIGURE.name, TOO_MANY.word): ("too-many-accounts",),
    (KEY.name, TOO_MANY.word): ("too-many-accounts",),
    (TOP_UP.name, TOO_MANY.word): ("too-many-accounts",),
    (RELEASE.name, FINISHED.word): ("reservation-committed", "reservation-expired"),  # a second one is answered again
}

DETAILS = {
    "invalid-key": "There is no such API key, or none any more; nothing was changed.",
    "key-not-allowed": "The API key is not for this scope, or not for this model alone; nothing was changed.",
    "insufficient-credits": "The available credits do not cover the amount; nothing was changed.",
    "budget-reached": "A budget leaves no room for the amount; nothing was changed.",
    "rate-limited": "A limit lets no more through now; nothing was changed.",
    "account-suspended": "The account is suspended; nothing was changed.",
    "idempotency-key-reused": "The key was used before with another body; nothing was changed.",
    "grant-exists": "The user has a grant of that id already; nothing was changed.",
    "grant-over": "The grant has ended; there is nothing left of it.",
    "refund-exceeds-charge": "The refund is more than what is left of the charge; nothing was changed.",
    "adjustment-exceeds-credits": "The adjustment takes more than is free; nothing was changed.",
    "reservation-not-found": "No reservation has that id.",
    "top-up-not-found": "Nothing is bought for the account.",
    "grant-not-found": "The user has no grant of that id.",
    "too-many-reservations": "The account has as many open reservations as it may have.",
    "too-many-accounts": "There are as many accounts that never had credits as there may be; add credits first.",
    "too-many-grants": "The account has as many grants as it may have.",
    "unknown-model": "No rate card that is active for the user has a line for the model; nothing was changed.",
    "reservation-not-priced": "The reservation holds an amount that no rate card priced; commit an amount.",
}

FAULTS = {
    ENDED.word: ("/expires_at", "must be later than now and than effective_at"),
    OVERFLOW.word: ("/amount", "is more than the account can count exactly"),
    UNBOUNDED.word: ("/usage/max_output", "must be there: the rate card has no max_output for the model"),
    TOO_MANY_RULES.word: ("/budgets", f"an account has at most {RULES_MAX} of them"),
    TOO_MANY_RESTRICTIONS.word: ("/only", f"the account has grants for {RESTRICTIONS_MAX} other things already"),
    UNCOUNTABLE.word: ("/usage", "costs more than an amount can count exactly"),
}


def slugs_of(declared: Declared, refusal: Refusal) -> tuple[str, ...]:
    """The problems (meter/contract/problems.py) that a refusal of an operation can be."""
    return _SLUGS_OF.get((declared.name, refusal.word), SLUGS[refusal.word])
