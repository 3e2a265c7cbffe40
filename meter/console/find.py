"""The search: any id leads to the page that it is on."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime

from starlette.responses import Response

from meter.console.answering import elsewhere, shown
from meter.console.parts import part
from meter.console.visit import Visit, link
from meter.keys import USER_ID

_USERS_MAX = 20


@dataclass(frozen=True, slots=True)
class Hit:
    """What an id is, whose, and where."""

    kind: str
    id: str
    user_id: str
    at: datetime | None
    address: str


async def find_page(visit: Visit) -> Response:
    """`?q=`: one hit is opened, several are listed."""
    wanted = visit.query.get("q", "").strip()
    hits, faults = await _hits(visit, wanted) if wanted else ([], [])
    exact = [hit for hit in hits if wanted in (hit.id, hit.user_id)]
    if len(hits) == 1 or len(exact) == 1:
        return elsewhere((exact or hits)[0].address)
    is_user = bool(USER_ID.fullmatch(wanted))
    return shown("find.html", visit, wanted=wanted, hits=hits, faults=faults, is_user=is_user)


async def _hits(visit: Visit, wanted: str) -> tuple[list[Hit], list[str]]:
    calls = visit.credits
    users, steps, hold = await asyncio.gather(
        part(calls.users(starts_with=wanted, limit=_USERS_MAX)),
        part(calls.trace(wanted, limit=_USERS_MAX)),
        part(calls.reservation(wanted)),
    )
    hits = [
        Hit("user", user.user_id, user.user_id, None, link("user", id=user.user_id))
        for user in (users.found.items if users.found else [])
    ]
    found_in: dict[tuple[str, str], Hit] = {}
    for step in steps.found.items if steps.found else []:
        address = link("user", id=step.user_id, open=step.transaction_id) + f"#t-{step.transaction_id}"
        found_in.setdefault((step.user_id, wanted), Hit("request", wanted, step.user_id, step.created_at, address))
    hits += found_in.values()
    if hold.found and not found_in:
        one = hold.found
        hits.append(Hit("hold", one.reservation_id, one.user_id, None, link("user", id=one.user_id)))
    faults = {one.fault for one in (users, steps, hold) if one.code == "unavailable"}
    return hits, sorted(faults)
