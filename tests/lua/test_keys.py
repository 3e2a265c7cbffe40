"""Taking keys over: lua/operations/keys.lua."""

from __future__ import annotations

from meter.engine.api_keys import REVOKED, Terms, identify, put_keys
from meter.engine.upkeep import state
from tests.lua.api_keys import put_key
from tests.partition import Partition


def test_older_news_changes_nothing_and_nothing_brings_a_revoked_key_back(partition: Partition) -> None:
    key = put_key(partition)
    newer, older = (Terms(key.hash, "u", (scope,)).text for scope in ("read:self", "spend"))

    assert partition.run(put_keys([(key.key_id, 3, newer)])).status == "ok"
    partition.run(put_keys([(key.key_id, 2, older)]))
    assert partition.run(identify(key))["scopes"] == "read:self"
    partition.run(put_keys([(key.key_id, 1, REVOKED)]))
    partition.run(put_keys([(key.key_id, 9, newer)]))
    assert partition.fields("keys") == {key.key_id.encode(): b"revoked"}
    assert partition.entries() == []


def test_a_rebuild_clears_them(partition: Partition) -> None:
    put_key(partition)

    partition.batch(state("clear"))
    assert partition.fields("keys") == {}
