"""The operations that meter itself asks for: what falls due, the clock, the flush and the rebuild.

Declared as those of meter/engine/operations.py are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from meter.engine.answers import (
    BACKWARDS,
    FINGERPRINT,
    FINISHED,
    KEY,
    LIVE,
    NOT_FOUND,
    NOTHING,
    Declared,
    Operation,
    Subject,
    drawn,
    names,
    plain,
)
from meter.engine.at_end import AT_END_ARGUMENTS, AtEnd
from meter.engine.calendars import calendar_text
from meter.engine.outbox import Kind

EXPIRE = Declared("expire", Subject.USER, names("user_id"), names("user_id transactions"), upkeep=True)


def expire(user_id: str) -> Operation:
    """Settles what is due for an idle account."""
    return plain("expire", user_id)


LAPSE = Declared(
    "lapse",
    Subject.USER,
    names("user_id grant_id renews_at_ms"),
    names("user_id"),
    books=(Kind.ACCOUNT,),
    upkeep=True,
)


def lapse(user_id: str, grant_id: str, renews_at_ms: int = 0) -> Operation:
    """The renewal that a grant announces will not come; or it does after all, at that time."""
    return plain("lapse", user_id, grant_id, str(renews_at_ms))


CONFIRM = Declared(
    "confirm",
    Subject.RESERVATION,
    names("reservation_id"),
    names("user_id reservation_id"),
    balances=False,
    refusals=(NOT_FOUND, FINISHED),
    upkeep=True,
)


def confirm(reservation_id: str) -> Operation:
    """The caller of a reserve was told that it has it: what becomes of it at its end holds from now on."""
    return plain("confirm", reservation_id)


RULES = Declared(
    "rules",
    Subject.USER,
    names("user_id"),
    names("user_id charged held holds requests pool use_pools"),
    items=names("members"),
    upkeep=True,
)


def rules(user_id: str) -> Operation:
    """Reads the rules of an account, and what they have counted by now (meter/engine/rules.py)."""
    return plain("rules", user_id)


WITHDRAW = Declared(
    "withdraw",
    Subject.RESERVATION,
    names("reservation_id expires_at_ms"),
    names("user_id reservation_id transaction_id released forfeited"),
    refusals=(NOT_FOUND,),
    books=(Kind.RELEASE, Kind.GRANT_EXPIRED),
    upkeep=True,
)


def withdraw(reservation_id: str, expires_at_ms: int | None, key: str = "") -> Operation:
    """Takes back a hold whose caller was refused meanwhile, if it still ends then (None: whenever it ends), and leaves
    nothing that remembers it.
    """
    own = (reservation_id, "" if expires_at_ms is None else str(expires_at_ms))
    return ("withdraw", key, "withdraw" if key else "", "", *own)


CLOCK = Declared(
    "clock",
    Subject.NONE,
    names("what milliseconds"),
    names("now_ms frozen"),
    balances=False,
    refusals=(BACKWARDS,),
    upkeep=True,
)


def clock(what: str = "", milliseconds: int = 0, key: str = "") -> Operation:
    """Reads the partition's clock; `set` or `advance` freezes and moves it, once under a key."""
    return ("clock", key, f"clock:{what}:{milliseconds}" if key else "", "", what, str(milliseconds))


ROTATE = Declared("rotate", Subject.NONE, names("waits"), names("rotated"), balances=False, upkeep=True)


def rotate(*, waits: bool = False) -> Operation:
    """Drops what is older than the recent window; with a store it `waits` until that has what is dropped."""
    return plain("rotate", str(int(waits)))


FLUSHED = Declared(
    "flushed",
    Subject.NONE,
    names("seq trim_to_seq removed_max"),
    names("backlog removed was_full"),
    balances=False,
    upkeep=True,
)


def flushed(seq: int, trim_to_seq: int, removed_max: int) -> Operation:
    """Notes how far the store has the outbox; entries below `trim_to_seq` may go."""
    return plain("flushed", str(seq), str(trim_to_seq), str(removed_max))


STATE = Declared("state", Subject.NONE, names("state epoch why"), balances=False, upkeep=True)


def state(name: str, epoch: int = 0, why: str = "") -> Operation:
    """Closes the partition (`lost`, and why), or takes a step of its rebuild; of that epoch only, when one is given."""
    return plain("state", name, str(epoch), why)


