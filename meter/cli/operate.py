"""What an operator runs by hand, rebuilds and jobs and such: a progress bar, a table or JSON, and an exit code."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial

import orjson
from rich.console import Console
from rich.progress import Progress, TaskID
from rich.table import Table

from meter.amount import AmountScale
from meter.clock import milliseconds
from meter.config import Settings
from meter.errors import ConfigError, ForeignLedger, Unavailable
from meter.jobs import COUNTED, Jobs
from meter.keys import partition_of
from meter.ledger.identity import is_foreign, kept_ledger
from meter.ledger.log_file import LedgerFile, ledger_log
from meter.ledger.rebuild import OFFERS_SECONDS, Rebuild, RebuildReport
from meter.ledger.reconcile import Reconcile, ReconcileReport
from meter.ledger.rollup import begin_rollup, gaps_of, roll_up_page
from meter.ledger.serving import ServedElsewhere, address_of, check_served_here, claim
from meter.log import logger, without_password
from meter.runtime import Runtime
from meter.store.base import Store

SHOWN_MAX = 50

_log = logger("meter")


async def rebuild(
    settings: Settings,
    partition: int | None,
    user: str | None,
    actor: str,
    *,
    as_json: bool,
    agreed: Callable[[str], bool],
) -> int:
    """Rebuilds partitions, as `actor` asks for, and reports; 0 when nothing was lost, else 1. `agreed` is asked when
    another Redis serves the store.
    """
    if user is not None:
        partition = partition_of(user, settings.partitions)
    if partition is not None and not 0 <= partition < settings.partitions:
        raise ConfigError(f"--partition={partition}: there are {settings.partitions}, counted from 0")
    numbers = range(settings.partitions) if partition is None else [partition]
    runtime = Runtime(settings)
    async with _Open(runtime, of_any_ledger=True) as store:
        window_ms = settings.idempotency_window_seconds * 1000
        reports: list[RebuildReport] = []
        foreign = await _foreign_partitions(runtime, store, numbers)
        try:
            if foreign:
                raise ServedElsewhere(_of_another_ledger(foreign, settings, await kept_ledger(store)))
            await check_served_here(store, settings.redis_url, await store.watermark(numbers[0]))
        except ServedElsewhere as elsewhere:
            if not agreed(str(elsewhere)):
                raise ConfigError(f"{elsewhere}. Nothing was changed; --yes does it all the same.") from None
        with ledger_log_of(settings) as ledger, Progress(console=Console(stderr=True), transient=True) as progress:
            command = Rebuild(runtime.engine, runtime.redis, store, window_ms, ledger, actor, OFFERS_SECONDS)
            for number in numbers:
                task = progress.add_task(f"partition {number}", total=None)
                report = await command.partition(
                    number, partial(_progressed, progress, task), replaces=number in foreign
                )
                reports.append(report)
                progress.update(task, total=1, completed=1)
        await claim(store, settings.redis_url, time.time_ns() // 1_000_000)
    _print_rebuild(reports, AmountScale(settings.decimal_places), as_json=as_json)
    return 1 if any(report.lost for report in reports) else 0


async def _foreign_partitions(runtime: Runtime, store: Store, numbers: Sequence[int]) -> dict[int, str]:
    """Those of the partitions in Redis that belong to another ledger than the store's, with its id."""
    found: dict[int, str] = {}
    for number in numbers:
        state = await runtime.redis.partition_state(runtime.engine.partitions[number].meta)
        watermark = await store.watermark(number)
        if state is not None and is_foreign(state, await kept_ledger(store), watermark):
            found[number] = state.ledger or "of no name"
    return found


def _of_another_ledger(foreign: dict[int, str], settings: Settings, ours: str) -> str:
    names = ", ".join(f"partition {number} to ledger {ledger}" for number, ledger in foreign.items())
    return (
        f"the store at {without_password(settings.store_url)} is ledger {ours}, and in the Redis at "
        f"{address_of(settings.redis_url)} belongs {names}: a rebuild drops that there"
    )


async def reconcile(settings: Settings, *, as_json: bool) -> int:
    """Compares every partition and reports; 0 without drift, else 1."""
    runtime = Runtime(settings)
    async with _Open(runtime) as store:
        command = Reconcile(runtime.engine, runtime.redis, store)
        reports = [await command.partition(number) for number in range(settings.partitions)]
    _print_reconcile(reports, AmountScale(settings.decimal_places), as_json=as_json)
    return 1 if any(report.drifts for report in reports) else 0


async def rollup(settings: Settings, from_: str, *, as_json: bool) -> int:
    """Counts in the usage figures what they do not have, or all from a time on; 0 when they have everything."""
    from_ms = None if not from_ else _time_ms(from_)
    runtime, done, more = Runtime(settings), 0, True
    async with _Open(runtime) as store:
        begun = None if from_ms is None else await begin_rollup(store, from_ms, settings.usage_bucket_minutes)
        total = sum([gap.until_seq - gap.after_seq for gap in await gaps_of(store)]) if begun is None else begun
        with Progress(console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task("transactions", total=total)
            while more:
                page, more = await roll_up_page(store, settings.usage_bucket_minutes)
                done += page
                _progressed(progress, task, done)
    print(orjson.dumps({"counted": done}).decode() if as_json else f"{done} counted")  # noqa: T201
    return 0


def _time_ms(text: str) -> int:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"--from={text}: not a time such as 2030-01-31T00:00Z") from None
    return milliseconds(at if at.tzinfo is not None else at.replace(tzinfo=UTC))


