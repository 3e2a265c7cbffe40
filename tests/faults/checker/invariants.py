"""Twelve invariants, each a function from the evidence to what is wrong."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import Any

from tests.faults.checker.evidence import Balance, Evidence, Finding, Row
from tests.faults.checker.history import SCALE, Told

_STEP = {"deduct": ("spent", 1), "commit": ("spent", 1), "refund": ("spent", -1), "void": ("voided", 1)}
_BY_CALLERS = {"deduct", "reserve", "commit", "release", "extend", "refund", "void"}
_ENDS = {"commit", "release", "reservation_expired"}
_KIND = {"add": "grant"}
_NO_ROW = ("subscribe", "conflict")
"""What makes no transaction under its own key."""
_TOLD_AMOUNT = {"deduct": "taken", "commit": "charged", "refund": "amount", "add": "amount"}
_OF_NOBODY = ("probe",)
"""Users that the run itself spends from."""

Invariant = Callable[[Evidence], Iterator[Finding]]


def units(amount: object) -> int:
    """Units of an amount as it stands in JSON."""
    return int(Fraction(str(amount)) * SCALE)


def i1_conserved(evidence: Evidence) -> Iterator[Finding]:
    """Of each account granted = spent + expired + voided + reserved + available - debt, in the store and in Redis, and
    these are what its transactions add up to.
    """
    sums: dict[str, Counter[str]] = defaultdict(Counter)
    for row in evidence.rows:
        for name, units_ in _moves(row):
            sums[row.user][name] += units_
    for where, side in (("store", evidence.store), ("redis", evidence.redis)):
        for user, a in side.accounts.items():
            if a.granted != a.spent + a.expired + a.voided + a.reserved + a.available - a.debt:
                yield Finding("I1", "difference", f"{where}: {user} is not conserved: {a}")
            added = sums[user]
            for name in ("granted", "spent", "expired", "voided"):
                if getattr(a, name) != added[name]:
                    yield Finding("I1", "difference", f"{where}: {user} {name} {getattr(a, name)}, rows {added[name]}")


def _moves(row: Row) -> Iterator[tuple[str, int]]:
    """What a transaction adds to which sum."""
    if row.kind == "grant_started" or (row.kind == "grant" and row.detail.get("effective_at", 0) <= row.at_ms):
        yield "granted", row.amount
    elif row.kind == "grant_expired":
        yield "expired", row.amount
    elif row.kind in _STEP:
        name, sign = _STEP[row.kind]
        yield name, sign * row.amount


def i2_never_negative(evidence: Evidence) -> Iterator[Finding]:
    """Nothing is negative, debt stays within its limit, open holds add up to what is reserved, and each ends once."""
    for where, side in (("store", evidence.store), ("redis", evidence.redis)):
        held: Counter[str] = Counter()
        for user, amount in side.holds.values():
            held[user] += amount
        for user, a in side.accounts.items():
            if min(a) < 0 or a.debt > a.limit:
                yield Finding("I2", "difference", f"{where}: {user} {a}")
            if held[user] != a.reserved:
                yield Finding("I2", "difference", f"{where}: {user} reserves {a.reserved}, its holds {held[user]}")
    began, ended = Counter[str](), defaultdict[str, list[Row]](list)
    for row in evidence.rows:
        if row.kind == "reserve":
            began[row.reservation] += 1
        elif row.kind in _ENDS:
            ended[row.reservation].append(row)
    yield from (Finding("I2", "doubled", f"{hold} was reserved {n} times") for hold, n in began.items() if n > 1)
    for hold, ends in ended.items():
        late = [row.kind for row in ends] == ["reservation_expired", "commit"] and ends[1].detail.get("late") is True
        if len(ends) > 1 and not late:
            yield Finding("I2", "doubled", f"{hold} ended as {[row.kind for row in ends]}")
        if not began[hold]:
            yield Finding("I2", "invented", f"{hold} ended and never began")


def i3_acknowledged_once(evidence: Evidence) -> Iterator[Finding]:
    """What was acknowledged is in the ledger once and as it was told, what was refused never, what nobody could say at
    most once; and nothing is there that nobody asked for.
    """
    known = set()
    for told in evidence.told.values():
        if told.kind in _NO_ROW:
            continue
        known.add(told.key or told.id)
        rows = evidence.rows_of(told)
        if len(rows) > told.at_most:
            word = "doubled" if told.at_least else "invented"
            yield Finding("I3", word, f"{told.id} ({told.kind}) {len(rows)} times: {[r.transaction_id for r in rows]}")
        elif len(rows) < told.at_least:
            if not _is_excused(evidence, told):
                yield Finding("I3", "lost", f"{told.id} ({told.kind}) {told.done[0].text[:200]}")
        elif rows and told.done:
            yield from _as_told(evidence, told, rows[0])
    for name, rows in evidence.by_key.items():
        for row in rows:
            if row.kind in _BY_CALLERS and name not in known and not row.user.startswith(_OF_NOBODY):
                yield Finding("I3", "invented", f"{row.kind} {row.transaction_id} under {name}: nobody asked for it")
    for row in evidence.rows:
        if row.kind in _BY_CALLERS and not row.name and not row.user.startswith(_OF_NOBODY):
            yield Finding("I3", "invented", f"{row.kind} {row.transaction_id}: nobody's")


def _is_excused(evidence: Evidence, told: Told) -> bool:
    """Whether all that was acknowledged went with a loss that was announced. What comes in is durable before: never."""
    return told.kind != "add" and all(_went(evidence, one) for one in told.done)


def _went(evidence: Evidence, attempt: Any) -> bool:
    seq = _seq_of(attempt.text)
    return evidence.lost_with(attempt.began_ms, attempt.ended_ms or 0, seq) is not None


def _seq_of(text: str) -> int:
    """The seq that an answer names; one that names none (a reservation) may be any."""
    name = json.loads(text).get("transaction_id")
    return int(name.split("-")[1]) if name else 2**53


def _as_told(evidence: Evidence, told: Told, row: Row) -> Iterator[Finding]:
    """An answer that was not lost says what the ledger has."""
    if row.kind != _KIND.get(told.kind, told.kind) or row.user != told.user:
        yield Finding("I3", "difference", f"{told.id} ({told.kind} of {told.user}) is {row.kind} of {row.user}")
    last = told.done[-1]
    # A first answer that was lost is given to repeats too, once it was offered back and is booked behind others.
    first = next(one for one in told.done if one.text == last.text)
    answer = json.loads(last.text)
    if _went(evidence, first) or answer.get("state") == "pending":
        return
    name = answer.get("transaction_id")
    if name is not None and name != row.transaction_id:
        yield Finding("I3", "difference", f"{told.id} was told {name}, the ledger has {row.transaction_id}")
    member = _TOLD_AMOUNT.get(told.kind)
    if member is not None and units(answer[member]) != row.amount:
        yield Finding("I3", "difference", f"{told.id} was told {member} {answer[member]}, the ledger has {row.amount}")
    if told.kind in ("deduct", "reserve") and units(answer["available"]) != row.available:
        yield Finding("I3", "difference", f"{told.id} was told {answer['available']} left, the ledger {row.available}")


def i4_another_body_is_refused(evidence: Evidence) -> Iterator[Finding]:
    """A key that was acknowledged takes no other body: 422, and no effect of it."""
    for told in evidence.told.values():
        if told.kind != "conflict":
            continue
        first = evidence.told[told.body["reference"]]
        if not first.done:
            continue
        began = first.done[0].ended_ms or 0
        for attempt in told.attempts.values():
            if (
                attempt.is_done
                and attempt.began_ms > began
                and not evidence.lost_between(began, attempt.ended_ms or began)
            ):
                yield Finding(
                    "I4", "doubled", f"{told.id}: the key of {first.id} took another body: {attempt.text[:200]}"
                )


def i5_replayed_byte_for_byte(evidence: Evidence) -> Iterator[Finding]:
    """A call that was acknowledged and came again got the first answer."""
    for told in evidence.told.values():
        done = [one for one in told.done if one.status != 202]
        if not done or told.kind == "subscribe":
            continue
        first, last_ms = done[0], max(one.ended_ms or 0 for one in told.attempts.values())
        if evidence.lost_between(first.began_ms, last_ms):
            continue
        if any(one.text != first.text for one in done):
            yield Finding("I5", "difference", f"{told.id}: {sorted({one.text for one in done})}")
        for one in told.attempts.values():
            if one.is_known and not one.is_done and one.began_ms > (first.ended_ms or 0):
                yield Finding("I5", "difference", f"{told.id}: acknowledged, then {one.status} {one.text[:200]}")


def i6_no_gap(evidence: Evidence) -> Iterator[Finding]:
    """Seqs are 1, 2, 3 and each once; entries of the outbox name the one before and are those of the store; the
    balances of each transaction follow from the one before it.
    """
    names = {row.seq: row for row in evidence.rows}
    if len(names) < len(evidence.rows):
        yield Finding("I6", "doubled", f"{len(evidence.rows) - len(names)} seqs are in the store more than once")
    missing = sorted(set(range(1, max(names, default=0) + 1)) - set(names))
    yield from (Finding("I6", "gap", f"seq {seq} is not in the store") for seq in missing)
    yield from (Finding("I6", "gap", f"seq {seq} is in quarantine") for seq in evidence.quarantine)
    before = None
    for entry in evidence.outbox:
        prev = before or (names[entry.seq - 1].transaction_id if entry.seq - 1 in names else None)
        if prev not in (None, entry.prev) and entry.seq > 1:
            yield Finding("I6", "difference", f"outbox {entry.seq} follows {entry.prev}, not {prev}")
        row = names.get(entry.seq)
        if row is not None and (row.transaction_id, row.user, row.kind, row.amount) != (
            *(entry.transaction_id, entry.user, entry.kind, entry.amount),
        ):
            yield Finding("I6", "difference", f"seq {entry.seq}: {entry} in the outbox, {row} in the store")
        before = entry.transaction_id
    yield from _running(evidence.rows)


def _running(rows: Sequence[Row]) -> Iterator[Finding]:
    """Where available + reserved - debt does not go on from the transaction before."""
    worth: Counter[str] = Counter()
    for row in rows:
        change = sum(amount if name == "granted" else -amount for name, amount in _moves(row))
        is_told = row.available + row.reserved - row.debt
        if is_told != worth[row.user] + change:
            yield Finding("I6", "difference", f"seq {row.seq}: {row.user} has {is_told} after {row.kind} {row.amount}")
        worth[row.user] = is_told


def i7_store_is_redis(evidence: Evidence) -> Iterator[Finding]:
    """After the backlog is drained both sides say the same of every account, grant and hold."""
    store, redis = evidence.store, evidence.redis
    if store.place != redis.place:
        yield Finding("I7", "difference", f"the store is at {store.place}, Redis at {redis.place}")
    yield from _compare("account", store.accounts, redis.accounts)
    yield from _compare("grant", store.grants, redis.grants)
    yield from _compare("hold", store.holds, redis.holds)
    yield from (Finding("I7", "difference", f"reconcile: {one}") for one in evidence.drift)


_EMPTY = Balance(0, 0, 0, 0, 0, 0, 0, 0)


def _compare(what: str, ours: dict[Any, Any], theirs: dict[Any, Any]) -> Iterator[Finding]:
    for name in sorted({*ours, *theirs}):
        mine, other = ours.get(name, _EMPTY), theirs.get(name, _EMPTY)
        if mine != other:
            yield Finding("I7", "difference", f"{what} {name}: {mine} in the store, {other} in Redis")


def i8_watermark_grows(evidence: Evidence) -> Iterator[Finding]:
    """The watermark never moves back, and a new epoch begins only after what was done to Redis on purpose."""
    for before, after in zip(evidence.samples, evidence.samples[1:], strict=False):
        if (after.epoch, after.watermark_seq) < (before.epoch, before.watermark_seq):
            yield Finding("I8", "difference", f"the watermark went from {before} to {after}")
        if after.epoch > before.epoch and not any(
            loss.at_ms <= after.at_ms and before.at_ms <= loss.over_ms for loss in evidence.losses
        ):
            yield Finding("I8", "invented", f"epoch {after.epoch} without a loss, at {after.at_ms}")
    for loss in evidence.losses:
        if not loss.detected:
            yield Finding("I8", "unnoticed", f"{loss.fault} at {loss.at_ms}: nobody noticed that history was lost")


def i9_trimmed_is_stored(evidence: Evidence) -> Iterator[Finding]:
    """What the outbox had no more the store, asked afterwards, had."""
    for sample in evidence.samples:
        if sample.first_seq - 1 > sample.watermark_seq:
            yield Finding("I9", "lost", f"trimmed up to {sample.first_seq - 1}, stored up to {sample.watermark_seq}")


def i10_durable_first(evidence: Evidence) -> Iterator[Finding]:
    """A grant that Redis shows has a row in the store; what a subscription gave is there once."""
    for sample in evidence.samples:
        yield from (
            Finding("I10", "invented", f"{grant} in Redis before the store had it") for grant in sample.homeless
        )
    granted = Counter(row.detail.get("grant_id") for row in evidence.rows if row.kind == "grant")
    for told in evidence.told.values():
        if told.kind == "subscribe" and told.done and told.user not in evidence.subscribed:
            yield Finding("I10", "lost", f"{told.user} was told that it is subscribed, and is not")
    for user, grants in evidence.subscribed.items():
        for grant in grants:
            if granted[grant] != 1:
                word = "doubled" if granted[grant] else "lost"
                yield Finding("I10", word, f"the subscription of {user} gave {grant} {granted[grant]} times")


def i11_time_is_redis(evidence: Evidence) -> Iterator[Finding]:
    """A hold lives as long as its caller asked, by Redis' clock, and does not end of itself before."""
    ends: dict[str, int] = {}
    for row in evidence.rows:
        if row.kind in ("reserve", "extend") and "expires_at" in row.detail:
            ends[row.reservation] = int(row.detail["expires_at"])
        elif row.kind == "reservation_expired" and row.at_ms < ends.get(row.reservation, 0):
            yield Finding("I11", "difference", f"{row.reservation} ended {ends[row.reservation] - row.at_ms} ms early")
    for told in evidence.told.values():
        if told.kind == "reserve" and "ttl_seconds" in told.body:
            for row in evidence.rows_of(told):
                lives = int(row.detail["expires_at"]) - row.at_ms
                if lives != told.body["ttl_seconds"] * 1_000:
                    yield Finding(
                        "I11", "difference", f"{told.id} asked for {told.body['ttl_seconds']} s, got {lives} ms"
                    )


