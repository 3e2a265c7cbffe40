"""Lists as pages of JSON, or whole as CSV or NDJSON: streamed page by page, so that no list is in memory at once."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import orjson
from pydantic import BaseModel

from meter.contract.fields import LIST_LIMIT_MAX
from meter.contract.requests import Format, Query
from meter.http.exchange import Request
from meter.http.rendered import Rendered, page

TYPES: dict[str, Format] = {"text/csv": "csv", "application/x-ndjson": "ndjson", "application/json": "json"}
_STARTS_A_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet would run: a text that begins so gets an apostrophe in front (OWASP, CSV injection)."""


@dataclass(frozen=True, slots=True)
class Items:
    """A page of a list: items that are JSON already, where the next page begins, and what else the page tells."""

    items: Sequence[str]
    next_cursor: str | None
    members: str = ""


PageFrom = Callable[[str, int], Awaitable[Items]]
"""The page behind a cursor, of so many items at the most."""


async def listed(
    name: str, request: Request, query: Query, item: type[BaseModel] | Sequence[str], page_from: PageFrom
) -> Rendered:
    """The list as the request wants it: `?format=`, else what `Accept` names first of what there is, else JSON. CSV has
    the members of `item` as its columns; `a.b` is the member b of the member a.
    """
    wanted: Format = getattr(query, "format", None) or _accepted(request)
    if wanted == "json":
        found = await page_from(query.cursor, query.limit)
        return page(found.items, found.next_cursor, found.members)
    columns = list(item.model_fields) if isinstance(item, type) else item
    most = query.limit if "limit" in query.model_fields_set else None
    first = await page_from(query.cursor, LIST_LIMIT_MAX if most is None else most)  # refused now, or not at all
    pieces = _pieces(first, most, page_from, _csv_of(columns) if wanted == "csv" else _ndjson)
    kind = b"text/csv; charset=utf-8; header=present" if wanted == "csv" else b"application/x-ndjson"
    saved = b'attachment; filename="%b.%b"' % (name.encode(), wanted.encode())
    return Rendered(200, b"", kind, headers=((b"content-disposition", saved),), stream=pieces)


def _accepted(request: Request) -> Format:
    accept = request.headers.get(b"accept", b"").decode("latin-1")
    for part in accept.split(","):
        found = TYPES.get(part.partition(";")[0].strip().lower())
        if found is not None:
            return found
    return "json"


async def _pieces(
    first: Items, most: int | None, page_from: PageFrom, text_of: Callable[[Sequence[str], bool], bytes]
) -> AsyncIterator[bytes]:
    found = first
    yield text_of(found.items, True)
    while found.next_cursor is not None and most is None:
        found = await page_from(found.next_cursor, LIST_LIMIT_MAX)
        if found.items:
            yield text_of(found.items, False)


def _ndjson(items: Sequence[str], _: bool) -> bytes:
    return "".join(f"{item}\n" for item in items).encode()


def _csv_of(columns: Sequence[str]) -> Callable[[Sequence[str], bool], bytes]:
    headers = [name.rpartition(".")[2] for name in columns]

    def text_of(items: Sequence[str], is_first: bool) -> bytes:
        text = io.StringIO()
        writer = csv.writer(text)
        if is_first:
            writer.writerow(headers)
        for one in items:
            members = json.loads(one, parse_float=Decimal)
            writer.writerow([_cell(_member(members, name)) for name in columns])
        return text.getvalue().encode()

    return text_of


def _member(members: dict[str, Any], name: str) -> object:
    outer, _, inner = name.partition(".")
    return members[outer].get(inner) if inner else members.get(name)


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return f"'{value}" if value.startswith(_STARTS_A_FORMULA) else value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | Decimal):
        return format(value, "f") if isinstance(value, Decimal) else str(value)
    return orjson.dumps(value, default=_number).decode()


def _number(value: object) -> object:
    if isinstance(value, Decimal):
        return orjson.Fragment(format(value, "f"))
    raise TypeError(f"no JSON for {type(value).__name__}")
