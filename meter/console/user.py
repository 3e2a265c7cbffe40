"""The page of a user: what is left and until when, why a request would be refused, what happened, who may spend it."""

from __future__ import annotations

import asyncio
from decimal import Decimal, InvalidOperation

from starlette.responses import Response

from meter.console import burning, ledger_rows, verdict
from meter.console.actions import ADD_FIELDS
from meter.console.answering import notice, shown
from meter.console.figures import places_of
from meter.console.forms import blank
from meter.console.parts import Part, part
from meter.console.visit import Visit
from meter.contract.answers import Explanation, GrantPage, Kind, Refusal, User
from meter.contract.fields import LIST_LIMIT_MAX
from meter.contract.search import LedgerPage
from meter.keys import USER_ID

HISTORY_ROWS = 50
CHIPS = (("", "All"), ("charges", "Charges"), ("in", "Credits in"), ("refused", "Refused"))
KINDS: dict[str, tuple[Kind, ...]] = {
    "charges": ("deduct", "commit"),
    "in": ("grant", "grant_started", "refund", "grant_rolled_over"),
}
_SECRET = ("secret", "token", "password")


async def user_page(visit: Visit) -> Response:
    """`?id=` the user, `cursor=` older history, `amount=` what is asked, `open=` the transaction whose steps show."""
    user_id = visit.query.get("id", "").strip()
    if not USER_ID.fullmatch(user_id):
        text = f"“{user_id}” is no user id: those are 1 to 128 of A-Z a-z 0-9 . _ : @ / -"
        return notice(404, "Nobody can be called that", text, visit)
    calls = visit.credits
    (user, grants, holds, history), (runway, subscriptions, keys, top_up) = await asyncio.gather(
        asyncio.gather(
            part(calls.user(user_id)),
            part(calls.grants(user_id, limit=LIST_LIMIT_MAX)),
            part(calls.reservations(user_id)),
            part(_history(visit, user_id)),
        ),
        asyncio.gather(
            *(part(calls.runway(user_id)), part(calls.subscriptions(user_id))),
            *(part(calls.keys(user_id)), part(calls.top_up(user_id))),
        ),
    )
    rows = burning.rows_of(grants.found.items) if grants.found else []
    lines = ledger_rows.rows_of(history.found.items) if history.found else []
    opened = visit.query.get("open", "")
    if visit.query.get("of") and not opened:  # whoever looks for a request wants to see what it was made of
        opened = next((line.id for line in lines if line.has_steps), "")
    steps = await _steps(visit, lines, opened)
    return shown(
        "user.html",
        visit,
        under="users",
        user_id=user_id,
        user=user,
        grants=grants,
        grant_rows=rows,
        bar=burning.pieces_of(rows),
        bar_text=burning.sentence_of(rows),
        free_places=places_of(row.grant.remaining for row in rows),
        held_places=places_of(row.grant.reserved for row in rows),
        holds=holds,
        hold_places=places_of(hold.amount for hold in holds.found.items) if holds.found else 0,
        history=history,
        history_rows=lines,
        amount_places=places_of([*(row.amount for row in lines), *(step.amount for step in steps)]),
        left_places=places_of([*(row.left for row in lines), *(step.left for step in steps)]),
        opened=opened,
        of=visit.query.get("of", ""),
        steps=steps,
        chip=visit.query.get("show", ""),
        chips=CHIPS,
        violation_text=ledger_rows.violation_text,
        short_of=ledger_rows.short_of,
        grant_names={row.grant.grant_id: row.name for row in rows},
        draws_of=ledger_rows.draws_of,
        runway=runway,
        subscriptions=subscriptions,
        keys=keys,
        top_up=top_up,
        is_new=_is_new(user, grants, history),
        metadata=_shown_metadata(user),
        question=await _question(visit, user_id, user, rows, history, len(holds.found.items) if holds.found else 0),
        add=blank(ADD_FIELDS),
    )


