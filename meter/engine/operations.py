"""Each operation in one place: its declaration, what makes one, and what it answered, from the entry that it booked.

Amounts are units, times are milliseconds. tests/lua/test_headers.py compares the declarations with the heads of
`lua/operations`, tests/engine/test_operations.py with what is made here.
"""

from __future__ import annotations

from collections.abc import Mapping

from meter.clock import NEVER_MS
from meter.engine import answers, refunds
from meter.engine import asked as asked_for
from meter.engine.answers import (
    BUDGET_REACHED,
    ENDED,
    EXCEEDS,
    EXISTS,
    FINISHED,
    INCOMPLETE_RULE,
    INSUFFICIENT,
    KEY_REUSED,
    NO_RULE,
    NOT_FOUND,
    NOTHING,
    OUTBOX_FULL,
    OVER,
    OVERFLOW,
    PENDING,
    RATE_LIMITED,
    SUSPENDED,
    TOO_MANY,
    TOO_MANY_RESTRICTIONS,
    TOO_MANY_RULES,
    Declared,
    Subject,
    Values,
    names,
    plain,
)
from meter.engine.asked import fingerprint_of, keyed
from meter.engine.at_end import AT_END_ARGUMENTS, NOTHING_AT_END, AtEnd
from meter.engine.behind import with_behind
from meter.engine.outbox import Entry, Kind
from meter.engine.restrictions import free_of

Operation = answers.Operation
Asked = asked_for.Asked
UNKEYED, members = asked_for.UNKEYED, asked_for.members
refund, refund_rows = refunds.refund, refunds.refund_rows

# Credits in one step.

DEDUCT = Declared(
    "deduct",
    Subject.USER,
    names("user_id amount shortfall"),
    names("user_id transaction_id amount taken uncovered"),
    refusals=(INSUFFICIENT, BUDGET_REACHED, SUSPENDED, RATE_LIMITED, OVERFLOW, OUTBOX_FULL),
    books=(Kind.DEDUCT,),
    answered=lambda entry: (
        entry.transaction_id,
        entry.amount + entry.units("uncovered"),
        entry.amount,
        entry.units("uncovered"),
    ),
)


def deduct(user_id: str, amount: int, shortfall: str = "reject", asked: Asked = UNKEYED) -> Operation:
    """Spends in one step; `shortfall` is reject, partial or overdraft, or owed, which callers cannot ask for: it was
    served already, so that no rule refuses or cuts it, and what neither credits nor debt cover stays uncovered.
    """
    return keyed("deduct", asked, (user_id, str(amount), shortfall))


REFUND = Declared(
    "refund",
    Subject.USER,
    names("user_id transaction_id amount path charges"),
    names("user_id transaction_id amount forfeited left"),
    several={"charges": names("payer transaction_id charged refunded draws charged_at_ms charged_seq")},
    refusals=(EXCEEDS,),
    books=(Kind.REFUND, Kind.GRANT_EXPIRED),
    answered=lambda entry: (
        (entry.transaction_id, entry.amount, entry.units("forfeited"), entry.units("left"))
        if "left" in entry.detail
        else None
    ),
)


# Reservations.

RESERVE = Declared(
    "reserve",
    Subject.USER,
    names("user_id reservation_id amount ttl_ms chosen at_end"),
    names("user_id reservation_id amount expires_at_ms expires_in_ms"),
    refusals=(
        *(INSUFFICIENT, BUDGET_REACHED, SUSPENDED, RATE_LIMITED),
        *(TOO_MANY, KEY_REUSED, OUTBOX_FULL, FINISHED),
    ),
    books=(Kind.RESERVE, Kind.EXTEND),
    answered=lambda entry: (entry.text("reservation_id"), entry.amount, *_until(entry)),
)


def reserve(
    user_id: str,
    reservation_id: str,
    amount: int,
    ttl_ms: int,
    *,
    chosen: bool,
    at_end: str = "release",
    asked: Asked = UNKEYED,
) -> Operation:
    """Holds an amount. An id chosen by the caller is an idempotency key of its own. `at_end`: what becomes of a hold
    that nobody settled: release, charge, or confirm: charge, once `upkeep.confirm` says that the caller was told.
    """
    own = (user_id, reservation_id, str(amount), str(ttl_ms), "1" if chosen else "0", at_end)
    if chosen:
        return ("reserve", asked.key, fingerprint_of("reserve", own, asked.body), asked.row, *own)
    # An id of our own making differs on every call and is not part of what the caller asked for.
    fingerprint = fingerprint_of("reserve", (user_id, *own[2:]), asked.body) if asked.key else ""
    return ("reserve", asked.key, fingerprint, asked.row, *own)


