"""Operations as the Lua program takes them: (name, key, fingerprint, extra, own arguments…), all text.

Each function mirrors the ARGV line of `lua/operations/<name>.lua`. Amounts are units, times are milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

import orjson

from meter.clock import NEVER_MS

Operation = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Asked:
    """What the caller asked for besides: its idempotency key, and JSON members for the ledger row."""

    key: str = ""
    extra: str = ""


UNKEYED = Asked()


def grant(
    user_id: str,
    grant_id: str,
    amount: int,
    *,
    priority: int = 10,
    effective_at_ms: int = 0,
    expires_at_ms: int = NEVER_MS,
    source: str = "api",
    at_end: str = "",
    chosen: bool = True,
    asked: Asked = UNKEYED,
) -> Operation:
    """Credits in. `effective_at_ms` 0 means now; `at_end` comes from `at_end_of`; `chosen` says that the caller chose
    the grant_id.
    """
    own = (
        user_id,
        grant_id,
        str(amount),
        str(priority),
        str(effective_at_ms),
        str(expires_at_ms),
        source,
    )
    body = own if chosen else (user_id, *own[2:])
    body = (*body, at_end) if at_end else body  # what asks for nothing new is told apart as ever
    return (
        "grant",
        asked.key,
        _fingerprint("grant", body, asked.extra) if asked.key else "",
        asked.extra,
        *own,
        at_end,
    )


def at_end_of(plan_group: str, *, renews: bool, rollover: tuple[int, int] | None = None) -> str:
    """What becomes of a plan's grant at its end, as lua/state/grant.lua reads it.

    `renews`: the next period's grant follows. `rollover`: up to so many units of the rest live on for so many ms.
    """
    rolled = "" if rollover is None else f"{rollover[0]}+{rollover[1]}"
    return f"{rolled}{'@' if renews else '!'}{plan_group}"


def deduct(user_id: str, amount: int, shortfall: str = "reject", asked: Asked = UNKEYED) -> Operation:
    """Spends in one step; `shortfall` is reject, partial or overdraft."""
    return _keyed("deduct", asked, (user_id, str(amount), shortfall))


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
    that nobody settled, release or charge.
    """
    own = (user_id, reservation_id, str(amount), str(ttl_ms), "1" if chosen else "0", at_end)
    if chosen:
        return ("reserve", asked.key, _fingerprint("reserve", own, asked.extra), asked.extra, *own)
    # An id of our own making differs on every call and is not part of what the caller asked for.
    fingerprint = _fingerprint("reserve", (user_id, *own[2:]), asked.extra) if asked.key else ""
    return ("reserve", asked.key, fingerprint, asked.extra, *own)


def commit(reservation_id: str, amount: int | None = None, over: str = "cap", asked: Asked = UNKEYED) -> Operation:
    """Settles a reservation; no amount means all of it. `over` is cap, reject or overdraft."""
    return _keyed("commit", asked, (reservation_id, "" if amount is None else str(amount), over))


def release(reservation_id: str, asked: Asked = UNKEYED) -> Operation:
    """Gives a reservation back."""
    return _keyed("release", asked, (reservation_id,))


def extend(reservation_id: str, ttl_ms: int | None = None, add_amount: int = 0, asked: Asked = UNKEYED) -> Operation:
    """Gives a reservation more time, counted from now, or more credits."""
    return _keyed("extend", asked, (reservation_id, "" if ttl_ms is None else str(ttl_ms), str(add_amount)))


def refund(
    user_id: str,
    transaction_id: str,
    amount: int | None,
    *,
    charged: int,
    refunded: int,
    draws: tuple[tuple[str, int], ...],
    asked: Asked = UNKEYED,
) -> Operation:
    """Gives back part of a charge; what was charged and from where comes from the ledger."""
    drawn = " ".join(f"{grant_id} {part}" for grant_id, part in draws)
    own = (user_id, transaction_id, "" if amount is None else str(amount))
    fingerprint = _fingerprint("refund", own, asked.extra) if asked.key else ""
    return ("refund", asked.key, fingerprint, asked.extra, *own, str(charged), str(refunded), drawn)


