"""The routes of `/credits` as Starlette endpoints, for any ASGI server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from starlette.routing import BaseRoute, Route

from meter.contract.calls import CALLS
from meter.http.endpoint import Endpoint
from meter.http.exchange import Coroutine


def routes(table: Sequence[tuple[str, str, Coroutine]], body_max_bytes: int) -> list[BaseRoute]:
    """Starlette routes of a table of (method, path, coroutine), one endpoint per path, in the order of the table."""
    paths: dict[str, dict[str, Coroutine]] = {}
    for method, path, coroutine in table:
        paths.setdefault(path, {})[method] = coroutine
    return [Route(path, Endpoint(methods, body_max_bytes)) for path, methods in paths.items()]


def call_routes(coroutines: Mapping[str, Coroutine], prefix: str, body_max_bytes: int) -> list[BaseRoute]:
    """The routes of the table of calls below a prefix, without that prefix."""
    table = [
        (call.method, call.path.replace("{user_id}", "{user_id:path}"), coroutines[call.name])
        for call in CALLS
        if call.prefix == prefix
    ]
    table.sort(key=lambda entry: entry[1].endswith(":path}"))  # a user_id may contain "/", so it matches greedily
    return routes(table, body_max_bytes)
