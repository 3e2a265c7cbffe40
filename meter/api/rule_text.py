"""Rules as the JSON of the wire: what an account has, and what refused an operation."""

from __future__ import annotations

from collections.abc import Callable

from meter.clock import NEVER_MS, time_text
from meter.contract.rate_headers import Headers, Refusing, rate_headers, refusal_headers
from meter.engine.answers import NOTHING, Line
from meter.engine.rules import (
    Budget,
    Counters,
    Level,
    Paying,
    Rate,
    RateLimit,
    Standing,
    Velocity,
    Violation,
    read_levels,
    read_rule,
    read_violations,
)
from meter.http.rendered import json_text

_Amount = Callable[[int], str]


def rules_json(answer: Line, amount: _Amount) -> str:
    """The members of an account's rules, from the answer of `rules`; `amount` writes units."""
    rules = [read_rule(item) for item in answer.items]
    budgets = [one for one in rules if isinstance(one, Budget)]
    counters = Counters(*map(answer.units, ("charged", "held", "holds", "requests")))
    text = ",".join(f'"{one.budget_id}":{_budget(one, counters, amount)}' for one in budgets)
    limits = ",".join(f'"{one.limit_id}":{_limit(one)}' for one in rules if isinstance(one, RateLimit))
    velocity = next((_velocity(one, amount) for one in rules if isinstance(one, Velocity)), "null")
    flags = ",".join(f'"{name}":{"true" if answer[name] == "1" else "false"}' for name in ("pool", "use_pools"))
    return f'"budgets":{{{text}}},"rate_limits":{{{limits}}},"velocity":{velocity},{flags}'


def levels_json(text: str, amount: _Amount) -> str:
    """The member of an answer that says what the rules of each level stand at."""
    return f',"levels":[{",".join(_level(one, amount) for one in read_levels(text))}]'


def _level(level: Level, amount: _Amount) -> str:
    budgets = ",".join(f'"{one.budget_id}":{_budget(one, level.counters, amount)}' for one in level.budgets)
    limits = ",".join(f'"{one.limit.limit_id}":{_standing(one)}' for one in level.limits)
    flags = ",".join(
        f'"{name}":{"true" if value else "false"}'
        for name, value in (("suspended", level.suspended), ("pool", level.pool))
    )
    return f'{{"user_id":"{level.user_id}",{flags},"budgets":{{{budgets}}},"rate_limits":{{{limits}}}}}'


def _standing(one: Standing) -> str:
    resets = "" if one.limit.kind == "concurrent" else f',"resets_in":{_seconds(one.reset_ms)}'
    return f'{_limit(one.limit)[:-1]},"remaining":{one.left}{resets}}}'


def _budget(budget: Budget, counters: Counters, amount: _Amount) -> str:
    used, reserved = counters.charged - budget.base, counters.held
    if budget.unit == "requests":
        used, reserved, amount = counters.requests - budget.base, 0, str
    left = max(0, budget.limit - used - reserved)
    alert_at = ",".join(f"{part / 1_000_000:g}" for part in budget.alert_at)
    return (
        f'{{"limit":{amount(budget.limit)},"window":"{budget.window}","time_zone":"{budget.zone}",'
        f'"unit":"{budget.unit}","mode":"{budget.mode}","alert_at":[{alert_at}],'
        f'"used":{amount(used)},"reserved":{amount(reserved)},"remaining":{amount(left)},'
        f'"resets_at":{time_text(budget.ends_at_ms)},"source":"{_source(budget)}"}}'
    )


def _limit(limit: RateLimit) -> str:
    head = f'{{"kind":"{limit.kind}","limit":{limit.limit}'
    source = f'"source":"{_source(limit)}"}}'
    if limit.kind == "concurrent":
        return f"{head},{source}"
    return f'{head},"per_seconds":{_seconds(limit.per_ms)},"burst":{limit.burst or limit.limit},{source}'


def _source(rule: Budget | RateLimit) -> str:
    return "user" if rule.source == NOTHING else "plan"


def _velocity(breaker: Velocity, amount: _Amount) -> str:
    pause = f',"pause_seconds":{breaker.pause_ms // 1000}' if breaker.action == "suspend" else ""
    return (
        f'{{"limit":{amount(breaker.limit)},"per_seconds":{breaker.per_ms // 1000},"action":"{breaker.action}"{pause},'
        f'"tripped_until":{time_text(breaker.till_ms) if breaker.till_ms else "null"}}}'
    )


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
    if one.rule in ("budget", "velocity"):
        ends_ms = NEVER_MS if one.resets_at_ms == NOTHING else int(one.resets_at_ms)
        members.append(f'"resets_at":{time_text(ends_ms)}')
    if one.rule in ("rate_limit", "velocity"):
        members.append(f'"per_seconds":{_seconds(int(one.per_ms))}')
    if one.retry_after_ms != NOTHING:
        members.append(f'"retry_after_ms":{one.retry_after_ms}')
    return f"{{{','.join(members)}}}"


def standing_headers(rate: Rate) -> Headers:
    """The headers of what was let through: where the tightest rate limit stands."""
    per_ms = None if rate.kind == "concurrent" else rate.per_ms
    return rate_headers(rate.limit_id, rate.limit, per_ms, rate.left, rate.reset_ms)


def retry_after(text: str) -> Headers:
    """The headers of a refusal."""
    return refusal_headers([_refusing(one) for one in read_violations(text)])


def _refusing(one: Violation) -> Refusing:
    limit, per_ms, wait_ms = (
        None if value == NOTHING else int(value) for value in (one.limit, one.per_ms, one.retry_after_ms)
    )
    return Refusing(one.rule, one.id, limit or 0, per_ms, wait_ms)
