"""Each operation that callers can ask for has all of its places; where one is missing, a test here says which.

What a kind does to an account, and the answer that is made from its entry, cannot be left out: no `Kind` and no
`Declared` is made without. The Lua head is compared in tests/lua/test_headers.py.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

import meter.client
from meter.api.refusals import slugs_of
from meter.api.rendering import SHOWN
from meter.contract.answers import Balances
from meter.contract.call import Call
from meter.contract.calls import CALLS
from meter.engine import operations
from meter.engine.answers import KEY_REUSED, Declared
from meter.engine.declarations import DECLARED
from meter.engine.outbox import Kind, Moving, moves

ASKED_FOR = [one.name for one in operations.DECLARED]
BY_OPERATION = {call.operation or call.name: call for call in CALLS}
BY_THEMSELVES = {Kind.GRANT_STARTED, Kind.GRANT_EXPIRED, Kind.GRANT_ROLLED_OVER, Kind.RESERVATION_EXPIRED}
"""What falls due; nobody asks for it."""
OF_UPKEEP = {Kind.KEY}
"""What is durable before a script knows of it; who asked is answered from the store."""

OF_GATEWAYS = {("reserve", "finished")}
"""Refusals that only gateways meet, whose reservations stand for requests that may be asked again."""

BALANCES = set(Balances.model_fields) - {"replayed"}
CLIENT = "\n".join(path.read_text() for path in Path(meter.client.__path__[0]).glob("*.py"))


def call_of(name: str) -> Call:
    assert name in BY_OPERATION, f"no row of meter/contract/table asks for {name}"
    return BY_OPERATION[name]


def members_of(one: Declared) -> set[str]:
    """The members of the JSON that is made of an answer."""
    fields = {field.removesuffix("_ms") for field in SHOWN.get(one.name, one.answer)}
    return {"items", "next_cursor"} if "next_cursor" in fields else fields | BALANCES


@pytest.mark.parametrize("name", ASKED_FOR)
def test_it_has_a_call(name: str) -> None:
    assert call_of(name).summary


@pytest.mark.parametrize("name", ASKED_FOR)
def test_its_refusals_are_problems_of_its_call(name: str) -> None:
    one, call = DECLARED[name], call_of(name)
    refusals = (*one.refusals, *((KEY_REUSED,) if call.keyed else ()))

    for refusal in refusals:
        if (name, refusal.word) in OF_GATEWAYS:
            continue
        missing = set(slugs_of(one, refusal)) - set(call.problems)
        assert not missing, f"{call.name} says nothing of {sorted(missing)}, though {name} refuses with {refusal.word}"


SOMETIMES = {"effect", "restricted", "restricted_by", "usable"}
"""Members of a dry run, and of accounts with restricted grants; no example has them."""


@pytest.mark.parametrize("name", [name for name in ASKED_FOR if name != "explain"])
def test_its_answer_is_what_its_call_answers_and_shows(name: str) -> None:
    """`explain` is rendered from its burns as well, and reads by name."""
    call, members = call_of(name), members_of(DECLARED[name])

    in_model = set(call.answer.model_fields) - {"replayed"}
    in_other_words = {
        "metadata",
        "price",
        "rate_card",
        "price_multiplier",
        "budgets",
        "rate_limits",
        "velocity",
        "limited_by",
        "rate_limit",
        "spendable",
        "payers",
        "pool",
        "use_pools",
        *SOMETIMES,
        *({"grant_id"} if name == "adjust" else ()),  # of what is added, which a grant answers
    }
    members -= SOMETIMES
    assert in_model - members <= in_other_words, f"{call.answer.__name__} has what {name} does not answer"
    assert members <= in_model, f"{call.answer.__name__} lacks what {name} answers"
    assert set(call.example.answer) - in_other_words == members, f"the example of {call.name} is another answer"


@pytest.mark.parametrize("name", ASKED_FOR)
def test_python_has_its_call(name: str) -> None:
    call = call_of(name)
    found = re.findall(rf'_call(?:_or_later)?\(\s*"{call.name}"', CLIENT)

    assert found, f"no method in meter/client makes the call {call.name}"


def test_each_kind_is_booked_by_an_operation_or_falls_due() -> None:
    booked = {kind for one in DECLARED.values() for kind in one.books}

    assert set(Kind) - booked == BY_THEMSELVES - booked, "a kind that no operation books"
    answered = {one.books[0] for one in operations.DECLARED if one.books}
    assert set(Kind) - answered == BY_THEMSELVES | OF_UPKEEP, "a kind whose answer no operation makes"


def test_each_kind_that_moves_credits_is_one_that_a_rebuild_does_again() -> None:
    """And mypy has a branch of `Rebase.again` for each of those."""
    assert set(get_args(Moving)) == set(filter(moves, Kind))


def test_each_call_names_an_operation_that_is_there() -> None:
    assert {call.operation for call in CALLS} - {""} <= set(DECLARED)
