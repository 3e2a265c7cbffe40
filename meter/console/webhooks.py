"""The screen of webhooks: endpoints, what was sent to them, and how it went."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Literal, cast, get_args

from markupsafe import Markup
from starlette.responses import Response

from meter.api.gate import ADMIN_WRITE
from meter.console import tables
from meter.console.answering import done, notice, shown
from meter.console.figures import NONE, when
from meter.console.forms import new_key
from meter.console.parts import part
from meter.console.tables import AFTER, AMOUNT, HIDDEN, REST, WHAT, WHEN, Column, Filter, Panel, Table
from meter.console.visit import Visit, link
from meter.contract.answers import Refusal
from meter.contract.webhooks import Delivery, Webhook

DeliveryState = Literal["due", "delivered", "failed"]
_SHADES = {"delivered": "ok", "failed": "bad", "due": "held", "enabled": "ok"}
_STATES = [("", "any"), *((state, state) for state in get_args(DeliveryState))]


async def webhooks_page(visit: Visit) -> Response:
    """`?state=` of the deliveries."""
    state = visit.query.get("state", "")
    asked = cast("DeliveryState", state) if state in get_args(DeliveryState) else None
    cursor = visit.query.get("cursor", "")
    endpoints, sent = await asyncio.gather(
        part(visit.credits.webhooks()), part(visit.credits.notifications(state=asked, cursor=cursor))
    )
    names = {one.webhook_id: one.url for one in (endpoints.found.items if endpoints.found else [])}
    following = ""
    if sent.found and sent.found.next_cursor:
        following = link("webhooks", state=state, cursor=sent.found.next_cursor)
    panels = [
        Panel("Endpoints", _endpoints(endpoints.found.items if endpoints.found else [], visit), endpoints.fault),
        Panel("Deliveries", _sent(sent.found.items if sent.found else [], names, visit, following), sent.fault),
    ]
    filters = [Filter("state", "Deliveries", state, _STATES)]
    return shown("list.html", visit, title="Webhooks", panels=panels, filters=filters, as_of=None, crumb=None)


def _endpoints(items: list[Webhook], visit: Visit) -> Table:
    columns = (Column("Endpoint", WHAT), Column("State", AMOUNT), Column("Kinds", WHEN), Column("", AFTER))
    rows = [
        [
            tables.two_lines(one.url.partition("?")[0], one.description or tables.mono(one.webhook_id)),
            tables.badge(_SHADES.get(one.state, "gone"), one.state),
            ", ".join(one.kinds).replace("_", " ") if one.kinds else "all",
            _button(visit, "Test", "test", one.webhook_id) if one.state == "enabled" else Markup(""),
        ]
        for one in sorted(items, key=lambda one: one.state == "enabled")
    ]
    return Table(columns, rows, "No endpoint yet: POST /credits/webhooks makes one.")


def _sent(items: list[Delivery], names: Mapping[str, str], visit: Visit, following: str) -> Table:
    columns = (
        Column("When, UTC", WHEN),
        Column("What", WHAT),
        Column("State", AMOUNT),
        Column("User", REST),
        Column("Tries", f"n {HIDDEN}"),
        Column("Answer", REST),
        Column("", AFTER),
    )
    rows = [
        [
            when(one.created_at, visit.now),
            tables.two_lines(one.kind.replace("_", " "), names.get(one.target, one.target)),
            tables.badge(_SHADES.get(one.state, "gone"), one.state),
            tables.user(one.user_id) if one.user_id else NONE,
            str(one.attempts),
            _answer(one, visit),
            _button(visit, "Retry", "retry", one.notification_id) if one.state == "failed" else Markup(""),
        ]
        for one in items
    ]
    return Table(columns, rows, "Nothing was sent yet.", following)


def _answer(one: Delivery, visit: Visit) -> str | Markup:
    told = one.error or (str(one.status) if one.status is not None else NONE)
    if one.next_attempt_at is None:
        return told
    return tables.two_lines(told, Markup("next {}").format(when(one.next_attempt_at, visit.now)))


def _button(visit: Visit, label: str, action: str, about: str) -> Markup:
    if not visit.may_write:
        return Markup("")
    fields = {"token": visit.token, "key": new_key(), "about": about}
    hidden = Markup("").join(
        Markup('<input type="hidden" name="{}" value="{}">').format(name, value) for name, value in fields.items()
    )
    text = Markup(
        '<form method="post" action="/console/webhooks/{}">{}<button class="btn s" aria-label="{}">{}</button></form>'
    )
    return text.format(action, hidden, f"{label} {about}", label)


async def send(visit: Visit) -> Response:
    """Sends a test to an endpoint, or a delivery once more."""
    if not visit.may_write:
        return notice(403, "This key may not change anything", f"It needs the scope `{ADMIN_WRITE}`.", visit)
    about, key = visit.form.get("about", ""), visit.form.get("key") or None
    if visit.path.endswith("/test"):
        found = await visit.credits.test_webhook(about, idempotency_key=key)
    else:
        found = await visit.credits.retry_notification(about, idempotency_key=key)
    if isinstance(found, Refusal):
        return notice(found.status, "This cannot be done", found.detail, visit)
    return done(visit, link("webhooks"), f"{found.kind.replace('_', ' ').capitalize()}: {found.state}.")
