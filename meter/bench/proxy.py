"""`meter bench proxy`: what the proxy adds to a stream of server-sent events, beside the same stream without it.

Round by round, the same streams directly and through `meter proxy`; what it adds is the difference of the medians. The
upstream, the proxy, Redis and whoever reads are four processes, which share the cores of this machine.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from meter.bench.goals import Goal
from meter.bench.ground import Ground
from meter.bench.machine import machine
from meter.bench.options import ProxyBenchOptions
from meter.bench.processes import stream_proxy, stream_upstream
from meter.bench.report import console, goal_members, print_goals, print_machine
from meter.bench.samples import percentile
from meter.bench.stream_client import StreamLoad, Streams, run_streams
from meter.bench.traffic import user_name
from meter.dev.redis_server import EmbeddedServer

ADDED_MS_MAX = 1.0
WARM_UP_SECONDS = 1.0
WAYS = ("direct", "proxy")
_MEASURES = (("first event", "first_ms"), ("whole stream", "total_ms"), ("each event", "event_ms"))


@dataclass(frozen=True, slots=True)
class Kind:
    """Streams that are asked for in one manner."""

    title: str
    connections: int
    events: int = 10
    pause_seconds_max: float = 0.05


KINDS = (
    Kind("one event, back to back", 1, events=0, pause_seconds_max=0),
    Kind("one stream at a time", 1),
    Kind("16 streams at a time", 16),
)
"""The first one keeps every process awake and in its caches, as a busy server is."""


@dataclass(slots=True)
class Comparison:
    """The same streams in both ways."""

    kind: Kind
    direct: Streams = field(default_factory=Streams)
    proxy: Streams = field(default_factory=Streams)

    def added_ms(self, measure: str) -> float:
        """What the proxy adds to the median."""
        return _at(self.proxy, measure, 50) - _at(self.direct, measure, 50)


def run(options: ProxyBenchOptions) -> int:
    """See `meter.bench.run_proxy_bench`."""
    return asyncio.run(_run(options, console()))


async def _run(options: ProxyBenchOptions, out: Console) -> int:
    found = machine()
    with tempfile.TemporaryDirectory(prefix="meter-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        server = stack.enter_context(EmbeddedServer(data_dir=folder / "redis"))
        async with Ground(server.url) as ground:
            print_machine(out, found, ground.version, "one proxy process, no worker")
            await ground.give(user_name(number) for number in range(options.users))
            upstream = stack.enter_context(stream_upstream(folder))
            proxy = stack.enter_context(stream_proxy(server.url, upstream.port, folder))
            with out.status("streaming"):
                compared = _rounds(options, {"direct": upstream.port, "proxy": proxy.port})
            redis = ground.version
    goals = [goal for one in compared for goal in _goals(one)]
    _print(out, compared)
    print_goals(out, goals)
    members: dict[str, object] = {
        "machine": {**found, "redis": redis, "append_only": "everysec"},
        "options": {"rounds": options.rounds, "seconds": options.seconds, "users": options.users},
        "proxy": [_members(one) for one in compared],
        "goals": [goal_members(goal) for goal in goals],
    }
    _write(out, options.out, members)
    return _judge(out, compared)


def _rounds(options: ProxyBenchOptions, ports: Mapping[str, int]) -> list[Comparison]:
    compared = [Comparison(kind) for kind in KINDS]
    for number in range(options.rounds + 1):
        seconds = options.seconds if number else min(WARM_UP_SECONDS, options.seconds)
        for one in compared:
            for way in WAYS:
                kind = one.kind
                seen = run_streams(
                    StreamLoad(
                        ports[way], kind.connections, seconds, options.users, kind.events, kind.pause_seconds_max
                    )
                )
                if number:  # the first one warms up
                    getattr(one, way).add(seen)
    return compared


def _goals(one: Comparison) -> list[Goal]:
    return [
        Goal(f"ms added to p50, {one.kind.title}: {what}", one.added_ms(name), ADDED_MS_MAX, at_least=False)
        for what, name in _MEASURES
    ]


def _at(streams: Streams, measure: str, percent: float) -> float:
    return percentile(sorted(getattr(streams, measure)), percent)


def _print(out: Console, compared: Sequence[Comparison]) -> None:
    table = Table(title="Streams of server-sent events, in milliseconds", title_justify="left")
    table.add_column("streams")
    table.add_column("what")
    for name in ("count", "direct p50", "p99", "proxy p50", "p99", "added to p50"):
        table.add_column(name, justify="right")
    for one in compared:
        for what, measure in _MEASURES:
            numbers = [_at(getattr(one, way), measure, percent) for way in WAYS for percent in (50, 99)]
            table.add_row(
                one.kind.title,
                what,
                f"{len(one.proxy.total_ms):,}",
                *(f"{number:.2f}" for number in numbers),
                f"{one.added_ms(measure):.2f}",
            )
    out.print(table)


def _members(one: Comparison) -> dict[str, object]:
    told: dict[str, object] = asdict(one.kind)
    for way in WAYS:
        streams: Streams = getattr(one, way)
        told[way] = {
            "streams": len(streams.total_ms),
            "faults": streams.faults,
            **{
                measure: {f"p{percent}": _at(streams, measure, percent) for percent in (50, 90, 99)}
                for _, measure in _MEASURES
            },
        }
    return told


def _write(out: Console, folder: Path, members: dict[str, object]) -> None:
    now = datetime.now(UTC)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{now:%Y-%m-%dT%H%M%SZ}-proxy.json"
    path.write_text(json.dumps({"at": now.isoformat(), **members}, indent=2) + "\n", encoding="utf-8")
    out.print(f"{path}")


def _judge(out: Console, compared: Sequence[Comparison]) -> int:
    """Streams that were refused or broke off are no streams."""
    broken = [fault for one in compared for fault in (*one.direct.faults, *one.proxy.faults)]
    for fault in broken:
        out.print(f"[red]{fault}[/red]")
    unseen = any(not one.direct.total_ms or not one.proxy.total_ms for one in compared)
    return 1 if broken or unseen else 0
