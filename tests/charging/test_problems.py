"""What a metered request is refused with."""

from __future__ import annotations

from meter.charging.problems import refused
from meter.contract.answers import Refusal


def _refusal(*violations: dict[str, object], status: int = 429) -> Refusal:
    told = {"type": "/problems/rate-limited", "title": "t", "status": status, "detail": "d", "code": "RATE_LIMITED"}
    return Refusal.model_validate({**told, "violations": list(violations)})


def test_a_limit_says_how_long_to_wait() -> None:
    """The longest wait of whatever refuses, in whole seconds; none where waiting does not help against all of it."""
    limit = {"rule": "rate_limit", "user_id": "u", "limit": 5, "per_seconds": 60}
    waits = {**limit, "id": "a", "retry_after_ms": 1500}, {**limit, "id": "b", "retry_after_ms": 200}
    told = ((b"ratelimit-policy", b'"a";q=5;w=60'), (b"ratelimit", b'"a";r=0;t=2'))
    assert refused(_refusal(*waits)).headers == ((b"retry-after", b"2"), *told)
    concurrency = {"rule": "concurrency", "user_id": "u", "id": "c", "limit": 3, "used": 3}
    assert refused(_refusal(waits[0], concurrency)).headers == told
    budget = {"rule": "budget", "user_id": "u", "id": "d", "window": "day", "limit": 1, "retry_after_ms": 9000}
    assert refused(_refusal(*waits, budget, status=402)).headers == ((b"retry-after", b"9"), *told)
    assert refused(_refusal({"rule": "a later meter's"})).headers == ()
