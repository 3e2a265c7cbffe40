"""The screens about many: users, refusals, usage, and the catalogue of plans, rate cards and codes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Protocol, cast, get_args

from markupsafe import Markup
from starlette.responses import Response

from meter.console import tables
from meter.console.answering import shown
from meter.console.figures import NONE, amount, places_of, plain, when
from meter.console.parts import Part, part
from meter.console.tables import AFTER, AMOUNT, HIDDEN, REST, WHAT, WHEN, Column, Filter, Panel, Table
from meter.console.visit import Visit, link
from meter.contract.figures import UsageFigures
from meter.contract.reports import AccountState, Event, UserOrder, UserSums
from meter.contract.search import RefusalCountPage

_STATES = [("", "any"), *((state, state.replace("_", " ")) for state in get_args(AccountState))]
_ORDERS = [
    ("user_id", "by name"),
    ("-available", "most to spend"),
    ("available", "least to spend"),
    ("-spent_today", "most spent today"),
    ("-debt", "most debt"),
    ("-last_spent_at", "spent last"),
]
_GROUPS = [("user", "user"), ("model", "model"), ("key", "key"), ("day", "day"), ("path", "path"), ("plan", "plan")]
_SPANS = {"1": "today", "7": "7 days", "30": "30 days", "90": "90 days"}


class _Page(Protocol):
    @property
    def next_cursor(self) -> str | None: ...


def _next(visit: Visit, page: _Page | None) -> str:
    """The address of the next page of a list."""
    cursor = page.next_cursor if page is not None else None
    return link(visit.path.rpartition("/")[2], **{**visit.query, "cursor": cursor}) if cursor else ""


async def users_page(visit: Visit) -> Response:
    """`?starts_with=&state=&plan_id=&order=`."""
    asked = {name: visit.query.get(name, "").strip() for name in ("starts_with", "state", "plan_id", "order")}
    order = asked["order"] if asked["order"] in get_args(UserOrder) else "user_id"
    found = await part(
        visit.credits.users(
            starts_with=asked["starts_with"],
            state=cast("AccountState | None", asked["state"] or None),
            plan_id=asked["plan_id"] or None,
            order=cast("UserOrder", order),
            cursor=visit.query.get("cursor", ""),
        )
    )
    items = found.found.items if found.found else []
    empty: str | Markup = "Nobody yet. Credits that are added make an account."
    if any(asked[name] for name in ("starts_with", "state", "plan_id")):
        empty = f"No such user begins with “{asked['starts_with']}”."
    table = Table(_USER_COLUMNS, _user_rows(items, visit), empty, _next(visit, found.found))
    filters = [
        Filter("starts_with", "Begins with", asked["starts_with"]),
        Filter("state", "State", asked["state"], _STATES),
        Filter("plan_id", "Plan", asked["plan_id"]),
        Filter("order", "Order", order, _ORDERS),
    ]
    return _list(
        visit,
        "Users",
        [Panel("Accounts", table, found.fault)],
        filters,
        None if found.found is None else found.found.as_of,
    )


_USER_COLUMNS = (
    Column("User", WHAT),
    Column("Can spend", AMOUNT),
    Column("Held", f"n {HIDDEN}"),
    Column("Debt", f"n {HIDDEN}"),
    Column("Spent today", f"n {HIDDEN}"),
    Column("Plan", WHEN),
    Column("Last", AFTER),
)


def _user_rows(items: Sequence[UserSums], visit: Visit) -> list[list[str | Markup]]:
    free, held, debt, spent = (
        places_of(getattr(one, name) for one in items) for name in ("available", "reserved", "debt", "spent_today")
    )
    return [
        [
            Markup("{} {}").format(tables.user(one.user_id), tables.badge("bad", "suspended") if one.suspended else ""),
            amount(one.available, free),
            amount(one.reserved, held),
            amount(one.debt, debt),
            amount(one.spent_today, spent),
            ", ".join(one.plan_ids) or NONE,
            when(one.last_spent_at, visit.now),
        ]
        for one in items
    ]


async def refusals_page(visit: Visit) -> Response:
    """`?user_id=`: what was refused, newest first."""
    user_id = visit.query.get("user_id", "").strip()
    cursor = visit.query.get("cursor", "")
    found, counted = await asyncio.gather(
        part(visit.credits.events("refusal", user_id=user_id or None, cursor=cursor)),
        part(visit.credits.refusals("reason")),
    )
    items = found.found.items if found.found else []
    columns = (
        Column("When, UTC", WHEN),
        Column("User", WHAT),
        Column("Asked", AMOUNT),
        Column("Had", AFTER, "had"),
        Column("Why", REST),
        Column("Request", REST),
    )
    empty = "Nothing was refused in the time that refusals are kept."
    table = Table(
        columns,
        [refusal_row(one, visit) for one in items],
        empty,
        _next(visit, found.found),
    )
    filters = [Filter("user_id", "User", user_id)]
    panels = [Panel("Why, last day", why_table(counted), counted.fault), Panel("What was refused", table, found.fault)]
    return _list(visit, "Refusals", panels, filters)


def why_table(counted: Part[RefusalCountPage]) -> Table:
    """How often was refused, by reason."""
    items = counted.found.items if counted.found else []
    most = max((one.refusals for one in items), default=0)
    rows = [
        [
            (one.reason or NONE).replace("_", " "),
            tables.bar(Decimal(one.refusals), Decimal(most), "bx"),
            f"{one.refusals:,}",
        ]
        for one in items
    ]
    columns = (Column("Why", WHAT), Column("Share", HIDDEN, is_bar=True), Column("Times", AMOUNT))
    return Table(columns, rows, "Nothing was refused in the last day.")


def refusal_row(one: Event, visit: Visit) -> list[str | Markup]:
    """When, who, asked, had, why, and the request."""
    told = one.detail if isinstance(one.detail, dict) else {}
    asked, had = _decimal(told.get("amount")), _decimal(told.get("available"))
    reference = told.get("reference")
    request: str | Markup = NONE
    if isinstance(reference, str) and reference:
        request = tables.anchor(link("find", q=reference), reference, mono=True)
    why = str(told.get("refusal") or one.message).replace("_", " ")
    if asked is not None and had is not None and asked > had:
        why = f"{why}, short {plain(asked - had)}"
    return [when(one.created_at, visit.now), tables.user(one.user_id), amount(asked), amount(had), why, request]


def _decimal(value: object) -> Decimal | None:
    text = str(value) if isinstance(value, str | int | float) else ""
    return Decimal(text) if re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", text) else None


async def usage_page(visit: Visit) -> Response:
    """`?group=&days=&path=`: who or what spends, the most first, in whole days of UTC."""
    group = visit.query.get("group", "user")
    group = group if group in dict(_GROUPS) else "user"
    days = visit.query.get("days", "7")
    days = days if days in _SPANS else "7"
    path = visit.query.get("path", "").strip()
    today = visit.now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    to = today + timedelta(days=1)
    from_ = to - timedelta(days=int(days))
    found = await part(visit.credits.figures(group, path=path or None, from_=from_, to=to, limit=500))
    items = sorted(found.found.items, key=lambda one: one.spent, reverse=group != "day") if found.found else []
    if group == "day":
        items = sorted(items, key=lambda one: one.day or "")
    fault = found.fault
    if found.found and found.found.next_cursor:
        fault = (
            "More than 500 groups: narrow the span or the path, or export GET /credits/usage. Part of a sum is none."
        )
    filters = [
        Filter("group", "By", group, _GROUPS),
        Filter("days", "Span", days, list(_SPANS.items())),
        Filter("path", "Below", path),
    ]
    csv = link("usage.csv", group_by=group, path=path, **{"from": from_.isoformat(), "to": to.isoformat()})
    panel = Panel(f"Spent, {_SPANS[days]}", _usage_table(items, group), fault, ((csv, "CSV"),))
    plot = _plot(items) if group == "day" and len(items) > 1 else None
    return shown("usage.html", visit, title="Usage", panels=[panel], filters=filters, as_of=None, crumb=None, plot=plot)


def _plot(items: Sequence[UsageFigures]) -> tuple[str, str]:
    """What was spent each day, as the chart reads it, and in a sentence. The amounts are the table's."""
    days = [int(datetime.fromisoformat(f"{one.day}T00:00:00+00:00").timestamp()) for one in items]
    amounts = ",".join(format(one.spent, "f") for one in items)
    most = max(items, key=lambda one: one.spent)
    text = f"Spent a day, {items[0].day} to {items[-1].day}: most on {most.day}, {plain(most.spent)} credits."
    return f"[{days},[{amounts}]]", text


