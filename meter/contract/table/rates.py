"""The calls about rate cards: what models cost, and what a usage comes to."""

from __future__ import annotations

from meter.contract import rates, requests
from meter.contract.call import OF_AN_API_KEY, Call, Example, JsonObject
from meter.contract.table.story import NOW, USER_2, balances

TAG = "rates"
_CARD = {"rate_card_id": "default"}
_BODY: JsonObject = {
    "models": {"gpt-4o": {"input": 2.5, "cache_read": 1.25, "output": 10, "max_output": 16384}},
}
_VERSION: JsonObject = {
    **_CARD,
    "version": 1,
    "active_version": 1,
    "effective_at": NOW,
    **_BODY,
    "minimum": 0,
    "per_request": 0,
    "created_at": NOW,
}
_LISTED: JsonObject = {**_CARD, "version": 1, "active_version": 1, "created_at": NOW, "updated_at": NOW}
_PRICE: JsonObject = {
    **_CARD,
    "version": 1,
    "model": "gpt-4o",
    "multiplier": 1,
    "breakdown": {"input": {"quantity": 1000, "amount": 0.0025}, "output": {"quantity": 500, "amount": 0.005}},
    "rounding": 0,
    "unpriced": [],
}

CALLS = (
    Call(
        "put_rate_card",
        "PUT",
        "/rate-cards/{rate_card_id}",
        "Make the next version of a rate card",
        TAG,
        rates.RateCard,
        Example(_VERSION, _BODY, path=_CARD),
        body=rates.RateCardRequest,
        refuses=("busy",),
        keyed=True,
    ),
    Call(
        "activate_rate_card",
        "POST",
        "/rate-cards/{rate_card_id}/activate",
        "Let a version of a rate card price",
        TAG,
        rates.RateCard,
        Example(_VERSION, {"version": 1}, path=_CARD),
        body=rates.ActivateRequest,
        refuses=("rate-card-not-found", "rate-card-version-not-found", "busy"),
        keyed=True,
    ),
    Call(
        "rate_cards",
        "GET",
        "/rate-cards",
        "List rate cards",
        TAG,
        rates.RateCardPage,
        Example({"items": [_LISTED], "next_cursor": None}),
        query=requests.Query,
    ),
    Call(
        "rate_card",
        "GET",
        "/rate-cards/{rate_card_id}",
        "Read the version of a rate card that prices now",
        TAG,
        rates.RateCard,
        Example(_VERSION, path=_CARD),
        refuses=("rate-card-not-found",),
    ),
    Call(
        "rate_card_versions",
        "GET",
        "/rate-cards/{rate_card_id}/versions",
        "List the versions of a rate card",
        TAG,
        rates.RateCardVersionPage,
        Example({"items": [_VERSION], "next_cursor": None}, path=_CARD),
        query=requests.Query,
        refuses=("rate-card-not-found",),
    ),
    Call(
        "quote",
        "POST",
        "/quote",
        "Tell what a reserve would hold",
        TAG,
        rates.Quote,
        Example(
            {
                **USER_2,
                "amount": 0.0075,
                "would": "ok",
                "violations": [],
                **balances(1000, 0),
                "price": _PRICE,
                "levels": [],
            },
            {**USER_2, "usage": {"model": "gpt-4o", "input": 1000, "max_output": 500}},
        ),
        body=requests.QuoteRequest,
        refuses=("unknown-model", *OF_AN_API_KEY),
    ),
)
