"""A kept refusal as the API tells it."""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from meter.clock import time_text
from meter.http.rendered import json_text
from meter.store.rows import EventRow


def refused_json(row: EventRow) -> str:
    """What was refused, with the figures of its moment."""
    detail = row.detail if isinstance(row.detail, dict) else {}

    def text(name: str) -> str:
        return json_text(detail.get(name))

    def number(name: str) -> str:
        value = detail.get(name)
        return "null" if value is None else str(value)

    told = detail.get("violations")
    violations = [_violation(one) for one in told if isinstance(one, dict)] if isinstance(told, list) else []
    return (
        f'{{"kind":"refusal","refusal_id":"{row.event_id}","user_id":{json_text(row.user_id)},'
        f'"operation":{text("operation")},"reason":{text("refusal")},"amount":{number("amount")},'
        f'"available":{number("available")},"violations":{orjson.dumps(violations).decode()},"reservation_id":{text("reservation_id")},'
        f'"reference":{json_text(row.reference)},"actor":{text("actor")},"key_id":{text("key_id")},'
        f'"created_at":{time_text(row.created_at_ms)}}}'
    )


def _violation(told: Mapping[str, object]) -> dict[str, object]:
    """A rule that refused, with amounts as numbers, digit by digit."""
    amounts = {name: told[name] for name in ("limit", "used", "reserved", "required") if name in told}
    return {**told, **{name: orjson.Fragment(str(value)) for name, value in amounts.items()}}
