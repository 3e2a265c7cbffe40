"""The OpenAPI document tells gateways the truth: what it says they may hear is what they hear, and nothing else."""

from __future__ import annotations

import gzip
from typing import Any

from httpx2 import Response

from tests.gateway.caller import Caller, calling
from tests.openapi.story import DOCUMENT, faults

Seen = set[tuple[str, str]]
CALLS: dict[str, Any] = {
    call["operationId"]: call
    for methods in DOCUMENT["paths"].values()
    for call in methods.values()
    if "gateways" in call["tags"]
}


def declared(name: str) -> set[str]:
    """The problems that the document says a call can answer."""
    return {
        slug
        for response in CALLS[name]["responses"].values()
        for slug in response.get("content", {}).get("application/problem+json", {}).get("examples", ())
    }


def slug_of(answer: Response) -> str:
    """Of a refusal that has the schema of one."""
    problem = answer.json()
    assert faults({"$ref": "#/components/schemas/Problem"}, problem) == []
    return str(problem["type"]).removeprefix("/problems/")


def test_the_calls_of_gateways_are_described() -> None:
    assert set(CALLS) == {"authorize", "authorize_path", "gateway_commit", "logs"}


def test_answers_have_the_headers_that_are_declared(caller: Caller) -> None:
    allowed = caller.authorize("?mode=deduct", x_user_id="u", x_estimated_tokens="5")
    settled = caller.commit(x_reservation_id=caller.held(), x_credits_actual="5")

    for name, answer in (("authorize", allowed), ("gateway_commit", settled)):
        assert answer.status_code == 200
        said = CALLS[name]["responses"]["200"]["headers"]
        always = {header.lower() for header in said if not header.startswith("RateLimit")}
        assert always == {one for one in answer.headers if one.startswith("x-")}


def test_a_delivery_of_logs_is_counted_as_declared(caller: Caller) -> None:
    body = CALLS["logs"]["requestBody"]["content"]["application/json"]
    assert faults(body["schema"], body["example"]) == []

    answer = caller.http.post("/gateway/logs?source=nginx", json=body["example"])

    said = CALLS["logs"]["responses"]["202"]["content"]["application/json"]["schema"]
    assert answer.status_code == 202
    assert faults(said, answer.json()) == []


def test_exactly_the_declared_refusals_are_served() -> None:
    seen: Seen = set()
    with calling(reservations_max=1, gateway_logs_max_bytes=1024) as caller:
        caller.add("u", 1000)
        authorize_refusals(caller, seen)
        commit_refusals(caller, seen)
        logs_refusals(caller, seen)
        caller.redis.hset("meter:{p0}:rates", mapping={"a default": "1 1 0", "default@1": " m "})
        seen.add(("authorize", slug_of(caller.authorize(x_user_id="u", x_model="nope"))))
        caller.redis.hset("meter:{p0}:meta", "state", "closed")
        seen.add(("authorize", slug_of(caller.authorize(x_user_id="u"))))
        seen.add(("gateway_commit", slug_of(caller.commit(x_reservation_id="r0_x"))))
        seen.add(("logs", slug_of(caller.http.post("/gateway/logs", json={"reservation_id": "r0_x", "usage": 1}))))

    assert seen == {(name, slug) for name in CALLS for slug in declared(name) if name != "authorize_path"}
    assert declared("authorize_path") == declared("authorize")


def authorize_refusals(caller: Caller, seen: Seen) -> None:
    caller.http.patch("/credits/users/bad", json={"suspended": True})
    for user, rules in (
        ("spent", {"budgets": {"all": {"limit": 0, "window": "total"}}}),
        ("fast", {"rate_limits": {"rpm": {"kind": "requests", "limit": 1}}}),
    ):
        caller.add(user, 1000)
        assert caller.http.patch(f"/credits/users/{user}", json=rules).status_code == 200
        caller.authorize("?mode=deduct", x_user_id=user)
        seen.add(("authorize", slug_of(caller.authorize(x_user_id=user))))
    for answer in (
        caller.authorize(),
        caller.authorize(x_user_id="a b"),
        caller.authorize(x_user_id="u", x_estimated_tokens="many"),
        caller.authorize(x_user_id="u", x_estimated_tokens="5000"),
        caller.authorize(x_user_id="bad"),
        caller.authorize("?mode=dance", x_user_id="u"),
    ):
        seen.add(("authorize", slug_of(answer)))
    caller.held(x_request_id="one")
    seen.add(("authorize", slug_of(caller.authorize(x_user_id="u"))))
    assert caller.commit(x_user_id="u", x_request_id="one").status_code == 200
    seen.add(("authorize", slug_of(caller.authorize(x_user_id="u", x_estimated_tokens="100", x_request_id="one"))))


def commit_refusals(caller: Caller, seen: Seen) -> None:
    charged = caller.held()
    caller.commit(x_reservation_id=charged, x_credits_actual="5")
    released = caller.held()
    caller.commit(x_reservation_id=released, x_upstream_status="500")
    expired = caller.held()
    caller.advance(300 + 3600 + 1)
    for answer in (
        caller.commit(x_request_id="one"),
        caller.commit(),
        caller.commit(x_reservation_id=charged, x_credits_actual="-5"),
        caller.commit(x_reservation_id="r0_nobody"),
        caller.commit(x_reservation_id=charged, x_credits_actual="6"),
        caller.commit(x_reservation_id=released, x_credits_actual="6"),
        caller.commit(x_reservation_id=expired, x_credits_actual="6"),
    ):
        seen.add(("gateway_commit", slug_of(answer)))


def logs_refusals(caller: Caller, seen: Seen) -> None:
    for answer in (
        caller.http.post("/gateway/logs", content=b"x" * 1025),
        caller.http.post("/gateway/logs", content=gzip.compress(b"x")[:-1], headers={"content-encoding": "gzip"}),
        caller.http.post("/gateway/logs?source=squid", json=[]),
    ):
        seen.add(("logs", slug_of(answer)))
