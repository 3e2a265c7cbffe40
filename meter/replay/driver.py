"""Replays a trace against a sidecar: reserve, then commit or release, row by row, and then the conservation check.

One credit is one token, or, with a rate card, a row costs what the card says. A row reserves its context and an
estimate, and commits what it really used. What each row does follows from the seed and the row's number alone, so two
runs with one seed ask for the same.
"""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from array import array
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from hashlib import blake2b
from pathlib import Path
from typing import TypeVar

import orjson
from rich.console import Console

from meter.replay.card import Card, read_card
from meter.replay.client import Answer, Client, SidecarUnreachable, UnexpectedAnswer
from meter.replay.journal import Journal, read_journal
from meter.replay.options import OptionError, ReplayOptions
from meter.replay.progress import Progress
from meter.replay.record import ZERO, Difference, Done, Event, Reading, Record, Run, Sent, Verb, credits_text
from meter.replay.report import ReplayReport, Timing, latency_of
from meter.replay.trace import TraceRow, read_trace

FIRST_PATIENCE_SECONDS = 2.0
TTL_MIN_SECONDS = 300

_T = TypeVar("_T")
_Costs = tuple[Decimal, Decimal, dict[str, object], dict[str, object]]
"""What a row reserves and commits, and the members of the bodies that say so."""


async def replay(options: ReplayOptions, console: Console, stop: asyncio.Event | None = None) -> ReplayReport:
    """Replays a trace and checks every user; progress goes to `console`. When `stop` is set, no further row starts.

    Raises `TraceError`, `OptionError` and `JournalError`; before the first row also `SidecarUnreachable` and
    `UnexpectedAnswer`, later the report says why the run stopped.
    """
    rows = read_trace(options.trace, options.rows_max, options.model_column)
    run = _Replay(options, rows, stop or asyncio.Event())
    return await run.run(console)


async def verify(
    journal: Path, console: Console, *, url: str | None = None, concurrency: int = 64, patience_seconds: float = 30.0
) -> ReplayReport:
    """Checks every user of a journal, all its runs together, and only reads; `url` defaults to the journal's.

    To be done while the sidecar remembers finished reservations (`METER_IDEMPOTENCY_WINDOW_SECONDS`).
    Raises `JournalError`, `SidecarUnreachable` and `UnexpectedAnswer`.
    """
    run, record = read_journal(journal)
    url = url or run.url
    async with Client(url, patience_seconds=patience_seconds) as client:
        await _greet(client, url, patience_seconds)
        with Progress(console, "checking", len(record.accounts)) as progress:
            differences = await check(record, client, concurrency, progress)
    return ReplayReport(replace(run, url=url), record, tuple(differences), True, record.requests)


async def check(record: Record, client: Client, concurrency: int, progress: Progress) -> list[Difference]:
    """Compares a record with the sidecar: first what became of open reservations, then each user's balances."""
    found = list(record.contradictions)

    async def settle(reservation_id: str) -> None:
        answer = await client.get(f"/credits/reservations/{reservation_id}")
        reading = None
        if answer.status != 404:
            reading = Reading(str(answer.body.get("state")), answer.amount("amount"), answer.amount("charged"))
        difference = record.settle(reservation_id, reading)
        if difference is not None:
            found.append(difference)

    async def compare(user_id: str) -> None:
        found.extend(record.differences(user_id, await _balances(client, user_id)))
        progress.advance()

    await _each(list(record.pending), settle, concurrency)
    await _each(record.accounts, compare, concurrency)
    return found


@dataclass(frozen=True, slots=True)
class _Step:
    """What one row does."""

    row: TraceRow
    user_id: str
    reservation_id: str
    amount: Decimal
    """What is reserved."""
    used: Decimal
    """What is committed."""
    reserve: dict[str, object]
    """The member of the body that says so: an amount, or a usage."""
    commit: dict[str, object]
    release: bool


