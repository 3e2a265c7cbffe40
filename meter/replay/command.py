"""`meter replay` without its command line: runs, prints, and answers the exit code.

0 conserved · 1 a difference · 2 bad usage or file · 3 no sidecar · 130 interrupted. The first Ctrl-C lets the calls
in flight finish and then checks what was done; the second ends at once, and a journal can be verified later.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

from rich.console import Console

from meter.event_loop import loop_factory
from meter.replay.client import SidecarUnreachable, UnexpectedAnswer
from meter.replay.driver import replay, verify
from meter.replay.journal import JournalError
from meter.replay.options import OptionError, ReplayOptions
from meter.replay.report import EXIT_INTERRUPTED, EXIT_UNREACHABLE, EXIT_USAGE, ReplayReport, print_report
from meter.replay.trace import TraceError

_Work = Callable[[asyncio.Event], Awaitable[ReplayReport]]


def run_replay(options: ReplayOptions, out: Console, err: Console, *, as_json: bool = False) -> int:
    """Replays, prints the report on `out` and progress and complaints on `err`; answers the exit code."""
    hint = f"; check it with --verify {options.journal}" if options.journal else ""
    return _run(lambda stop: replay(options, err, stop), out, err, as_json, hint)


def run_verify(
    journal: Path,
    out: Console,
    err: Console,
    *,
    url: str | None = None,
    concurrency: int = 64,
    patience_seconds: float = 30.0,
    as_json: bool = False,
) -> int:
    """Verifies a journal; prints and answers as `run_replay` does."""

    def work(_: asyncio.Event) -> Awaitable[ReplayReport]:
        return verify(journal, err, url=url, concurrency=concurrency, patience_seconds=patience_seconds)

    return _run(work, out, err, as_json, "")


def _run(work: _Work, out: Console, err: Console, as_json: bool, hint: str) -> int:
    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            report = runner.run(_stoppable(work))
    except (TraceError, OptionError, JournalError) as error:
        err.print(str(error), style="red", highlight=False, markup=False, soft_wrap=True)
        return EXIT_USAGE
    except (SidecarUnreachable, UnexpectedAnswer) as error:
        err.print(str(error), style="red", highlight=False, markup=False, soft_wrap=True)
        return EXIT_UNREACHABLE
    except (asyncio.CancelledError, KeyboardInterrupt):
        err.print(f"interrupted{hint}", style="red", highlight=False, markup=False, soft_wrap=True)
        return EXIT_INTERRUPTED
    if as_json:
        out.print(report.as_json(), highlight=False, markup=False, soft_wrap=True)
    else:
        print_report(report, out)
    return report.exit_code


async def _stoppable(work: _Work) -> ReplayReport:
    """Runs with Ctrl-C bound: the first sets the stop event, the second cancels."""
    loop, stop, task = asyncio.get_running_loop(), asyncio.Event(), asyncio.current_task()

    def interrupt() -> None:
        if stop.is_set() and task is not None:
            task.cancel()
        stop.set()

    with contextlib.suppress(NotImplementedError, ValueError, RuntimeError):  # not on Windows, not in a thread
        loop.add_signal_handler(signal.SIGINT, interrupt)
    try:
        return await work(stop)
    finally:
        with contextlib.suppress(NotImplementedError, ValueError, RuntimeError):
            loop.remove_signal_handler(signal.SIGINT)
