"""Putting back how a reservation ended: lua/operations/recall_end.lua."""

from __future__ import annotations

import pytest

from meter.engine.operations import Operation, balance, commit, extend, grant, release, reservation
from meter.engine.upkeep import recall_end
from tests.partition import HOUR, MINUTE, T0, Partition

ENDS = {
    "committed": (7, commit("r", 7), "ok u r 0-9-x-1 7 3 0 0 0 90 0 0"),
    "released": (0, release("r"), "ok u r 0-9-x-1 10 0 90 0 0"),
    "expired": (0, None, None),
}


@pytest.mark.parametrize("state", ENDS)
def test_what_ended_stays_ended_and_answers_as_it_did(partition: Partition, state: str) -> None:
    charged, again, kept = ENDS[state]
    partition.run(grant("u", "g", 100))
    one = recall_end(
        "r", user_id="u", state=state, amount=10, charged=charged, requested=7, ended_at_ms=T0 - MINUTE, answer=kept
    )
    (answer,) = partition.batch(one, mode="repair")
    assert answer.status == "ok"

    read = partition.run(reservation("r"))
    assert (read["state"], read["charged"], read["expires_at_ms"]) == (state, charged, T0 - MINUTE)
    others: list[Operation] = [extend("r", HOUR), release("r"), commit("r", 8)]
    for other in others[: 1 if state == "expired" else 3]:  # what expired can be committed late
        if again is None or other[0] != again[0] or other[0] == "commit":
            assert partition.run(other).status == "finished"
    if again is not None:
        assert partition.run(again).line == f"1 {kept}"
    assert partition.run(balance("u")).balances == (100, 0, 0)