def reserve_for_request(
    user_id: str,
    reservation_id: str,
    amount: int,
    ttl_ms: int,
    *,
    at_end: str,
    asked: Asked,
) -> Operation:
    """`reserve` of an id that stands for a request: while its hold is open, asking again for as much is answered by
    that hold, as replayed, and makes it live on. One that was taken back (`upkeep.withdraw`) may be asked for anew.
    """
    own = (user_id, reservation_id, str(amount), str(ttl_ms), "request", at_end)
    return ("reserve", "", "", asked.row, *own)


COMMIT = Declared(
    "commit",
    Subject.RESERVATION,
    names("reservation_id amount over shortfall"),
    names("user_id reservation_id transaction_id charged released forfeited uncovered late"),
    refusals=(INSUFFICIENT, BUDGET_REACHED, OVERFLOW, NOT_FOUND, FINISHED),
    books=(Kind.COMMIT, Kind.DEDUCT, Kind.GRANT_EXPIRED),
    answered=lambda entry: (
        entry.text("reservation_id"),
        entry.transaction_id,
        entry.amount,
        *map(entry.units, ("released", "forfeited", "uncovered")),
        int(entry.units("late")),
    ),
)


def commit(
    reservation_id: str,
    amount: int | None = None,
    over: str = "cap",
    asked: Asked = UNKEYED,
    *,
    shortfall: str = "partial",
) -> Operation:
    """Settles a reservation; no amount means all of it. `over` is cap, reject, overdraft or hold_only, `shortfall`
    partial or reject, as lua/operations/commit.lua has them.
    """
    own = (reservation_id, "" if amount is None else str(amount), over)
    body = own if shortfall == "partial" else (*own, shortfall)  # what asks for nothing new is told apart as ever
    fingerprint = fingerprint_of("commit", body, asked.body) if asked.key else ""
    return ("commit", asked.key, fingerprint, asked.row, *own, shortfall)


RELEASE = Declared(
    "release",
    Subject.RESERVATION,
    names("reservation_id"),
    names("user_id reservation_id transaction_id released forfeited"),
    refusals=(NOT_FOUND, FINISHED),
    books=(Kind.RELEASE, Kind.GRANT_EXPIRED),
    answered=lambda entry: (
        entry.text("reservation_id"),
        entry.transaction_id,
        entry.amount,
        entry.units("forfeited"),
    ),
)


def release(reservation_id: str, asked: Asked = UNKEYED) -> Operation:
    """Gives a reservation back."""
    return keyed("release", asked, (reservation_id,))


EXTEND = Declared(
    "extend",
    Subject.RESERVATION,
    names("reservation_id ttl_ms add_amount"),
    names("user_id reservation_id amount expires_at_ms expires_in_ms"),
    refusals=(INSUFFICIENT, BUDGET_REACHED, SUSPENDED, NOT_FOUND, FINISHED),
    books=(Kind.EXTEND, Kind.RESERVE),
    answered=lambda entry: (
        (entry.text("reservation_id"), entry.units("held"), *_until(entry)) if "held" in entry.detail else None
    ),
)


def extend(reservation_id: str, ttl_ms: int | None = None, add_amount: int = 0, asked: Asked = UNKEYED) -> Operation:
    """Gives a reservation more time, counted from now, or more credits."""
    return keyed("extend", asked, (reservation_id, "" if ttl_ms is None else str(ttl_ms), str(add_amount)))


RESERVATION = Declared(
    "reservation",
    Subject.RESERVATION,
    names("reservation_id"),
    names("user_id reservation_id state amount charged expires_at_ms"),
    refusals=(NOT_FOUND,),
)


def reservation(reservation_id: str) -> Operation:
    """Reads one reservation."""
    return plain("reservation", reservation_id)


RESERVATIONS = Declared(
    "reservations",
    Subject.USER,
    names("user_id cursor limit"),
    names("user_id next_cursor"),
    items=names("reservation_id amount expires_at_ms created_at_ms"),
)


def reservations(user_id: str, cursor: str, limit: int) -> Operation:
    """Lists open reservations."""
    return plain("reservations", user_id, cursor, str(limit))


# Grants.

