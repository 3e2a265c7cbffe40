"""Rules as the JSON of the wire: what an account has, and what refused an operation."""

from __future__ import annotations

from collections.abc import Callable

from meter.clock import NEVER_MS, time_text
from meter.engine.answers import NOTHING, Line
from meter.engine.rules import Budget, Paying, Rate, RateLimit, Violation, read_rule, read_violations
from meter.http.rendered import json_text

_Amount = Callable[[int], str]


def rules_json(answer: Line, amount: _Amount) -> str:
    """The members of an account's rules, from the answer of `rules`; `amount` writes units."""
    rules = [read_rule(item) for item in answer.items]
    budgets = [one for one in rules if isinstance(one, Budget)]
    text = ",".join(f'"{one.budget_id}":{_budget(one, answer, amount)}' for one in budgets)
    limits = ",".join(f'"{one.limit_id}":{_limit(one)}' for one in rules if isinstance(one, RateLimit))
    flags = ",".join(f'"{name}":{"true" if answer[name] == "1" else "false"}' for name in ("pool", "use_pools"))
    return f'"budgets":{{{text}}},"rate_limits":{{{limits}}},{flags}'


def _budget(budget: Budget, answer: Line, amount: _Amount) -> str:
    used, reserved = answer.units("charged") - budget.base, answer.units("held")
    if budget.unit == "requests":
        used, reserved, amount = answer.units("requests") - budget.base, 0, str
    left = max(0, budget.limit - used - reserved)
    alert_at = ",".join(f"{part / 1_000_000:g}" for part in budget.alert_at)
    return (
        f'{{"limit":{amount(budget.limit)},"window":"{budget.window}","time_zone":"{budget.zone}",'
        f'"unit":"{budget.unit}","mode":"{budget.mode}","alert_at":[{alert_at}],'
        f'"used":{amount(used)},"reserved":{amount(reserved)},"remaining":{amount(left)},'
        f'"resets_at":{time_text(budget.ends_at_ms)}}}'
    )


def _limit(limit: RateLimit) -> str:
    head = f'{{"kind":"{limit.kind}","limit":{limit.limit}'
    if limit.kind == "concurrent":
        return head + "}"
    return f'{head},"per_seconds":{_seconds(limit.per_ms)},"burst":{limit.burst or limit.limit}}}'


def rate_json(rate: Rate) -> str:
    """Where the tightest rate limit stands."""
    head = f'{{"id":"{rate.limit_id}","kind":"{rate.kind}","limit":{rate.limit},"remaining":{rate.left}'
    if rate.kind == "concurrent":
        return head + "}"
    return f'{head},"per_seconds":{_seconds(rate.per_ms)},"resets_in":{_seconds(rate.reset_ms)}}}'


def paying_json(paying: Paying, amount: _Amount) -> str:
    """The members of an answer of a path that pools pay for too."""
    payers = ",".join(
        f'{{"user_id":"{one.user_id}","amount":{amount(one.amount)},"available":{amount(one.available)}}}'
        for one in paying.payers
    )
    return f'"spendable":{amount(paying.spendable)},"payers":[{payers}]'


def _seconds(ms: int) -> str:
    return f"{ms / 1000:g}" if ms % 1000 else str(ms // 1000)


def violations_json(text: str, amount: _Amount) -> str:
    """Each rule which refuses, as a list."""
    return f"[{','.join(_violation(one, amount) for one in read_violations(text))}]"


def _violation(one: Violation, amount: _Amount) -> str:
    members = [
        f'"rule":"{one.rule}"',
        f'"user_id":"{one.user_id}"',
        f'"id":{json_text(None if one.id == NOTHING else one.id)}',
    ]
    if one.window != NOTHING:
        members.append(f'"window":"{one.window}"')
    for name in ("limit", "used", "reserved", "required"):
        value = getattr(one, name)
        if value != NOTHING:
            members.append(f'"{name}":{value if one.unit == "r" else amount(int(value))}')
    if one.rule == "budget":
        ends_ms = NEVER_MS if one.resets_at_ms == NOTHING else int(one.resets_at_ms)
        members.append(f'"resets_at":{time_text(ends_ms)}')
    if one.rule == "rate_limit":
        members += [f'"per_seconds":{_seconds(int(one.per_ms))}', f'"retry_after_ms":{one.retry_after_ms}']
    return f"{{{','.join(members)}}}"


def rate_headers(rate: Rate) -> tuple[tuple[bytes, bytes], ...]:
    """`RateLimit-Policy` and `RateLimit`, as the IETF drafts have them: the quota and its window, what is left of it
    and when all of it is back.
    """
    if rate.kind == "concurrent":
        policy, stands = f';q={rate.limit};qu="concurrent-requests"', f";r={rate.left}"
    else:
        policy = f";q={rate.limit};w={-(-rate.per_ms // 1000)}"
        stands = f";r={rate.left};t={-(-rate.reset_ms // 1000)}"
    name = f'"{rate.limit_id}"'
    return ((b"ratelimit-policy", f"{name}{policy}".encode()), (b"ratelimit", f"{name}{stands}".encode()))


def retry_after(text: str) -> tuple[tuple[bytes, bytes], ...]:
    """The headers of a refusal: how long to wait, where waiting helps against all that refuses (the longest wait), and
    the rate limit that refuses.
    """
    violations = read_violations(text)
    limit = next((one for one in violations if one.rule == "rate_limit"), None)
    headers = () if limit is None else rate_headers(_refusing(limit))
    waits = [one.retry_after_ms for one in violations]
    if not waits or NOTHING in waits:
        return headers
    return ((b"retry-after", str(-(-max(map(int, waits)) // 1000)).encode()), *headers)


def _refusing(one: Violation) -> Rate:
    return Rate(one.id, "requests", int(one.limit), int(one.per_ms), 0, int(one.retry_after_ms))
