"""`meter bench`: what a metered request costs, all who work for it together, beside a bare echo in the same run.

Needs no pytest and no other machine: servers, Redis and the load generator are child processes on loopback. Numbers of
one run compare with each other; numbers of two machines do not.
"""

from __future__ import annotations

from meter.bench.options import (
    CASE_NAMES,
    PART_NAMES,
    BenchOptions,
    FlushBenchOptions,
    JobsBenchOptions,
    OptionError,
    ProxyBenchOptions,
    UsageBenchOptions,
)

__all__ = [
    "CASE_NAMES",
    "PART_NAMES",
    "BenchOptions",
    "FlushBenchOptions",
    "JobsBenchOptions",
    "OptionError",
    "ProxyBenchOptions",
    "UsageBenchOptions",
    "run_bench",
    "run_flush_bench",
    "run_jobs_bench",
    "run_proxy_bench",
    "run_usage_bench",
]


def run_bench(options: BenchOptions) -> int:
    """Runs the cases, prints a table, writes JSON 0 when every case answered without errors, else 1.

    Raises `EmbeddedServerError` when there is no Redis-compatible server, and OSError when nothing can be written.
    """
    from meter.bench.run import run  # noqa: PLC0415 - `meter --help` does not need it

    return run(options)


def run_flush_bench(options: FlushBenchOptions) -> int:
    """Measures flushing into a store and rebuilding from it; prints a table and writes JSON. 0, or 1 after an error.

    Raises `ConfigError` for a store URL that means nothing, `StoreUnavailable`, and what `run_bench` raises.
    """
    from meter.bench.flush import run  # noqa: PLC0415 - as above

    return run(options)


def run_proxy_bench(options: ProxyBenchOptions) -> int:
    """Measures what `meter proxy` adds to a stream; prints a table and writes JSON. 0, or 1 when a stream broke off.

    Raises what `run_bench` raises.
    """
    from meter.bench.proxy import run  # noqa: PLC0415 - as above

    return run(options)


def run_usage_bench(options: UsageBenchOptions) -> int:
    """Measures what reading the usage of a response costs; prints a table and writes JSON. 0.

    Raises OSError when nothing can be written.
    """
    from meter.bench.usage import run  # noqa: PLC0415 - as above

    return run(options)


def run_jobs_bench(options: JobsBenchOptions) -> int:
    """Measures jobs over many at once, and the hot path meanwhile; prints a table and writes JSON. 0, or 1 when a
    request failed or credits are missing.

    Raises what `run_flush_bench` raises.
    """
    from meter.bench.jobs import run  # noqa: PLC0415 - as above

    return run(options)
