"""The gateway contract in the OpenAPI document: what a gateway sends and hears, in headers only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from meter.contract.call import OF_A_USAGE, OF_EVERY_CALL, OF_SPENDING
from meter.contract.fields import AMOUNT_TEXT, MARK
from meter.contract.usage import MODEL
from meter.gateway.choices import DIALECTS, MODES
from meter.gateway.entries import ENTRIES_MAX
from meter.gateway.sources import SOURCES
from meter.keys import OBJECT_ID, REQUEST_ID, USER_ID

JsonObject = dict[str, object]
Problems = Callable[[Iterable[str]], Mapping[str, JsonObject]]
"""The responses of refusals, by their slugs."""

TAG = "gateways"
_AUTHORIZE = (
    *("missing-identity", "invalid-id", "invalid-estimate", *OF_SPENDING, "request-id-reused", *OF_A_USAGE),
    *("too-many-reservations", "validation-error", *OF_EVERY_CALL),
)
_COMMIT = (
    *("missing-identity", "invalid-id", "invalid-usage", "reservation-not-found"),
    *("reservation-committed", "reservation-released", "reservation-expired", *OF_EVERY_CALL),
)
_LOGS = ("body-too-large", "unsupported-media-type", "validation-error", *OF_EVERY_CALL)
TAG_TEXT = "One authorizer and one commit for every gateway: answered alike to any method, and no body is read."

_USAGE_SCHEMA: JsonObject = {"type": "string", "pattern": r"^(?:[0-9]{1,15}(?:\.[0-9]{1,12})?)?$"}
_AMOUNT_SCHEMA: JsonObject = {MARK: AMOUNT_TEXT}
"""Of headers and queries, which a gateway's template may leave empty: then there is none."""


def gateway_paths(problems: Problems) -> dict[str, JsonObject]:
    """The paths, each with the method that stands for all."""
    return {
        "/gateway/authorize": {"get": _authorize("authorize", [*_CHOICES, *_ASKING], problems)},
        "/gateway/authorize/{rest}": {"get": _authorize("authorize_path", [_REST, *_ASKING], problems)},
        "/gateway/commit": {"get": _commit(problems)},
        "/gateway/logs": {"post": _logs(problems)},
    }


def _parameter(place: str, name: str, schema: JsonObject, text: str, example: str | None = None) -> JsonObject:
    found: JsonObject = {"name": name, "in": place, "required": place == "path", "description": text, "schema": schema}
    return found if example is None else {**found, "example": example}


def _matching(pattern: str) -> JsonObject:
    return {"type": "string", "pattern": f"^(?:{pattern})$"}


def _headers(names: Iterable[str]) -> JsonObject:
    return {name: {"description": _TOLD[name], "schema": {"type": "string"}} for name in names}


_USER = _parameter("header", "X-User-Id", _matching(USER_ID.pattern), "Who pays. [METER_GATEWAY_USER_HEADER]", "user-1")
_REQUEST = _parameter(
    "header",
    "X-Request-Id",
    _matching(f"(?:{REQUEST_ID.pattern})?"),
    "The gateway's own name of the request: the same one means the same reservation. [METER_GATEWAY_REQUEST_HEADER]",
)
_ASKING = (
    _USER,
    _parameter(
        "header",
        "X-Estimated-Tokens",
        _AMOUNT_SCHEMA,
        "Credits to hold; METER_GATEWAY_ESTIMATE_DEFAULT without it. [METER_GATEWAY_ESTIMATE_HEADER]",
        "50",
    ),
    _parameter(
        "header",
        "X-Model",
        _matching(f"(?:{MODEL[1:-1]})?"),
        "The model, whose price by the user's rate card is held for as many tokens in and out. "
        "[METER_GATEWAY_MODEL_HEADER]",
    ),
    _REQUEST,
)
_CHOICES = (
    _parameter(
        "query",
        "mode",
        {"type": "string", "enum": list(MODES)},
        "Hold until the commit, charge at once, or only look. [METER_GATEWAY_MODE]",
        "reserve",
    ),
    _parameter(
        "query",
        "dialect",
        {"type": "string", "enum": list(DIALECTS), "default": ""},
        "nginx: a refusal is an empty 403, with its own status and kind in X-Meter-Status and X-Meter-Problem.",
    ),
    _parameter("query", "amount", _AMOUNT_SCHEMA, "A fixed price, which beats the estimate."),
)
_REST = _parameter(
    "path", "rest", {"type": "string"}, "The client's path, which some gateways add; it is not read.", "v1/chat"
)
_TOLD = {
    "X-Reservation-Id": "What the commit names; empty where nothing is held.",
    "X-Credits-Reserved": "What is held.",
    "X-Credits-Remaining": "What is available.",
    "X-Credits-Charged": "What was charged; of an authorizing answer only with mode=deduct.",
}


