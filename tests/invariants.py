"""An independent checker: proves the invariants of DESIGN section 6 from what is in Redis, without our programs.

Reads every key raw and by the formats that the heads of `lua/` describe. `check` raises AssertionError.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator
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
    "rates": "hash",
    "keys": "hash",
    "rules": "hash",
    "counters": "hash",
    "calendar": "hash",
}
_LEVELS = r"-|x|\d+!?(,\d+!?)*(,x)?"
_WAITS = r";\d{13}@([A-Za-z0-9_.-]+@)+"
_TOP_UP = r"~([ao]|w(?=.*,topup:[^,;]+)),\d+,\d+,(-|\d+),(day|week|month),[^,;~]+(,topup:[^,;]+)?"
_AT_END = r"(\d+\+\d+)?([@!][A-Za-z0-9_.-]+)?"
_ONLY = r"(=[A-Za-z0-9_.:@/*,-]+)?"
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
    only: str = ""
    text: str = ""

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
    seq: int = 0
    path: str = ""
    """Of a part: whose hold it is a part of."""
    parts: str = ""


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
    next_due: int = NEVER
    hold_count: int = 0
    grant_count: int = 0
    suspended: bool = False
    thresholds: str = "-"
    has_rules: bool = False
    restrictions: dict[str, tuple[str, int]] = field(default_factory=dict)
    """What is free of restricted grants, and their class, by what they are for."""
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
    rules: dict[str, str]
    counters: dict[str, str]


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
        _check_levels(state)
        _check_parts(state)


def _check_parts(state: State) -> None:
    """A hold and its parts name each other and end at once; each of these is of a level above the path."""
    holds = {hold_id: hold for a in state.accounts.values() for hold_id, hold in a.holds.items()}
    named = {
        f"{hold_id}~{number}": (hold.user, levels_of(hold.user)[int(number) - 1], hold.ends)
        for hold_id, hold in holds.items()
        for number in hold.parts.split(",")
        if number
    }
    assert named == {name: (h.path, h.user, h.ends) for name, h in holds.items() if "~" in name}
    assert all(hold.path in ("", hold.user) or "~" in hold_id for hold_id, hold in holds.items())


def _check_levels(state: State) -> None:
    """A level counts the holds below it that are younger than its first rule, and each budget uses no less than 0."""
    assert set(state.rules) == set(state.counters) == {a.user for a in state.accounts.values() if a.has_rules}
    assert int(state.meta.get("rules", "0")) == len(state.rules)
    for level, terms in state.rules.items():
        since, suspended, *rules = terms.split(" ")
        charged, reserved, holds, requests = map(int, state.counters[level].split(" ")[:4])
        every = [h for a in state.accounts.values() for h in a.holds.values()]
        counted = [h for h in every if level in levels_of(h.path or h.user) and h.seq > int(since) > 0]
        assert (reserved, holds) == (sum(h.amount for h in counted), sum(not h.path for h in counted)), (
            level,
            terms,
            state.counters[level],
        )
        assert suspended in ("-", "s", "p", "a", "sp", "sa", "pa", "spa"), level
        assert ("s" in suspended) == state.accounts[level].suspended, level
        assert bool(rules) == (since != "0") and min(charged, requests) >= 0, (level, terms)
        for budget in (rule.split(",") for rule in rules if rule.startswith("b,")):
            used = (charged if budget[6] == "c" else requests) - int(budget[11])
            assert used >= 0, (level, budget, charged)
            assert int(budget[12]) < int(budget[13]), (level, budget)


def levels_of(user: str) -> list[str]:
    """A path's levels: its first six segments."""
    parts = user.split("/")
    found = ["/".join(parts[: n + 1]) for n in range(len(parts))]
    return [level for level in found if level][:6]


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
    accounts = {user: account_of(user, text) for user, text in hash_at("accounts").items()}
    for name, text in hash_at("grants").items():
        user, grant_id = name.split(" ")
        assert grant_id not in accounts[user].grants, f"{name} is the front grant and in the hash"
        accounts[user].grants[grant_id] = _grant(grant_id, text)
    for hold_id, text in hash_at("holds").items():
        rest, _, path = text.partition(" $")[0].partition(" #")[0].partition(" ~")[0].partition(" ^")
        rest, _, parts = rest.partition(" &")
        user, amount, ends, created, *draws = rest.split(" ")
        pairs = [(draws[n], int(draws[n + 1])) for n in range(0, len(draws), 2)]
        seq = int(created.partition("@")[2] or 0)
        accounts[user].holds[hold_id] = Hold(user, int(amount), int(ends), pairs, seq, path, parts)
    recent = [name for bucket in ("recent:a", "recent:b") for name in hash_at(bucket)]
    outbox = client.xrange(f"{prefix}:outbox")
    entries = [entry for entry_id, members in outbox for entry in entries_of(entry_id.decode(), members)]
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
        hash_at("rules"),
        hash_at("counters"),
    )