def i12_nobody_elses(evidence: Evidence) -> Iterator[Finding]:
    """No key of another deployment was touched, none is left behind, and no row is of a user that nobody named."""
    users = {told.user for told in evidence.told.values()}
    yield from (Finding("I12", "invented", f"a key that is not ours: {key}") for key in evidence.strangers)
    yield from (Finding("I12", "difference", f"another deployment's {key}") for key in evidence.foreign_touched)
    for user in {row.user for row in evidence.rows} - users:
        if not user.startswith(_OF_NOBODY):
            yield Finding("I12", "invented", f"transactions of {user}, whom nobody named")


INVARIANTS: dict[str, Invariant] = {
    "I1": i1_conserved,
    "I2": i2_never_negative,
    "I3": i3_acknowledged_once,
    "I4": i4_another_body_is_refused,
    "I5": i5_replayed_byte_for_byte,
    "I6": i6_no_gap,
    "I7": i7_store_is_redis,
    "I8": i8_watermark_grows,
    "I9": i9_trimmed_is_stored,
    "I10": i10_durable_first,
    "I11": i11_time_is_redis,
    "I12": i12_nobody_elses,
}


def check(evidence: Evidence) -> list[Finding]:
    """What is wrong, by all of them."""
    return [finding for invariant in INVARIANTS.values() for finding in invariant(evidence)]


def forgotten(evidence: Evidence) -> int:
    """Acknowledged operations that went with an announced loss: never in the store, so allowed to be gone."""
    return sum(
        1
        for told in evidence.told.values()
        if told.at_least and told.kind not in _NO_ROW and not evidence.rows_of(told)
    )
