"""fakeredis against the real server: the same random batches get the same replies and leave the same keys.

METER_TEST_HISTORIES makes it longer.
"""

from __future__ import annotations

import os
from collections import Counter
from random import Random

import pytest

from meter.api_key import ApiKey, unknown_api_key
from meter.clock import NEVER_MS
from meter.engine import api_keys, operations, priced, top_ups, upkeep
from meter.engine.api_keys import REVOKED, Terms, change_key, identify, put_keys
from meter.engine.at_end import read_at_end
from meter.engine.batcher import Mode
from meter.engine.operations import Asked, Operation
from meter.engine.outbox import Entry
from meter.engine.presented import Presented, PresentedOperation
from meter.engine.prices import Activation, activations_text, rate_fields, usage_text
from meter.engine.top_ups import Change
from tests import invariants
from tests.lua.prices import CARD
from tests.partition import APPLY, HOUR, MINUTE, T0, Partition, dump
from tests.servers import fake_server, real_server

HISTORIES = int(os.environ.get("METER_TEST_HISTORIES", "8"))
BATCHES = 60
WINDOW = 2 * HOUR

AMOUNTS = (0, 1, 7, 30, 99, 10**14, 2**53 - 1)
SPANS = (1, MINUTE, HOUR, 3 * HOUR)

API_KEYS = [unknown_api_key(text) for text in ("a", "b", "c")]
ASKED_BY_KEY = {"deduct", "reserve", "deduct_usage", "reserve_usage", "quote", "explain"}


