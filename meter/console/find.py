"""The search: any id leads to the page that it is on."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from starlette.responses import Response

from meter.console.answering import elsewhere, shown
from meter.console.parts import part
from meter.console.visit import Visit, link
from meter.contract.search import Found
from meter.keys import USER_ID


class Hit(NamedTuple):
    """What an id is, whose, and where."""

    kind: str
    id: str
    user_id: str
    at: datetime | None
    address: str


async def find_page(visit: Visit) -> Response:
    """`?q=`: one hit is opened, several are listed."""
    wanted = visit.query.get("q", "").strip()
    if not wanted:
        return shown("find.html", visit, wanted="", hits=[], fault="", is_user=False)
    found = await part(visit.credits.find(wanted))
    hits = [_hit(one) for one in found.found.items] if found.found else []
    exact = [hit for hit in hits if hit.id == wanted]
    if len(hits) == 1 or len(exact) == 1:
        return elsewhere((exact or hits)[0].address)
    is_user = bool(USER_ID.fullmatch(wanted))
    fault = found.fault if found.code == "unavailable" else ""
    return shown("find.html", visit, wanted=wanted, hits=hits, fault=fault, is_user=is_user)


def _hit(one: Found) -> Hit:
    """A hit with the place where it is shown: a request or a transaction at its row, a grant and a key at theirs."""
    user_id = one.user_id or ""
    place = {"transaction": f"#t-{one.id}", "grant": f"#g-{one.id}", "key": "#h-keys"}
    opened = one.id if one.kind == "transaction" else None
    reference = one.id if one.kind in ("request", "reservation", "refusal") else None
    address = link("user", id=user_id, open=opened, of=reference) + place.get(one.kind, "#history" if reference else "")
    return Hit(one.kind, one.id, user_id, one.at, address)