ANONYMISE = Declared(
    "anonymise",
    Subject.USER,
    names("user_id pseudonym token"),
    names("user_id"),
    refusals=(LIVE, NOT_FOUND),
    books=(Kind.ACCOUNT,),
    upkeep=True,
)


def anonymise(user_id: str, pseudonym: str, token: str, extra: str = "") -> Operation:
    """Gives an account that nothing is left of another name; `extra` are members of its ledger row. Done again, and for
    a while by its `token` alone, it is answered as replayed and does nothing.
    """
    return ("anonymise", "", "", extra, user_id, pseudonym, token)


FORGET = Declared(
    "forget",
    Subject.NONE,
    names("user_id pseudonym trim_to_seq fields"),
    names("trimmed"),
    balances=False,
    several={"fields": ("field",)},
    upkeep=True,
)


def forget(user_id: str, pseudonym: str, trim_to_seq: int, fields: Sequence[str]) -> Operation:
    """Forgets what the recent hashes, in those fields, and the outbox have of a name that an account had before."""
    return plain("forget", user_id, pseudonym, str(trim_to_seq), str(len(fields)), *fields)


class KeptGrant(NamedTuple):
    """A grant as the store has it; `state` is scheduled, active, exhausted, expired or voided."""

    grant_id: str
    amount: int
    remaining: int
    reserved: int
    priority: int
    effective_at_ms: int
    expires_at_ms: int
    created_at_ms: int
    state: str
    source: str
    at_end: AtEnd
    only: str = ""
    """What it may be spent on, as text; "" for anything."""


class KeptReservation(NamedTuple):
    """An open reservation as the store has it; `at_end` is release or charge, `draws` are grants and amounts,
    `price` is that of its reserve, `api_key` what it keeps of the one that it was asked for by, "" of none; `seq` that
    of its reserve, 0 where no level counted it; `tags` what it is for, as text.
    """

    reservation_id: str
    amount: int
    expires_at_ms: int
    created_at_ms: int
    at_end: str
    draws: Sequence[tuple[str, int]]
    price: str = ""
    api_key: str = ""
    seq: int = 0
    tags: str = ""


RESTORE = Declared(
    "restore",
    Subject.NONE,
    names(
        "user_id overdraft_limit suspended low_credit_thresholds debt granted spent expired voided metadata rate_card"
        " price_multiplier rules counters grants reservations"
    ),
    names("user_id"),
    several={
        "grants": (*KeptGrant._fields[:-2], *AT_END_ARGUMENTS, "only"),
        "reservations": KeptReservation._fields,
    },
    upkeep=True,
)


def restore(
    user_id: str,
    *,
    overdraft_limit: int = 0,
    suspended: bool = False,
    thresholds: str = NOTHING,
    debt: int = 0,
    granted: int = 0,
    spent: int = 0,
    expired: int = 0,
    voided: int = 0,
    metadata: str = "",
    rate_card: str | None = None,
    price_multiplier: int | None = None,
    rules: str = "",
    counters: str = "",
    grants: Sequence[KeptGrant] = (),
    reservations: Sequence[KeptReservation] = (),
) -> Operation:
    """Puts an account back as the store has it. `metadata` is JSON text, "" for none."""
    own = [user_id, str(overdraft_limit), str(int(suspended)), thresholds]
    own += [str(debt), str(granted), str(spent), str(expired), str(voided), metadata]
    own += [rate_card or NOTHING, NOTHING if price_multiplier is None else str(price_multiplier)]
    own += [rules, counters, str(len(grants)), str(len(reservations))]
    for kept in grants:
        own += [*map(str, kept[:-2]), *kept.at_end.arguments, kept.only]
    for held in reservations:
        own += [*map(str, held[:-5]), drawn(held.draws), held.price, held.api_key, str(held.seq), held.tags]
    return plain("restore", *own)


RATES = Declared(
    "rates", Subject.NONE, names("fields"), balances=False, several={"fields": ("field", "text")}, upkeep=True
)


def rates(fields: Sequence[tuple[str, str]]) -> Operation:
    """Takes over lines of rates (meter/engine/prices.py), before a version that has them is activated."""
    return plain("rates", str(len(fields)), *(part for field in fields for part in field))


ACTIVATE = Declared("activate", Subject.NONE, names("rate_card_id number activations"), balances=False, upkeep=True)


def activate(rate_card_id: str, number: int, activations: str) -> Operation:
    """Takes over which versions of a card are active from when, unless what is there is of a later change."""
    return plain("activate", rate_card_id, str(number), activations)


