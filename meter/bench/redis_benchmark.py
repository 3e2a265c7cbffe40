"""What Redis itself does on our script: redis-benchmark sends the program a batch of deducts, again and again."""

from __future__ import annotations

import re
import shutil
import subprocess
import time

from meter.bench.cases import BATCH
from meter.bench.ground import Ground
from meter.bench.samples import Sample
from meter.bench.traffic import user_name
from meter.engine.history import NOWHERE
from meter.engine.operations import deduct
from meter.engine.programs import apply_program

CLIENTS = 2
"""As many as a sidecar has script calls in flight."""
_TRIAL = 50
_LOT = "__rand_int__"
_RATE = re.compile(r"([0-9.]+) requests per second")
_LATENCY = re.compile(r"^\s+([0-9.]+)\s+([0-9.]+)\s+([0-9.]+)\s+([0-9.]+)\s+([0-9.]+)\s+([0-9.]+)\s*$", re.MULTILINE)


class RedisBenchmarkFailed(Exception):
    """redis-benchmark did not say what was expected; the message has what it said."""


def run_redis_benchmark(ground: Ground, port: int, users: int, seconds: float) -> Sample:
    """About that many seconds of batches. Raises `RedisBenchmarkFailed`."""
    command = _command(ground, port, users)
    trial = parse_redis_benchmark(_run([*command[:1], "-n", str(_TRIAL), *command[1:]]), _TRIAL, 1.0)
    count = max(_TRIAL, int(trial.requests / trial.seconds * seconds))
    started = time.perf_counter()
    text = _run([*command[:1], "-n", str(count), *command[1:]])
    return parse_redis_benchmark(text, count, time.perf_counter() - started)


def _command(ground: Ground, port: int, users: int) -> list[str]:
    """A sender of its own for each call, or the program would answer what it answered before."""
    limits = ["0", "10000", "1000", "86400000", "0"]
    arguments = [_LOT * 3, "1", "each", "0", *limits, str(BATCH), *map(str, NOWHERE), "0"]
    one = deduct(user_name(0).replace("0" * 12, _LOT), 1)
    for _ in range(BATCH):
        arguments += [one[0], str(len(one) - 1), *one[1:]]
    program = apply_program()
    ground.client.script_load(program.source)
    binary = shutil.which("redis-benchmark") or "redis-benchmark"
    keys = ground.keys.all
    options = ["-h", "127.0.0.1", "-p", str(port), "-c", str(CLIENTS), "-r", str(users), "-e", "--precision", "3"]
    return [binary, *options, "EVALSHA", program.sha, str(len(keys)), *keys, *arguments]


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)  # noqa: S603
    return done.stdout + done.stderr


def parse_redis_benchmark(text: str, count: int, seconds: float) -> Sample:
    """The sample in what redis-benchmark printed; its own rate counts. Raises `RedisBenchmarkFailed`."""
    rate, latency = _RATE.findall(text), _LATENCY.findall(text)
    if "Error" in text or not rate:
        raise RedisBenchmarkFailed(text[-500:])
    # avg min p50 p95 p99 max
    percentiles = (float(latency[-1][2]), float(latency[-1][3]), float(latency[-1][4])) if latency else (0.0, 0.0, 0.0)
    return Sample(count, 0, count / float(rate[-1]) if float(rate[-1]) else seconds, percentiles)