class _Replay:
    """One run."""

    def __init__(self, options: ReplayOptions, rows: Sequence[TraceRow], stop: asyncio.Event) -> None:
        self._options = options
        self._stop = stop
        started_at = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._run = Run(secrets.token_hex(4), options.url, str(options.trace), started_at)
        self._prefix = options.prefix or f"replay-{self._run.run_id}"
        self._ttl_seconds = max(TTL_MIN_SECONDS, math.ceil(2 * options.patience_seconds))
        self._rows = rows
        self._card: Card | None = None
        self._steps: list[_Step] = []
        self._record = Record()
        self._journal: Journal | None = None
        self._seconds: dict[str, array[float]] = {name: array("d") for name in ("reserve", "commit", "release", "pair")}
        self._lag_max_seconds = 0.0
        self._stopped = ""

    async def run(self, console: Console) -> ReplayReport:
        options = self._options
        client = Client(options.url, patience_seconds=options.patience_seconds)
        with ExitStack() as stack:
            if options.journal is not None:
                self._journal = stack.enter_context(Journal(options.journal, self._run))
            async with client:
                self._client = client
                await _greet(client, options.url, options.patience_seconds)
                if options.card is not None:
                    self._card = read_card(options.card, await _decimal_places(client))
                self._steps = [self._step(row) for row in self._rows]
                await self._put_card()
                await _each(self._credit().items(), self._grant, options.concurrency)
                elapsed_seconds, calls = await self._replay_rows(console)
                differences, checked = await self._check(console)
        timing = Timing(
            elapsed_seconds,
            calls,
            client.retries,
            None if options.speed is None else self._lag_max_seconds,
            tuple(latency_of(name, values) for name, values in self._seconds.items() if values),
        )
        return ReplayReport(
            self._run,
            self._record,
            tuple(differences),
            checked,
            len(self._steps),
            timing,
            interrupted=self._stop.is_set(),
            stopped=self._stopped,
        )

    def _step(self, row: TraceRow) -> _Step:
        options = self._options
        draw = blake2b(b"%d %d" % (options.seed, row.number), digest_size=8).digest()
        user, chance = int.from_bytes(draw[:4]) % options.users, int.from_bytes(draw[4:]) / 2**32
        estimate = row.generated_tokens if options.estimate is None else options.estimate
        costs = self._in_tokens(row, estimate) if self._card is None else self._by_card(self._card, row, estimate)
        most, used, reserve, commit = costs
        reservation_id, release = f"replay-{self._run.run_id}-{row.number}", chance < options.release_share
        return _Step(row, f"{self._prefix}-{user}", reservation_id, most, used, reserve, commit, release)

    def _in_tokens(self, row: TraceRow, estimate: int) -> _Costs:
        most, used = row.context_tokens + estimate, row.total_tokens
        return Decimal(most), Decimal(used), {"amount": most}, {"amount": used}

    def _by_card(self, card: Card, row: TraceRow, estimate: int) -> _Costs:
        model = card.model_of(row.model, row.number)
        held = card.usage(model, row.context_tokens, estimate)
        used = card.usage(model, row.context_tokens, row.generated_tokens)
        most = held.pop("output", None)
        bound = {} if most is None else {"max_output": most}
        return (
            card.credits(model, row.context_tokens, estimate),
            card.credits(model, row.context_tokens, row.generated_tokens),
            {"usage": {"model": model, **held, **bound}},
            {"usage": used},
        )

    async def _put_card(self) -> None:
        """The sidecar gets the card under a name of this run, for the users of this run alone."""
        if self._card is None:
            return
        answer = await self._client.send("PUT", f"/credits/rate-cards/{self._card_id}", self._card.text)
        if answer.status != 200:
            raise OptionError(f"--card {self._options.card}: the sidecar refuses it: {_complaint(answer)}")

    @property
    def _card_id(self) -> str:
        return f"replay-{self._run.run_id}"

    def _credit(self) -> dict[str, Decimal]:
        """What each user is granted, in the order of their first rows."""
        credit: dict[str, Decimal] = {}
        for step in self._steps:
            most = max(step.amount, step.used)
            credit[step.user_id] = credit.get(step.user_id, ZERO) + most
        given = self._options.credit
        return {user_id: max(most, Decimal(1)) if given is None else given for user_id, most in credit.items()}

    def _note(self, event: Event) -> None:
        if self._journal is not None:
            self._journal.write(event)
        self._record.apply(event)

    async def _grant(self, one: tuple[str, Decimal]) -> None:
        user_id, amount = one
        if any((await _balances(self._client, user_id)).values()):
            raise OptionError(f"--prefix {self._prefix}: {user_id} has a balance already; choose another prefix")
        self._note(Sent(Verb.GRANT, user_id, user_id, amount))
        body = {"user_id": user_id, "amount": credits_text(amount), "grant_id": f"replay-{self._run.run_id}"}
        answer = await self._client.post("/credits/add", body)
        self._note(Done(Verb.GRANT, user_id, answer.status, code=answer.code))
        if answer.status != 200:
            raise OptionError(f"the grant of {credits_text(amount)} to {user_id} was refused: {_complaint(answer)}")
        if self._card is not None:
            chosen = orjson.dumps({"rate_card": self._card_id})
            answer = await self._client.send("PATCH", f"/credits/users/{user_id}", chosen)
            if answer.status != 200:
                raise OptionError(f"--card: {user_id} cannot be given the card: {_complaint(answer)}")

    async def _replay_rows(self, console: Console) -> tuple[float, int]:
        calls = self._client.calls
        start = time.perf_counter()
        with Progress(console, "replaying", len(self._steps)) as progress:

            async def one(step: _Step) -> None:
                await self._row(step, start)
                progress.advance()

            try:
                await _each(self._until_stopped(), one, self._options.concurrency)
            except (SidecarUnreachable, UnexpectedAnswer) as error:
                self._stopped = str(error)
        return time.perf_counter() - start, self._client.calls - calls

    def _until_stopped(self) -> Iterator[_Step]:
        for step in self._steps:
            if self._stop.is_set():
                return
            yield step

    async def _row(self, step: _Step, start: float) -> None:
        if self._options.speed is not None and not await self._due(
            start + step.row.offset_seconds / self._options.speed
        ):
            return
        self._note(Sent(Verb.RESERVE, step.reservation_id, step.user_id, step.amount))
        body = {
            "user_id": step.user_id,
            **step.reserve,
            "reservation_id": step.reservation_id,
            "ttl_seconds": self._ttl_seconds,
        }
        answer = await self._client.post("/credits/reservations", body)
        self._seconds["reserve"].append(answer.seconds)
        done = _done(Verb.RESERVE, step, answer)
        if answer.status == 201:
            done = replace(done, amount=answer.amount("amount"))
        self._note(done)
        if answer.status == 201:
            seconds = await (self._release(step) if step.release else self._commit(step))
            self._seconds["pair"].append(answer.seconds + seconds)

    async def _due(self, due: float) -> bool:
        """Waits until a row is due; False when the run was stopped meanwhile."""
        wait = due - time.perf_counter()
        if wait > 0:
            try:
                async with asyncio.timeout(wait):
                    await self._stop.wait()
                return False
            except TimeoutError:
                return True
        self._lag_max_seconds = max(self._lag_max_seconds, -wait)
        return True

    async def _commit(self, step: _Step) -> float:
        self._note(Sent(Verb.COMMIT, step.reservation_id, step.user_id, step.used))
        path = f"/credits/reservations/{step.reservation_id}/commit"
        answer = await self._client.post(path, step.commit)
        done = _done(Verb.COMMIT, step, answer)
        if answer.status == 200:
            late = answer.body.get("late") is True
            done = replace(done, amount=answer.amount("charged"), uncovered=answer.amount("uncovered"), late=late)
        self._note(done)
        self._seconds[Verb.COMMIT].append(answer.seconds)
        return answer.seconds

    async def _release(self, step: _Step) -> float:
        self._note(Sent(Verb.RELEASE, step.reservation_id, step.user_id, ZERO))
        answer = await self._client.post(f"/credits/reservations/{step.reservation_id}/release", {})
        done = _done(Verb.RELEASE, step, answer)
        if answer.status == 200:
            done = replace(done, amount=answer.amount("released"))
        self._note(done)
        self._seconds[Verb.RELEASE].append(answer.seconds)
        return answer.seconds

    async def _check(self, console: Console) -> tuple[list[Difference], bool]:
        if self._stopped:
            return [], False
        with Progress(console, "checking", len(self._record.accounts)) as progress:
            try:
                return await check(self._record, self._client, self._options.concurrency, progress), True
            except (SidecarUnreachable, UnexpectedAnswer) as error:
                self._stopped = str(error)
                return [], False


