"""What Redis has, read raw: no more of the texts than balances, what is left, what is held and the chain."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from tests.faults.checker.evidence import Balance, Entry, Side

PREFIX = "meter:{p0}:"
_OURS = re.compile(
    r"meter:(\{p0\}:(meta|accounts|grants|order|holds|agenda|due|recent:[ab]|outbox|profiles|rates|keys"
    r"|rules|counters|calendar|offers)|arq:.+|workers)"
)
_PAGE = 5_000


def read_redis(client: Any) -> tuple[Side, list[Entry]]:
    """The side of Redis, and the outbox. The client answers bytes."""
    side = Side(place=place_of(client))
    for user, text in _hash(client, "accounts").items():
        balance, front = _account(text)
        side.accounts[user] = balance
        if front is not None:
            side.grants[user, front[0]] = front[1:]
    for name, text in _hash(client, "grants").items():
        user, grant = name.split(" ")
        left, held = map(int, text.split(" ")[1:3])
        side.grants[user, grant] = (left, held)
    side.grants = {name: found for name, found in side.grants.items() if any(found)}
    for hold, text in _hash(client, "holds").items():
        user, amount = text.split(" ")[:2]
        side.holds[hold] = (user, int(amount))
    return side, [entry for one in _outbox(client) for entry in one]


def place_of(client: Any) -> tuple[int, int, str]:
    """Epoch, seq and head; zeros where there is no partition."""
    epoch, seq, head = client.hmget(f"{PREFIX}meta", "epoch", "seq", "head")
    return int(epoch or 0), int(seq or 0), (head or b"-").decode()


def first_seq(client: Any) -> int:
    """The first seq that the outbox still has; the next one where it has none. Both are asked for at one moment."""
    pipeline = client.pipeline(transaction=True)
    seq, found = pipeline.hget(f"{PREFIX}meta", "seq").xrange(f"{PREFIX}outbox", count=1).execute()
    entries = [entry for _, members in found for entry in _entries(members)]
    return entries[0].seq if entries else int(seq or 0) + 1


def grant_names(client: Any) -> set[tuple[str, str]]:
    """Every grant in Redis that came in from outside: not what rolled over or was given back."""
    return {name for name in read_redis(client)[0].grants if not re.search(r"\.rollover$|^refund-", name[1])}


def strangers(client: Any, *others: str) -> list[str]:
    """Keys that are neither ours nor begin like one of the others."""
    return sorted(
        name
        for name in (key.decode() for key in client.keys("*"))
        if not _OURS.fullmatch(name) and not name.startswith(others or ("\0",))
    )


def _hash(client: Any, name: str) -> dict[str, str]:
    found = {field.decode(): text.decode() for field, text in client.hgetall(PREFIX + name).items()}
    found.pop("", None)
    return found


def _account(text: str) -> tuple[Balance, tuple[str, int, int] | None]:
    available, reserved, left, held, _, _, _, front, debt, _, granted, _, expired, voided, limit, _, *_ = text.split(
        " "
    )
    numbers = available, reserved, debt, granted, expired, voided, limit
    a, r, d, g, e, v, most = map(int, numbers)
    return Balance(a, r, d, g, e, v, most, g - e - v - r - a + d), None if front == "*" else (
        front,
        int(left),
        int(held),
    )


def _outbox(client: Any) -> Iterator[Iterator[Entry]]:
    after = "-"
    while page := client.xrange(f"{PREFIX}outbox", min=after, count=_PAGE):
        yield from (_entries(members) for _, members in page)
        after = f"({page[-1][0].decode()}"


def _entries(members: Mapping[bytes, bytes]) -> Iterator[Entry]:
    head, *rows = members[b"e"].split(b"\n")
    if not head:
        return
    _, epoch, first, prev, partition, sender, batch, _ = json.loads(head)
    for seq, text in enumerate(rows, first):
        kind, user, amount, *_ = json.loads(text)
        name = f"{partition}-{seq}-{sender}-{batch}"
        yield Entry(seq, epoch, name, prev, user, kind, amount)
        prev = name
