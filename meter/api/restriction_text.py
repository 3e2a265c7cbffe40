"""Restricted grants as the JSON of the wire."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from meter.clock import time_text
from meter.engine.restrictions import Restricted, read_restrictions, tags_in
from meter.http.rendered import json_text

_Amount = Callable[[int], str]


def restricted_json(text: str, amount: _Amount) -> str:
    """The members of an answer of an account with restricted grants, by what stands behind its line."""
    found = read_restrictions(text)
    usable = "" if found.usable is None else f',"usable":{amount(found.usable)}'
    return f',"restricted":{amount(found.restricted)}{usable}'


def parts_json(text: str, amount: _Amount) -> str:
    """What the restricted grants of a balance are for."""
    parts = ",".join(_part(one, amount) for one in read_restrictions(text).parts)
    return f',"restricted_by":[{parts}]'


def tags_json(text: str) -> str:
    """Tags as a list."""
    return json_text(tags_in(text))


def only_json(text: str) -> str:
    """What a grant may be spent on; nothing of one for anything."""
    return f',"only":{tags_json(text)}' if text else ""


def of_row_json(detail: Mapping[str, object], amount: _Amount) -> str:
    """What a row of the ledger says of restricted grants, and of what it is for."""
    text = ""
    if "restricted" in detail:
        text = f',"restricted_after":{amount(int(str(detail["restricted"])))}'
    for name in ("tags", "only"):
        if isinstance(detail.get(name), str):
            text += f',"{name}":{tags_json(str(detail[name]))}'
    return text


def _part(one: Restricted, amount: _Amount) -> str:
    ends = time_text(one.next_expires_at_ms)
    return f'{{"only":{tags_json(one.only)},"available":{amount(one.available)},"next_expires_at":{ends}}}'
