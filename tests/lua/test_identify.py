"""Whose a key is: lua/operations/identify.lua."""

from __future__ import annotations

from meter.api_key import unknown_api_key
from meter.clock import NEVER_MS
from meter.engine.api_keys import REVOKED, identify, put_keys
from tests.lua.api_keys import put_key
from tests.partition import MINUTE, T0, Partition


def test_it_tells_whose_a_key_is_and_what_it_may_do(partition: Partition) -> None:
    key = put_key(partition, "acme/alice", models=("gpt-4o", "mini"))
    operators = put_key(partition, "", ("admin:read",), expires_at_ms=T0 + MINUTE)

    told = partition.run(identify(key))
    assert told.status == "ok"
    assert told.fields == {
        "user_id": "acme/alice",
        "key_id": key.key_id,
        "scopes": "spend,read:self",
        "expires_at_ms": NEVER_MS,
        "models": "gpt-4o,mini",
    }
    assert partition.run(identify(operators)).fields == {
        "user_id": "-",
        "key_id": operators.key_id,
        "scopes": "admin:read",
        "expires_at_ms": T0 + MINUTE,
        "models": "-",
    }


def test_one_that_there_is_not_has_ended_or_was_revoked_is_all_alike(partition: Partition) -> None:
    ended, revoked = put_key(partition, expires_at_ms=T0), put_key(partition)
    partition.run(put_keys([(revoked.key_id, 2, REVOKED)]))

    for key in (unknown_api_key("x"), ended, revoked):
        answer = partition.run(identify(key))
        assert (answer.status, answer.fields) == ("invalid_key", {})


def test_a_hash_that_begins_alike_is_another_key(partition: Partition) -> None:
    key = put_key(partition)

    assert partition.run(identify(key._replace(hash=key.hash[:-1] + "x"))).status == "invalid_key"