async def question_part(visit: Visit) -> Response:
    """The answer to "would a request pass now" alone, for a page that is open."""
    user_id = visit.query.get("id", "")
    user, grants, holds = await asyncio.gather(
        part(visit.credits.user(user_id)),
        part(visit.credits.grants(user_id, limit=LIST_LIMIT_MAX)),
        part(visit.credits.reservations(user_id)),
    )
    rows = burning.rows_of(grants.found.items) if grants.found else []
    open_holds = len(holds.found.items) if holds.found else 0
    question = await _question(visit, user_id, user, rows, Part(), open_holds)
    return shown("question.html", visit, user_id=user_id, question=question)


async def _question(
    visit: Visit,
    user_id: str,
    user: Part[User],
    rows: list[burning.GrantRow],
    history: Part[LedgerPage],
    open_holds: int,
) -> dict[str, object]:
    """What was asked, and what the panel answers: by `amount`, else by what was charged or held last."""
    text = visit.query.get("amount", "").replace(",", "").strip()
    amount = _decimal(text) if text else _usual(history)
    if amount is None:
        return {"asked": text, "fault": f"“{text}” is no amount.", "sentence": None, "rules": []}
    told: Part[Explanation] = await part(visit.credits.explain(user_id, amount))
    shown_amount = f"{amount:,f}"
    if told.found is None or user.found is None:
        return {"asked": shown_amount, "fault": told.fault or user.fault, "sentence": None, "rules": []}
    return {
        "asked": shown_amount,
        "fault": "",
        "sentence": verdict.sentence_of(told.found, rows, visit),
        "rules": verdict.rules_of(told.found, user.found, visit, open_holds),
    }


def _usual(history: Part[LedgerPage]) -> Decimal:
    items = history.found.items if history.found else []
    asked = ("deduct", "commit", "reserve", "refusal")
    return next((one.amount for one in items if one.kind in asked and one.amount), Decimal(1))


def _decimal(text: str) -> Decimal | None:
    try:
        found = Decimal(text)
    except InvalidOperation:
        return None
    return found if found.is_finite() and 0 <= found < Decimal(10) ** 16 else None


async def _history(visit: Visit, user_id: str) -> LedgerPage | Refusal:
    show, cursor, of = (visit.query.get(name, "") for name in ("show", "cursor", "of"))
    if of:
        found = await visit.credits.transactions(reference=of, refusals=True, limit=HISTORY_ROWS, cursor=cursor)
        if not isinstance(found, Refusal) and not found.items:
            found = await visit.credits.transactions(reservation_id=of, limit=HISTORY_ROWS, cursor=cursor)
        return found if isinstance(found, Refusal) else _of_user(found, user_id)
    if show == "refused":
        refused = await visit.credits.refusals_of(user_id, limit=HISTORY_ROWS, cursor=cursor)
        if isinstance(refused, Refusal):
            return refused
        return LedgerPage(items=[*refused.items], next_cursor=refused.next_cursor)
    kinds = KINDS.get(show)
    is_all = kinds is None
    return await visit.credits.transactions(
        user_id=user_id, kind=kinds, refusals=is_all, limit=HISTORY_ROWS, cursor=cursor
    )


def _of_user(found: LedgerPage, user_id: str) -> LedgerPage:
    return found.model_copy(update={"items": [one for one in found.items if one.user_id == user_id]})


async def _steps(visit: Visit, lines: list[ledger_rows.Row], opened: str) -> list[ledger_rows.Row]:
    """All that belongs to the row that is opened, oldest first."""
    if not any(row.id == opened and row.has_steps and not row.is_refused for row in lines):
        return []
    story = await part(visit.credits.transaction(opened))
    return [ledger_rows.row_of(one) for one in story.found.chain] if story.found else []


def _is_new(user: Part[User], grants: Part[GrantPage], history: Part[LedgerPage]) -> bool:
    """Whether nobody of this name was ever seen."""
    if user.found is None or grants.found is None or history.found is None:
        return False
    return not (user.found.balance or user.found.debt or grants.found.items or history.found.items)


def _shown_metadata(user: Part[User]) -> list[tuple[str, str]]:
    """Metadata, without what its name says is secret."""
    members = (user.found.metadata or {}) if user.found else {}
    return [
        (name, "••••" if any(word in name.lower() for word in _SECRET) else str(value))
        for name, value in sorted(members.items())
    ]