async def jobs(settings: Settings, names: Sequence[str], *, as_json: bool) -> int:
    """Does jobs one after the other, each until nothing is due, as the worker does, and prints how much that was."""
    done: dict[str, int] = {}
    with ledger_log_of(settings) as ledger, Progress(console=Console(stderr=True), transient=True) as progress:
        async with Runtime(settings) as runtime, Jobs(runtime, ledger) as found:
            for name in names:
                task = progress.add_task(COUNTED[name], total=None)
                tell = partial(_progressed, progress, task)
                done[COUNTED[name]] = await found.until_done(name, tell)
    lines = "\n".join(f"{number} {what}" for what, number in done.items())
    print(orjson.dumps(done).decode() if as_json else lines)  # noqa: T201
    return 0


def _progressed(progress: Progress, task: TaskID, done: int) -> None:
    progress.update(task, completed=done)


@contextmanager
def ledger_log_of(settings: Settings) -> Iterator[LedgerFile | None]:
    """The ledger log, where there is one: what is done by hand is told there as by the worker."""
    ledger = ledger_log(settings)
    if ledger is None:
        yield None
        return
    try:
        ledger.start()
    except OSError as error:
        raise ConfigError(f"METER_LEDGER_FILE={settings.ledger_file}: {error.strerror}") from None
    try:
        yield ledger
    finally:
        ledger.close()


class _Open:
    """A runtime whose store must be there, and whose partitions may be closed; `of_any_ledger`: another one's, too."""

    def __init__(self, runtime: Runtime, *, of_any_ledger: bool = False) -> None:
        self._runtime = runtime
        self._of_any_ledger = of_any_ledger

    async def __aenter__(self) -> Store:
        if self._runtime.store is None:
            raise ConfigError("METER_STORE_URL=none: there is no store to compare with or to rebuild from")
        try:
            try:
                await self._runtime.start()
            except Unavailable as error:
                _log.warning(str(error))
            except ForeignLedger:
                if not self._of_any_ledger:
                    raise
            await self._runtime.store.ping()
        except BaseException:
            await self._runtime.close()
            raise
        return self._runtime.store

    async def __aexit__(self, *_: object) -> None:
        await self._runtime.close()


_AMOUNTS = {"available", "reserved", "debt", "granted", "spent", "expired", "voided"}


def in_credits(found: object, scale: AmountScale) -> object:
    """A report with its amounts as exact numbers of credits; units are nobody's business outside."""
    if isinstance(found, dict):
        return {
            name: orjson.Fragment(scale.text(value))
            if name in _AMOUNTS and isinstance(value, int)
            else in_credits(value, scale)
            for name, value in found.items()
        }
    return [in_credits(one, scale) for one in found] if isinstance(found, list | tuple) else found


def _json(document: object) -> str:
    return orjson.dumps(document).decode()


def _print_rebuild(reports: list[RebuildReport], scale: AmountScale, *, as_json: bool) -> None:
    if as_json:
        print(_json([in_credits(asdict(report), scale) for report in reports]))  # noqa: T201
        return
    console = Console(soft_wrap=True, highlight=False)
    for report in reports:
        made = f"{report.accounts} accounts, {report.grants} grants, {report.reservations} holds"
        sums = f"{scale.text(report.available)} available, {scale.text(report.reserved)} reserved"
        more = f"{report.reapplied} applied again, {report.offered} offered back, {len(report.lost)} lost"
        console.print(
            f"partition {report.partition}, epoch {report.epoch}: {made}; {sums}; {more}; {report.seconds:.2f} s"
        )
    for report in reports:
        for line in report.lost[:SHOWN_MAX]:
            console.print(f"lost: {line}")
        for line in report.doubled[:SHOWN_MAX]:
            console.print(f"in both histories, booked once: {line}")
        if report.unknown:
            console.print(f"unknown: {report.unknown}")


def _print_reconcile(reports: list[ReconcileReport], scale: AmountScale, *, as_json: bool) -> None:
    if as_json:
        print(_json([in_credits(asdict(report), scale) for report in reports]))  # noqa: T201
        return
    console = Console()
    accounts = sum(report.accounts for report in reports)
    drifts = [drift for report in reports for drift in report.drifts]
    unsettled = sum(len(report.unsettled) for report in reports)
    console.print(f"{accounts} accounts, {len(drifts)} drifts, {unsettled} changing too fast to compare")
    if not drifts:
        return
    table = Table("user", "figure", "Redis", "store", title="drift")
    for drift in drifts[:SHOWN_MAX]:
        ours, theirs = asdict(drift.redis), asdict(drift.store)
        for name in drift.members:
            table.add_row(drift.user_id, name, *(_shown(side[name], scale) for side in (ours, theirs)))
    console.print(table)


def _shown(figure: object, scale: AmountScale) -> str:
    """An amount, or the terms of rules and prices as they are kept."""
    return scale.text(figure) if isinstance(figure, int) else str(figure)
