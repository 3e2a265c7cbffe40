"""From what was found to what it means: which part works, and what stops where one does not. No clock, no Redis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from meter.clock import time_text
from meter.engine.redis import PartitionState
from meter.health.presence import Sidecar, Worker, alive

HALF = 2
"""The backlog is high from half of its limit on."""

Word = Literal["ok", "degraded", "unavailable"]


class Name(StrEnum):
    """The parts, in the order in which they are shown: the first one that fails explains those after it."""

    REDIS = "redis"
    PARTITIONS = "partitions"
    BACKLOG = "backlog"
    STORE = "store"
    WORKER = "worker"


@dataclass(frozen=True, slots=True)
class PartitionFacts:
    """What was found of a partition."""

    number: int
    state: PartitionState | None
    refusal: str = ""
    """Why operations on it are refused."""
    oldest_ms: int | None = None
    """When the oldest transaction was made that the store does not have, on the scripts' clock."""

    @property
    def backlog(self) -> int:
        """Transactions that the store does not have, as far as Redis was told."""
        return 0 if self.state is None else max(0, self.state.seq - self.state.flushed)


@dataclass(frozen=True, slots=True)
class Facts:
    """What was found in one look. With a `redis_fault` nothing is known of what Redis would tell."""

    redis_fault: str = ""
    partitions: Sequence[PartitionFacts] = ()
    now_ms: int = 0
    """Redis' own time."""
    script_now_ms: int = 0
    """The time that scripts see: the test clock's, where there is one."""
    store_fault: str | None = None
    """None where there is no store, "" when it answers."""
    workers: Sequence[Worker] = ()
    sidecars: Sequence[Sidecar] = ()
    redis_word: str = "away"
    """Away, or refuses; so for the store."""
    store_word: str = "away"


@dataclass(frozen=True, slots=True)
class Part:
    """One part: "ok", or in one word what is wrong, a sentence, and what stops because of it."""

    state: str = "ok"
    detail: str = ""
    stops: Sequence[str] = ()
    figures: Mapping[str, object] = field(default_factory=dict)

    def document(self) -> dict[str, object]:
        """As JSON members."""
        told = {"detail": self.detail} if self.detail else {}
        stops = {"stops": list(self.stops)} if self.stops else {}
        return {"status": self.state, **told, **stops, **self.figures}


@dataclass(frozen=True, slots=True)
class Status:
    """Every part, and the word for all of them together."""

    word: Word
    parts: Mapping[Name, Part]
    facts: Facts

    @property
    def faults(self) -> list[str]:
        """A sentence for each part that is not well."""
        return [part.detail for part in self.parts.values() if part.detail]

    def document(self) -> dict[str, object]:
        """The parts as JSON members."""
        return {name.value: part.document() for name, part in self.parts.items()}


def status_of_sidecar(facts: Facts, outbox_max: int) -> Status:
    """For a process that decides. Charging is refused without Redis, on a refused partition and at a full backlog; the
    store and the worker may be away for as long as the backlog has room.
    """
    parts = _parts(facts, outbox_max)
    if any(parts[name].state not in ("ok", "high") for name in (Name.REDIS, Name.PARTITIONS, Name.BACKLOG)):
        return Status("unavailable", parts, facts)
    return Status("ok" if all(part.state in ("ok", "none") for part in parts.values()) else "degraded", parts, facts)


def status_of_worker(facts: Facts, outbox_max: int) -> Status:
    """For a process that flushes: it can do nothing without Redis or without the store."""
    parts = _parts(facts, outbox_max)
    del parts[Name.WORKER]
    if parts[Name.REDIS].state != "ok" or parts[Name.STORE].state not in ("ok", "none"):
        return Status("unavailable", parts, facts)
    return Status("ok" if all(part.state in ("ok", "none") for part in parts.values()) else "degraded", parts, facts)


def _parts(facts: Facts, outbox_max: int) -> dict[Name, Part]:
    store = _store(facts)
    if facts.redis_fault:
        unknown = Part("unknown")
        redis = Part(facts.redis_word, facts.redis_fault, ["every call"])
        return {
            Name.REDIS: redis,
            Name.PARTITIONS: unknown,
            Name.BACKLOG: unknown,
            Name.STORE: store,
            Name.WORKER: unknown,
        }
    return {
        Name.REDIS: Part(),
        Name.PARTITIONS: _partitions(facts),
        Name.BACKLOG: _backlog(facts, outbox_max),
        Name.STORE: store,
        Name.WORKER: _worker(facts),
    }


def _partitions(facts: Facts) -> Part:
    refused = [one for one in facts.partitions if one.refusal]
    figures: dict[str, object] = {"served": len(facts.partitions) - len(refused), "of": len(facts.partitions)}
    if not refused:
        return Part(figures=figures)
    numbers = [one.number for one in refused]
    detail = "; ".join(one.refusal for one in refused[:3])
    stops = [f"every call on partition {number}" for number in numbers[:3]]
    return Part("refused", detail, stops, {**figures, "refused": numbers})


def _backlog(facts: Facts, outbox_max: int) -> Part:
    waiting = sum(one.backlog for one in facts.partitions)
    figures = {"transactions": waiting, "oldest_seconds": oldest_seconds(facts), "limit_per_partition": outbox_max}
    highest = max((one.backlog for one in facts.partitions), default=0)
    if not outbox_max or HALF * highest < outbox_max:
        return Part(figures=figures)
    if highest >= outbox_max:
        detail = f"{highest} transactions are not in the store, METER_OUTBOX_MAX={outbox_max}"
        return Part("full", detail, ["reservations and deductions, until a tenth has drained"], figures)
    detail = f"{highest} transactions are not in the store; at METER_OUTBOX_MAX={outbox_max} spending is refused"
    return Part("high", detail, (), figures)


def _store(facts: Facts) -> Part:
    if facts.store_fault is None:
        return Part("none")
    if not facts.store_fault:
        return Part()
    stops = ["adding credits", "plans, subscriptions and webhooks", "history of what Redis has no longer"]
    return Part(facts.store_word, facts.store_fault, stops)


def _worker(facts: Facts) -> Part:
    living = alive(facts.workers, facts.now_ms)
    seen = {"seen_at": time_text(facts.workers[0].seen_at_ms)[1:-1]} if facts.workers else {}
    figures: dict[str, object] = {"workers": len(living), **seen}
    if living:
        return Part(figures=figures)
    if facts.store_fault is None:
        return Part("none", figures=figures)  # without a store it only ends what is due on accounts that nobody touches
    since = f" since {seen['seen_at']}" if seen else ""
    detail = f"No worker seen{since}: nothing is stored, granted or sent. Start `meter worker`."
    return Part("missing", detail, ["the ledger", "periods of plans", "alerts and webhooks"], figures)


def oldest_seconds(facts: Facts) -> float:
    """How long the oldest transaction has waited for the store."""
    times = [one.oldest_ms for one in facts.partitions if one.oldest_ms is not None]
    return max(0, facts.script_now_ms - min(times)) / 1000 if times else 0.0
