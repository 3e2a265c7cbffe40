"""The overview: whether everything works that has to, who spends, what was refused, and what needs somebody."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, timedelta
from decimal import Decimal

from starlette.responses import Response

from meter.console import tables
from meter.console.answering import shown
from meter.console.figures import amount, duration, places_of, plain, when
from meter.console.lists import refusal_row, why_table
from meter.console.parts import Part, part
from meter.console.tables import AFTER, AMOUNT, HIDDEN, REST, WHAT, WHEN, Column, Panel, Table
from meter.console.visit import Visit, link
from meter.contract.reports import UserPage
from meter.contract.search import EndingPage
from meter.contract.system import SystemStatus

_SPENDERS, _REFUSALS, _ENDING_DAYS = 8, 8, 7
_ENDING = f"Credits that end within {_ENDING_DAYS} days"
_MEMORY_WARNS, _BACKLOG_WARNS_MS = 0.7, 10_000


@dataclass(frozen=True, slots=True)
class Station:
    """Where a credit passes: how it is there, and two lines about it."""

    name: str
    is_well: bool
    first: str
    second: str


async def overview_page(visit: Visit) -> Response:
    """The whole page; with `?part=now` what changes, for a page that is open."""
    status, spenders, refused = await asyncio.gather(
        part(visit.credits.system_status()),
        part(visit.credits.users(order="-spent_today", limit=_SPENDERS)),
        part(visit.credits.events("refusal", limit=_REFUSALS)),
    )
    today = visit.now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    counted, ending = await asyncio.gather(
        part(visit.credits.refusals("reason")), part(visit.credits.ending(_ENDING_DAYS, limit=_SPENDERS))
    )
    spent, failing = await asyncio.gather(
        part(visit.credits.figures(from_=today, to=today + timedelta(days=1))),
        part(visit.credits.notifications(state="failed", limit=5)),
    )
    figures = spent.found.items[0] if spent.found and spent.found.items else None
    now = status.found
    refused_rows = [refusal_row(one, visit) for one in (refused.found.items if refused.found else [])]
    needs = [("soon", "held", text, link("health")) for text in (now.warnings if now else [])]
    if failing.found and failing.found.items:
        first = failing.found.items[0]
        kind, answer = first.kind.replace("_", " "), first.status or first.error
        text = f"Deliveries fail: {kind} to {first.target}, last answer {answer}"
        needs.append(("failing", "bad", text, link("webhooks", state="failed")))
    all_users, all_refusals = (link("users", order="-spent_today"), "All users"), (link("refusals"), "All refusals")
    return shown(
        "now.html" if visit.query.get("part") == "now" else "overview.html",
        visit,
        system=now,
        sentence=now.sentence if now else f"Not known: {status.fault}",
        stations=_stations(now, visit) if now else [],
        spent=figures.spent if figures else Decimal(0),
        requests=figures.requests if figures else 0,
        spent_fault=spent.fault,
        spenders=Panel("Who spends, today", _spenders(spenders), spenders.fault, (all_users,)),
        refused=Panel(
            "Refused last", Table(_REFUSED, refused_rows, "Nothing was refused."), refused.fault, (all_refusals,)
        ),
        why=Panel("Refused, last day", why_table(counted), counted.fault, (all_refusals,)),
        ending=Panel(_ENDING, _ending(ending, visit), ending.fault, note=_ending_note(ending)),
        needs=needs,
        processes=len(now.processes) if now else 0,
        is_empty=bool(spenders.found and not spenders.found.items),
    )


_REFUSED = (
    Column("When, UTC", WHEN),
    Column("User", WHAT),
    Column("Asked", AMOUNT),
    Column("Had", AFTER, "had"),
    Column("Why", REST),
    Column("Request", REST),
)


def _stations(now: SystemStatus, visit: Visit) -> Sequence[Station]:
    sidecars = [one for one in now.processes if one.kind == "sidecar"]
    workers = [one for one in now.processes if one.kind == "worker"]
    versions = sorted({one.version for one in now.processes})
    seen = max((one.seen_at for one in workers), default=None)
    redis, outbox, store = now.redis, now.outbox, now.store
    memory = "memory without a limit" if redis.memory_share is None else f"memory {redis.memory_share:.0%}"
    rows = "" if store.rows is None else f"{store.rows:,} transactions"
    return (
        Station("Sidecars", bool(sidecars), _count(len(sidecars), "process", "processes"), ", ".join(versions)),
        Station(
            "Redis",
            redis.reachable and (redis.memory_share or 0) < _MEMORY_WARNS and redis.aof_ok is not False,
            f"{redis.us_per_op:g} µs an operation" if redis.us_per_op is not None else "",
            memory if redis.reachable else "does not answer",
        ),
        Station(
            "Outbox", outbox.oldest_ms < _BACKLOG_WARNS_MS, f"{outbox.waiting:,} waiting",
            f"oldest {duration(timedelta(milliseconds=outbox.oldest_ms))}",
        ),
        Station(
            "Workers",
            bool(workers),
            _count(len(workers), "process", "processes"),
            f"seen {duration(visit.now - seen)} ago" if seen else "none seen: meter worker",
        ),
        Station(store.kind, store.reachable, rows, "answers" if store.reachable else "does not answer"),
    )  # fmt: skip


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def _spenders(found: Part[UserPage]) -> Table:
    items = [one for one in (found.found.items if found.found else []) if one.spent_today]
    columns = (
        Column("User", WHAT),
        Column("Share", HIDDEN, is_bar=True),
        Column("Spent", AMOUNT),
        Column("Left", AFTER, "left"),
        Column("Plan", WHEN),
    )
    greatest = max((one.spent_today for one in items), default=Decimal(0))
    spent, left = places_of(one.spent_today for one in items), places_of(one.available for one in items)
    rows = [
        [
            tables.user(one.user_id),
            tables.bar(one.spent_today, greatest),
            amount(one.spent_today, spent),
            amount(one.available, left),
            ", ".join(one.plan_ids) or "",
        ]
        for one in items
    ]
    return Table(columns, rows, "Nobody spent today.")


def _ending(found: Part[EndingPage], visit: Visit) -> Table:
    items = found.found.items if found.found else []
    places = places_of(one.remaining for one in items)
    columns = (Column("User", WHAT), Column("Left", AMOUNT), Column("Ends", WHEN))
    rows = [[tables.user(one.user_id), amount(one.remaining, places), when(one.expires_at, visit.now)] for one in items]
    return Table(columns, rows, "None.")


def _ending_note(found: Part[EndingPage]) -> str:
    page = found.found
    if page is None or page.credits is None or not page.items:
        return ""
    return f"{plain(page.credits)} of {_count(page.users or 0, 'user', 'users')}"


async def health_page(visit: Visit) -> Response:
    """Every process that is seen, and what is not well."""
    status = await part(visit.credits.system_status())
    now = status.found
    warnings = [[tables.badge("held", "soon"), text] for text in (now.warnings if now else [])]
    processes = [
        [
            tables.mono(one.id),
            one.kind,
            one.version,
            f"since {duration(visit.now - one.started_at)}",
            f"{duration(visit.now - one.seen_at)} ago",
        ]
        for one in (now.processes if now else [])
    ]
    columns = (
        Column("Process", WHAT),
        Column("Kind", AMOUNT),
        Column("Version", REST),
        Column("Runs", WHEN),
        Column("Seen", AFTER, "seen"),
    )
    panels = [
        Panel(
            "Findings",
            Table((Column("State", WHEN), Column("What", WHAT)), warnings, "Nothing is wrong."),
            status.fault,
        ),
        Panel("Processes", Table(columns, processes, "None is seen."), status.fault),
    ]
    return shown(
        "list.html",
        visit,
        title="Health",
        panels=panels,
        filters=[],
        as_of=None if now is None else now.as_of,
        crumb=None,
    )
