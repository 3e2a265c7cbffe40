"""What a metered request is refused with."""

from __future__ import annotations

from meter.charging.problems import refused
from meter.contract.answers import Refusal


def _refusal(*violations: dict[str, object], status: int = 429) -> Refusal:
    told = {"type": "/problems/rate-limited", "title": "t", "status": status, "detail": "d", "code": "RATE_LIMITED"}
    return Refusal.model_validate({**told, "violations": list(violations)})


def test_a_limit_says_how_long_to_wait() -> None:
    """The longest wait, in whole seconds; nothing where nobody knows, nor of another refusal."""
    waits = {"rule": "rate_limit", "retry_after_ms": 1500}, {"rule": "rate_limit", "retry_after_ms": 200}
    assert refused(_refusal(*waits)).headers == ((b"retry-after", b"2"),)
    assert refused(_refusal(waits[0], {"rule": "concurrency"})).headers == ()
    assert refused(_refusal(*waits, status=402)).headers == ()
