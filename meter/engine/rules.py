"""What levels keep of rules, as text: for the scripts, the outbox and the store alike (lua/state/level.lua).

Scripts judge and count; here is what they are told of a change of rules, and what is read of what they keep and refuse.
Amounts are units, times are milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

LEVELS_MAX = 6
"""Levels of a path that count: deeper paths are metered under their first ones."""
RULES_MAX = 8
"""Budgets of a level; rate limits likewise."""
BEGUN_ANEW = "!"
"""In the place of a budget's members: it begins anew."""
KEPT = "~"
"""Of a member that a change leaves as it is."""


class Budget(NamedTuple):
    """How much may be charged per window, and where that window stands. `source` is NOTHING or plan."""

    budget_id: str
    limit: int
    window: str
    zone: str
    mode: str
    unit: str
    scope: str
    alerts: str
    source: str
    from_seq: int
    base: int
    starts_at_ms: int
    ends_at_ms: int

    @property
    def alert_at(self) -> tuple[int, ...]:
        """Millionths of the limit at which somebody is told."""
        listed = self.alerts.rstrip("x")
        return () if listed == "-" else tuple(int(part.rstrip("!")) for part in listed.split("+"))


class RateLimit(NamedTuple):
    """How fast. `per_ms` and `burst` are of no use for concurrent ones."""

    limit_id: str
    kind: str
    limit: int
    per_ms: int
    burst: int
    dimension: str
    scope: str
    mode: str
    source: str
    from_seq: int


class Velocity(NamedTuple):
    """The breaker: how much may be charged how fast, what it does then, and until when it does (0: never yet)."""

    limit: int
    per_ms: int
    action: str
    pause_ms: int
    till_ms: int


ACTIONS: Mapping[str, str] = {"w": "warn", "r": "refuse", "s": "suspend"}


class Terms(NamedTuple):
    """The rules of a level. `since`: it counts what is younger than that seq; 0 where it counts nothing. `pool`: all
    below it draw on it; `use_pools`: it, and all below it, draw on pools above it.
    """

    since: int
    suspended: bool
    budgets: tuple[Budget, ...]
    limits: tuple[RateLimit, ...]
    pool: bool = False
    use_pools: bool = True


class Counters(NamedTuple):
    """What a level and all below it have moved since it counts."""

    charged: int = 0
    held: int = 0
    holds: int = 0
    requests: int = 0

    @property
    def text(self) -> str:
        """As the scripts and the store keep it."""
        return " ".join(map(str, self))


class Rate(NamedTuple):
    """Where the tightest rate limit stands behind what it let through: `left` more pass now, all in `reset_ms`."""

    limit_id: str
    kind: str
    limit: int
    per_ms: int
    left: int
    reset_ms: int


def read_rate(text: str) -> Rate:
    """Reads what stands behind an answer. Raises `ValueError` for what no script wrote."""
    limit_id, kind, *numbers = text.split(",")
    return Rate(limit_id, kind, *map(int, numbers))


class Payer(NamedTuple):
    """An account that pays for a path: how much of it, and what is available there then (units)."""

    user_id: str
    amount: int
    available: int


class Paying(NamedTuple):
    """Who pays for a path: itself, then its pools. `spendable`: what all of them have."""

    spendable: int
    payers: tuple[Payer, ...]


def read_paying(text: str) -> Paying:
    """Reads what stands behind an answer. Raises `ValueError` for what no script wrote."""
    spendable, *payers = text.split("|")
    parts = (one.split(",") for one in payers)
    return Paying(int(spendable), tuple(Payer(user, int(amount), int(available)) for user, amount, available in parts))


class Standing(NamedTuple):
    """A rate limit, and what it lets through yet; all of it is back in `reset_ms`."""

    limit: RateLimit
    left: int
    reset_ms: int


class Level(NamedTuple):
    """What the rules of a level stand at."""

    user_id: str
    counters: Counters
    suspended: bool
    pool: bool
    budgets: tuple[Budget, ...]
    limits: tuple[Standing, ...]


def read_levels(text: str) -> tuple[Level, ...]:
    """Reads what stands behind an answer, the path itself first. Raises `ValueError` for what no script wrote."""
    return tuple(map(_level, text.split("|"))) if text else ()


