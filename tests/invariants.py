"""An independent checker: proves the invariants of DESIGN section 6 from what is in Redis, without our programs.

Reads every key raw and by the formats that the heads of `lua/` describe. `check` raises AssertionError.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from tests.added_up import Fold

NEVER = 9_999_999_999_999
AMOUNT_MAX = 2**53 - 1

KEY_TYPES = {
    "meta": "hash",
    "accounts": "hash",
    "grants": "hash",
    "order": "zset",
    "holds": "hash",
    "agenda": "zset",
    "due": "zset",
    "recent:a": "hash",
    "recent:b": "hash",
    "outbox": "stream",
    "profiles": "hash",
}
_LEVELS = r"-|x|\d+!?(,\d+!?)*(,x)?"
_WAITS = r";\d{13}@([A-Za-z0-9_.-]+@)+"
_AT_END = r"(\d+\+\d+)?([@!][A-Za-z0-9_.-]+)?"
_OF_NO_PARTITION = re.compile(r"[A-Za-z0-9_.-]+:(workers|arq:.+)")
_KEY = re.compile(r"([A-Za-z0-9_.-]+:\{p([0-9]+)\}):(.+)")


@dataclass
class Grant:
    """A grant as it is stored."""

    id: str
    cls: str
    state: str
    amount: int
    remaining: int
    reserved: int
    priority: int
    effective: int
    expires: int
    created: int
    shelved: int
    at_end: str = ""

    @property
    def burn_order(self) -> tuple[int, int, int, int, bytes]:
        return self.priority, self.expires, self.effective, self.created, self.id.encode()

    @property
    def sort_key(self) -> str:
        return f"{self.priority:06}{self.expires:013}{self.effective:013}{self.created:013} {self.id}"


@dataclass
class Hold:
    """An open hold as it is stored."""

    user: str
    amount: int
    ends: int
    draws: list[tuple[str, int]]


@dataclass
class Account:
    """An account as it is stored, with its grants from both places."""

    user: str
    available: int
    reserved: int
    debt: int
    granted: int
    scheduled: int
    spent: int
    expired: int
    voided: int
    overdraft_limit: int
    next_due: int
    hold_count: int
    grant_count: int
    front: Grant | None = None
    grants: dict[str, Grant] = field(default_factory=dict)
    holds: dict[str, Hold] = field(default_factory=dict)


@dataclass
class Entry:
    """An outbox entry."""

    seq: int
    prev: str
    transaction: str
    operation: str
    kind: str
    user: str
    amount: int
    draws: list[tuple[str, int, int, int]]
    available: int
    reserved: int
    debt: int
    created: int
    detail: dict[str, Any]


@dataclass
class State:
    """Everything that one partition has in Redis."""

    number: str
    meta: dict[str, str]
    accounts: dict[str, Account]
    order: set[str]
    agenda: set[str]
    due: dict[str, int]
    recent: list[str]
    entries: list[Entry]
    profiles: dict[str, str]


def check(client: Any, *, window_ms: int) -> None:
    """Proves every invariant for every partition that the server holds, and that it holds nothing else."""
    names: dict[tuple[str, str], list[str]] = defaultdict(list)
    for key in sorted(key.decode() for key in client.keys("*")):
        if _OF_NO_PARTITION.fullmatch(key):
            continue
        found = _KEY.fullmatch(key)
        assert found and found[3] in KEY_TYPES, f"a key that is not ours: {key}"
        assert client.type(key).decode() == KEY_TYPES[found[3]], key
        assert client.ttl(key) == -1, f"{key} would vanish"
        names[found[1], found[2]].append(found[3])
    for (prefix, number), present in names.items():
        assert sorted(present) == sorted(KEY_TYPES), f"{prefix}: a key is gone, which nobody can tell from a loss"
        state = _read(client, prefix, number)
        for account in state.accounts.values():
            _check_account(account)
        _check_order(state)
        _check_agenda(state, window_ms)
        _check_outbox(state, window_ms)
        assert {field_name[:2] for field_name in state.recent} <= {"k ", "c ", "r ", "f ", "l ", "a "}
        assert set(state.profiles) <= set(state.accounts)


def _read(client: Any, prefix: str, number: str) -> State:
    def hash_at(name: str) -> dict[str, str]:
        found = {k.decode(): v.decode() for k, v in client.hgetall(f"{prefix}:{name}").items()}
        assert found.pop("", None) == ("" if name != "meta" else None), f"the sentinel of {name}"
        return found

    def members_at(name: str) -> dict[str, int]:
        found = {m.decode(): score for m, score in client.zrange(f"{prefix}:{name}", 0, -1, withscores=True)}
        assert found.pop("") == (float("inf") if name == "due" else 0), f"the sentinel of {name}"
        return {member: int(score) for member, score in found.items()}

    order, agenda = members_at("order"), members_at("agenda")
    assert set(order.values()) | set(agenda.values()) <= {0}, "lexical sets need equal scores"
    accounts = {user: _account(user, text) for user, text in hash_at("accounts").items()}
    for name, text in hash_at("grants").items():
        user, grant_id = name.split(" ")
        assert grant_id not in accounts[user].grants, f"{name} is the front grant and in the hash"
        accounts[user].grants[grant_id] = _grant(grant_id, text)
    for hold_id, text in hash_at("holds").items():
        user, amount, ends, _, *draws = text.split(" ")
        pairs = [(draws[n], int(draws[n + 1])) for n in range(0, len(draws), 2)]
        accounts[user].holds[hold_id] = Hold(user, int(amount), int(ends), pairs)
    recent = [name for bucket in ("recent:a", "recent:b") for name in hash_at(bucket)]
    entries = [_entry(entry_id.decode(), members) for entry_id, members in client.xrange(f"{prefix}:outbox")]
    return State(
        number,
        hash_at("meta"),
        accounts,
        set(order),
        set(agenda),
        members_at("due"),
        recent,
        entries,
        hash_at("profiles"),
    )


def _account(user: str, text: str) -> Account:
    *numbers, suspended, thresholds, front = text.split(" ", 14)
    values: list[Any] = [int(number) for number in numbers]
    account = Account(user, *values)
    assert suspended in "-s" and re.fullmatch(rf"({_LEVELS})({_WAITS})?", thresholds), text
    if front:
        grant_id, packed = front.split(" ", 1)
        account.front = account.grants[grant_id] = _grant(grant_id, packed)
    return account


def _grant(grant_id: str, text: str) -> Grant:
    *numbers, cls, state, _, at_end = [*text.split(" "), ""][:12]
    values: list[Any] = [*map(int, numbers), at_end]
    assert len(values) == 9 and re.fullmatch(_AT_END, at_end), text
    return Grant(grant_id, cls, state, *values)


def _entry(entry_id: str, members: dict[bytes, bytes]) -> Entry:
    assert list(members) == [b"e"]
    version, epoch, *rest = json.loads(members[b"e"])
    assert (version, len(rest)) == (1, 13) and epoch >= 1
    rest[7] = [tuple(draw) for draw in rest[7]]
    entry = Entry(*rest)
    assert entry_id == f"{entry.seq}-0"
    return entry


def _check_account(a: Account) -> None:
    grants, holds = a.grants.values(), a.holds.values()
    numbers = [value for value in vars(a).values() if isinstance(value, int)]

    assert all(0 <= number <= AMOUNT_MAX for number in numbers if number != NEVER), a
    assert a.granted == a.spent + a.expired + a.voided + a.reserved + a.available - a.debt, a
    assert a.debt == 0 or a.available == 0, a
    assert a.available == sum(g.remaining for g in grants if g.cls in "FL"), a
    assert a.scheduled == sum(g.amount for g in grants if g.cls == "S"), a
    assert a.reserved == sum(h.amount for h in holds) == sum(g.reserved for g in grants), a
    assert (a.hold_count, a.grant_count) == (len(holds), len(grants)), a
    for hold_id, hold in a.holds.items():
        assert hold.amount == sum(part for _, part in hold.draws), hold_id
    for grant in grants:
        _check_grant(a, grant)
    live = [g for g in grants if g.cls in "FL"]
    assert a.front is (min(live, key=lambda g: g.burn_order) if live else None), a


def _check_grant(a: Account, g: Grant) -> None:
    drawn = sum(part for hold in a.holds.values() for grant_id, part in hold.draws if grant_id == g.id)

    assert g.reserved == drawn, (a.user, g)
    assert g.remaining >= 0 and g.remaining + g.reserved <= g.amount, (a.user, g)
    assert (g.cls == "F") == (g is a.front), (a.user, g)
    if g.cls == "X":
        assert g.remaining == 0 and g.state in "-ev", (a.user, g)
    else:
        assert g.cls in "FLS" and g.state == "-" and g.remaining > 0, (a.user, g)
    if g.cls == "S":
        assert (g.remaining, g.reserved) == (g.amount, 0), (a.user, g)
    assert (g.shelved > 0) == (g.cls == "X" and g.reserved == 0), (a.user, g)


def _check_order(state: State) -> None:
    expected = {
        f"{user} {g.cls} {g.sort_key}"
        for user, a in state.accounts.items()
        for g in a.grants.values()
        if g is not a.front
    }

    strangers = {member for member in state.order if member.startswith(" ")}
    assert state.order - strangers == expected
    for user in (member[1:] for member in strangers):
        account = state.accounts[user]
        assert (account.granted, account.spent, account.scheduled) == (0, 0, 0), f"{user} is no stranger"


def _check_agenda(state: State, window_ms: int) -> None:
    expected = set()
    for user, a in state.accounts.items():
        items = [(hold.ends, "h", hold_id) for hold_id, hold in a.holds.items()]
        for g in a.grants.values():
            items += [(g.effective, "s", g.id)] if g.cls == "S" else []
            items += [(g.expires, "x", g.id)] if g.expires < NEVER and g.state == "-" else []
            items += [(g.shelved + window_ms, "y", g.id)] if g.shelved else []
        expected |= {f"{user} {time:013} {kind} {name}" for time, kind, name in items}
        assert a.next_due <= min((time for time, _, _ in items), default=NEVER), user
        assert state.due.get(user, NEVER) == a.next_due, user

    assert state.agenda == expected
    assert set(state.due) <= set(state.accounts)


def _check_outbox(state: State, window_ms: int) -> None:
    last = int(state.meta["seq"])
    first = state.entries[0].seq if state.entries else last + 1
    assert first - 1 <= int(state.meta["flushed"]) <= last, "entries are gone that the store does not have"
    prev = "-" if first == 1 else state.entries[0].prev if state.entries else state.meta["head"]
    folds, used = defaultdict[str, Fold](Fold), dict[str, int]()
    for number, entry in enumerate(state.entries, first):
        assert (entry.seq, entry.prev) == (number, prev), entry
        assert entry.transaction.startswith(f"{state.number}-{number}-"), entry
        prev = entry.transaction
        if entry.operation:
            assert entry.created - used.get(entry.operation, -NEVER) >= window_ms, f"applied twice: {entry}"
            used[entry.operation] = entry.created
        if first == 1:
            if "was" in entry.detail:
                folds[entry.user] = folds.pop(str(entry.detail["was"]))
            folds[entry.user].add(entry)

    assert (last, state.meta["head"]) == (first + len(state.entries) - 1, prev)
    if first > 1:
        return  # only the store can add up what was trimmed
    assert set(folds) == set(state.accounts)
    for user, fold in folds.items():
        fold.check(state.accounts[user])
