"""Where the access logs of each gateway say what became of a request.

A source is a table of paths into an entry; of several paths the first one that has a value counts. Names of headers are
found in any case, and the only value of a list stands for the list.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from meter.charging.policy import Ending
from meter.gateway.entries import BadEntry
from meter.gateway.settlement import Outcome, Told, read_status, read_usage
from meter.keys import OBJECT_ID, REQUEST_ID, USER_ID
from meter.usage import Number

Path = tuple[str, ...]
Paths = tuple[Path, ...]

_WHOLE = frozenset({"ok", "true", "1"})
"""What `complete` says when the client got all of it: nginx's $request_completion, or a truth."""
MEMBERS_MAX = 500
"""An object with more is searched for exact names only."""
_NOTHING = ("", "-")
_STATUS_OF_WORD = {"success": 200, "failure": 500}


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where one kind of log has each member. `sums` are added up where `usage` is not there."""

    reservation_id: Paths = (("reservation_id",),)
    user_id: Paths = (("user_id",),)
    request_id: Paths = (("request_id",),)
    status: Paths = (("status",),)
    usage: Paths = (("usage",),)
    sums: Paths = ()
    complete: Paths = (("complete",),)
    termination: Paths = (("termination",),)
    """HAProxy's %ts: who ended it early."""
    flags: Paths = (("flags",),)
    """Envoy's %RESPONSE_FLAGS%."""


_HEADER_RESERVATION = "X-Reservation-Id"
_HEADER_ACTUAL = "X-Credits-Actual"
_HEADERS = ("request", "headers")
_TOLD = ("response", "headers")
_FORMATTED = Source()

SOURCES: Mapping[str, Source] = {
    # Formats that the operator writes; our examples use these names.
    "meter": _FORMATTED,
    "nginx": Source(
        reservation_id=(("reservation_id",), ("http_x_reservation_id",)),
        user_id=(("user_id",), ("http_x_user_id",)),
        usage=(("usage",), ("upstream_http_x_credits_actual",), ("sent_http_x_credits_actual",)),
        complete=(("complete",), ("request_completion",)),
    ),
    "haproxy": _FORMATTED,
    "envoy": _FORMATTED,
    "caddy": Source(
        # Members of `log_append`: request.headers are what the client sent, whatever the gateway made of them.
        usage=(("usage",), ("resp_headers", _HEADER_ACTUAL)),
    ),
    "traefik": Source(
        reservation_id=((f"request_{_HEADER_RESERVATION}",),),
        user_id=(("request_X-User-Id",),),
        request_id=(("request_X-Request-Id",),),
        status=(("OriginStatus",), ("DownstreamStatus",)),
        usage=((f"origin_{_HEADER_ACTUAL}",), (f"downstream_{_HEADER_ACTUAL}",)),
    ),
    "apisix": Source(
        reservation_id=(("reservation_id",), (*_HEADERS, _HEADER_RESERVATION)),
        user_id=(("user_id",), (*_HEADERS, "X-User-Id")),
        request_id=(("request_id",), (*_HEADERS, "X-Request-Id")),
        status=(("status",), ("response", "status")),
        usage=(("usage",), (*_TOLD, _HEADER_ACTUAL)),
        sums=(("llm_prompt_tokens",), ("llm_completion_tokens",)),
    ),
    "kong": Source(
        reservation_id=((*_HEADERS, _HEADER_RESERVATION),),
        user_id=((*_HEADERS, "X-User-Id"),),
        request_id=((*_HEADERS, "X-Request-Id"), ("request", "id")),
        status=(("response", "status"),),
        usage=(
            (*_TOLD, _HEADER_ACTUAL),
            ("ai", "proxy", "usage", "total_tokens"),
            ("ai", "ai-proxy", "usage", "total_tokens"),
            ("ai", "proxy", "usage", "total_token"),
        ),
    ),
    "litellm": Source(
        reservation_id=(
            ("metadata", "requester_custom_headers", _HEADER_RESERVATION),
            ("metadata", "requester_metadata", "reservation_id"),
        ),
        user_id=(("metadata", "requester_metadata", "user_id"), ("end_user",), ("metadata", "user_api_key_user_id")),
        request_id=(("metadata", "requester_metadata", "request_id"), ("id",)),
        usage=(("total_tokens",),),
        sums=(("prompt_tokens",), ("completion_tokens",)),
    ),
}


def read_entry(source: Source, entry: object) -> Told | None:
    """What an entry tells; None when it is about no metered request. Raises `BadEntry`."""
    if not isinstance(entry, Mapping):
        raise BadEntry("is not an object")
    reservation_id = _text(entry, source.reservation_id)
    user_id, request_id = _text(entry, source.user_id), _text(entry, source.request_id)
    if not reservation_id and not (user_id and request_id):
        return None
    for value, pattern in ((reservation_id, OBJECT_ID), (user_id, USER_ID), (request_id, REQUEST_ID)):
        if value and not pattern.fullmatch(value) and not (reservation_id and value is not reservation_id):
            raise BadEntry("has an id that cannot be")
    return Told(reservation_id, user_id, request_id, _outcome(source, entry))


def _outcome(source: Source, entry: Mapping[str, object]) -> Outcome:
    status_text = _text(entry, source.status)
    usage_text = _text(entry, source.usage)
    usage = read_usage(usage_text) if usage_text else _sum(entry, source.sums)
    if usage_text and usage is None:
        raise BadEntry("has a usage that is not one number")
    status = 200 if status_text is None else _STATUS_OF_WORD.get(status_text) or read_status(status_text)
    # Traefik's OriginStatus stays 0 when the client leaves in the middle.
    ending = _ending(source, entry) or (Ending.GONE if status is None else Ending.CLEAN)
    return Outcome(status, usage, ending)


def _ending(source: Source, entry: Mapping[str, object]) -> Ending | None:
    """How it ended, by what the entry says about that; None when it says nothing."""
    complete, termination = _text(entry, source.complete), _text(entry, source.termination)
    flags = _text(entry, source.flags)
    if (
        (complete is not None and complete.lower() not in _WHOLE)
        or (termination and termination[0] in "Cc")
        or (flags and "DC" in flags.split(","))
    ):
        return Ending.GONE
    if flags or (termination and termination[0] != "-"):
        return Ending.CUT
    return Ending.CLEAN if complete or termination else None


def _sum(entry: Mapping[str, object], paths: Paths) -> Number | None:
    parts = [part for path in paths if (text := _text(entry, (path,))) and (part := read_usage(text)) is not None]
    return sum(parts) if parts else None


def _text(entry: Mapping[str, object], paths: Paths) -> str | None:
    """The first value that is there, as text; an empty one counts only for `complete`, whose emptiness says it."""
    found: str | None = None
    for path in paths:
        value = _value(entry, path)
        if isinstance(value, bool):
            value = "true" if value else "false"
        if isinstance(value, str | int | float | Decimal):
            text = str(value)
            if text not in _NOTHING:
                return text
            found = "" if found is None else found
    return found


def _value(entry: object, path: Path) -> object:
    for name in path:
        if not isinstance(entry, Mapping):
            return None
        found = entry.get(name)
        if found is None and len(entry) <= MEMBERS_MAX:
            found = next((value for key, value in entry.items() if key.lower() == name.lower()), None)
        entry = found
    if isinstance(entry, Sequence) and not isinstance(entry, str):
        return entry[0] if len(entry) == 1 else None
    return entry
