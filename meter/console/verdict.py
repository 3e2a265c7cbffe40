"""Whether a request would pass now, in a sentence and by each rule that decides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from markupsafe import Markup

from meter.console.burning import GrantRow
from meter.console.figures import clock, places_of, plain, share
from meter.console.visit import Visit
from meter.contract.answers import Explanation, User
from meter.contract.rules import Velocity, Violation


@dataclass(frozen=True, slots=True)
class Rule:
    """What decides: how much is left of it, of what, and what a request lacks."""

    name: str
    badge: tuple[str, str]
    left: str
    of: str
    filled: str
    lacks: str
    following: str


def rules_of(told: Explanation, user: User, visit: Visit, open_holds: int) -> list[Rule]:
    """The rules of the account and those of the levels above it that refuse, tightest first."""
    rules = [_credits(told, visit.now)]
    own = {one.id for one in told.violations if one.user_id == told.user_id and one.id}
    for name, budget in user.budgets.items():
        short = max(told.amount - budget.remaining, Decimal(0))
        resets = f"resets {clock(budget.resets_at, visit.now)}" if budget.resets_at else "never resets"
        window = "in all" if budget.window == "total" else f"a {budget.window}"
        rules.append(_rule(f"Budget {name}", short, budget.remaining, budget.limit, window, resets))
    for name, limit in user.rate_limits.items():
        if limit.kind == "concurrent":
            rules.append(_concurrent(f"At once, {name}", limit.limit, open_holds))
        else:
            badge = ("bad", "too fast") if name in own else ("ok", "enough")
            of = f"{limit.limit:,} a {duration_of(limit.per_seconds)}"
            rules.append(Rule(f"Rate limit {name}", badge, "", of, "", "", "rolling"))
    if user.velocity is not None:
        rules.append(_breaker(user.velocity, visit.now))
    rules += [_of_level_above(one, told, visit.now) for one in told.violations if one.user_id != told.user_id]
    return sorted(rules, key=lambda rule: rule.badge[0] == "ok")


def _breaker(velocity: Velocity, now: datetime) -> Rule:
    tripped = velocity.tripped_until is not None and velocity.tripped_until > now
    badge = ("bad", "tripped") if tripped and velocity.action != "warn" else ("ok", "armed")
    of = f"{plain(velocity.limit, places_of([velocity.limit]))} a {duration_of(velocity.per_seconds)}"
    until = f"until {clock(velocity.tripped_until, now)}" if tripped and velocity.tripped_until else velocity.action
    return Rule("Breaker", badge, "", of, "", "", until)


def duration_of(seconds: int | None) -> str:
    """60 is a minute."""
    return {1: "second", 60: "minute", 3600: "hour", 86400: "day", None: "minute"}.get(seconds, f"{seconds} s")


def sentence_of(told: Explanation, rows: Sequence[GrantRow], visit: Visit) -> Markup:
    """Yes and what it burns, or no, why, and when that changes."""
    if told.would == "ok":
        return Markup('<span class="yes">Yes.</span> {}').format(_burns(told, rows))
    return Markup('<span class="no">No.</span> {}{}').format(_why(told), _coming(told, visit.now))


def _burns(told: Explanation, rows: Sequence[GrantRow]) -> str:
    names = {row.grant.grant_id: row.name for row in rows}
    places = places_of(burn.amount for burn in told.burns)
    parts = [f"{plain(burn.amount, places)} of {names.get(burn.grant_id, burn.grant_id)}" for burn in told.burns]
    return f"It burns {', then '.join(parts)}." if parts else "It burns nothing."


def _why(told: Explanation) -> Markup:
    suspended = [one for one in told.violations if one.rule == "suspended"]
    if suspended or told.would == "suspended":
        whose = next((one.user_id for one in suspended), told.user_id)
        return Markup("{} is suspended.").format("The account" if whose == told.user_id else whose)
    reasons = [Markup("{}").format(text) for one in told.violations if (text := _over(one, told.amount))]
    if told.short:
        short = plain(told.short, places_of([told.short]))
        reasons.insert(0, Markup("<strong>{} credits short</strong>").format(short))
    return Markup("It is {}.").format(Markup(", and ").join(reasons)) if reasons else Markup("It would be refused.")


def _over(one: Violation, amount: Decimal) -> str:
    whose = f" of {one.user_id}"
    if one.rule == "budget" and one.limit is not None:
        over = amount - (one.limit - (one.used or 0) - (one.reserved or 0))
        return f"over the budget {one.id}{whose} by {plain(over, places_of([over]))}"
    if one.rule == "velocity":
        return f"stopped by the breaker{whose}, which was charged too fast"
    if one.rule == "rate_limit":
        wait = f", which lets one more through in {(one.retry_after_ms or 0) / 1000:g} s" if one.retry_after_ms else ""
        return f"more than the rate limit {one.id}{whose} lets through{wait}"
    return f"more than {one.id}{whose} lets be open at once" if one.rule == "concurrency" else ""


def _coming(told: Explanation, now: datetime) -> str:
    if told.next_credits_at is None or not told.short:
        return ""
    come = plain(told.next_credits_amount, places_of([told.next_credits_amount]))
    return f" {come} credits come on {clock(told.next_credits_at, now)} UTC."


def _credits(told: Explanation, now: datetime) -> Rule:
    following = ""
    if told.next_credits_at is not None:
        come = plain(told.next_credits_amount, places_of([told.next_credits_amount]))
        following = f"+{come} on {clock(told.next_credits_at, now)}"
    left = told.available + told.overdraft_limit - told.debt
    whole = max(told.amount, left)
    badge = _short(told.short)
    lacks = share(told.short, whole) if told.short else ""
    return Rule("Credits", badge, plain(left, places_of([left, told.amount])), "", share(left, whole), lacks, following)


def _rule(name: str, short: Decimal, left: Decimal, limit: Decimal, window: str, following: str) -> Rule:
    places = places_of([left])
    lacks = share(min(short, limit - left), limit) if short else ""
    return Rule(
        name,
        _short(short),
        plain(left, places),
        f"of {plain(limit)} {window}".rstrip(),
        share(left, limit),
        lacks,
        following,
    )


def _concurrent(name: str, limit: int, open_holds: int) -> Rule:
    left = max(limit - open_holds, 0)
    badge = ("ok", "enough") if left else ("bad", "none left")
    return Rule(
        name, badge, f"{left:,}", f"of {limit:,}", share(Decimal(left), Decimal(limit)), "", f"{open_holds} open"
    )


def _of_level_above(one: Violation, told: Explanation, now: datetime) -> Rule:
    name = f"{one.user_id}: {one.id or one.rule}"
    following = f"resets {clock(one.resets_at, now)}" if one.resets_at else ""
    if one.limit is None:
        return Rule(name, ("bad", "refuses"), "", "", "", "", following)
    left = one.limit - (one.used or 0) - (one.reserved or 0)
    window = f"a {one.window}" if one.window not in (None, "total") else ""
    return _rule(name, max(told.amount - left, Decimal(0)), left, one.limit, window, following)


def _short(short: Decimal) -> tuple[str, str]:
    return ("bad", f"{plain(short, places_of([short]))} short") if short else ("ok", "enough")