def _call(name: str, summary: str, parameters: Sequence[JsonObject], responses: JsonObject) -> JsonObject:
    return {
        "operationId": name,
        "summary": summary,
        "tags": [TAG],
        "parameters": list(parameters),
        "responses": responses,
    }


def _authorize(name: str, parameters: Sequence[JsonObject], problems: Problems) -> JsonObject:
    told = (
        "Allowed. No body, and these headers always; with METER_FAIL_MODE=open X-Credits-Metered, too: 0 where nobody "
        "could decide, else 1; RateLimit-Policy and RateLimit where a rate limit counts it."
    )
    limits: JsonObject = {name: {"$ref": f"#/components/headers/{name}"} for name in ("RateLimit-Policy", "RateLimit")}
    allowed: JsonObject = {"description": told, "headers": {**_headers(_TOLD), **limits}}
    responses: JsonObject = {"200": allowed, **problems(_AUTHORIZE)}
    return _call(name, "Tell a gateway whether to serve a request", parameters, responses)


def _commit(problems: Problems) -> JsonObject:
    parameters = (
        _parameter(
            "header",
            "X-Reservation-Id",
            _matching(f"(?:{OBJECT_ID.pattern})?"),
            "What authorizing answered; else X-User-Id and X-Request-Id.",
        ),
        _USER,
        _REQUEST,
        _parameter("header", "X-Credits-Actual", _USAGE_SCHEMA, "What it cost. Without it: as the policy says."),
        _parameter(
            "header",
            "X-Usage",
            _matching(r'(?:\{"(?:input|output)":(?:0|[1-9][0-9]{0,11})\})?'),
            "What was used, as JSON: the usage of a commit, or a provider's object; priced by the rate card that the "
            "hold froze, else charged by its tokens.",
        ),
        _parameter(
            "header",
            "X-Upstream-Status",
            {"type": "string"},
            "The status of the response; other than 2xx costs nothing.",
        ),
    )
    settled: JsonObject = {"description": "Settled, now or before. No body.", "headers": _headers(_TOLD)}
    responses: JsonObject = {"200": settled, **problems(_COMMIT)}
    return _call("gateway_commit", "Settle a request by headers", parameters, responses)


def _logs(problems: Problems) -> JsonObject:
    source = _parameter(
        "query", "source", {"type": "string", "enum": list(SOURCES), "default": "meter"}, "Whose log it is.", "nginx"
    )
    text = "Entries, in the members of their source: an array of objects, or one. What is no entry counts as failed."
    entries: JsonObject = {"description": text, "maxItems": ENTRIES_MAX}
    counts = {name: {"type": "integer", "minimum": 0} for name in ("accepted", "ignored", "failed")}
    counted: JsonObject = {"type": "object", "properties": counts, "required": list(counts)}
    responses: JsonObject = {
        "202": {
            "description": "Taken: settled, about no metered request, wrong. A wrong entry costs no other its place.",
            "content": {"application/json": {"schema": counted}},
        },
        **problems(_LOGS),
    }
    example = [{"reservation_id": "q0_2Vd8kW", "status": "200", "usage": "30", "complete": "OK"}]
    return {
        **_call("logs", "Settle requests by a gateway's access log", (source,), responses),
        "requestBody": {
            "required": False,
            "description": "Entries; `Content-Encoding` may be gzip or deflate.",
            "content": {
                "application/json": {
                    "schema": entries,
                    "example": example,
                },
                "application/x-ndjson": {"schema": {"type": "string", "description": "An entry per line."}},
            },
        },
    }