def _level(text: str) -> Level:
    user_id, counters, flags, *words = text.split("~")
    budgets = [read_rule(word) for word in words if word.startswith("b,")]
    limits = [word.rsplit(",", 2) for word in words if word.startswith("l,")]
    return Level(
        user_id,
        Counters(*map(int, counters.split(","))),
        "s" in flags,
        "p" in flags,
        tuple(one for one in budgets if isinstance(one, Budget)),
        tuple(
            Standing(one, int(left), int(reset_ms))
            for word, left, reset_ms in limits
            if isinstance(one := read_rule(word), RateLimit)
        ),
    )


class Violation(NamedTuple):
    """A rule that refuses, by the names of its parts in a line; NOTHING stands for what it does not have."""

    rule: str
    user_id: str
    id: str
    window: str
    unit: str
    limit: str
    used: str
    reserved: str
    required: str
    resets_at_ms: str
    retry_after_ms: str
    per_ms: str


def read_rule(word: str) -> Budget | RateLimit | Velocity:
    """Reads a rule. Raises `ValueError` for what no script wrote."""
    kind, *parts = word.split(",")
    if kind == "v":
        most, per, action, pause, till = parts
        return Velocity(int(most), int(per), ACTIONS[action], int(pause), int(till))
    if kind == "b":
        texts, numbers = parts[:9], tuple(map(int, parts[9:]))
        budget_id, limit, window, zone, mode, unit, scope, alerts, source = texts
        modes: Mapping[str, str] = {"e": "enforce", "o": "observe"}
        units: Mapping[str, str] = {"c": "credits", "r": "requests"}
        head = (budget_id, int(limit), window, zone, modes[mode], units[unit], scope, alerts, source)
        return Budget(*head, *numbers)
    limit_id, what, limit, per_ms, burst, dimension, scope, mode, source, from_seq = parts
    mode = "enforce" if mode == "e" else "observe"
    return RateLimit(limit_id, what, int(limit), int(per_ms), int(burst), dimension, scope, mode, source, int(from_seq))


def read_terms(text: str) -> Terms:
    """Reads the terms of a level. Raises `ValueError` for what no script wrote."""
    since, flags, *words = text.split(" ")
    rules = [read_rule(word) for word in words]
    return Terms(
        int(since),
        "s" in flags,
        tuple(rule for rule in rules if isinstance(rule, Budget)),
        tuple(rule for rule in rules if isinstance(rule, RateLimit)),
        "p" in flags,
        "a" not in flags,
    )


def read_counters(text: str | None) -> Counters:
    """Reads what a level has counted; zeros of one that counts nothing."""
    return Counters(*map(int, text.split(" ")[:4])) if text else Counters()


def read_violations(text: str) -> tuple[Violation, ...]:
    """Reads what refused an operation."""
    return () if text == "-" else tuple(Violation(*part.split(",")) for part in text.split("|"))


def change_words(changes: Mapping[str, Iterable[str] | None]) -> str:
    """Changes of rules as the scripts read them: the members of each, KEPT for one that stays; None takes it away."""
    return " ".join(
        f"{rule_id},{'-' if members is None else ','.join(members)}" for rule_id, members in changes.items()
    )


NO_PLAN_RULES = "- -"
"""What a plan says of rules that says nothing: budgets and rate limits, as changes with ";" between; NOTHING: none."""


def plan_rules_text(budgets: Mapping[str, Iterable[str]], limits: Mapping[str, Iterable[str]]) -> str:
    """What a plan says of rules, from the members of each; none is KEPT."""
    return " ".join(change_words(one).replace(" ", ";") or "-" for one in (budgets, limits))


def read_plan_rules(text: str) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """The members of budgets and of rate limits by their ids."""
    budgets, limits = text.split(" ")
    return _by_id(budgets), _by_id(limits)


def _by_id(text: str) -> dict[str, list[str]]:
    words = [] if text == "-" else [word.split(",") for word in text.split(";")]
    return {rule_id: members for rule_id, *members in words}


def zones_in(text: str) -> set[str]:
    """The time zones that budgets of a plan name, whose calendars Redis has to have."""
    return {members[2] for members in read_plan_rules(text)[0].values()} - {"UTC"}


def levels_of(user_id: str) -> list[str]:
    """The levels of a path, the root's first: each part of it before a `/` that is not empty, and itself."""
    cuts = [at for at, letter in enumerate(user_id) if letter == "/" and at > 0]
    return [user_id[:cut] for cut in cuts[:LEVELS_MAX]] + ([user_id] if len(cuts) < LEVELS_MAX else [])