def void(user_id: str, grant_id: str, asked: Asked = UNKEYED) -> Operation:
    """Ends a grant early."""
    return _keyed("void", asked, (user_id, grant_id))


def configure(
    user_id: str,
    *,
    overdraft_limit: int | None = None,
    suspended: bool | None = None,
    thresholds: tuple[int, ...] | None = None,
    metadata: str = "",
    asked: Asked = UNKEYED,
) -> Operation:
    """Changes what an account may do; None leaves a setting as it is. `metadata` is JSON text."""
    own = (
        user_id,
        "" if overdraft_limit is None else str(overdraft_limit),
        "" if suspended is None else str(int(suspended)),
        "" if thresholds is None else ",".join(map(str, thresholds)) or "none",
        metadata,
    )
    return _keyed("configure", asked, own)


def expire(user_id: str) -> Operation:
    """Settles what is due for an idle account."""
    return _plain("expire", user_id)


def lapse(user_id: str, grant_id: str) -> Operation:
    """The renewal that a grant announces will not come."""
    return _plain("lapse", user_id, grant_id)


def balance(user_id: str) -> Operation:
    """Reads an account."""
    return _plain("balance", user_id)


def grants(user_id: str, state: str, cursor: str, limit: int) -> Operation:
    """Lists grants in burn order; `state` is live or all."""
    return _plain("grants", user_id, state, cursor, str(limit))


def expiring(user_id: str, until_ms: int, cursor: str, limit: int) -> Operation:
    """Lists live grants that end before a time, by their end."""
    return _plain("expiring", user_id, str(until_ms), cursor, str(limit))


def reservations(user_id: str, cursor: str, limit: int) -> Operation:
    """Lists open reservations."""
    return _plain("reservations", user_id, cursor, str(limit))


def reservation(reservation_id: str) -> Operation:
    """Reads one reservation."""
    return _plain("reservation", reservation_id)


def explain(user_id: str, amount: int) -> Operation:
    """What a deduct would do now."""
    return _plain("explain", user_id, str(amount))


def clock(what: str = "", milliseconds: int = 0) -> Operation:
    """Reads the partition's clock; `set` or `advance` freezes and moves it."""
    return _plain("clock", what, str(milliseconds))


def rotate() -> Operation:
    """Drops what is older than the recent window."""
    return _plain("rotate")


def flushed(seq: int, trim_to_seq: int, removed_max: int) -> Operation:
    """Notes how far the store has the outbox; entries below `trim_to_seq` may go."""
    return _plain("flushed", str(seq), str(trim_to_seq), str(removed_max))


def state(name: str, epoch: int = 0) -> Operation:
    """Closes the partition (`lost`), or takes a step of its rebuild; of that epoch only, when one is given."""
    return _plain("state", name, str(epoch))


def restore(user_id: str, *rest: str) -> Operation:
    """Puts an account back as the store has it; see lua/operations/restore.lua."""
    return _plain("restore", user_id, *rest)


def recall(field: str, text: str) -> Operation:
    """Puts a stored answer back."""
    return _plain("recall", field, text)


def members(description: str | None, metadata: object) -> str:
    """The caller's own JSON members of a ledger row, without braces."""
    parts = []
    if description is not None:
        parts.append(f'"description":{orjson.dumps(description).decode()}')
    if metadata is not None:
        parts.append(f'"metadata":{orjson.dumps(metadata).decode()}')
    return ",".join(parts)


def _plain(name: str, *own: str) -> Operation:
    return (name, "", "", "", *own)


def _keyed(name: str, asked: Asked, own: tuple[str, ...]) -> Operation:
    fingerprint = _fingerprint(name, own, asked.extra) if asked.key else ""
    return (name, asked.key, fingerprint, asked.extra, *own)


def _fingerprint(name: str, own: tuple[str, ...], extra: str) -> str:
    """What tells two bodies with one key apart: 96 bits over everything that the caller asked for."""
    return blake2b("\x1f".join((name, *own, extra)).encode(), digest_size=12).hexdigest()
