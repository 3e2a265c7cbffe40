"""Operations that are asked for by a key: lua/state/api_keys.lua, in the plain case and in the full one."""

from __future__ import annotations

import pytest

from meter.engine.api_keys import REVOKED, put_keys
from meter.engine.operations import Asked, balance, commit, deduct, explain, extend, grant, release, reserve
from meter.engine.priced import commit_usage, deduct_usage, quote, reserve_usage
from meter.engine.prices import usage_text
from meter.engine.programs import apply_program
from tests.lua.api_keys import by, put_key
from tests.lua.prices import put_card
from tests.partition import HOUR, MINUTE, T0, Partition

USAGE = usage_text("mini", {"input": 10})


@pytest.fixture(params=["plain", "full"])
def funded(partition: Partition, request: pytest.FixtureRequest) -> Partition:
    """u has 1000 units."""
    if request.param == "full":
        partition.program = apply_program(plain=False)
    partition.run(grant("u", "g", 1000))
    return partition


def test_a_charge_names_its_key_and_so_does_that_of_a_hold(funded: Partition) -> None:
    key = put_key(funded)

    assert funded.run(by(key, deduct("u", 5))).status == "ok"
    for hold, settle in (("a", commit("a")), ("b", commit("b", 3)), ("c", release("c"))):
        assert funded.run(by(key, reserve("u", hold, 10, HOUR, chosen=True))).status == "ok"
        assert funded.run(settle).status == "ok"
    told = [(entry.kind, entry.detail.get("key_id")) for entry in funded.entries()]
    held, charge = ("reserve", key.key_id), ("commit", key.key_id)
    assert told == [
        ("grant", None),
        ("deduct", key.key_id),
        *(held, charge, held, charge, held, ("release", None)),
    ]


def test_what_is_charged_at_its_end_or_late_names_its_key_too(funded: Partition) -> None:
    key = put_key(funded)
    funded.run(by(key, reserve("u", "end", 10, MINUTE, chosen=True, at_end="charge")))
    funded.run(by(key, reserve("u", "late", 10, MINUTE, chosen=True)))
    funded.advance(MINUTE)

    assert funded.run(commit("late", 4)).fields["late"] == 1
    assert funded.run(commit("end")).replayed
    charges = [entry.detail["key_id"] for entry in funded.entries() if entry.kind == "commit"]
    assert charges == [key.key_id, key.key_id]


@pytest.mark.parametrize("one", [deduct("u", 5), reserve("u", "r", 5, HOUR, chosen=False), explain("u", 5)])
def test_all_keys_that_are_none_are_refused_alike_and_nothing_is_changed(
    funded: Partition, one: tuple[str, ...]
) -> None:
    ended, others, revoked = put_key(funded, expires_at_ms=T0), put_key(funded, "v"), put_key(funded)
    funded.run(put_keys([(revoked.key_id, 2, REVOKED)]))
    unknown = ended._replace(key_id="key_" + "0" * 20, hash="0" * 64)
    before = len(funded.entries())

    for key in (ended, others, revoked, unknown):
        assert (funded.run(by(key, one)).line) == "0 invalid_key"
    assert funded.run(by(put_key(funded, scopes=("read:self",)), one)).line == "0 scope_missing spend"
    assert len(funded.entries()) == before
    assert funded.run(balance("u")).balances == (1000, 0, 0)


def test_a_refused_operation_is_refused_alone(funded: Partition) -> None:
    key, ended = put_key(funded), put_key(funded, expires_at_ms=T0)

    answers = funded.batch(
        by(key, deduct("u", 1)), by(ended, deduct("u", 2)), deduct("u", 4), by(key, deduct("u", 8)), balance("u")
    )
    assert [answer.status for answer in answers] == ["ok", "invalid_key", "ok", "ok", "ok"]
    assert answers[-1].balances == (987, 0, 0)
    undone = funded.batch(by(key, deduct("u", 1)), by(ended, deduct("u", 2)), mode="atomic")
    assert [answer.status for answer in undone] == ["ok", "invalid_key"]
    assert funded.run(balance("u")).balances == (987, 0, 0)


def test_a_key_works_up_to_the_millisecond_before_its_end(funded: Partition) -> None:
    key = put_key(funded, expires_at_ms=T0 + MINUTE)

    funded.advance(MINUTE - 1)
    assert funded.run(by(key, deduct("u", 1))).status == "ok"
    funded.advance(1)
    assert funded.run(by(key, deduct("u", 1))).status == "invalid_key"


def test_a_repeated_call_is_answered_again_only_while_its_key_works(funded: Partition) -> None:
    key, next_key = put_key(funded), put_key(funded)
    one = deduct("u", 1, asked=Asked("k"))

    first = funded.run(by(key, one))
    funded.run(put_keys([(key.key_id, 2, REVOKED)]))
    assert funded.run(by(key, one)).status == "invalid_key"
    again = funded.run(by(next_key, one))
    assert (again.replayed, again["transaction_id"]) == (True, first["transaction_id"])


def test_a_key_for_some_models_pays_for_nothing_else(funded: Partition) -> None:
    put_card(funded)
    key = put_key(funded, models=("gpt-4o", "gift"))
    gift = usage_text("gift", {"input": 10}, 1)

    asked = {
        "deduct_usage": deduct_usage("u", USAGE),
        "reserve_usage": reserve_usage("u", "x", USAGE, HOUR, chosen=False),
        "quote": quote("u", usage=USAGE),
    }
    for name, one in asked.items():
        answer = funded.run(by(key, one))
        assert (answer.status, answer["model"]) == ("model_not_allowed", "mini"), name
    assert funded.run(by(key, deduct("u", 0))).status == "ok"
    for one in (deduct("u", 1), reserve("u", "x", 5, HOUR, chosen=False), quote("u", amount=5), explain("u", 1)):
        answer = funded.run(by(key, one))
        assert (answer.status, answer["model"]) == ("model_not_allowed", "-")
    assert funded.run(by(key, reserve_usage("u", "h", gift, HOUR, chosen=True))).status == "ok"
    assert funded.run(commit_usage("h", USAGE)).line == "0 model_not_allowed mini"
    assert funded.run(extend("h", HOUR)).status == "ok"
    assert funded.run(commit_usage("h", usage_text(None, {"input": 10}))).status == "ok"


def test_a_late_commit_is_held_to_the_models_of_its_hold(funded: Partition) -> None:
    put_card(funded)
    key = put_key(funded, models=("gift",))
    funded.run(by(key, reserve_usage("u", "h", usage_text("gift", {"input": 1}, 1), MINUTE, chosen=True)))
    funded.advance(MINUTE)

    assert funded.run(commit_usage("h", USAGE)).line == "0 model_not_allowed mini"
    assert funded.run(commit_usage("h", usage_text("gift", {"input": 1})))["late"] == 1
