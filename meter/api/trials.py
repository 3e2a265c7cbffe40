"""Calls that are only tried (`dry_run`): what they would be answered, and what they would come to.

The script decides as it would, on everything that is there now, and writes nothing (lua/apply.lua, "trial"). No key is
looked at or used up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from meter.amount import AmountScale
from meter.api.services import Services
from meter.engine import operations
from meter.engine.answers import NOTHING, OK, SUBJECT, Balances, Operation
from meter.engine.declarations import DECLARED
from meter.engine.operations import ADJUST, BALANCE, GRANT, GRANTS, VOID
from meter.http.rendered import Rendered

_BURNS = ("F", "L")
"""Classes of grants that anything can draw on (lua/state/grant.lua)."""
_WAITS = ("S", "X")
"""Those behind all that can be drawn on."""
_GRANTS_PER_CALL = 500
_Key = tuple[int, int, int, int, str]


@dataclass(frozen=True, slots=True)
class Lot:
    """A grant in burn order. Amounts are units."""

    grant_id: str
    key: _Key
    remaining: int


@dataclass(frozen=True, slots=True)
class Change:
    """What operations do to the grants of an account: what comes, which end, how much is taken, of one or in order."""

    comes: Sequence[Lot] = ()
    ends: frozenset[str] = frozenset()
    takes: int = 0
    of: str = ""


class Trials:
    """Tries operations on an account. Raises `Unavailable`."""

    def __init__(self, services: Services) -> None:
        self._engine, self._renderer, self._scale = services.engine, services.renderer, services.scale

    async def answer(self, user_id: str, one: Operation) -> Rendered:
        """What the operation would be answered, with its effect; a refusal as it would be."""
        name = one[0]
        before, line = await self._tried(user_id, [operations.balance(user_id), one])
        declared = DECLARED[name]
        fields = line.split(" ")
        if fields[1] != OK:
            return self._renderer.render(name, line)
        fields[declared.field("transaction_id")] = NOTHING  # there is none
        rendered = self._renderer.render(name, " ".join(fields))
        now, then = BALANCE.read(before).balances, declared.read(line).balances
        effect = await self.effect(user_id, now, then, [one])
        return rendered._replace(body=rendered.body[:-1] + b',"effect":' + effect + b"}")

    async def of_steps(self, user_id: str, many: Sequence[Operation]) -> bytes:
        """The effect of operations that meter itself would run, one after the other."""
        balance = operations.balance(user_id)
        before, *_, after = await self._tried(user_id, [balance, *many, balance])
        return await self.effect(user_id, BALANCE.read(before).balances, BALANCE.read(after).balances, many)

    async def effect(
        self, user_id: str, before: Balances | None, after: Balances | None, many: Sequence[Operation]
    ) -> bytes:
        """The member `effect` of an answer, as JSON."""
        lots = await self._burning(user_id) if any(one[0] != "refund" for one in many) else None
        now, then = before or Balances(0, 0, 0), after or Balances(0, 0, 0)
        place, following = (None, None) if lots is None else burning_after(lots, change_of(many, now, then))
        return (
            f'{{"available_before":{self._text(now.available)},"available_after":{self._text(then.available)},'
            f'"burns_at":{orjson.dumps(place).decode()},"next_grant_id":{orjson.dumps(following).decode()}}}'
        ).encode()

    def _text(self, units: int) -> str:
        return AmountScale.text(self._scale, units)

    async def _tried(self, user_id: str, many: Sequence[Operation]) -> Sequence[str]:
        return await self._engine.run_many(self._engine.partition_of(user_id), many, "trial")

    async def _burning(self, user_id: str) -> list[Lot]:
        """What can be drawn on now, in burn order."""
        lots: list[Lot] = []
        cursor = ""
        while True:
            line = await self._engine.run(user_id, operations.grants(user_id, "live", cursor, _GRANTS_PER_CALL))
            found = GRANTS.read(line)
            items = [dict(zip(GRANTS.items, item.split(" "), strict=False)) for item in found.items]
            lots += [_lot(item) for item in items if item["class"] in _BURNS]
            cursor = found["next_cursor"].replace("~", " ")
            if cursor == NOTHING or any(item["class"] in _WAITS for item in items):
                return lots


def _lot(item: dict[str, str]) -> Lot:
    priority, ends, begins, made = (
        int(item[name]) for name in ("priority", "expires_at_ms", "effective_at_ms", "created_at_ms")
    )
    return Lot(item["grant_id"], (priority, ends, begins, made, item["grant_id"]), int(item["remaining"]))


def change_of(many: Sequence[Operation], before: Balances, after: Balances) -> Change:
    """What operations would do to the grants. What goes into debt is there to be drawn on no more."""
    paid, comes, ends = before.debt - after.debt, list[Lot](), set[str]()
    takes, of = 0, ""
    for one in many:
        asked = dict(zip(DECLARED[one[0]].arguments, one[SUBJECT:], strict=False))
        if one[0] == VOID.name:
            ends.add(asked["grant_id"])
        elif one[0] == ADJUST.name:
            takes, of = int(asked["amount"]), asked["grant_id"]
        elif one[0] == GRANT.name and int(asked["effective_at_ms"]) == 0 and not asked["only"]:
            left = int(asked["amount"]) - paid
            key = (int(asked["priority"]), int(asked["expires_at_ms"]), _NOW, _NOW, asked["grant_id"])
            comes += [Lot(asked["grant_id"], key, left)] if left > 0 else []
            paid = max(0, -left)
    return Change(comes, frozenset(ends), takes, of)


_NOW = 2**53
"""Later than everything that is there."""


def burning_after(lots: Sequence[Lot], change: Change) -> tuple[int | None, str | None]:
    """At which place, from 1, what comes would burn, None where nothing comes; and which grant would burn next."""
    left = sorted([*(lot for lot in lots if lot.grant_id not in change.ends), *change.comes], key=lambda lot: lot.key)
    takes, burning = change.takes, list[Lot]()
    for lot in left:
        part = min(takes, lot.remaining) if change.of in ("", lot.grant_id) else 0
        takes -= part
        burning += [lot] if lot.remaining > part else []
    names = [lot.grant_id for lot in burning]
    place = names.index(change.comes[0].grant_id) + 1 if change.comes else None
    return place, names[0] if names else None
