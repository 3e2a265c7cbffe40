"""One trial: faults of the table happen to a town at work, then everything is healed, drained and checked."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.checker import redis_side, store_side
from tests.faults.checker.evidence import Evidence, Finding, Loss, Sample
from tests.faults.checker.history import doubtful, operations, read_calls
from tests.faults.checker.invariants import check, forgotten
from tests.faults.journal import Journal
from tests.faults.table import Fault
from tests.faults.town import FOREIGN, Town, now_ms
from tests.faults.workload import Operation, note_call, settles

SAMPLE_SECONDS = 0.5
ASK_AGAIN_SECONDS = 60.0


@dataclass
class Score:
    """What the table shows."""

    operations: int = 0
    acknowledged: int = 0
    transactions: int = 0
    unknown: int = 0
    """Operations that nobody could resolve; of those that were doubtful at some time, `asked` were asked again."""
    asked: int = 0
    forgotten: int = 0
    """Acknowledged, never in the store, and gone with a loss that was noticed."""
    words: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    seconds: float = 0.0

    def line(self) -> str:
        """All of it in a line."""
        return (
            f"{self.operations} operations, {self.acknowledged} acknowledged, {self.transactions} transactions, "
            f"{self.asked} asked again, {self.unknown} unknown, {self.forgotten} gone with a noticed loss, "
            f"found: {dict(self.words) or 'nothing'}"
        )


class Trial:
    """Keeps what happened in the town's folder, so that it goes on from there."""

    def __init__(self, town: Town, *, sample_seconds: float = SAMPLE_SECONDS) -> None:
        self.town = town
        self._sample_seconds = sample_seconds
        self._log = town.plan.folder / "faults.ndjson"
        self.samples: list[Sample] = []
        self.recoveries: dict[str, list[float]] = defaultdict(list)
        self.faults: Counter[str] = Counter()
        self.unrecovered: list[str] = []
        for said in _lines(self._log):
            if "loss" in said:
                town.losses.append(Loss(**said["loss"]))
            else:
                self.faults[said["fault"]] += 1
                self.recoveries[said["fault"]].append(said["recovery_seconds"])
        self._logged_losses = len(town.losses)

    async def inflict(self, fault: Fault) -> float:
        """The fault happens and is healed; how long it then took until both sidecars and the store were at work."""
        healed = time.monotonic()
        try:
            async with fault.happens(self.town):
                await asyncio.sleep(fault.seconds)
            healed = time.monotonic()
            await self.town.recovered()
            self.town.settle_doubt()
        except AssertionError as error:
            self.unrecovered.append(f"{fault.name}: {error}")
        seconds = time.monotonic() - healed
        self.faults[fault.name] += 1
        self.recoveries[fault.name].append(seconds)
        self._note(fault=fault.name, recovery_seconds=round(seconds, 3))
        for loss in self.town.losses[self._logged_losses :]:
            self._note(loss=loss._asdict())
        self._logged_losses = len(self.town.losses)
        return seconds

    @asynccontextmanager
    async def under_load(self) -> AsyncIterator[None]:
        """Clients are at work, and looks are taken."""
        self.town.begin_clients()
        sampling = asyncio.create_task(self._sample())
        try:
            yield
        finally:
            sampling.cancel()
            await asyncio.wait((sampling,))
        await self.town.end_clients()

    async def verdict(self) -> Score:
        """Finds out what is doubtful, drains, reads everything and checks it."""
        started = time.monotonic()
        try:
            await self.town.recovered()
            score = Score(asked=await self._ask_again())
            evidence = await self._evidence()
        except AssertionError as error:
            found = [Finding("recovery", "unrecovered", str(error))]
            return Score(words=Counter(["unrecovered"]), findings=found, seconds=time.monotonic() - started)
        score.operations, score.transactions = len(evidence.told), len(evidence.rows)
        score.acknowledged = sum(told.at_least for told in evidence.told.values())
        score.unknown = sum(1 for told in evidence.told.values() if not told.is_resolved)
        score.findings = await asyncio.to_thread(check, evidence)
        score.findings += [Finding("recovery", "unrecovered", what) for what in self.unrecovered]
        score.words = Counter(finding.word for finding in score.findings)
        score.forgotten = forgotten(evidence)
        score.seconds = time.monotonic() - started
        return score

    def _files(self) -> list[Path]:
        return sorted(self.town.history.glob("*.ndjson"), key=lambda path: path.stat().st_mtime)

    async def _ask_again(self) -> int:
        """Every doubtful call by its own key, until it is known; how many these were."""
        calls = doubtful(await asyncio.to_thread(read_calls, self._files()))
        journal = Journal(self.town.history / "asked-again.ndjson")
        deadline = time.monotonic() + ASK_AGAIN_SECONDS

        async def ask(operation: Operation, number: int) -> None:
            while time.monotonic() < deadline:
                await note_call(journal, operation, number)
                url = self.town.urls[number % 2]
                method, path, body, key = operation.method, operation.path, operation.body, operation.key
                status, text = await self.town.http.call(url, method, path, body, key)
                await journal.write(answer=operation.id, attempt=number, status=status, text=text)
                if status != 202 and settles(operation.kind, status, text):
                    return
                number += 1
                await asyncio.sleep(0.2)

        for first in range(0, len(calls), 20):
            await asyncio.gather(
                *(
                    ask(Operation(one.id, one.kind, one.user, one.path, one.body, one.key, one.method), 1_000 + n)
                    for one in calls[first : first + 20]
                    for n in [max(one.attempts)]
                )
            )
        journal.close()
        return len(calls)

    async def _evidence(self) -> Evidence:
        """Both sides at the same place: holds and grants fall due by themselves, so it is looked until they agree."""
        town = self.town
        drift = await asyncio.to_thread(self._reconcile)
        told = operations(await asyncio.to_thread(read_calls, self._files()))
        for _ in range(50):
            await town.drained()
            redis, outbox = await asyncio.to_thread(redis_side.read_redis, town.client)
            rows, store, subscribed, quarantine = await asyncio.to_thread(store_side.read_store, town.database)
            if redis.place == store.place == redis_side.place_of(town.client):
                break
            await asyncio.sleep(0.1)
        foreign = [key for key, text in FOREIGN.items() if (town.client.get(key) or b"").decode() != text]
        return Evidence(
            told,
            rows,
            store,
            redis,
            outbox,
            losses=town.losses,
            samples=self.samples,
            subscribed=subscribed,
            quarantine=quarantine,
            strangers=redis_side.strangers(town.client, *FOREIGN),
            foreign_touched=foreign,
            drift=drift,
        )

    def _reconcile(self) -> list[str]:
        """What `meter reconcile` says: its own opinion, beside ours."""
        found = subprocess.run(
            [sys.executable, "-m", "meter", "reconcile", "--json"],
            cwd=self.town.plan.folder,
            env=self.town.deployment.env,
            capture_output=True,
            text=True,
            check=False,
        )
        try:
            return [json.dumps(drift) for report in json.loads(found.stdout) for drift in report["drifts"]]
        except ValueError:
            return [f"meter reconcile: {found.returncode} {found.stderr[-500:]}"]

    async def _sample(self) -> None:
        while True:
            with contextlib.suppress(Exception):
                self.samples.append(await asyncio.to_thread(self._look))
            await asyncio.sleep(self._sample_seconds)

    def _look(self) -> Sample:
        """Redis first, the store afterwards."""
        first, grants = redis_side.first_seq(self.town.client), redis_side.grant_names(self.town.client)
        epoch, seq = store_side.watermark_of(self.town.database)
        homeless = grants - store_side.grant_names(self.town.database)
        return Sample(now_ms(), first, epoch, seq, tuple(f"{user} {grant}" for user, grant in sorted(homeless)))

    def _note(self, **said: object) -> None:
        with self._log.open("a") as log:
            log.write(json.dumps(said) + "\n")


def _lines(path: Path) -> Iterable[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
