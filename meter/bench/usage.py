"""`meter bench usage`: what reading the usage of a response costs the proxy, beside a plain parse of the same bytes.

In CPU time of this thread, so that who else works on the machine counts for little; both in turn, in one run. The pause
is the longest that one piece of the large answer took, for nothing else happens in the event loop meanwhile.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import orjson
from rich.console import Console
from rich.table import Table

from meter.bench.machine import machine
from meter.bench.options import UsageBenchOptions
from meter.bench.report import console
from meter.bench.samples import Ratio, Spread, spread
from meter.usage import Format, open_reader, shape_of

PIECE_BYTES = 64 * 1024
EVENTS = 300
ANSWERS = 300
SHAPE = shape_of(Format.AUTO)
_HEADERS = [(name, b"x") for name in (b"content-type", b"content-length", b"date", b"server", b"x-request-id")]
_USED = {
    "prompt_tokens": 19,
    "completion_tokens": 10,
    "total_tokens": 29,
    "prompt_tokens_details": {"cached_tokens": 5, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 4, "audio_tokens": 0},
}


@dataclass(slots=True)
class Measured:
    """One figure: what it is, its goal, and what the rounds said of it and of its baseline, in `unit`."""

    title: str
    unit: str
    goal: float
    baseline: str
    ours: list[float] = field(default_factory=list)
    plain: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> Ratio | None:
        """How many times the baseline it takes; None where it has none."""
        if not self.plain:
            return None
        rounds = spread([ours / plain for ours, plain in zip(self.ours, self.plain, strict=True)])
        return Ratio(min(self.ours) / min(self.plain), rounds.median)


def run(options: UsageBenchOptions) -> int:
    """See `meter.bench.run_usage_bench`."""
    out = console(stderr=False)
    answer, events, large = _answer(), [_event()] * EVENTS + [_last_event()], _large()
    figures = (
        Measured(f"a JSON answer of {len(answer):,} bytes", "µs", 20, "orjson.loads"),
        Measured("an event of a stream", "µs", 3, "orjson.loads of its data"),
        Measured(f"a JSON answer of {len(large):,} bytes", "ms", 100, "orjson.loads, when it is whole"),
        Measured("the longest pause meanwhile", "ms", 5, ""),
    )
    with out.status("reading"):
        for _ in range(options.rounds):
            _round(figures, answer, events, large)
    _print(out, figures)
    _write(out, options.out, figures)
    return 0


def _round(figures: tuple[Measured, ...], answer: bytes, events: list[bytes], large: bytes) -> None:
    small, event, big, pause = figures
    small.ours.append(_cpu_us(lambda: _read_each(answer)) / ANSWERS)
    small.plain.append(_cpu_us(lambda: [orjson.loads(answer) for _ in range(ANSWERS)]) / ANSWERS)
    event.ours.append(_cpu_us(lambda: _read(events)) / EVENTS)
    event.plain.append(_cpu_us(lambda: [orjson.loads(one[5:]) for one in events]) / EVENTS)
    pieces = [large[at : at + PIECE_BYTES] for at in range(0, len(large), PIECE_BYTES)]
    pauses: list[float] = []
    big.ours.append(_cpu_us(lambda: _read(pieces, pauses)) / 1000)
    big.plain.append(_cpu_us(lambda: orjson.loads(b"".join(pieces))) / 1000)
    pause.ours.append(max(pauses) / 1000)


def _read(pieces: list[bytes], pauses: list[float] | None = None) -> None:
    """Reads a response as the proxy does. Raises AssertionError when it found no usage."""
    reader = open_reader(SHAPE, headers=_HEADERS)
    for piece in pieces:
        if pauses is None:
            reader.feed(piece)
        else:
            begun_ns = time.thread_time_ns()
            reader.feed(piece)
            pauses.append((time.thread_time_ns() - begun_ns) / 1000)
    reader.finish()
    if reader.usage is None:
        raise AssertionError("no usage was read")


def _read_each(answer: bytes) -> None:
    for _ in range(ANSWERS):
        _read([answer])


def _cpu_us(work: Callable[[], object]) -> float:
    begun_ns = time.thread_time_ns()
    work()
    return (time.thread_time_ns() - begun_ns) / 1000


def _answer() -> bytes:
    message = {"role": "assistant", "content": "word and so on " * 108, "refusal": None}
    choices = [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}]
    return orjson.dumps({"id": "c", "object": "chat.completion", "model": "m", "choices": choices, "usage": _USED})


def _event() -> bytes:
    choices = [{"index": 0, "delta": {"content": " word"}, "finish_reason": None}]
    whole = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "m", "choices": choices, "usage": None}
    return b"data: %b\n\n" % orjson.dumps(whole)


def _last_event() -> bytes:
    return b"data: %b\n\n" % orjson.dumps({"id": "chatcmpl-1", "choices": [], "usage": _USED})


def _large() -> bytes:
    """Embeddings: 512 vectors of 1536 numbers, and the usage behind them."""
    chance = random.Random(1)
    vectors = [[chance.uniform(-1, 1) for _ in range(1536)] for _ in range(512)]
    data = [{"object": "embedding", "index": n, "embedding": vector} for n, vector in enumerate(vectors)]
    return orjson.dumps({"object": "list", "data": data, "model": "m", "usage": {"prompt_tokens": 4096}})


def _print(out: Console, figures: tuple[Measured, ...]) -> None:
    table = Table("reading the usage of", "CPU time, best", "median", "goal", "times the baseline", "baseline")
    for one in figures:
        told, ratio = spread(one.ours), one.ratio
        times = "-" if ratio is None else f"{ratio.best:.2f} (median {ratio.median:.2f})"
        figures_of = [f"{value:.1f} {one.unit}" for value in (told.least, told.median, one.goal)]
        table.add_row(one.title, *figures_of, times, one.baseline)
    out.print(table)


def _write(out: Console, folder: Path, figures: tuple[Measured, ...]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    now = datetime.now(UTC)
    path = folder / f"{now:%Y-%m-%dT%H%M%SZ}-usage.json"
    told: list[dict[str, object]] = [_members(one, spread(one.ours)) for one in figures]
    path.write_text(json.dumps({"at": now.isoformat(), "machine": machine(), "figures": told}, indent=2) + "\n")
    out.print(f"{path}")


def _members(one: Measured, told: Spread) -> dict[str, object]:
    ratio = None if one.ratio is None else asdict(one.ratio)
    return {"title": one.title, "unit": one.unit, "goal": one.goal, **asdict(told), "times_the_baseline": ratio}
