"""Files to take away: the history of a user and usage, as the calls export them."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.responses import Response, StreamingResponse

from meter.console.answering import HEADERS, notice
from meter.console.visit import Visit
from meter.keys import USER_ID

_OF_USAGE = ("group_by", "path", "from", "to")


async def history_csv(visit: Visit) -> Response:
    """`?id=`: every transaction of a user."""
    user_id = visit.query.get("id", "")
    if not USER_ID.fullmatch(user_id):
        return notice(404, "There is nothing here", "Nobody can be called that.", visit)
    return await _file(visit, "history", {"user_id": user_id}, {"format": "csv"}, "history.csv")


async def usage_csv(visit: Visit) -> Response:
    """Usage figures, by what the page of them asked for."""
    query = {name: visit.query[name] for name in _OF_USAGE if visit.query.get(name)}
    return await _file(visit, "usage", {}, {**query, "format": "csv"}, "usage.csv")


async def _file(visit: Visit, name: str, path: Mapping[str, str], query: Mapping[str, str], file: str) -> Response:
    if visit.exported is None:
        raise LookupError("a visit without calls")
    found = await visit.exported(name, path, query)
    if found.status != 200:
        return notice(found.status, "There is no file", "The sidecar or its store has no answer to this.", visit)
    headers = {**HEADERS, "content-disposition": f'attachment; filename="{file}"'}
    media_type = found.content_type.decode()
    if found.stream is None:
        return Response(found.body, headers=headers, media_type=media_type)
    return StreamingResponse(found.stream, headers=headers, media_type=media_type)
