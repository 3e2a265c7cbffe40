"""Every case once per round, A B C A B C, so that what disturbs one disturbs all; and whose CPU time each cost."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import replace

from rich.console import Console

from meter.bench.cases import WORKER, Case, wanted_cases, why_not
from meter.bench.cpu import spent_us
from meter.bench.driver import Driver
from meter.bench.ground import Ground
from meter.bench.options import BenchOptions
from meter.bench.parties import Parties
from meter.bench.processes import ServerFailed
from meter.bench.samples import CaseResult, Sample
from meter.bench.wrk import WrkFailed

WARM_UP_SECONDS = 0.5
BROKEN = (WrkFailed, subprocess.SubprocessError, OSError)


class Rounds:
    """The rounds of one run; `results` by the case's name."""

    def __init__(self, options: BenchOptions, driver: Driver, parties: Parties, ground: Ground, out: Console) -> None:
        self._options = options
        self._driver = driver
        self._parties = parties
        self._ground = ground
        self._out = out
        self.results: dict[str, CaseResult] = {}

    async def run(self) -> None:
        """Starts the servers of the cases that can run here, says why others cannot, and runs all rounds."""
        cases = [case for case in wanted_cases(self._options.cases) if await self._can_run(case)]
        for case in cases:
            await self.sample(case, "warm", min(WARM_UP_SECONDS, self._options.seconds))
        for number in range(1, self._options.rounds + 1):
            await self._round(cases, number)

    async def sample(self, case: Case, run: str, seconds: float, rate: float = 0.0) -> Sample:
        """One round of one case. What it put into the outbox is in the store before the clocks of CPU time stop."""
        parties = self._parties
        cpu, written = parties.cpu(case), self._ground.append_only_bytes()
        try:
            port = parties.port(case)
            if rate:
                sample = self._driver.drive_at(rate, case, port, run, seconds)
            else:
                sample = self._driver.drive(case, port, run, seconds)
        except BROKEN as error:
            return failed(f"{type(error).__name__}: {error}")
        await parties.drained()
        operations = sample.requests * case.operations
        if not operations:
            return sample
        written = self._ground.append_only_bytes() - written
        return replace(
            sample,
            cpu_us=spent_us(cpu, parties.cpu(case), operations),
            append_only_bytes=written / operations if WORKER in case.parties else None,
        )

    async def _can_run(self, case: Case) -> bool:
        result = self.results.setdefault(case.name, CaseResult(case.name, case.title, case.operations))
        reason = why_not(case, self._options.ratelimit)
        if reason is None:
            try:
                await self._parties.start(case)
            except ServerFailed as error:
                reason = f"it does not start: {error}"
                result.samples.append(failed(str(error)))
        if reason is None:
            return True
        if not result.samples:
            del self.results[case.name]
        self._out.print(f"[yellow]{case.name} is left out: {reason}[/yellow]")
        return False

    async def _round(self, cases: Sequence[Case], number: int) -> None:
        told = f"round {number} of {self._options.rounds}"
        with self._out.status(told) as status:
            for case in cases:
                status.update(f"{told}: {case.title}")
                sample = await self.sample(case, f"{number}", self._options.seconds)
                self.results[case.name].samples.append(sample)


def failed(why: str) -> Sample:
    """A round that did not happen."""
    return Sample(requests=0, errors=1, seconds=1.0, latency_ms=(0.0, 0.0, 0.0), faults=(why,))