def account_of(user: str, text: str) -> Account:
    """An account as its text has it, without the grants that are elsewhere."""
    *numbers, flags, front, debt, thresholds, figures = text.split(" ", 10)
    available, reserved, remaining, held, next_due, hold_count = map(int, numbers)
    *counters, terms = [*figures.split(" ", 6), ""][:7]
    granted, scheduled, expired, voided, overdraft_limit, grant_count = map(int, counters)
    restrictions = {}
    if terms.startswith("~"):
        listed, _, terms = terms[1:].partition(" ")
        for part in listed.split(";"):
            cls, free, only = part.split("=")
            restrictions[only] = (cls, int(free))
        assert len(restrictions) == listed.count(";") + 1, text
    spent = granted - expired - voided - reserved - available - sum(f for _, f in restrictions.values()) + int(debt)
    assert re.fullmatch(rf"({_LEVELS})({_TOP_UP})?({_WAITS})?", thresholds), text
    assert ("o" in flags) == bool(restrictions), text
    assert flags.strip("-sor") == "d" * (debt != "0") + "t" * (thresholds != "-"), text
    account = Account(user, available, reserved, int(debt), granted, scheduled, spent, expired, voided, overdraft_limit)
    account.suspended, account.thresholds = flags.startswith("s"), thresholds
    account.has_rules, account.restrictions = flags.endswith("r"), restrictions
    account.next_due, account.hold_count, account.grant_count = next_due or NEVER, hold_count, grant_count
    if front == "*":
        assert (remaining, held, terms) == (0, 0, ""), text
        return account
    amount, priority, effective, expires, *rest = terms.split(" ")
    told = [amount, remaining, held, priority, effective, int(expires) or NEVER, *rest[:2], "F", "-", *rest[2:]]
    account.front = account.grants[front] = _grant(front, " ".join(map(str, told)))
    return account


def _grant(grant_id: str, text: str) -> Grant:
    *numbers, cls, state, _, at_end, only = [*text.split(" "), "", ""][:13]
    values: list[Any] = [*map(int, numbers), at_end, only.removeprefix("=")]
    assert len(values) == 10 and re.fullmatch(_AT_END, at_end) and re.fullmatch(_ONLY, only), text
    grant = Grant(grant_id, cls, state, *values)
    grant.text = text
    return grant


def entries_of(entry_id: str, members: dict[bytes, bytes]) -> Iterator[Entry]:
    """The transactions of one entry of the outbox."""
    assert list(members) == [b"e"]
    head, *rows = members[b"e"].decode().split("\n")
    version, epoch, first, prev, partition, sender, batch, created = json.loads(head)
    assert version == 2 and epoch >= 1 and entry_id == f"{first + len(rows) - 1}-0" and rows, head
    for seq, row in enumerate(map(json.loads, rows), first):
        kind, user, amount, available, reserved, *rest = row
        if isinstance(rest[0], str):
            grant_id, remaining, held, *besides = rest
            debt, draws = 0, [(grant_id, 0 if kind == "release" else amount, remaining, held)]
        else:
            debt, draws, *besides = rest
        nothing: list[Any] = ["", {}, created]
        key, detail, time = besides + nothing[len(besides) :]
        transaction = f"{partition}-{seq}-{sender}-{batch}"
        told = [tuple(draw) for draw in draws]
        yield Entry(seq, prev, transaction, key, kind, user, amount, told, available, reserved, debt, time, detail)
        prev = transaction


def _check_account(a: Account) -> None:
    grants, holds = a.grants.values(), a.holds.values()
    numbers = [value for value in vars(a).values() if isinstance(value, int)]

    assert all(0 <= number <= AMOUNT_MAX for number in numbers if number != NEVER), a
    assert a.spent >= 0, a
    assert a.debt == 0 or a.available == 0, a
    assert a.available == sum(g.remaining for g in grants if g.cls in "FL"), a
    assert a.scheduled == sum(g.amount for g in grants if g.cls == "S"), a
    assert a.reserved == sum(h.amount for h in holds) == sum(g.reserved for g in grants), a
    assert (a.hold_count, a.grant_count) == (sum(not hold.path for hold in holds), len(grants)), a
    for hold_id, hold in a.holds.items():
        assert hold.amount == sum(part for _, part in hold.draws), hold_id
    for grant in grants:
        _check_grant(a, grant)
    by_only: dict[str, tuple[str, int]] = {}
    for g in (g for g in grants if g.cls.isdigit()):
        cls, free = by_only.get(g.only, (g.cls, 0))
        assert cls == g.cls and g.only, (a.user, g)
        by_only[g.only] = cls, free + g.remaining
    assert by_only == a.restrictions, a
    assert len({cls for cls, _ in by_only.values()}) == len(by_only), a
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
        fits = g.cls == "S" or g.cls.isdigit() if g.only else g.cls in "FLS"
        assert fits and g.state == "-" and g.remaining > 0, (a.user, g)
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