class Sender:
    """Makes batches at random; knows of the answers only what transactions there are."""

    def __init__(self, chance: Random) -> None:
        self._chance = chance
        self._charges: list[Entry] = []
        self._refunded: Counter[str] = Counter()

    def batch(self) -> tuple[list[Operation], Mode]:
        modes: tuple[Mode, ...] = ("each", "each", "each", "atomic")
        return [self._one() for _ in range(self._chance.randint(1, 6))], self._chance.choice(modes)

    def hear(self, partition: Partition, reply: str, many: list[Operation]) -> None:
        """Learns of charges and refunds from a reply."""
        head, *lines = reply.split("\n")
        for one, line in zip(many, lines if head == "done" else [], strict=False):
            fields = line.split(" ")
            transaction = {"deduct": 3, "deduct_usage": 3, "commit": 4, "commit_usage": 4}.get(one[0])
            if line.startswith("0 ok") and transaction and fields[transaction] != "-":
                self._charges.append(partition.entry_of(fields[transaction]))
            if line.startswith("0 ok") and one[0] == "refund":
                self._refunded[one[5]] += int(fields[4])

    def _one(self) -> Operation:
        pick = self._chance.choice
        name = pick(
            sorted(operation_names() - {"restore", "recall", "recall_end", "state", "anonymise", "forget", "calendars"})
        )
        make = getattr(self, f"_{name}", None)
        module = next(one for one in (upkeep, operations, priced, api_keys) if make or hasattr(one, name))
        one: Operation = make() if make else getattr(module, name)(self._user())
        return self._by_key(one) if name in ASKED_BY_KEY else one

    def _by_key(self, one: Operation) -> Operation:
        """Some are asked for by a key: its own, another's, one that there is not, one for a model only."""
        if self._chance.random() < 0.6:
            return one
        return PresentedOperation.of(one, Presented(self._chance.choice(API_KEYS), self._chance.choice(("spend", "x"))))

    def _terms(self) -> tuple[ApiKey, str]:
        key, pick = self._chance.choice(API_KEYS), self._chance.choice
        ends = pick((None, None, T0 + HOUR))
        terms = Terms(key.hash, self._user(), ("spend", "read:self"), ends, pick(((), ("gpt-4o",), ("mini", "other"))))
        return key, pick((terms.text, terms.text, terms.text, REVOKED))

    def _key(self) -> Operation:
        key, terms = self._terms()
        return change_key(self._user(), key.key_id, "change", self._chance.randint(1, 9), terms)

    def _keys(self) -> Operation:
        key, terms = self._terms()
        return put_keys([(key.key_id, self._chance.randint(1, 9), terms)])

    def _identify(self) -> Operation:
        return identify(self._chance.choice(API_KEYS))

    def _plan_prices(self) -> Operation:
        pick = self._chance.choice
        group, version = pick(("default", "extra")), self._chance.randint(1, 9)
        said = (pick(("", "default", "other")), pick((0, 500_000, 2_000_000)))
        return upkeep.plan_prices(self._user(), group, version, *said, pick((0, T0 + HOUR)))

    def _plan_rules(self) -> Operation:
        pick = self._chance.choice
        group, version = pick(("default", "extra")), self._chance.randint(1, 9)
        budgets = pick(("-", "a,9:9,day,UTC,e,c,-,-", "a,5:5,period,UTC,e,r,-,500000;b,9:,total,UTC,o,c,-,-"))
        limits = pick(("-", "a,requests,3,60000,*,-,-,e", "b,concurrent,2,60000,*,-,-,e"))
        bounds = pick(([T0 - HOUR, T0 + HOUR], [T0, T0 + 2 * HOUR, T0 + 9 * HOUR], [T0 + HOUR, T0 + 2 * HOUR]))
        return upkeep.plan_rules(self._user(), group, version, f"{budgets} {limits}", bounds)

    def _top_up(self) -> Operation:
        pick = self._chance.choice
        change: Change = pick(("", "set", "set", "on", "off", "remove", "again", "failed"))
        terms = top_ups.Terms(pick((1, 30)), pick((7, 99)), pick((None, 100)), pick(("day", "week", "month")), "payer")
        told = terms.text if change == "set" else pick(("0-1-0000000000-1", "none"))
        return top_ups.top_up(
            self._user(), change, told if change not in ("", "on", "off", "remove") else "", self._asked()
        )

    def _user(self) -> str:
        return self._chance.choice(("u", "u", "u/1", "v"))

    def _hold(self) -> str:
        return self._chance.choice(("r1", "r2", "r3", "r4"))

    def _amount(self) -> int:
        return self._chance.choice(AMOUNTS)

    def _asked(self) -> Asked:
        key, extra = self._chance.choice(("", "", "k1", "k2", "k3")), self._chance.choice(("", '"description":"é\\n"'))
        return Asked(key, extra, tags=self._tags())

    def _tags(self) -> str:
        return self._chance.choice(("", "", "feature:a", "feature:b,model:mini"))

    def _grant(self) -> Operation:
        pick = self._chance.choice
        start = pick((0, 0, T0, T0 + HOUR, T0 + 5 * HOUR))
        end = pick((NEVER_MS, NEVER_MS, T0 + 2 * HOUR, T0 + 9 * HOUR))
        return operations.grant(
            self._user(),
            f"g{self._chance.randrange(12)}",
            self._amount() or 1,
            priority=pick((0, 9, 10, 100)),
            effective_at_ms=start,
            expires_at_ms=end,
            at_end=read_at_end(pick(("", "", "9+3600000", "7+1@a", "@a", "!b", f"{2**53 - 1}+99999999999999@b"))),
            chosen=pick((True, False)),
            only=pick(("", "", "feature:a", "feature:*", "model:gpt-4o", "model:*")),
            asked=self._asked(),
        )

    def _usage(self) -> str:
        pick = self._chance.choice
        quantities = {name: pick((0, 1, 7, 10**6)) for name in ("input", "output", "cache_read") if pick((True, False))}
        aliases = pick(((), (), ("nope", next(iter(CARD)))))
        return usage_text(pick((*CARD, *CARD, "nope", None)), quantities, pick((None, 3)), aliases)

    def _rates(self) -> Operation:
        lines = dict([self._chance.choice(list(CARD.items()))])
        fields = rate_fields("default", self._chance.randint(1, 3), lines, {"other": next(iter(lines))})
        return upkeep.rates(list(fields))

    def _activate(self) -> Operation:
        version = self._chance.randint(1, 3)
        later = Activation(version, T0 + self._chance.choice((0, HOUR)))
        return upkeep.activate("default", version, activations_text([Activation(1, 0), later], T0))

    def _deduct_usage(self) -> Operation:
        otherwise = self._chance.choice((None, 2))
        return priced.deduct_usage(self._user(), self._usage(), asked=self._asked(), amount=otherwise)

    def _reserve_usage(self) -> Operation:
        chosen = self._chance.choice((True, False))
        hold = self._hold() if chosen else f"m{self._chance.getrandbits(60)}"
        span, end = self._chance.choice(SPANS), self._chance.choice(("release", "charge", "confirm"))
        user, otherwise, asked = self._user(), self._chance.choice((None, 3)), self._asked()
        if self._chance.random() < 0.2:
            return priced.reserve_usage_for_request(
                user, self._hold(), self._usage(), span, at_end=end, asked=asked, amount=otherwise or 4
            )
        return priced.reserve_usage(
            user, hold, self._usage(), span, chosen=chosen, at_end=end, asked=asked, amount=otherwise
        )

    def _commit_usage(self) -> Operation:
        usage = self._usage()
        own = usage if self._chance.choice((True, False)) else usage_text(None, {"input": 2})
        return priced.commit_usage(self._hold(), own, asked=self._asked(), amount=self._chance.choice((None, 3)))

    def _quote(self) -> Operation:
        return priced.quote(self._user(), usage=self._usage(), tags=self._tags())

    def _deduct(self) -> Operation:
        return operations.deduct(
            self._user(), self._amount(), self._chance.choice(("reject", "partial", "overdraft")), self._asked()
        )

    def _reserve(self) -> Operation:
        span, chosen = self._chance.choice(SPANS), self._chance.choice((True, False))
        hold = self._hold() if chosen else f"m{self._chance.getrandbits(60)}"
        return operations.reserve(
            self._user(),
            hold,
            self._amount() % 100,
            span,
            chosen=chosen,
            at_end=self._chance.choice(("release", "charge", "confirm")),
            asked=self._asked(),
        )

    def _confirm(self) -> Operation:
        return upkeep.confirm(self._hold())

    def _withdraw(self) -> Operation:
        return upkeep.withdraw(self._hold(), self._chance.choice((None, T0 + HOUR)), self._chance.choice(("", "k1")))

    def _commit(self) -> Operation:
        amount = self._chance.choice((None, *AMOUNTS))
        return operations.commit(
            self._hold(),
            amount,
            self._chance.choice(("cap", "reject", "overdraft", "hold_only")),
            self._asked(),
            shortfall=self._chance.choice(("partial", "reject")),
        )

    def _release(self) -> Operation:
        return operations.release(self._hold(), self._asked())

    def _extend(self) -> Operation:
        return operations.extend(
            self._hold(), self._chance.choice((None, *SPANS)), self._chance.choice((0, 5)), self._asked()
        )

    def _refund(self) -> Operation:
        if not self._charges:
            return operations.balance("u")
        charge = self._chance.choice(self._charges)
        return operations.refund(
            charge.user_id,
            charge.transaction_id,
            self._chance.choice((None, 1, 7)),
            charged=charge.amount,
            refunded=self._refunded[charge.transaction_id],
            draws=tuple((draw.grant_id, draw.amount) for draw in charge.draws if draw.amount),
        )

    def _lapse(self) -> Operation:
        renews_at_ms = self._chance.choice((0, 0, T0 + 2 * HOUR, T0 + 9 * HOUR, NEVER_MS))
        return upkeep.lapse(self._user(), f"g{self._chance.randrange(12)}", renews_at_ms)

    def _void(self) -> Operation:
        return operations.void(self._user(), f"g{self._chance.randrange(12)}", self._asked())

    def _adjust(self) -> Operation:
        grant_id = self._chance.choice(("", "", f"g{self._chance.randrange(12)}"))
        return operations.adjust(self._user(), grant_id, self._amount(), self._asked())

    def _configure(self) -> Operation:
        pick = self._chance.choice
        return operations.configure(
            self._user(),
            overdraft_limit=pick((None, 0, 50, 2**53 - 1)),
            suspended=pick((None, False, False, True)),
            thresholds=pick((None, (), (10**14, 5))),
            metadata=pick(("", '{"a b":"é"}')),
            rate_card=pick(("", "-", "default")),
            price_multiplier=pick(("", "-", "1500000")),
            asked=self._asked(),
        )

    def _grants(self) -> Operation:
        cursor = self._chance.choice(("", ".", "L ", "X "))
        return operations.grants(
            self._user(), self._chance.choice(("live", "all")), cursor, self._chance.choice((1, 3, 50))
        )

    def _reservations(self) -> Operation:
        return operations.reservations(self._user(), "", self._chance.choice((1, 3, 50)))

    def _reservation(self) -> Operation:
        return operations.reservation(self._hold())

    def _explain(self) -> Operation:
        return operations.explain(self._user(), self._amount(), self._tags())

    def _expiring(self) -> Operation:
        return operations.expiring(self._user(), T0 + 5 * HOUR, "", self._chance.choice((1, 3, 50)))

    def _clock(self) -> Operation:
        return upkeep.clock("advance", self._chance.choice((0, *SPANS)))

    def _rotate(self) -> Operation:
        return upkeep.rotate()

    def _flushed(self) -> Operation:
        return upkeep.flushed(self._chance.randrange(20), 0, 100)


def operation_names() -> set[str]:
    """The operations that the program has."""
    return {file.removeprefix("operations/")[:-4] for _, file in APPLY.starts if file.startswith("operations/")}


@pytest.mark.parametrize("seed", range(HISTORIES))
def test_both_servers_do_the_same(redis_url: str, seed: int) -> None:
    clients = [fake_server().client, real_server(redis_url).client]
    both = [Partition(client, window_ms=WINDOW, reservations_max=3, grants_max=9) for client in clients]
    for partition in both:
        partition.open()
        partition.client.hset(partition.keys.meta, mapping={"clock_ms": T0, "recent_since": T0})
    chance = Random(seed)
    sender = Sender(chance)

    for number in range(1, BATCHES + 1):
        many, mode = sender.batch()
        name = chance.choice(("a", "b"))
        fake, real = (partition.send(name, number - (number % 10 == 0), *many, mode=mode) for partition in both)
        assert fake == real, many
        sender.hear(both[0], fake, many)

    for partition in both:
        invariants.check(partition.client, window_ms=WINDOW)
    assert dump(both[0].client) == dump(both[1].client)
    both[1].client.close()