def _done(verb: Verb, step: _Step, answer: Answer) -> Done:
    return Done(verb, step.reservation_id, answer.status, doubtful=answer.doubtful, code=answer.code)


async def _greet(client: Client, url: str, patience_seconds: float) -> None:
    """Returns when a sidecar answers that it is ready."""
    answer = await client.get("/readyz", patience_seconds=min(FIRST_PATIENCE_SECONDS, patience_seconds))
    if answer.status != 200:
        raise UnexpectedAnswer(f"{url} is no sidecar: GET /readyz answers {answer.status}")


async def _decimal_places(client: Client) -> int:
    """How finely a sidecar counts, as its OpenAPI document says."""
    answer = await client.get("/openapi.json")
    found: object = answer.body
    for part in ("components", "schemas", "AddRequest", "properties", "amount", "anyOf"):
        found = found.get(part) if isinstance(found, dict) else None
    step = found[0].get("multipleOf", 1) if isinstance(found, list) and isinstance(found[0], dict) else None
    if not isinstance(step, int | Decimal):
        raise UnexpectedAnswer("GET /openapi.json does not say how finely the sidecar counts")
    return max(0, -Decimal(step).adjusted())


async def _balances(client: Client, user_id: str) -> dict[str, Decimal]:
    answer = await client.get(f"/credits/balance/{user_id}")
    return {name: answer.amount(name) for name in ("balance", "reserved", "available", "debt")}


async def _each(items: Iterable[_T], run: Callable[[_T], Awaitable[None]], concurrency: int) -> None:
    """Runs a coroutine for each item, in order, so many at a time. The first exception ends them all."""
    source = iter(items)

    async def work() -> None:
        for item in source:
            await run(item)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(work())
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None


def _complaint(answer: Answer) -> str:
    return str(answer.body.get("detail", f"status {answer.status}"))
