"""A ledger in plain Python, written from DESIGN sections 3 to 6 and not from the Lua: what an operation should answer.

It knows no Redis, no packing and no laziness: an account is a list of grants and holds, looked through in full.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

NEVER = 9_999_999_999_999
NEW_GRANT = "new"
"""What ids of grants made by a refund begin with, until `rename` tells those that they really got."""

Draws = list[tuple[str, int]]
Due = list[tuple[int, int, str]]
"""(time, what comes first at one time, id)"""


@dataclass
class Grant:
    """A lot of credits. `over` is "", "e" (expired) or "v" (voided)."""

    id: str
    amount: int
    priority: int
    effective: int
    expires: int
    created: int
    rollover: tuple[int, int] | None = None
    only: str = ""
    begun: bool = False
    remaining: int = 0
    reserved: int = 0
    over: str = ""
    idle_since: int | None = None

    @property
    def burns(self) -> bool:
        return self.begun and self.remaining > 0

    @property
    def order(self) -> tuple[int, int, bool, int, int, str]:
        return self.priority, self.expires, not self.only, self.effective, self.created, self.id

    def serves(self, tags: str) -> bool:
        """Whether it may be spent on what has these tags."""
        return not self.only or any(map(_matches, self.only.split(","), [tags] * 8))


def _matches(wanted: str, tags: str) -> bool:
    return any(tag == wanted or (wanted[-1] == "*" and tag.startswith(wanted[:-1])) for tag in tags.split(","))


@dataclass
class Hold:
    """An open reservation, or one that ended: `state` is open, committed, released or expired."""

    id: str
    user: str
    amount: int
    ends: int
    draws: Draws
    at_end: str
    tags: str = ""
    state: str = "open"
    charged: int = 0
    requested: int = -1
    answer: Outcome | None = None


@dataclass
class Account:
    """One user."""

    grants: dict[str, Grant] = field(default_factory=dict)
    holds: dict[str, Hold] = field(default_factory=dict)
    debt: int = 0
    spent: int = 0
    limit: int = 0
    suspended: bool = False

    @property
    def available(self) -> int:
        return sum(g.remaining for g in self.grants.values() if g.begun and not g.only)

    @property
    def restricted(self) -> int:
        return sum(g.remaining for g in self.grants.values() if g.begun and g.only)

    def usable(self, tags: str) -> int:
        return sum(g.remaining for g in self.grants.values() if g.begun and g.serves(tags))

    @property
    def balances(self) -> tuple[int, int, int]:
        return self.available, sum(hold.amount for hold in self.holds.values()), self.debt


@dataclass(frozen=True)
class Outcome:
    """What an answer should say."""

    status: str
    fields: dict[str, Any]
    balances: tuple[int, int, int] | None
    replayed: bool = False
    draws: tuple[tuple[str, int], ...] = ()
    restricted: int = 0
    usable: int | None = None


@dataclass
class Reference:
    """The whole ledger. Each operation settles what is due for its user first."""

    now: int
    window_ms: int
    grace_ms: int
    reservations_max: int
    grants_max: int
    accounts: dict[str, Account] = field(default_factory=dict)
    recent: dict[str, Any] = field(default_factory=dict)
    older: dict[str, Any] = field(default_factory=dict)
    recent_since: int = 0

    def keyed(self, key: str, body: object, run: Callable[[], Outcome]) -> Outcome:
        """An operation under an idempotency key, or (key "") without one."""
        if not key:
            return run()
        first = self._remembered(f"k {key}")
        if first:
            return replace(first[1], replayed=True) if first[0] == body else Outcome("key_reused", {}, None)
        outcome = run()
        if outcome.status == "ok" and not outcome.replayed:
            self.recent[f"k {key}"] = (body, outcome)
        return outcome

    def grant(
        self,
        user: str,
        grant_id: str,
        amount: int,
        priority: int,
        start: int,
        end: int,
        rollover: tuple[int, int] | None = None,
        only: str = "",
    ) -> Outcome:
        a, start = self._account(user), start or self.now
        if grant_id in a.grants:
            return self._refused("exists", a)
        if end <= self.now or end <= start:
            return self._refused("ended", a)
        if len(a.grants) >= self.grants_max:
            return self._refused("too_many", a)
        g = a.grants[grant_id] = Grant(grant_id, amount, priority, start, end, self.now, rollover, only)
        if start <= self.now:
            g.begun = True
            self._arrive(a, g, amount)
        return self._done(a, user_id=user, grant_id=grant_id, amount=amount)

    def _suspended(self, user: str) -> bool:
        """Whether it is, or a level above it."""
        parts = user.split("/")
        levels = [self.accounts.get("/".join(parts[: n + 1])) for n in range(len(parts))]
        return any(level is not None and level.suspended for level in levels)

    def deduct(self, user: str, amount: int, shortfall: str, tags: str = "") -> Outcome:
        a = self._account(user)
        usable = a.usable(tags)
        short = max(0, amount - usable)
        on_debt = short if shortfall == "overdraft" else 0
        if self._suspended(user):
            return self._refused("suspended", a)
        enough = {"reject": not short, "partial": not short or usable > 0}.get(
            shortfall, not short or a.debt + on_debt <= a.limit
        )
        if not enough:
            return self._refused("insufficient", a, tags, user_id=user, required=amount)
        draws = self._draw(a, amount - short, tags)
        a.debt += on_debt
        taken = amount - short + on_debt
        a.spent += taken
        done = self._done(a, draws, user_id=user, amount=amount, taken=taken, uncovered=amount - taken)
        return replace(done, usable=a.usable(tags))

    def reserve(
        self,
        user: str,
        hold_id: str,
        amount: int,
        ttl_ms: int,
        at_end: str,
        tags: str = "",
        *,
        body: object,
        chosen: bool,
    ) -> Outcome:
        if chosen:
            first = self._remembered(f"c {hold_id}")
            if first:
                return replace(first[1], replayed=True) if first[0] == body else Outcome("key_reused", {}, None)
            if self._hold(hold_id):
                return Outcome("key_reused", {}, None)
        a = self._account(user)
        if self._suspended(user):
            return self._refused("suspended", a)
        if amount > a.usable(tags):
            return self._refused("insufficient", a, tags, user_id=user, required=amount)
        if len(a.holds) >= self.reservations_max:
            return self._refused("too_many", a)
        draws = self._draw(a, amount, tags, held=True)
        a.holds[hold_id] = Hold(hold_id, user, amount, self.now + ttl_ms, draws, at_end, tags)
        outcome = self._done(
            a,
            draws,
            user_id=user,
            reservation_id=hold_id,
            amount=amount,
            expires_at_ms=self.now + ttl_ms,
            expires_in_ms=ttl_ms,
        )
        if chosen:
            self.recent[f"c {hold_id}"] = (body, outcome)
        return replace(outcome, usable=a.usable(tags))

    def commit(self, hold_id: str, amount: int | None, over: str, shortfall: str = "partial") -> Outcome:
        hold = self._settled_hold(hold_id)
        if hold is None:
            return Outcome("not_found", {}, None)
        requested = hold.amount if amount is None else amount
        late = hold.state == "expired" and self.now - hold.ends <= self.grace_ms
        if hold.state == "committed" and hold.requested == requested and hold.answer:
            return replace(hold.answer, replayed=True)
        if hold.state != "open" and not late:
            return self._finished(hold)
        a = self._account(hold.user)
        held = 0 if late else hold.amount
        beyond = max(0, requested - held)
        on_credit = max(0, a.limit - a.debt) if over == "overdraft" else 0
        must_be_covered = over == "reject" or shortfall == "reject"
        if (over == "hold_only" and requested > hold.amount) or (
            must_be_covered and beyond > a.usable(hold.tags) + on_credit
        ):
            return self._refused("insufficient", a, hold.tags, user_id=hold.user, required=requested)
        draws, forfeited = ([], 0) if late else self._end(a, hold, min(requested, held))
        free = min(beyond, a.usable(hold.tags))
        draws = draws + self._draw(a, free, hold.tags)
        on_debt = max(0, min(beyond - free, a.limit - a.debt)) if over == "overdraft" else 0
        a.debt += on_debt
        charged = min(requested, held) + free + on_debt
        a.spent += charged
        outcome = self._done(
            a,
            draws,
            user_id=hold.user,
            reservation_id=hold_id,
            charged=charged,
            released=max(0, held - requested),
            forfeited=forfeited,
            uncovered=requested - charged,
            late=int(late),
        )
        outcome = replace(outcome, usable=a.usable(hold.tags))
        self._finish(hold, "committed", self.now, charged, requested, outcome)
        return outcome

    def release(self, hold_id: str) -> Outcome:
        hold = self._settled_hold(hold_id)
        if hold is None:
            return Outcome("not_found", {}, None)
        if hold.state == "released" and hold.answer:
            return replace(hold.answer, replayed=True)
        if hold.state != "open":
            return self._finished(hold)
        a = self._account(hold.user)
        _, forfeited = self._end(a, hold, 0)
        outcome = self._done(a, user_id=hold.user, reservation_id=hold_id, released=hold.amount, forfeited=forfeited)
        self._finish(hold, "released", self.now, 0, -1, outcome)
        return outcome

    def extend(self, hold_id: str, ttl_ms: int | None, add: int) -> Outcome:
        hold = self._settled_hold(hold_id)
        if hold is None:
            return Outcome("not_found", {}, None)
        if hold.state != "open":
            return self._finished(hold)
        a = self._account(hold.user)
        if add and self._suspended(hold.user):
            return self._refused("suspended", a)
        if add > a.usable(hold.tags):
            return self._refused("insufficient", a, hold.tags, user_id=hold.user, required=add)
        hold.draws += self._draw(a, add, hold.tags, held=True)
        hold.amount += add
        hold.ends = hold.ends if ttl_ms is None else self.now + ttl_ms
        return self._done(
            a,
            user_id=hold.user,
            reservation_id=hold_id,
            amount=hold.amount,
            expires_at_ms=hold.ends,
            expires_in_ms=hold.ends - self.now,
        )

    def refund(
        self,
        user: str,
        charge: str,
        amount: int | None,
        charged: int,
        before: int,
        draws: Draws,
        only: Mapping[str, str],
    ) -> Outcome:
        """`charge`: one of `charged` from `draws`; `before` and `only` are what the ledger knows of it."""
        a = self._account(user)
        before = max(before, self._remembered(f"f {charge}") or 0)
        left = charged - before
        amount = left if amount is None else amount
        if amount > left or left == 0:
            return self._refused("exceeds", a, user_id=user, left=left)
        units = [n for n, (_, part) in enumerate(draws) for _ in range(part)]
        units += [-1] * (charged - len(units))  # what was debt was drawn last
        back = units[::-1][before : before + amount]
        a.spent -= amount
        on_debt = min(a.debt, back.count(-1))
        a.debt -= on_debt
        homeless, forfeited = {"": back.count(-1) - on_debt}, 0
        for n, run in groupby(n for n in back if n >= 0):
            g, part, tags = a.grants.get(draws[n][0]), len(list(run)), only.get(draws[n][0], "")
            if (
                g is None
                or (tags and g.only != tags)
                or not (g.over or (g.begun and g.remaining + g.reserved + part <= g.amount))
            ):
                homeless[tags] = homeless.get(tags, 0) + part
            elif g.over:
                forfeited += part
            else:
                self._arrive(a, g, part)
        for number, (tags, part) in enumerate((tags, part) for tags, part in homeless.items() if part):
            name = f"{NEW_GRANT}{number}"
            g = a.grants[name] = Grant(name, part, 10, self.now, NEVER, self.now, only=tags, begun=True)
            self._arrive(a, g, part)
        self.recent[f"f {charge}"] = before + amount
        return self._done(a, user_id=user, amount=amount, forfeited=forfeited, left=left - amount)

    def rename(self, user: str, made: str, grant_id: str) -> None:
        g = self.accounts[user].grants.pop(made)
        g.id = grant_id
        self.accounts[user].grants[grant_id] = g

    def void(self, user: str, grant_id: str) -> Outcome:
        a = self._account(user)
        g = a.grants.get(grant_id)
        if g is None:
            return Outcome("not_found", {}, None)
        if g.over:
            return self._refused("over", a, user_id=user, state={"e": "expired", "v": "voided"}[g.over])
        voided = g.remaining if g.begun else g.amount
        g.over, g.remaining = "v", 0
        return self._done(a, user_id=user, grant_id=grant_id, voided=voided)

    def configure(self, user: str, limit: int | None, suspended: bool | None) -> Outcome:
        a = self._account(user)
        a.limit = a.limit if limit is None else limit
        a.suspended = a.suspended if suspended is None else suspended
        return self._done(a, user_id=user, overdraft_limit=a.limit, suspended="s" if a.suspended else "-")

    def balance(self, user: str) -> Outcome:
        a = self._account(user)
        return self._done(a, user_id=user, overdraft_limit=a.limit, spent=a.spent, reservations=len(a.holds))

    def listed(self, user: str) -> list[tuple[str, int, int]]:
        """(grant_id, remaining, reserved) of each known grant that burns, in burn order."""
        grants = sorted(self._account(user).grants.values(), key=lambda g: g.order)
        return [(g.id, g.remaining, g.reserved) for g in grants if g.burns]

    def rotate(self) -> Outcome:
        rotated = self.now - self.recent_since >= self.window_ms
        if rotated:
            self.recent, self.older, self.recent_since = {}, self.recent, self.now
        return Outcome("ok", {"rotated": int(rotated)}, None)

    def _account(self, user: str) -> Account:
        """The account with everything due done, in the order in which it fell due."""
        a = self.accounts.setdefault(user, Account())
        while (first := min(self._due(a), default=None)) and first[0] <= self.now:
            time, kind, name = first
            if kind == 0 and a.holds[name].at_end == "charge":
                self._charge_at_end(a, a.holds[name], time)
            elif kind == 0:
                hold = a.holds[name]
                self._end(a, hold, 0)
                self._finish(hold, "expired", time, 0, -1, None)
            elif kind == 1:
                a.grants[name].begun = True
                self._arrive(a, a.grants[name], a.grants[name].amount)
            else:
                self._end_grant(a, a.grants[name], time)
        for g in list(a.grants.values()):
            if g.idle_since is not None and g.idle_since + self.window_ms <= self.now:
                del a.grants[g.id]
        self._mark_idle(a)
        return a

    def _due(self, a: Account) -> Due:
        due: Due = []
        due += [(hold.ends, 0, hold.id) for hold in a.holds.values()]
        due += [(g.effective, 1, g.id) for g in a.grants.values() if not g.begun and not g.over]
        return due + [(g.expires, 2, g.id) for g in a.grants.values() if not g.over]

    def _end_grant(self, a: Account, g: Grant, time: int) -> None:
        """What is free of it expires, but for what rolls over into a grant of its own."""
        most, span = g.rollover or (0, 0)
        rest, g.over, g.remaining = min(g.remaining, most), "e", 0
        if rest:
            name = g.id + ".rollover"
            while name in a.grants:
                name += ".rollover"
            rolled = Grant(name, rest, g.priority, time, time + span, time, only=g.only, begun=True, remaining=rest)
            a.grants[name] = rolled

    def _mark_idle(self, a: Account) -> None:
        for g in a.grants.values():
            idle = (bool(g.over) or (g.begun and g.remaining == 0)) and g.reserved == 0
            g.idle_since = (self.now if g.idle_since is None else g.idle_since) if idle else None

    def _draw(self, a: Account, amount: int, tags: str, *, held: bool = False) -> Draws:
        draws = []
        for g in sorted((g for g in a.grants.values() if g.burns and g.serves(tags)), key=lambda g: g.order):
            part = min(amount, g.remaining)
            if part:
                g.remaining -= part
                g.reserved += part if held else 0
                draws.append((g.id, part))
                amount -= part
        assert amount == 0
        return draws

    def _arrive(self, a: Account, g: Grant, amount: int) -> None:
        paid = 0 if g.only else min(a.debt, amount)
        a.debt -= paid
        g.remaining += amount - paid

    def _end(self, a: Account, hold: Hold, keep: int) -> tuple[Draws, int]:
        """Ends a hold: the first draws are kept, the rest returns; answers what was kept, and what was forfeited."""
        kept, forfeited = [], 0
        del a.holds[hold.id]
        for grant_id, part in hold.draws:
            g, stays = a.grants[grant_id], min(part, keep)
            keep -= stays
            g.reserved -= part
            kept += [(grant_id, stays)] if stays else []
            if g.over:
                forfeited += part - stays
            else:
                self._arrive(a, g, part - stays)
        return kept, forfeited

    def _charge_at_end(self, a: Account, hold: Hold, time: int) -> None:
        self._end(a, hold, hold.amount)
        a.spent += hold.amount
        fields = {"user_id": hold.user, "reservation_id": hold.id, "charged": hold.amount}
        fields |= {"released": 0, "forfeited": 0, "uncovered": 0, "late": 0}
        answer = Outcome("ok", fields, a.balances, restricted=a.restricted)
        self._finish(hold, "committed", time, hold.amount, hold.amount, answer)

    def _finish(self, hold: Hold, state: str, ended: int, charged: int, requested: int, answer: Outcome | None) -> None:
        done = replace(hold, state=state, ends=ended, charged=charged, requested=requested, answer=answer)
        self.recent[f"r {hold.id}"] = done

    def _hold(self, hold_id: str) -> Hold | None:
        for a in self.accounts.values():
            if hold_id in a.holds:
                return a.holds[hold_id]
        found: Hold | None = self._remembered(f"r {hold_id}")
        return found

    def _settled_hold(self, hold_id: str) -> Hold | None:
        hold = self._hold(hold_id)
        if hold is not None and hold.state == "open":
            self._account(hold.user)
        return self._hold(hold_id)

    def _remembered(self, name: str) -> Any:
        return self.recent.get(name, self.older.get(name))

    def _finished(self, hold: Hold) -> Outcome:
        return Outcome("finished", {"state": hold.state, "user_id": hold.user, "charged": hold.charged}, None)

    def _refused(self, status: str, a: Account, tags: str | None = None, **fields: Any) -> Outcome:
        usable = None if tags is None else a.usable(tags)
        return Outcome(status, fields, a.balances, restricted=a.restricted, usable=usable)

    def _done(self, a: Account, draws: Draws | None = None, **fields: Any) -> Outcome:
        self._mark_idle(a)
        return Outcome("ok", fields, a.balances, draws=tuple(draws or ()), restricted=a.restricted)