def _usage_table(items: Sequence[UsageFigures], group: str) -> Table:
    columns = (
        Column(dict(_GROUPS)[group].capitalize(), WHAT),
        Column("Share", HIDDEN, is_bar=True),
        Column("Spent", AMOUNT),
        Column("Share", AFTER, "share"),
        Column("Refunded", f"n {HIDDEN}"),
        Column("Requests", f"n {WHEN}"),
    )
    whole = sum((one.spent for one in items), Decimal(0))
    greatest = max((one.spent for one in items), default=Decimal(0))
    spent, back = places_of(one.spent for one in items), places_of(one.refunded for one in items)
    rows = [
        [
            _group_name(getattr(one, group), group),
            tables.bar(one.spent, greatest),
            amount(one.spent, spent),
            f"{one.spent / whole * 100:.1f} %" if whole else NONE,
            amount(one.refunded, back),
            f"{one.requests:,}",
        ]
        for one in items
    ]
    foot = f"{plain(whole)} in {len(items):,} {'group' if len(items) == 1 else 'groups'}" if items else ""
    return Table(columns, rows, "Nothing was spent.", foot=foot)


def _group_name(name: str | None, group: str) -> str | Markup:
    if not name:
        return "not told"
    return tables.user(name) if group in ("user", "path") else tables.mono(name)


