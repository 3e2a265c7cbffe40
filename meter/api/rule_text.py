"""Rules as the JSON of the wire: what an account has, and what refused an operation."""

from __future__ import annotations

from collections.abc import Callable

from meter.clock import NEVER_MS, time_text
from meter.engine.answers import NOTHING, Line
from meter.engine.rules import Budget, Violation, read_rule, read_violations
from meter.http.rendered import json_text

_Amount = Callable[[int], str]


def rules_json(answer: Line, amount: _Amount) -> str:
    """The members of an account's rules, from the answer of `rules`; `amount` writes units."""
    rules = [read_rule(item) for item in answer.items]
    budgets = [one for one in rules if isinstance(one, Budget)]
    text = ",".join(f'"{one.budget_id}":{_budget(one, answer, amount)}' for one in budgets)
    return f'"budgets":{{{text}}}'


def _budget(budget: Budget, answer: Line, amount: _Amount) -> str:
    used, reserved = answer.units("charged") - budget.base, answer.units("held")
    left = max(0, budget.limit - used - reserved)
    return (
        f'{{"limit":{amount(budget.limit)},"window":"{budget.window}","time_zone":"{budget.zone}",'
        f'"used":{amount(used)},"reserved":{amount(reserved)},"remaining":{amount(left)},'
        f'"resets_at":{time_text(budget.ends_at_ms)}}}'
    )


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
            members.append(f'"{name}":{amount(int(value))}')
    if one.rule == "budget":
        ends_ms = NEVER_MS if one.resets_at_ms == NOTHING else int(one.resets_at_ms)
        members.append(f'"resets_at":{time_text(ends_ms)}')
    return f"{{{','.join(members)}}}"


def retry_after(text: str) -> tuple[tuple[bytes, bytes], ...]:
    """The header that says how long to wait, where waiting helps against all that refuses: the longest wait."""
    waits = [one.retry_after_ms for one in read_violations(text)]
    if not waits or NOTHING in waits:
        return ()
    return ((b"retry-after", str(-(-max(map(int, waits)) // 1000)).encode()),)
