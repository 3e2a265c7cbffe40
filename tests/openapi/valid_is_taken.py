"""Hooks of schemathesis: what it cannot know of a sidecar, each with its reason."""

from __future__ import annotations

import json
from typing import Any

import schemathesis

NOT_VALID = frozenset(
    {
        *("validation-error", "malformed-json", "unsupported-media-type", "body-too-large", "invalid-id"),
        *("invalid-estimate", "invalid-usage", "invalid-idempotency-key", "head-too-large", "malformed-request"),
    }
)
"""The problems that say that a request is not what the document asks for."""

NO_SCHEMA_SAYS = {
    "/cursor": "a cursor has a checksum over its list and position",
    "/url": "whether a name or an address is public and of which port is no matter of a pattern",
    "/expires_at": "it must be later than now and than effective_at",
    "/effective_at": "a time has a first and a last, which no pattern can compare",
    "/anchor_at": "a time has a first, which no pattern can compare",
    "/ends_at": "it must be later than now",
    "/kind": "of kinds with commas none is there twice, which no pattern can say",
    "/now": "a time has a last, which no pattern can compare",
    "/amount": "a sum may be more than the account can still count",
    "/plan_group": "the group of a plan that is there cannot be changed",
    "/plan_id": "the credits of a plan may be more than the account can still count",
    "/metadata_member": "it is named with by=metadata, and only then, which parameters cannot say of each other",
    "/rate_card": "it must be one of those that are there",
    "/usage": "each dimension needs a rate, or a parent that has one, on the card, and an amount has a last",
    "/metadata": "it is bounded by the bytes of its JSON",
}


NO_SCHEMA_SAYS_OF_IT = (
    "has no subscription whose period it could be",  # of a budget by the period: whether the user has a plan
    "METER_PAYMENTS names no provider of payments",  # of a top-up: what the deployment is set up with
    "must be whole: it counts requests",  # of a budget: its limit and its unit, by the decimal places of the deployment
    "must be at least amount",  # of a top-up: two members of one body
)
"""Parts of details that excuse their member."""


@schemathesis.check
def valid_is_taken(ctx: Any, response: Any, case: Any) -> None:
    """A request that the document allows is never called invalid, but for what no schema can say."""
    if case.meta is None or not case.meta.generation.mode.is_positive or response.status_code < 400:
        return
    if "problem+json" not in response.headers.get("content-type", [""])[0]:
        return
    problem = json.loads(response.content)
    slug = problem["type"].removeprefix("/problems/")
    if slug not in NOT_VALID:
        return
    errors = problem.get("errors", ())
    pointers = [error["pointer"] for error in errors]
    said = [any(known in error["detail"] for known in NO_SCHEMA_SAYS_OF_IT) for error in errors]
    if errors and all(known or _is_excused(pointer) for known, pointer in zip(said, pointers, strict=True)):
        return
    if case.path.startswith("/gateway/commit") and slug == "invalid-id":
        return  # it needs one header or two others, which parameters cannot say
    if pointers == [""] and case.path.endswith(("/credits/usage", "/credits/keys")):
        return  # `by` or `group_by`, and an operator's scopes or a user_id: members that go together
    if case.path.endswith("/credits/transactions") and "does not go with" in problem["detail"]:
        return  # which of its names exclude each other, parameters cannot say
    if "has no rate; what costs nothing says free" in problem["detail"] or "is free and has rates" in problem["detail"]:
        return  # a line of a card has one rate at least, or `free`, whatever its dimensions are called
    raise AssertionError(f"valid by the document, but {slug}: {problem['detail']}")


@schemathesis.hook
def filter_case(context: Any, case: Any) -> bool:
    """nginx's dialect has no body to check: its refusals are in headers."""
    return not (case.path.startswith("/gateway/") and (case.query or {}).get("dialect") == "nginx")


def _is_excused(pointer: str) -> bool:
    parts = pointer.split("/")
    if parts[1:2] == ["operations"]:
        pointer = "/" + "/".join(parts[3:])
    return any(pointer == excused or pointer.startswith(excused.rstrip("/") + "/") for excused in NO_SCHEMA_SAYS)
