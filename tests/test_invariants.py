"""The Lua program against the reference ledger, operation by operation, over random histories; on both servers.

METER_TEST_EXAMPLES, METER_TEST_STEPS and METER_TEST_HISTORIES make it a hunt; without them the same histories run
each time.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, TypeVar, cast

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from meter.engine import operations, upkeep
from meter.engine.at_end import NOTHING_AT_END, AtEnd
from meter.engine.behind import read_behind
from meter.engine.operations import Asked, Operation
from meter.engine.outbox import KINDS
from meter.engine.refunds import Charged
from meter.engine.restrictions import read_restrictions, restricted_in
from tests import invariants
from tests.partition import SECOND, T0, Answer, Partition
from tests.reference import NEVER, NEW_GRANT, Draws, Outcome, Reference
from tests.servers import Server, fake_server

WINDOW, GRACE = 60 * SECOND, 20 * SECOND
HOLDS_MAX, GRANTS_MAX = 3, 5

EXAMPLES = int(os.environ.get("METER_TEST_EXAMPLES", "25"))
LONG_STEPS = 150
STEPS = int(os.environ.get("METER_TEST_STEPS", "30"))
HISTORIES = int(os.environ.get("METER_TEST_HISTORIES", "10"))
FIRST_SEED = int(os.environ.get("METER_TEST_SEED", "1"))

USERS = ("u", "u/1")
GRANT_IDS = ("g1", "g2", "g3", "g4", "g5", "g6", "g7")

ONLY = ("", "", "", "feature:a", "feature:*", "feature:a,model:m*")
TAGS = ("", "", "feature:a", "feature:b", "other,model:m1")
AMOUNTS = (0, 1, 2, 3, 5, 8, 13, 25, 40)
SPANS = (2 * SECOND, 10 * SECOND, 40 * SECOND, 100 * SECOND)
KEYS = ("", "", "", "", "new", "new", "new", "used")
LATER = (False, False, True)
WHICH = tuple(range(24))

Model = Callable[[], Outcome]
_T = TypeVar("_T")
_M = TypeVar("_M", bound=Callable[..., None])


STEP_CHOICES: dict[str, tuple[int, dict[str, Sequence[Any]]]] = {}


def step(weight: int, **choices: Sequence[Any]) -> Callable[[_M], _M]:
    """A rule whose arguments come from these choices; `weight` is how often a long history takes it."""

    make_rule: Any = rule
    strategies = {name: st.sampled_from(values) for name, values in choices.items()}

    def decorate(method: _M) -> _M:
        STEP_CHOICES[method.__name__] = (weight, choices)
        return cast("_M", make_rule(**strategies)(method))

    return decorate


@dataclass
class Charge:
    """A charge that can be refunded."""

    user: str
    transaction: str
    amount: int
    draws: Draws
    only: dict[str, str]
    refunded: int = 0


class LedgerMachine(RuleBasedStateMachine):
    """Runs each operation on both; operations with `later` travel in one batch with the next ones."""

    server: Server

    @initialize(limit=st.sampled_from([0, 15]))
    def begin(self, limit: int) -> None:
        if self.server.url is None:
            self.server = fake_server()
        self.server.client.flushall()
        limits: dict[str, Any] = {
            "grace_ms": GRACE,
            "window_ms": WINDOW,
            "reservations_max": HOLDS_MAX,
            "grants_max": GRANTS_MAX,
        }
        self.lua = Partition(self.server.client, **limits)
        assert self.lua.open() == "opened"
        self.server.client.hset(self.lua.keys.meta, mapping={"clock_ms": T0, "recent_since": T0})
        self.model = Reference(T0, recent_since=T0, **limits)
        self.pending: list[tuple[Operation, Outcome]] = []
        self.keyed: list[tuple[Operation, Model]] = []
        self.charges: list[Charge] = []
        self.made = 0
        for user in USERS:
            self.configure(user, limit, None, True)
            self.grant(user, 0, 50, 1, None, None, None, "", "", False)

    @step(
        8,
        user=USERS,
        which=WHICH,
        amount=(6, 9, 20, 50),
        priority=(0, 1, 2),
        start=(None, None, -SECOND, 3 * SECOND, 30 * SECOND),
        life=(None, *SPANS),
        rollover=(None, None, (4, SECOND), (20, 30 * SECOND), (99, 2 * SECOND)),
        only=ONLY,
        key=KEYS,
        later=LATER,
    )
    def grant(
        self,
        user: str,
        which: int,
        amount: int,
        priority: int,
        start: int | None,
        life: int | None,
        rollover: tuple[int, int] | None,
        only: str,
        key: str,
        later: bool,
    ) -> None:
        known = self._grants(user)
        grant_id = _one_of([*[name for name in GRANT_IDS if name not in known] * 3, *known[:2]], which)
        begin = 0 if start is None else self.model.now + start
        end = NEVER if life is None else (begin or self.model.now) + life - (which % 7 == 0) * SECOND
        one = operations.grant(
            user,
            grant_id,
            amount,
            priority=priority,
            effective_at_ms=begin,
            expires_at_ms=end,
            at_end=NOTHING_AT_END if rollover is None else AtEnd(*rollover, "g", renews=which % 2 == 0),
            only=only,
            asked=self._asked(key),
        )
        self._do(one, lambda: self.model.grant(user, grant_id, amount, priority, begin, end, rollover, only), later)

    @step(
        10,
        user=USERS,
        amount=AMOUNTS,
        shortfall=("reject", "partial", "overdraft", "overdraft"),
        tags=TAGS,
        key=KEYS,
        later=LATER,
    )
    def deduct(self, user: str, amount: int, shortfall: str, tags: str, key: str, later: bool) -> None:
        one = operations.deduct(user, amount, shortfall, self._asked(key, tags))
        self._do(one, lambda: self.model.deduct(user, amount, shortfall, tags), later)

    @step(
        12,
        user=USERS,
        which=WHICH,
        amount=AMOUNTS,
        ttl=SPANS,
        chosen=(False, True),
        at_end=("release", "release", "charge"),
        tags=TAGS,
        key=KEYS,
        later=LATER,
    )
    def reserve(
        self,
        user: str,
        which: int,
        amount: int,
        ttl: int,
        chosen: bool,
        at_end: str,
        tags: str,
        key: str,
        later: bool,
    ) -> None:
        self.made += 1
        hold_id = f"r{which}" if chosen else f"m{self.made}"
        one = operations.reserve(user, hold_id, amount, ttl, chosen=chosen, at_end=at_end, asked=self._asked(key, tags))
        body = (user, hold_id, amount, ttl, at_end, tags)
        self._do(
            one, lambda: self.model.reserve(user, hold_id, amount, ttl, at_end, tags, body=body, chosen=chosen), later
        )

    @step(
        10,
        which=WHICH,
        amount=(None, *AMOUNTS),
        over=("cap", "reject", "overdraft", "overdraft", "hold_only"),
        shortfall=("partial", "partial", "reject"),
        key=KEYS,
        later=LATER,
    )
    def commit(self, which: int, amount: int | None, over: str, shortfall: str, key: str, later: bool) -> None:
        hold_id = self._any_hold(which)
        one = operations.commit(hold_id, amount, over, self._asked(key), shortfall=shortfall)
        self._do(one, lambda: self.model.commit(hold_id, amount, over, shortfall), later)

    @step(4, which=WHICH, key=KEYS, later=LATER)
    def release(self, which: int, key: str, later: bool) -> None:
        hold_id = self._any_hold(which)
        self._do(operations.release(hold_id, self._asked(key)), lambda: self.model.release(hold_id), later)

    @step(5, which=WHICH, ttl=(None, *SPANS), add=(0, 1, 7), key=KEYS, later=LATER)
    def extend(self, which: int, ttl: int | None, add: int, key: str, later: bool) -> None:
        hold_id = self._any_hold(which)
        one = operations.extend(hold_id, ttl, add, self._asked(key))
        self._do(one, lambda: self.model.extend(hold_id, ttl, add), later)

    @step(8, which=WHICH, amount=(None, 1, 2, 4), lagging=(False, True), key=KEYS)
    def refund(self, which: int, amount: int | None, lagging: bool, key: str) -> None:
        """`lagging`: the ledger does not know of earlier refunds yet; only Redis does, within its window."""
        self._flush()
        if not self.charges:
            return
        charge = _one_of(self.charges, which)
        in_redis = self.model.recent.get(f"f {charge.transaction}", self.model.older.get(f"f {charge.transaction}", 0))
        before = 0 if lagging and charge.refunded == in_redis else charge.refunded
        only = charge.only
        row = Charged(charge.user, charge.transaction, charge.amount, tuple(charge.draws), before, only=only)
        one = operations.refund_rows(
            charge.user, charge.transaction, amount, charges=[row], path=charge.user, asked=self._asked(key)
        )

        def expected() -> Outcome:
            return self.model.refund(charge.user, charge.transaction, amount, charge.amount, before, charge.draws, only)

        answer = self._do(one, expected, later=False)
        if answer.status == "ok" and not answer.replayed:
            charge.refunded += answer["amount"]
            made = sorted(name for name in self.model.accounts[charge.user].grants if name.startswith(NEW_GRANT))
            names = [name for name, _ in self._draws(answer["transaction_id"])]
            for name, real in zip(made, names[len(names) - len(made) :], strict=True):
                self.model.rename(charge.user, name, real)

    @step(3, user=USERS, which=WHICH, key=KEYS, later=LATER)
    def void(self, user: str, which: int, key: str, later: bool) -> None:
        grant_id = _one_of([*self._grants(user), "nothing"], which)
        self._do(operations.void(user, grant_id, self._asked(key)), lambda: self.model.void(user, grant_id), later)

    @step(3, user=USERS, limit=(None, 9, 9, 25, 0), suspended=(False, False, False, True), later=LATER)
    def configure(self, user: str, limit: int | None, suspended: bool | None, later: bool) -> None:
        one = operations.configure(user, overdraft_limit=limit, suspended=suspended)
        self._do(one, lambda: self.model.configure(user, limit, suspended), later)

    @step(4, which=WHICH, later=LATER)
    def again(self, which: int, later: bool) -> None:
        """A retry: the same key and body."""
        if self.keyed:
            one, model = _one_of(self.keyed, which)
            self._do(one, model, later)

    @step(10, span=(0, 1, SECOND, 4 * SECOND, 11 * SECOND, 25 * SECOND), later=LATER)
    def time_passes(self, span: int, later: bool) -> None:
        self.model.now += span
        now = self.model.now
        self._do(upkeep.clock("advance", span), lambda: Outcome("ok", {"now_ms": now}, None), later)

    @step(2)
    def rotate(self) -> None:
        self._do(upkeep.rotate(), self.model.rotate, later=False)

    @step(3, user=USERS, later=LATER)
    def look(self, user: str, later: bool) -> None:
        self._do(operations.balance(user), lambda: self.model.balance(user), later=True)
        self._do(operations.explain(user, 1), lambda: self._peek(user), later)

    @step(3, user=USERS, amount=AMOUNTS, tags=TAGS)
    def explain(self, user: str, amount: int, tags: str) -> None:
        """What would burn is what a deduct then draws on."""
        self._flush()
        told = self.lua.run(operations.explain(user, amount, tags))
        self.model.balance(user)
        usable = self.model.accounts[user].usable(tags)
        burns = [(name, int(part)) for name, part in told.items]
        assert sum(part for _, part in burns) == min(amount, usable)
        self.deduct(user, min(amount, usable), "reject", tags, "", False)
        if self.last.status == "ok" and min(amount, usable):
            assert self._draws(self.last["transaction_id"]) == burns

    @step(3, user=USERS)
    def list_grants(self, user: str) -> None:
        self._flush()
        items = self.lua.run(operations.grants(user, "live", "", 100)).items
        listed = [(i[0], int(i[2]), int(i[3])) for i in items if i[9] in "FL"]
        assert listed == [one for one in self.model.listed(user) if not self.model.accounts[user].grants[one[0]].only]
        restricted = [(i[0], int(i[2]), int(i[3])) for i in items if i[9].isdigit()]
        assert sorted([*listed, *restricted]) == sorted(self.model.listed(user))

    @step(1)
    def check_everything(self) -> None:
        self._flush()
        invariants.check(self.server.client, window_ms=WINDOW)

    def teardown(self) -> None:
        if hasattr(self, "lua"):
            self._flush()
            invariants.check(self.server.client, window_ms=WINDOW)

    def _peek(self, user: str) -> Outcome:
        told = self.model.balance(user)
        return Outcome("ok", {"user_id": user}, told.balances, restricted=told.restricted)

    def _asked(self, key: str, tags: str = "") -> Asked:
        """A key of its own, the last one used, or none."""
        self.made += 1
        used = self.keyed[-1][0][1] if self.keyed else ""
        return Asked({"": "", "new": f"k{self.made}", "used": used}[key], tags=tags)

    def _grants(self, user: str) -> list[str]:
        account = self.model.accounts.get(user)
        return sorted(account.grants) if account else []

    def _holds(self) -> list[str]:
        return [name for account in self.model.accounts.values() for name in account.holds]

    def _any_hold(self, which: int) -> str:
        """An open reservation more often than a finished or an unknown one."""
        finished = [name[2:] for name in self.model.recent if name.startswith("r ")]
        return _one_of([*self._holds() * 4, *finished[-3:]] or ["nothing"], which)

    def _do(self, one: Operation, model: Model, later: bool) -> Answer:
        """Asks the model now, and Redis at the end of the batch; answers the last answer of Redis."""
        self.pending.append((one, self.model.keyed(one[1], one[2], model)))
        if one[1] and one[0] != "refund":  # its body depends on what the ledger knew then
            self.keyed = [*self.keyed[-5:], (one, model)]
        return self.last if later else self._flush()

    last: Answer = None  # type: ignore[assignment]

    def _flush(self) -> Answer:
        """Sends what is pending as one batch, compares every answer, and sends it again as if the reply was lost."""
        if not self.pending:
            return self.last
        many, expected = zip(*self.pending, strict=True)
        self.pending = []
        answers = self.lua.batch(*many)
        for one, outcome, answer in zip(many, expected, answers, strict=True):
            self._compare(one, outcome, answer)
        self.last = answers[-1]
        if "rotate" not in [one[0] for one in many]:
            lines = self.lua.send(self.lua.sender, self.lua.batch_number, *many).split("\n")
            assert lines[1:] == [answer.line for answer in answers]
        return self.last

    def _compare(self, one: Operation, outcome: Outcome, answer: Answer) -> None:
        assert (answer.status, answer.replayed) == (outcome.status, outcome.replayed), one
        assert {name: answer[name] for name in outcome.fields} == outcome.fields, one
        assert answer.balances == outcome.balances, one
        behind = read_behind(answer.line)[1].restricted
        assert restricted_in(behind) == outcome.restricted, one
        if behind and outcome.usable is not None:
            assert read_restrictions(behind).usable == outcome.usable, one
        if (
            answer.status == "ok"
            and not answer.replayed
            and one[0] in ("deduct", "commit")
            and answer["transaction_id"] != "-"
        ):
            draws = self._draws(answer["transaction_id"])
            assert tuple(draws) == outcome.draws, one
            charged = answer["taken" if one[0] == "deduct" else "charged"]
            only = self._only_of(answer["user_id"], draws)
            self.charges.append(Charge(answer["user_id"], answer["transaction_id"], charged, draws, only))

    def _only_of(self, user: str, draws: Draws) -> dict[str, str]:
        """What grants were for, as the rows tell that made them."""
        found: dict[str, str] = {}
        for entry in self.lua.entries():
            made = entry.detail.get("made_for")
            told = {str(entry.text("grant_id")): entry.text("only")} if KINDS[entry.kind].makes_a_grant else {}
            for name, only in {**told, **(made if isinstance(made, dict) else {})}.items():
                if entry.user_id == user and name in dict(draws):
                    found[name] = only or ""
        return {name: only for name, only in found.items() if only}

    def _draws(self, transaction: str) -> Draws:
        """The draws of a transaction as the outbox has them."""
        [(entry_id, members)] = self.server.client.xrange(
            self.lua.keys.outbox, f"{transaction.split('-')[1]}-0", count=1
        )
        entry = next(e for e in invariants.entries_of(entry_id.decode(), members) if e.transaction == transaction)
        return [(grant_id, part) for grant_id, part, _, _ in entry.draws if part]


def _one_of(candidates: Sequence[_T], which: int) -> _T:
    return candidates[which % len(candidates)]


def test_every_history_agrees_with_the_reference_ledger(server: Server) -> None:
    machine = type("Machine", (LedgerMachine,), {"server": server})

    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            derandomize="METER_TEST_EXAMPLES" not in os.environ,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert server.name in ("fakeredis", "redis")


@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + HISTORIES))
def test_long_histories_agree_with_the_reference_ledger(server: Server, seed: int) -> None:
    """What shrinking machines seldom reach: many steps, weighted as in real use."""
    chance = Random(seed)
    machine: Any = type("Machine", (LedgerMachine,), {"server": server})()
    machine.begin(limit=chance.choice((0, 15)))
    names, weights = list(STEP_CHOICES), [weight for weight, _ in STEP_CHOICES.values()]

    for name in chance.choices(names, weights, k=LONG_STEPS):
        getattr(machine, name)(**{n: chance.choice(values) for n, values in STEP_CHOICES[name][1].items()})
    machine.teardown()

    assert len(machine.lua.entries()) > 10


pytestmark = pytest.mark.usefixtures("unchecked")  # the machine checks with limits of its own
