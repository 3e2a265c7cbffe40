"""`meter doctor`: every row of its table, by its words, and set-ups that are wrong for real."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from meter.config import Settings, load_settings
from meter.engine.redis import PartitionState
from meter.health.doctor import NAMES, Evidence, Finding, findings_of
from meter.health.presence import Sidecar, Worker
from meter.health.status import Facts, PartitionFacts

NOW = 1_900_000_000_000
WELL = {
    "redis_version": "7.4.6",
    "maxmemory": "1000",
    "used_memory": "100",
    "maxmemory_policy": "noeviction",
    "aof_enabled": "1",
    "aof_last_write_status": "ok",
    "connected_slaves": "1",
}


def partition(waiting: int = 0, oldest_ms: int | None = None) -> PartitionFacts:
    return PartitionFacts(0, PartitionState("open", 1, waiting, "-", 0, None), "", oldest_ms)


def settings(**members: Any) -> Settings:
    return load_settings(**{"redis_url": "redis://cache:6379/0", "store_url": "postgresql://db/m", **members})


def well(**members: Any) -> Evidence:
    worker = Worker(worker_id="h-1-a", version="1", started_at_ms=NOW, seen_at_ms=NOW)
    facts = Facts("", [partition()], NOW, NOW, "", [worker])
    given: dict[str, Any] = {"version": "1", "infos": [WELL], "clock_apart_seconds": 0.01, **members}
    return Evidence(given.pop("settings", settings()), given.pop("facts", facts), **given)


def facts(**members: Any) -> Evidence:
    evidence = well()
    return replace(evidence, facts=replace(evidence.facts, **members))


def info(**members: str) -> Evidence:
    return well(infos=[{**WELL, **members}])


CASES: list[tuple[str, str, Callable[[], Evidence], str, str]] = [
    (
        "redis",
        "fail",
        lambda: facts(
            redis_fault="refused.",
        ),
        "Redis at redis://cache:6379/0 does not answer: refused.",
        "Start it",
    ),
    (
        "redis",
        "fail",
        lambda: facts(redis_fault="NOAUTH Authentication required."),
        "Redis wants a password",
        "_FILE",
    ),
    (
        "version",
        "fail",
        lambda: info(redis_version="6.2.14"),
        "Redis 6.2.14 is older than 7.0.",
        "Update",
    ),
    (
        "version",
        "warn",
        lambda: info(redis_version="7.2.5"),
        "Redis 7.2.5 has CVE-2025-49844",
        "Update to 7.2.11",
    ),
    (
        "version",
        "ok",
        lambda: info(redis_version="8.4.0"),
        "Redis is recent enough.",
        "",
    ),
    (
        "version",
        "ok",
        lambda: info(redis_version="7.2.4", valkey_version="8.1.0"),
        "Redis is recent enough.",
        "",
    ),
    (
        "eviction",
        "fail",
        lambda: info(
            maxmemory_policy="allkeys-lru",
        ),
        "maxmemory-policy is allkeys-lru: Redis may delete balances.",
        "noeviction",
    ),
    (
        "persistence",
        "fail",
        lambda: info(
            aof_enabled="0",
        ),
        "appendonly is no: a restart loses all balances not in the store.",
        "appendonly yes",
    ),
    (
        "persistence",
        "fail",
        lambda: info(
            aof_last_write_status="err",
        ),
        "The last append failed: err.",
        "Free disk space, then BGREWRITEAOF.",
    ),
    (
        "memory",
        "warn",
        lambda: info(used_memory="710"),
        "71 %",
        "Raise maxmemory",
    ),
    (
        "memory",
        "fail",
        lambda: info(used_memory="910"),
        "91 %",
        "Raise maxmemory",
    ),
    (
        "memory",
        "warn",
        lambda: info(
            maxmemory="0",
        ),
        "maxmemory is 0: the kernel may kill Redis instead.",
        "Set maxmemory",
    ),
    (
        "replica",
        "warn",
        lambda: info(
            connected_slaves="0",
        ),
        "No replica: a lost disk costs what the worker has not stored yet.",
        "replica",
    ),
    (
        "acl",
        "warn",
        lambda: well(may=["FLUSHALL", "CONFIG", "KEYS"]),
        "This user may run FLUSHALL, CONFIG, KEYS.",
        "ACL SETUSER meter on >PASSWORD ~meter:*",
    ),
    (
        "acl",
        "fail",
        lambda: well(
            start_fault="METER_REDIS_URL: Redis refuses its user the commands XADD",
        ),
        "XADD",
        "docs/redis.md",
    ),
    (
        "clock",
        "warn",
        lambda: well(clock_apart_seconds=-4.0),
        "This machine's clock is 4.0 s from Redis'.",
        "chrony",
    ),
    (
        "worker",
        "fail",
        lambda: facts(workers=()),
        "No worker seen: nothing is stored, granted or sent.",
        "Start `meter worker`.",
    ),
    (
        "backlog",
        "warn",
        lambda: facts(partitions=[partition(5, NOW - 11_000)]),
        "5 transactions wait, the oldest 11 s.",
        "Look at the worker's log",
    ),
    (
        "backlog",
        "fail",
        lambda: facts(partitions=[partition(600_000, NOW)]),
        "600000 transactions wait",
        "spending stops at 1000000",
    ),
    (
        "store",
        "fail",
        lambda: facts(
            store_fault="gone.",
        ),
        "The store does not answer: gone. Adds are refused",
        "METER_STORE_URL",
    ),
    (
        "store",
        "fail",
        lambda: well(
            schema_fault="The schema is 3, this version needs 4.",
        ),
        "The schema is 3",
        "`meter migrate`",
    ),
    (
        "settings",
        "fail",
        lambda: well(
            start_fault="Redis was made with METER_PARTITIONS=1, this process has 2.", start_reason="settings"
        ),
        "METER_PARTITIONS=1",
        "Set it back",
    ),
    (
        "settings",
        "warn",
        lambda: well(remarks=["METER_REDIS_ULR is no setting. Did you mean METER_REDIS_URL?"]),
        "METER_REDIS_ULR is no setting. Did you mean METER_REDIS_URL?",
        "Correct",
    ),
    (
        "identity",
        "fail",
        lambda: well(
            start_fault="ledger A, ledger B",
            start_reason="ledger",
        ),
        "ledger A",
        "Correct one URL; do not rebuild.",
    ),
    (
        "bind",
        "fail",
        lambda: well(settings=settings(host="0.0.0.0")),
        "Listens on 0.0.0.0 without keys.",
        "METER_AUTH=keys and `meter keys create`.",
    ),
    (
        "bind",
        "ok",
        lambda: well(settings=settings(host="0.0.0.0", auth="keys")),
        "Strangers are kept out.",
        "",
    ),
    (
        "secrets",
        "warn",
        lambda: well(in_environment=["METER_STORE_URL"]),
        "A password is in METER_STORE_URL.",
        "Use METER_STORE_URL_FILE, mode 0600.",
    ),
    (
        "processes",
        "warn",
        lambda: well(version="2"),
        "Versions differ: 1, 2.",
        "Finish the upgrade.",
    ),
]


@pytest.mark.parametrize(
    ("name", "level", "evidence", "found", "remedy"), CASES, ids=[f"{one[0]}-{one[3][:24]}" for one in CASES]
)
def test_a_check_finds_what_is_wrong_and_says_what_to_do(
    name: str, level: str, evidence: Callable[[], Evidence], found: str, remedy: str
) -> None:
    told = findings_of(evidence(), name)
    assert any(
        (one.name, one.level) == (name, level) and found in one.found and remedy in one.remedy for one in told
    ), told


def test_all_is_well_and_every_check_says_so() -> None:
    told = findings_of(well())
    assert [one.name for one in told] == list(NAMES)
    assert [one for one in told if one.level != "ok"] == []
    assert all(one.found and not one.remedy for one in told)


def test_what_needs_redis_is_skipped_where_it_does_not_answer() -> None:
    told = {one.name: one for one in findings_of(facts(redis_fault="refused"))}
    assert told["memory"] == Finding("memory", "skip", "Redis does not answer", "")
    assert told["bind"].level == "ok"


def test_a_store_that_was_not_asked_is_not_said_to_be_away() -> None:
    evidence = replace(facts(store_fault="not open yet"), start_fault="partitions is 1", start_reason="settings")
    assert [one.level for one in findings_of(evidence, "store")] == ["ok"]


def test_sqlite_is_for_one_machine() -> None:
    others = [Sidecar(sidecar_id=f"{host}-7-aa", version="1", started_at_ms=NOW, seen_at_ms=NOW) for host in ("h", "i")]
    evidence = replace(facts(sidecars=others), settings=settings(store_url="sqlite:///m.db"))
    assert [(one.level, one.found) for one in findings_of(evidence, "store")] == [
        ("warn", "SQLite with several machines.")
    ]
