"""Auto top-up, decided with the balance that crosses: lua/state/top_up.lua, lua/operations/top_up.lua."""

from __future__ import annotations

import pytest

from meter.engine.operations import Asked, configure, deduct, grant, release, reserve, void
from meter.engine.top_ups import Terms, read_word, top_up
from meter.engine.upkeep import anonymise
from tests.partition import DAY, HOUR, T0, Partition

TERMS = Terms(below=50, amount=200, most=600, period="month", reference="cus_1")


def told(partition: Partition) -> list[str]:
    """What entries tell of it, in turn."""
    return [str(entry.detail["top_up"]) for entry in partition.entries() if "top_up" in entry.detail]


@pytest.fixture
def armed(partition: Partition) -> Partition:
    """100 credits; 200 more are bought at 50."""
    partition.run(grant("u", "g", 100, expires_at_ms=T0 + DAY))
    assert partition.run(top_up("u", "set", TERMS.text))["top_up"] == f"a,{TERMS.text}"
    return partition


def waited_for(partition: Partition) -> str:
    word = read_word(partition.run(top_up("u"))["top_up"])
    assert word is not None
    assert word.top_up_id is not None
    return word.top_up_id


def test_one_crossing_asks_once_and_names_the_transaction_that_asked(armed: Partition) -> None:
    for amount in (49, 1, 1, 38, 1, 5):
        armed.run(deduct("u", amount))

    asking = [entry for entry in armed.entries() if str(entry.detail.get("top_up", "")).startswith("w")]
    assert [entry.available for entry in asking] == [50]
    assert waited_for(armed) == f"topup:{asking[0].transaction_id}"
    assert told(armed) == [f"a,{TERMS.text}", f"w,{TERMS.text},{waited_for(armed)}"]


def test_its_grant_arms_it_again_and_another_grant_does_not(armed: Partition) -> None:
    armed.run(deduct("u", 60))
    first = waited_for(armed)
    armed.run(grant("u", "gift", 100))
    armed.run(deduct("u", 100))
    assert waited_for(armed) == first

    armed.run(grant("u", first, 200))
    assert armed.run(top_up("u"))["top_up"] == f"a,{TERMS.text}"
    armed.run(deduct("u", 200))
    assert waited_for(armed) != first
    assert len([one for one in told(armed) if one.startswith("w")]) == 2


def test_a_grant_that_does_not_lift_it_above_asks_again_in_its_own_entry(armed: Partition) -> None:
    armed.run(top_up("u", "set", TERMS._replace(below=500).text))
    first = waited_for(armed)

    granted = armed.run(grant("u", first, 200))

    assert waited_for(armed) == f"topup:{granted['transaction_id']}"


def test_a_hold_counts_as_it_does_for_alerts(armed: Partition) -> None:
    armed.run(reserve("u", "r", 60, HOUR, chosen=True))
    first = waited_for(armed)
    armed.run(release("r"))
    armed.run(reserve("u", "s", 60, HOUR, chosen=True))

    assert waited_for(armed) == first


def test_what_is_below_when_it_is_set_or_turned_on_is_asked_for_at_once(armed: Partition) -> None:
    armed.run(top_up("u", "off"))
    armed.run(deduct("u", 100))
    assert armed.run(top_up("u"))["top_up"] == f"o,{TERMS.text}"

    assert armed.run(top_up("u", "on")).status == "ok"

    assert waited_for(armed).startswith("topup:")
    assert armed.run(top_up("u", "set", TERMS._replace(amount=300).text))["top_up"].endswith(waited_for(armed))


def test_requests_end_by_their_id_alone(armed: Partition) -> None:
    armed.run(deduct("u", 60))
    first = waited_for(armed)
    armed.run(top_up("u", "failed", "topup:other"))
    armed.run(top_up("u", "again", "topup:other"))
    assert waited_for(armed) == first

    armed.run(grant("u", "gift", 100))
    armed.run(top_up("u", "again", first))
    assert armed.run(top_up("u"))["top_up"] == f"a,{TERMS.text}"
    armed.run(deduct("u", 100))
    armed.run(top_up("u", "failed", waited_for(armed)))
    armed.run(deduct("u", 1))
    assert armed.run(top_up("u"))["top_up"] == f"o,{TERMS.text}"


def test_nothing_is_asked_for_while_the_account_is_suspended(armed: Partition) -> None:
    armed.run(configure("u", suspended=True))
    armed.run(void("u", "g"))
    assert armed.run(top_up("u"))["top_up"] == f"a,{TERMS.text}"

    armed.run(configure("u", suspended=False))

    assert waited_for(armed).startswith("topup:")


def test_thresholds_beside_it_are_what_they_are_without_it(armed: Partition) -> None:
    assert armed.run(configure("u", thresholds=(70, 50)))["low_credit_thresholds"] == "70,50"
    armed.run(deduct("u", 60))
    alerts = [entry.detail["alerts"] for entry in armed.entries() if "alerts" in entry.detail]

    assert alerts == [[["low_credits", 70], ["low_credits", 50]]]
    assert armed.run(configure("u", thresholds=()))["low_credit_thresholds"] == "-"
    assert waited_for(armed).startswith("topup:")


def test_it_is_removed_and_told_so(armed: Partition) -> None:
    armed.run(top_up("u", "remove"))
    armed.run(deduct("u", 100))

    assert armed.run(top_up("u"))["top_up"] == "-"
    assert told(armed)[-1] == ""
    for change in ("on", "off", "remove", "again", "failed"):
        assert armed.run(top_up("u", change, "topup:x" if change in ("again", "failed") else "")).status == "no_top_up"


def test_strangers_beyond_the_bound_get_none(partition: Partition) -> None:
    partition.reservations_max = 1
    partition.run(top_up("u", "set", TERMS.text))

    assert partition.run(top_up("v", "set", TERMS.text)).status == "too_many"
    assert waited_for(partition).startswith("topup:")


def test_a_repeated_call_is_told_what_the_first_one_was(armed: Partition) -> None:
    first = armed.run(top_up("u", "off", asked=Asked("key")))
    armed.run(top_up("u", "on"))

    again = armed.run(top_up("u", "off", asked=Asked("key")))

    assert (again.replayed, again["top_up"]) == (True, first["top_up"])
    assert armed.run(top_up("u"))["top_up"] == f"a,{TERMS.text}"


def test_a_pseudonym_has_none(armed: Partition) -> None:
    armed.run(void("u", "g"))
    armed.run(anonymise("u", "anonymous-1", "token"))

    assert armed.run(top_up("anonymous-1"))["top_up"] == "-"
