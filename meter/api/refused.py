"""A kept refusal as the API tells it."""

from __future__ import annotations

from meter.amount import AmountScale
from meter.api.rule_text import violations_json
from meter.clock import time_text
from meter.http.rendered import json_text
from meter.store.rows import EventRow


def refused_json(row: EventRow, scale: AmountScale) -> str:
    """What was refused, with the figures of its moment."""
    detail = row.detail if isinstance(row.detail, dict) else {}

    def amount(units: int) -> str:
        return format(scale.credits(units), "f")

    def text(name: str) -> str:
        return json_text(detail.get(name))

    def number(name: str) -> str:
        value = detail.get(name)
        return "null" if value is None else str(value)

    violations = violations_json(str(detail.get("violations", "-")), amount)
    return (
        f'{{"kind":"refusal","refusal_id":"{row.event_id}","user_id":{json_text(row.user_id)},'
        f'"operation":{text("operation")},"reason":{text("refusal")},"amount":{number("amount")},'
        f'"available":{number("available")},"violations":{violations},"reservation_id":{text("reservation_id")},'
        f'"reference":{json_text(row.reference)},"actor":{text("actor")},"key_id":{text("key_id")},'
        f'"created_at":{time_text(row.created_at_ms)}}}'
    )