_GRANT_TERMS = names("user_id grant_id amount priority effective_at_ms expires_at_ms source")
GRANT = Declared(
    "grant",
    Subject.USER,
    _GRANT_TERMS + AT_END_ARGUMENTS + ("late", "only"),
    names("user_id grant_id transaction_id amount"),
    refusals=(EXISTS, ENDED, OVERFLOW, TOO_MANY, TOO_MANY_RESTRICTIONS, PENDING),
    books=(Kind.GRANT, Kind.ADJUST),
    answered=lambda entry: (entry.text("grant_id"), entry.transaction_id, entry.amount),
)


ADJUSTMENT = "adjust"
"""The source of a grant that is an adjustment."""


def grant(
    user_id: str,
    grant_id: str,
    amount: int,
    *,
    priority: int = 10,
    effective_at_ms: int = 0,
    expires_at_ms: int = NEVER_MS,
    source: str = "api",
    at_end: AtEnd = NOTHING_AT_END,
    chosen: bool = True,
    late: bool = False,
    only: str = "",
    asked: Asked = UNKEYED,
) -> Operation:
    """Credits in, for what `restrictions.only_text` says. `effective_at_ms` 0 means now; `chosen` says that the caller
    chose the grant_id; `late`: it was promised before, so that one that has ended by now is given and ends.
    """
    own = (user_id, grant_id, str(amount), str(priority), str(effective_at_ms), str(expires_at_ms), source)
    body = own if chosen else (user_id, *own[2:])
    body = (*body, at_end.text) if at_end.text else body  # what asks for nothing new is told apart as ever
    body = (*body, f"only {only}") if only else body
    fingerprint = fingerprint_of("grant", body, asked.body) if asked.key else ""
    return ("grant", asked.key, fingerprint, asked.row, *own, *at_end.arguments, str(int(late)), only)


VOID = Declared(
    "void",
    Subject.USER,
    names("user_id grant_id"),
    names("user_id grant_id transaction_id voided"),
    refusals=(OVER, NOT_FOUND),
    books=(Kind.VOID,),
    answered=lambda entry: (
        (entry.text("grant_id"), entry.transaction_id, entry.units("voided")) if "voided" in entry.detail else None
    ),
)


def void(user_id: str, grant_id: str, asked: Asked = UNKEYED) -> Operation:
    """Ends a grant early."""
    return keyed("void", asked, (user_id, grant_id))


ADJUST = Declared(
    "adjust",
    Subject.USER,
    names("user_id grant_id amount"),
    names("user_id transaction_id amount"),
    refusals=(EXCEEDS, OVER, NOT_FOUND),
    books=(Kind.ADJUST,),
    answered=lambda entry: (
        *((entry.text("grant_id"),) if "grant_id" in entry.detail else ()),  # of one that gives: a `grant`'s
        entry.transaction_id,
        entry.amount,
    ),
)


def adjust(user_id: str, grant_id: str, amount: int, asked: Asked = UNKEYED) -> Operation:
    """Takes free credits away, from that grant or (`""`) in burn order. What is given is a `grant` whose source is
    `ADJUSTMENT`.
    """
    return keyed("adjust", asked, (user_id, grant_id, str(amount)))


_GRANT_ITEM = names(
    "grant_id amount remaining reserved priority effective_at_ms expires_at_ms created_at_ms shelved_ms class state"
    " source at_end only"
)

GRANTS = Declared(
    "grants",
    Subject.USER,
    names("user_id state cursor limit"),
    names("user_id next_cursor"),
    items=_GRANT_ITEM,
)


def grants(user_id: str, state: str, cursor: str, limit: int) -> Operation:
    """Lists grants in burn order; `state` is live or all."""
    return plain("grants", user_id, state, cursor, str(limit))


EXPIRING = Declared(
    "expiring",
    Subject.USER,
    names("user_id until_ms cursor limit"),
    names("user_id next_cursor"),
    items=_GRANT_ITEM,
)


def expiring(user_id: str, until_ms: int, cursor: str, limit: int) -> Operation:
    """Lists live grants that end before a time, by their end."""
    return plain("expiring", user_id, str(until_ms), cursor, str(limit))


# Accounts.