async def plans_page(visit: Visit) -> Response:
    """What there is to subscribe to."""
    found = await part(visit.credits.plans(cursor=visit.query.get("cursor", "")))
    items = found.found.items if found.found else []
    columns = (
        Column("Plan", WHAT),
        Column("Credits", AMOUNT),
        Column("Per", WHEN),
        Column("Price", AFTER, "price"),
        Column("Rollover", REST),
        Column("State", REST),
    )
    places = places_of(one.credit_limit for one in items)
    rows = [
        [
            tables.two_lines(one.name, tables.mono(one.plan_id)),
            amount(one.credit_limit, places),
            {"daily": "day", "weekly": "week", "monthly": "month", "yearly": "year"}[one.billing_period],
            format(one.price, "f"),
            _rollover(one.rollover.max_amount, one.rollover.percent, one.rollover.valid_days) if one.rollover else NONE,
            tables.badge("ok", "active") if one.active else tables.badge("gone", "withdrawn"),
        ]
        for one in items
    ]
    empty = "No plan yet: POST /credits/plans makes one."
    table = Table(columns, rows, empty, _next(visit, found.found))
    return _list(visit, "Plans", [Panel("Catalogue", table, found.fault)])


def _rollover(max_amount: Decimal | None, percent: int | None, days: int) -> str:
    most = f"{percent} %" if max_amount is None else plain(max_amount)
    return f"up to {most}, {days} days"


