"""The routes of `/credits` as Starlette endpoints, for any ASGI server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from starlette.applications import Starlette
from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request as StarletteRequest
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from meter.contract.calls import CALLS
from meter.http.endpoint import Endpoint, header_list
from meter.http.exchange import Coroutine
from meter.http.rendered import problem
from meter.http.request_id import Identified, id_to_answer, named


def routes(table: Sequence[tuple[str, str, Coroutine]], body_max_bytes: int) -> list[BaseRoute]:
    """Starlette routes of a table of (method, path, coroutine), one endpoint per path, in the order of the table."""
    paths: dict[str, dict[str, Coroutine]] = {}
    for method, path, coroutine in table:
        paths.setdefault(path, {})[method] = coroutine
    return [Route(path, Endpoint(methods, body_max_bytes)) for path, methods in paths.items()]


class _AnyText(Convertor[str]):
    """Anything, line ends too: what is no id is refused as such, not as a path that is not there."""

    regex = "(?s:.*)"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("any_text", _AnyText())


def call_routes(
    coroutines: Mapping[str, Coroutine], prefix: str, body_max_bytes: int, *, below: str = ""
) -> list[BaseRoute]:
    """The routes of the table of calls that have this prefix; their paths begin with `below` in its place."""
    table = [
        (call.method, below + call.path.replace("{user_id}", "{user_id:any_text}"), coroutines[call.name])
        for call in CALLS
        if call.prefix == prefix
    ]
    table.sort(key=lambda entry: entry[1].endswith(":any_text}"))  # a user_id may contain "/", so it matches greedily
    return routes(table, body_max_bytes)


def application_of(found: Sequence[BaseRoute]) -> Starlette:
    """An application of these routes and nothing else."""
    return Starlette(routes=found, middleware=[Middleware(Identified)], exception_handlers=PROBLEM_HANDLERS)


async def _http_problem(_: StarletteRequest, error: Exception) -> Response:
    status, more = (error.status_code, error.headers or {}) if isinstance(error, HTTPException) else (500, {})
    slug = {404: "not-found", 405: "method-not-allowed"}.get(status, "internal-error")
    rendered = problem(slug, "There is nothing at this path." if status == 404 else "This path knows other methods.")
    rendered = named(rendered, id_to_answer(rendered))
    headers = {name.decode(): value.decode() for name, value in header_list(rendered)}
    return Response(rendered.body, rendered.status, {**more, **headers})


PROBLEM_HANDLERS = {HTTPException: _http_problem}
"""What Starlette's own refusals are answered with."""