CONFIGURE = Declared(
    "configure",
    Subject.USER,
    names(
        "user_id overdraft_limit suspended low_credit_thresholds metadata rate_card price_multiplier"
        " budgets rate_limits pool use_pools velocity"
    ),
    names("user_id overdraft_limit suspended low_credit_thresholds"),
    refusals=(TOO_MANY, INCOMPLETE_RULE, NO_RULE, TOO_MANY_RULES),
    books=(Kind.ACCOUNT,),
    answered=lambda entry: (
        entry.units("overdraft_limit"),
        "s" if entry.detail["suspended"] else NOTHING,
        entry.text("low_credit_thresholds"),
    ),
)


def configure(
    user_id: str,
    *,
    overdraft_limit: int | None = None,
    suspended: bool | None = None,
    thresholds: tuple[int, ...] | None = None,
    metadata: str = "",
    rate_card: str = "",
    price_multiplier: str = "",
    budgets: str = "",
    rate_limits: str = "",
    pool: bool | None = None,
    use_pools: bool | None = None,
    velocity: str = "",
    asked: Asked = UNKEYED,
) -> Operation:
    """Changes what an account may do; None leaves a setting as it is. `metadata` is JSON text, `price_multiplier`
    millionths; of it and `rate_card` "" leaves, and NOTHING takes away what is set. `budgets` and `rate_limits` are
    changes as `rules.change_words` makes them. `pool`: all below it draw on it; `use_pools`: it draws on those above.
    `velocity`: its breaker (lua/state/breaker.lua), NOTHING takes it away.
    """
    own = (
        user_id,
        "" if overdraft_limit is None else str(overdraft_limit),
        "" if suspended is None else str(int(suspended)),
        "" if thresholds is None else ",".join(map(str, thresholds)) or "none",
        metadata,
    )
    terms = (rate_card, price_multiplier)
    rules = (budgets, rate_limits)
    body = (*own, *terms) if any(terms) else own  # what asks for nothing new is told apart as ever
    body = (*body, *rules) if any(rules) else body
    pools = tuple("" if one is None else str(int(one)) for one in (pool, use_pools))
    body = (*body, *pools) if any(pools) else body
    body = (*body, velocity) if velocity else body
    fingerprint = fingerprint_of("configure", body, asked.body) if asked.key else ""
    return ("configure", asked.key, fingerprint, asked.row, *own, *terms, *rules, *pools, velocity)


BALANCE = Declared(
    "balance",
    Subject.USER,
    names("user_id"),
    names(
        "user_id overdraft_limit suspended low_credit_thresholds granted scheduled spent expired voided reservations"
    ),
)


def balance(user_id: str) -> Operation:
    """Reads an account."""
    return plain("balance", user_id)


EXPLAIN = Declared(
    "explain",
    Subject.USER,
    names("user_id amount"),
    names("user_id would short next_credits_at_ms next_credits_amount overdraft_limit violations"),
    items=names("grant_id amount"),
)


def explain(user_id: str, amount: int, tags: str = "") -> Operation:
    """What a deduct would do now; `tags` are what it is for."""
    return ("explain", "", "", Asked(tags=tags).row, user_id, str(amount))


DECLARED = (
    DEDUCT,
    REFUND,
    RESERVE,
    COMMIT,
    RELEASE,
    EXTEND,
    RESERVATION,
    RESERVATIONS,
    GRANT,
    VOID,
    ADJUST,
    GRANTS,
    EXPIRING,
    CONFIGURE,
    BALANCE,
    EXPLAIN,
)
"""What callers can ask for."""

_ANSWERED: Mapping[Kind | str, Declared] = {one.books[0]: one for one in DECLARED if one.books}


def answer_of(entry: Entry) -> str | None:
    """The line, without its flag, that the script answered when it booked the entry; None for what no caller asked for,
    and where an older script has not booked enough of it.
    """
    told = entry.text("answered")
    if told is not None:
        return told  # of an entry that does something else now than was told then (meter/ledger/rebase.py)
    declared = _ANSWERED.get(entry.kind)
    values = None if declared is None or declared.answered is None else declared.answered(entry)
    if values is None:
        return None
    # A forfeit is booked by an entry of its own, right after this one; the caller saw the balances behind it.
    available, restricted = free_of(entry)
    line = f"ok {entry.user_id} {' '.join(map(str, values))} {available} {entry.reserved} {entry.debt}"
    return with_behind(line, price=entry.text("price"), limited_by=entry.text("limited_by"), restricted=restricted)


def _until(entry: Entry) -> Values:
    ends_at_ms = entry.units("expires_at")
    return ends_at_ms, ends_at_ms - entry.created_at_ms