PLAN_PRICES = Declared(
    "plan_prices",
    Subject.NONE,
    names("user_id plan_group version rate_card price_multiplier until_ms"),
    names("user_id"),
    balances=False,
    upkeep=True,
)


def plan_prices(
    user_id: str, plan_group: str, version: int, rate_card: str, price_multiplier: int, until_ms: int
) -> Operation:
    """Takes over what the plan of a subscription says of prices, unless what is there is of a later version of it; ""
    and 0 stand for what it does not say, and for an end that is not known.
    """
    said = (rate_card or NOTHING, str(price_multiplier) if price_multiplier else NOTHING)
    return plain("plan_prices", user_id, plan_group, str(version), *said, str(until_ms))


PLAN_RULES = Declared(
    "plan_rules",
    Subject.USER,
    names("user_id plan_group version budgets rate_limits bounds"),
    names("user_id"),
    balances=False,
    books=(Kind.ACCOUNT,),
    upkeep=True,
)


def plan_rules(user_id: str, plan_group: str, version: int, rules: str, bounds: Sequence[int]) -> Operation:
    """Takes over what the plan of a subscription says of rules (meter/engine/rules.py), and when its periods begin
    and the last ends, unless what is there is of a later version of it.
    """
    return plain("plan_rules", user_id, plan_group, str(version), *rules.split(" "), ":".join(map(str, bounds)))


CALENDARS = Declared(
    "calendars", Subject.NONE, names("zones"), balances=False, several={"zones": ("zone", "offsets")}, upkeep=True
)


def calendars(zones: Sequence[str]) -> Operation:
    """Takes over the calendars of time zones (meter/engine/calendars.py), before a budget names them."""
    return plain("calendars", str(len(zones)), *(part for zone in zones for part in (zone, calendar_text(zone))))


RECALL = Declared("recall", Subject.NONE, names("what id fingerprint answer"), balances=False, upkeep=True)


def recall(what: str, name: str, fingerprint: str | None, answer: str | None) -> Operation:
    """Makes a key (`what` is key), or a reservation_id that its caller chose (reservation), answer as before; one
    without a kept answer refuses every body.
    """
    known = fingerprint is not None and answer is not None
    return plain(
        "recall", what, name, fingerprint or NOTHING if known else NOTHING, answer or NOTHING if known else NOTHING
    )


WITHDRAWN = "withdrawn"
"""The answer that the key of a charge has when it was taken back: whoever asks again asks anew."""
_WITHDRAWAL = "withdraw "


def withdrawal_key(charge: Operation, transaction_id: str) -> str:
    """The key of the refund by which a charge is taken back: it tells which key answers `WITHDRAWN` from then on."""
    return f"{_WITHDRAWAL}{charge[FINGERPRINT]} {charge[KEY]}" if charge[KEY] else f"{_WITHDRAWAL}{transaction_id}"


def withdrawn_by(key: str) -> Operation | None:
    """What makes the key of a charge tell that it was taken back, by the key of its refund; None for any other key."""
    fingerprint, _, withdrawn = key.removeprefix(_WITHDRAWAL).partition(" ")
    return recall("key", withdrawn, fingerprint, WITHDRAWN) if key.startswith(_WITHDRAWAL) and withdrawn else None


RECALL_END = Declared(
    "recall_end",
    Subject.NONE,
    names("reservation_id user_id state amount charged requested ended_at_ms answer"),
    balances=False,
    upkeep=True,
)


def recall_end(
    reservation_id: str,
    *,
    user_id: str,
    state: str,
    amount: int,
    charged: int,
    requested: int,
    ended_at_ms: int,
    answer: str | None,
) -> Operation:
    """Makes a finished reservation answer as before."""
    numbers = map(str, (amount, charged, requested, ended_at_ms))
    return plain("recall_end", reservation_id, user_id, state, *numbers, answer or NOTHING)


DECLARED = (
    EXPIRE,
    LAPSE,
    CONFIRM,
    RULES,
    WITHDRAW,
    CLOCK,
    ROTATE,
    FLUSHED,
    STATE,
    ANONYMISE,
    FORGET,
    RESTORE,
    RATES,
    ACTIVATE,
    PLAN_PRICES,
    PLAN_RULES,
    CALENDARS,
    RECALL,
    RECALL_END,
)
"""What no caller asks for."""
