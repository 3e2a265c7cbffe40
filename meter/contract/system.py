"""What goes over the wire about the deployment itself: whether it works, and what it runs on."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

from meter.contract.answers import Answer

State = Literal["ok", "degraded", "unavailable"]


class Process(BaseModel):
    """A process of the deployment that was seen lately."""

    kind: Literal["sidecar", "worker"]
    id: str
    version: str
    started_at: datetime
    seen_at: datetime


class Finding(BaseModel):
    """What a check found: well, worth a look, wrong, or not to be judged. `remedy` is what to do about it."""

    name: str
    level: Literal["ok", "warn", "fail", "skip"]
    found: str
    remedy: str


class DoctorQuery(BaseModel):
    """Of which check alone."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    only: (
        Literal[
            "redis",
            "version",
            "eviction",
            "persistence",
            "memory",
            "replica",
            "acl",
            "clock",
            "worker",
            "backlog",
            "store",
            "settings",
            "identity",
            "bind",
            "secrets",
            "processes",
        ]
        | None
    ) = None


class Findings(Answer):
    """What every check found, in their order, and how many fail."""

    items: list[Finding]
    failed: int


class RedisFigures(BaseModel):
    """What Redis says of itself; null is what it does not say. `us_per_op`: its own time for one operation, by the
    batches of the process that answers. `memory_share`: of maxmemory. `aof_ok`: each write goes to its append-only
    file. On a cluster they are those of the server that is worst off.
    """

    reachable: bool
    us_per_op: float | None
    memory_bytes: int | None
    memory_share: float | None
    aof_ok: bool | None


class OutboxFigures(BaseModel):
    """Transactions that the store does not have yet, and how long the oldest has waited. `limit` per partition: from
    there on spending is refused; 0 is none.
    """

    waiting: int
    oldest_ms: int
    limit: int


class StoreFigures(BaseModel):
    """The durable store. `rows`: how many transactions it has; null where it does not answer, or there is none."""

    kind: str
    rows: int | None
    reachable: bool


class SystemStatus(Answer):
    """How the deployment is, as of one look. `sentence` says it in words; `warnings` has a sentence for each part that
    is not well.
    """

    state: State
    sentence: str
    version: str
    as_of: datetime
    processes: list[Process]
    redis: RedisFigures
    outbox: OutboxFigures
    store: StoreFigures
    warnings: list[str]
