"""U4: which part works, what stops where one does not, and what that means for who asks."""

from __future__ import annotations

import pytest

from meter.engine.redis import PartitionState
from meter.health.presence import FORGOTTEN_AFTER_SECONDS, MISSING_AFTER_SECONDS, Worker, alive
from meter.health.status import Facts, Name, PartitionFacts, oldest_seconds, status_of_sidecar, status_of_worker

NOW = 1_800_000_000_000
LIMIT = 100


def partition(number: int = 0, backlog: int = 0, refusal: str = "", oldest_ms: int | None = None) -> PartitionFacts:
    state = PartitionState("open", 1, 500 + backlog, "x", 500, None)
    return PartitionFacts(number, state, refusal, oldest_ms)


def worker(age_seconds: float = 1.0, *, stopped: bool = False) -> Worker:
    seen_at_ms = NOW - int(1000 * age_seconds)
    return Worker(worker_id="w", version="1", started_at_ms=0, seen_at_ms=seen_at_ms, stopped=stopped)


def facts(
    *partitions: PartitionFacts,
    redis_fault: str = "",
    store_fault: str | None = "",
    workers: tuple[Worker, ...] = (worker(),),
) -> Facts:
    return Facts(redis_fault, partitions or (partition(),), NOW, NOW, store_fault, workers)


WELL = dict.fromkeys(Name, "ok")


@pytest.mark.parametrize(
    ("found", "word", "states"),
    [
        (facts(), "ok", {}),
        (facts(store_fault=None), "ok", {"store": "none"}),
        (facts(store_fault=None, workers=()), "ok", {"store": "none", "worker": "none"}),
        (facts(store_fault="gone"), "degraded", {"store": "away"}),
        (facts(workers=()), "degraded", {"worker": "missing"}),
        (facts(workers=(worker(MISSING_AFTER_SECONDS + 1),)), "degraded", {"worker": "missing"}),
        (facts(workers=(worker(MISSING_AFTER_SECONDS - 1),)), "ok", {}),
        (facts(workers=(worker(0, stopped=True),)), "degraded", {"worker": "missing"}),
        (facts(workers=(worker(0, stopped=True), worker(2))), "ok", {}),
        (facts(partition(backlog=LIMIT // 2 - 1)), "ok", {}),
        (facts(partition(backlog=LIMIT // 2)), "degraded", {"backlog": "high"}),
        (facts(partition(backlog=LIMIT)), "unavailable", {"backlog": "full"}),
        (facts(partition(0, 60), partition(1, 60)), "degraded", {"backlog": "high"}),
        (facts(partition(0), partition(1, refusal="lost")), "unavailable", {"partitions": "refused"}),
        (
            facts(redis_fault="no", store_fault="gone"),
            "unavailable",
            {"redis": "away", "partitions": "unknown", "backlog": "unknown", "store": "away", "worker": "unknown"},
        ),
    ],
)
def test_u4_charging_goes_on_without_store_and_worker_and_not_without_the_rest(
    found: Facts, word: str, states: dict[str, str]
) -> None:
    status = status_of_sidecar(found, LIMIT)
    assert (status.word, {name: part.state for name, part in status.parts.items()}) == (word, WELL | states)
    failing = [part for part in status.parts.values() if part.state not in ("ok", "none", "unknown")]
    assert len(status.faults) == len(failing)
    assert all(part.stops for part in failing if part.state != "high")


@pytest.mark.parametrize(
    ("found", "word"),
    [
        (facts(workers=()), "ok"),
        (facts(store_fault="gone"), "unavailable"),
        (facts(redis_fault="no"), "unavailable"),
        (facts(partition(refusal="lost")), "degraded"),
        (facts(partition(backlog=LIMIT)), "degraded"),
        (facts(store_fault=None), "ok"),
    ],
)
def test_u4_a_worker_needs_redis_and_the_store(found: Facts, word: str) -> None:
    status = status_of_worker(found, LIMIT)
    assert (status.word, Name.WORKER in status.parts) == (word, False)


def test_u4_without_a_limit_no_backlog_is_full() -> None:
    assert status_of_sidecar(facts(partition(backlog=10**9)), 0).word == "ok"


def test_u4_what_is_shown_of_a_part() -> None:
    found = facts(partition(0, 2, oldest_ms=NOW - 1500), partition(1, 3, oldest_ms=NOW - 4500), workers=(worker(60),))
    document = status_of_sidecar(found, LIMIT).document()
    assert document["redis"] == {"status": "ok"}
    assert document["partitions"] == {"status": "ok", "served": 2, "of": 2}
    assert document["backlog"] == {
        "status": "ok",
        "transactions": 5,
        "oldest_seconds": 4.5,
        "limit_per_partition": LIMIT,
    }
    assert document["worker"] == {
        "status": "missing",
        "detail": "No worker seen since 2027-01-15T07:59:00.000Z: nothing is stored, granted or sent. "
        "Start `meter worker`.",
        "stops": ["the ledger", "periods of plans", "alerts and webhooks"],
        "workers": 0,
        "seen_at": "2027-01-15T07:59:00.000Z",
    }


def test_u4_the_age_of_the_backlog_follows_the_scripts_clock() -> None:
    """A test clock that stands a year ahead makes no transaction a year old."""
    year_ms = 365 * 86_400_000
    found = Facts("", (partition(0, 1, oldest_ms=NOW + year_ms - 500),), NOW, NOW + year_ms, "", (worker(),))
    assert oldest_seconds(found) == 0.5
    assert status_of_sidecar(found, LIMIT).word == "ok"
    assert oldest_seconds(facts()) == 0.0


def test_the_dead_are_remembered_for_a_while() -> None:
    assert alive([worker(0), worker(MISSING_AFTER_SECONDS + 1), worker(0, stopped=True)], NOW) == [worker(0)]
    assert FORGOTTEN_AFTER_SECONDS > 100 * MISSING_AFTER_SECONDS