async def rate_cards_page(visit: Visit) -> Response:
    """What models cost: `?id=` the versions of one."""
    card = visit.query.get("id", "")
    if card:
        return await _rate_card(visit, card)
    found = await part(visit.credits.rate_cards(cursor=visit.query.get("cursor", "")))
    columns = (
        Column("Rate card", WHAT),
        Column("In force", AMOUNT),
        Column("Newest", AFTER, "newest"),
        Column("Changed", WHEN),
    )
    rows = [
        [
            tables.anchor(link("rate-cards", id=one.rate_card_id), one.rate_card_id, mono=True),
            NONE if one.active_version is None else str(one.active_version),
            str(one.version),
            when(one.updated_at, visit.now),
        ]
        for one in (found.found.items if found.found else [])
    ]
    empty = "No rate card yet: PUT /credits/rate-cards/default makes one."
    table = Table(columns, rows, empty, _next(visit, found.found))
    return _list(visit, "Rate cards", [Panel("Catalogue", table, found.fault)])


async def _rate_card(visit: Visit, card: str) -> Response:
    versions = await part(visit.credits.rate_card_versions(card, limit=50))
    items = list(reversed(versions.found.items)) if versions.found else []
    active = next((one for one in items if one.version == one.active_version), None)
    columns = (
        Column("Version", WHAT),
        Column("State", AMOUNT),
        Column("From", WHEN),
        Column("Models", AFTER, "models"),
    )
    rows = [
        [
            str(one.version),
            tables.badge("ok", "in force") if one is active else _state(one.effective_at, visit.now),
            when(one.effective_at, visit.now),
            f"{len(one.models):,}",
        ]
        for one in items
    ]
    panels = [Panel("Versions", Table(columns, rows, "No version."), versions.fault)]
    if active is not None:
        prices = (Column("Model", WHAT), Column("Credits per million", REST))
        lines = [[tables.mono(name), _rates(line)] for name, line in sorted(active.models.items())]
        panels.append(Panel(f"Prices of version {active.version}", Table(prices, lines)))
    return shown(
        "list.html", visit, title=card, panels=panels, filters=[], as_of=None,
        crumb=(link("rate-cards"), "Rate cards"), under="rate-cards",
    )  # fmt: skip


def _state(effective_at: datetime, now: datetime) -> Markup:
    return tables.badge("info", "to come") if effective_at > now else tables.badge("gone", "past")


def _rates(line: dict[str, object]) -> str:
    kept = [(name, value) for name, value in line.items() if not isinstance(value, dict | list)]
    told = [f"{name} {value}" for name, value in kept if value not in (None, False)]
    return ", ".join(told) if told else "free"


async def codes_page(visit: Visit) -> Response:
    """What may be redeemed."""
    found = await part(visit.credits.codes(cursor=visit.query.get("cursor", "")))
    items = found.found.items if found.found else []
    columns = (
        Column("Code", WHAT),
        Column("Credits", AMOUNT),
        Column("Redeemed", AFTER, "redeemed"),
        Column("Per user", f"n {HIDDEN}"),
        Column("Ends", WHEN),
        Column("State", REST),
    )
    places = places_of(one.amount for one in items)
    shades = {"active": "ok", "scheduled": "info"}
    rows = [
        [
            tables.two_lines(one.description or "no description", tables.mono(one.code_id)),
            amount(one.amount, places),
            f"{one.redeemed:,} of {one.max_total:,}",
            str(one.max_per_user),
            when(one.ends_at, visit.now) if one.ends_at else "never",
            tables.badge(shades.get(one.state, "gone"), one.state.replace("_", " ")),
        ]
        for one in items
    ]
    table = Table(
        columns,
        rows,
        "No code yet: POST /credits/codes makes one.",
        _next(visit, found.found),
    )
    return _list(visit, "Promo codes", [Panel("Catalogue", table, found.fault)])


def _list(
    visit: Visit,
    title: str,
    panels: Sequence[Panel],
    filters: Sequence[Filter] = (),
    as_of: datetime | None = None,
) -> Response:
    return shown("list.html", visit, title=title, panels=panels, filters=filters, as_of=as_of, crumb=None)
