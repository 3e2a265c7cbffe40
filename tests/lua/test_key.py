"""A change of a user's key: lua/operations/key.lua."""

from __future__ import annotations

from meter.api_key import new_api_key
from meter.engine.api_keys import REVOKED, Terms, change_key, identify
from meter.engine.operations import Asked, balance
from tests.partition import Answer, Partition


def test_each_change_is_booked_once(partition: Partition) -> None:
    _, key = new_api_key("acme/a", is_test=True)
    terms = Terms(key.hash, "acme/a", ("spend",)).text
    first = change_key("acme/a", key.key_id, "issue", 1, terms, Asked(actor="ada"))

    assert partition.run(first).status == "ok"
    partition.run(first)
    partition.run(change_key("acme/a", key.key_id, "revoke", 1, REVOKED))
    partition.run(change_key("acme/a", key.key_id, "revoke", 1, REVOKED))
    partition.run(change_key("acme/a", key.key_id, "change", 3, terms))
    issued, revoked = partition.entries()
    assert (issued.kind, issued.user_id, issued.amount, issued.draws) == ("key", "acme/a", 0, ())
    assert issued.detail == {"key_id": key.key_id, "change": "issue", "actor": "ada"}
    assert revoked.detail == {"key_id": key.key_id, "change": "revoke"}
    assert partition.run(identify(key)).status == "invalid_key"
    assert partition.run(balance("acme/a")).balances == (0, 0, 0)


def test_there_are_as_many_strangers_with_keys_as_there_may_be_without(partition: Partition) -> None:
    partition.reservations_max = 1

    def issue(user: str) -> Answer:
        _, key = new_api_key(user, is_test=True)
        one = change_key(user, key.key_id, "issue", 1, Terms(key.hash, user, ("spend",)).text)
        return partition.run(one)

    assert issue("a").status == "ok"
    assert issue("b").status == "too_many"
    assert issue("a").status == "ok"
    assert len(partition.fields("keys")) == 2
