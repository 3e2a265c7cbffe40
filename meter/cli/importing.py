"""What `meter import` does: reads the source, plans, brings in, and reports."""

from __future__ import annotations

import time
from collections import Counter

import orjson
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from meter.amount import AmountScale
from meter.config import Settings
from meter.errors import ConfigError
from meter.migration.bring_in import BringIn, Report
from meter.migration.documents import COLLECTIONS, Source, open_source
from meter.migration.plan import Plan, Planner
from meter.runtime import Runtime

SHOWN_MAX = 50
_KINDS = ("plans", "grants", "debts", "reservations", "subscriptions")


async def import_credit_management(
    settings: Settings, source: str, database: str, actor: str, *, dry_run: bool, as_json: bool
) -> int:
    """Brings in what credit-management kept, and reports; 0 when everything came in, else 1."""
    if not source:
        raise ConfigError("name a source: mongodb://…, or the folder or file of a dump in JSON")
    if settings.store_url == "none":
        raise ConfigError("METER_STORE_URL=none: credits come in by way of a store")
    opened, scale = open_source(source, database), AmountScale(settings.decimal_places)
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        if dry_run:
            plan = await _read(opened, Planner(scale, time.time_ns() // 1_000_000), progress)
            report = _as_planned(plan)
        else:
            async with Runtime(settings) as runtime:
                assert runtime.store is not None  # noqa: S101 - as asked above
                now_ms = await runtime.engine.now_ms()
                await runtime.ping_store()
                plan = await _read(opened, Planner(scale, now_ms), progress)
                task = progress.add_task("accounts", total=len(plan.accounts))
                bring_in = BringIn(runtime.engine, runtime.store, settings, actor)
                report = await bring_in.run(plan, lambda done: progress.update(task, completed=done))
    _print(report, opened.name, scale, dry_run=dry_run, as_json=as_json)
    return 1 if report.faults else 0


async def _read(source: Source, planner: Planner, progress: Progress) -> Plan:
    for collection in COLLECTIONS:
        task = progress.add_task(collection, total=None)
        async for document in source.documents(collection):
            planner.take(document)
            progress.advance(task)
    return planner.planned()


def _as_planned(plan: Plan) -> Report:
    """What a run into an empty deployment would bring in."""
    accounts = plan.accounts.values()
    grants = [grant for account in accounts for grant in account.grants]
    holds = [hold for account in accounts for hold in account.holds]
    debts = [account.debt for account in accounts if account.debt]
    return Report(
        plans=_all(plan.plans),
        grants=_all(grants),
        debts=_all(debts),
        reservations=_all(holds),
        subscriptions=_all(plan.subscriptions),
        accounts=len(accounts),
        granted=sum(grant.amount for grant in grants),
        debt=sum(debts),
        reserved=sum(hold.amount for hold in holds),
        expired=plan.expired,
        faults=plan.faults,
        notes=plan.notes,
    )


def _all(found: list[object] | list[int] | object) -> Counter[str]:
    return Counter({"planned": len(found)}) if isinstance(found, list) and found else Counter()


def _print(report: Report, source: str, scale: AmountScale, *, dry_run: bool, as_json: bool) -> None:
    amounts = {"credits": report.granted, "debt": report.debt, "reserved": report.reserved, "expired": report.expired}
    if as_json:
        document = {
            "source": source,
            "dry_run": dry_run,
            "accounts": report.accounts,
            **{kind: dict(getattr(report, kind)) for kind in _KINDS},
            **{name: orjson.Fragment(scale.text(units)) for name, units in amounts.items()},
            "faults": [{"where": one.where, "user_id": one.user_id, "reason": one.reason} for one in report.faults],
            "notes": report.notes,
        }
        print(orjson.dumps(document).decode())  # noqa: T201
        return
    console = Console()
    table = Table("", "what became of them", title=f"import from {source}" + (", dry run" if dry_run else ""))
    table.add_row("accounts", str(report.accounts))
    for kind in _KINDS:
        counted: Counter[str] = getattr(report, kind)
        table.add_row(kind, ", ".join(f"{number} {word}" for word, number in sorted(counted.items())) or "none")
    for name, units in amounts.items():
        table.add_row(name, scale.text(units))
    console.print(table)
    for note in report.notes[:SHOWN_MAX]:
        console.print(f"note: {note}", markup=False)
    for fault in report.faults[:SHOWN_MAX]:
        console.print(f"left out: {fault.where}: {fault.reason}", markup=False)
    if len(report.faults) > SHOWN_MAX:
        console.print(f"and {len(report.faults) - SHOWN_MAX} more: --json has them all")
