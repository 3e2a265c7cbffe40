"""Where the access logs of each gateway say what became of a request.

A source is a table of paths into an entry; of several paths the first one that has a value counts. Names of headers are
found in any case, and the only value of a list stands for the list.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import islice

from meter.charging.policy import Ending
from meter.gateway.entries import BadEntry
from meter.gateway.settlement import FAILED_STATUS, Outcome, Told, is_status, read_status, read_usages
from meter.gateway.told_usage import AUTO, usage_in, usage_of
from meter.keys import OBJECT_ID, REQUEST_ID, USER_ID
from meter.usage import Number, Reader, Usage
from meter.usage.tail import read_end

Path = tuple[str, ...]
Paths = tuple[Path, ...]

_WHOLE = frozenset({"ok", "true", "1"})
"""What `complete` says when the client got all of it: nginx's $request_completion, or a truth."""
MEMBERS_MAX = 500
"""An object with more is searched for exact names only."""
VALUES_MAX = 20
"""Values of one header, and members that are looked through for a `*`."""
_NOTHING = ("", "-")
_STATUS_OF_WORD = {"success": 200, "failure": 500}


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where one kind of log has each member; `*` in a path is any member. The numbers of the first of `sums` that has
    any are added up where `usage` tells nothing.
    """

    reservation_id: Paths = (("reservation_id",),)
    user_id: Paths = (("user_id",),)
    request_id: Paths = (("request_id",),)
    status: Paths = (("status",),)
    usage: Paths = (("usage",),)
    """Credits; or an object that tells quantities."""
    totals: Paths = ()
    """Tokens together."""
    sums: tuple[Paths, ...] = ()
    """Tokens that went in, and those that came out."""
    model: Paths = (("model",),)
    """What answered."""
    complete: Paths = (("complete",),)
    termination: Paths = (("termination",),)
    """HAProxy's %ts: who ended it early."""
    flags: Paths = (("flags",),)
    """Envoy's %RESPONSE_FLAGS%."""
    body: Paths = (("body",), ("body_base64",))
    """The response itself, for gateways whose scripts read no JSON."""
    body_end: Paths = (("body_end",), ("body_end_base64",))
    """Its last bytes, where it is longer than they keep."""


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
        totals=(("llm_summary", "total_tokens"),),
        model=(("model",), ("llm_model",), ("llm_summary", "model"), ("request_llm_model",)),
        sums=(
            (("llm_prompt_tokens",), ("llm_completion_tokens",)),
            (("llm_summary", "prompt_tokens"), ("llm_summary", "completion_tokens")),
        ),
    ),
    "kong": Source(
        reservation_id=((*_HEADERS, _HEADER_RESERVATION),),
        user_id=((*_HEADERS, "X-User-Id"),),
        request_id=((*_HEADERS, "X-Request-Id"), ("request", "id")),
        status=(("response", "status"),),
        usage=((*_TOLD, _HEADER_ACTUAL),),
        totals=(("ai", "*", "usage", "total_tokens"), ("ai", "*", "usage", "total_token")),
        model=(("ai", "*", "meta", "response_model"), ("ai", "*", "meta", "request_model")),
        sums=(
            (("ai", "*", "usage", "prompt_tokens"), ("ai", "*", "usage", "completion_tokens")),
            (("ai", "*", "usage", "prompt_token"), ("ai", "*", "usage", "completion_token")),
        ),
    ),
    "litellm": Source(
        reservation_id=(
            ("metadata", "requester_custom_headers", _HEADER_RESERVATION),
            ("metadata", "requester_metadata", "reservation_id"),
        ),
        user_id=(("metadata", "requester_metadata", "user_id"), ("end_user",), ("metadata", "user_api_key_user_id")),
        request_id=(("metadata", "requester_metadata", "request_id"), ("id",)),
        usage=(("metadata", "usage_object"),),
        totals=(("total_tokens",),),
        sums=((("prompt_tokens",), ("completion_tokens",)),),
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
    status = 200 if status_text is None else _STATUS_OF_WORD.get(status_text.lower()) or read_status(status_text)
    if status is None and status_text and not is_status(status_text):
        raise BadEntry("has a status that is none")
    # Traefik's OriginStatus stays 0 when the client leaves in the middle.
    ending = _ending(source, entry) or (Ending.GONE if status is None else Ending.CLEAN)
    usage = _credits(source, entry)
    told = None if usage else _tokens(source, entry)
    usage = usage if told is None else told.total
    reader = None if usage else _seen(source, entry)
    if reader is not None and reader.usage is not None:
        told = reader.usage
        usage = told.total
    elif reader is not None and usage is None and reader.failed:
        status = FAILED_STATUS
    return Outcome(status, usage, ending, told)


def _seen(source: Source, entry: Mapping[str, object]) -> Reader | None:
    """The reader of what the entry has of the response."""
    for paths, whole in ((source.body, True), (source.body_end, False)):
        for path in paths:
            text = _text(entry, (path,))
            if not text:
                continue
            end = text.encode("utf-8", "surrogatepass")
            if path[-1].endswith("base64"):
                try:
                    end = b64decode(end, validate=True)
                except ValueError:
                    raise BadEntry("has a body that is no base64") from None
            return read_end(AUTO, end, whole=whole)
    return None


def _tokens(source: Source, entry: Mapping[str, object]) -> Usage | None:
    """What the entry tells of tokens by itself: an object, the numbers of its fields, or their sum."""
    model = _text(entry, source.model)
    for path in source.usage:
        if (found := usage_in(_value(entry, path), model)) is not None:
            return found
    total = _first_number(entry, source.totals)
    sums = [{"input": _sum(entry, went[:1]), "output": _sum(entry, went[1:])} for went in source.sums]
    parts = next((one for one in sums if any(one.values())), {})
    quantities = {name: number for name, number in parts.items() if number}
    return usage_of(quantities, total, model) if quantities or total is not None else None


def _credits(source: Source, entry: Mapping[str, object]) -> Number | None:
    """The credits that the entry tells."""
    return _first_number(entry, source.usage)


def _first_number(entry: Mapping[str, object], paths: Paths) -> Number | None:
    """The first that is not 0: a header may be written before anything is known."""
    told: Number | None = None
    for path in paths:
        text = _text(entry, (path,))
        usage = read_usages(text) if text else None
        if text and usage is None:
            raise BadEntry("has a usage that is no number")
        told = usage if usage is not None else told
        if told:
            return told
    return told


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
    parts = [part for path in paths if (text := _text(entry, (path,))) and (part := read_usages(text)) is not None]
    return sum(parts) if parts else None


def _text(entry: Mapping[str, object], paths: Paths) -> str | None:
    """The first value that is there, as text; an empty one counts only for `complete`, whose emptiness says it."""
    found: str | None = None
    for path in paths:
        value = _joined(_value(entry, path))
        if isinstance(value, bool):
            value = "true" if value else "false"
        if isinstance(value, str | int | float | Decimal):
            is_whole = isinstance(value, Decimal) and value.is_finite() and value == value.to_integral_value()
            text = f"{value:.0f}" if is_whole else str(value)
            if text not in _NOTHING:
                return text
            found = "" if found is None else found
    return found


def _joined(value: object) -> object:
    """A header that was there more than once is one list of values (RFC 9110, 5.3)."""
    if not isinstance(value, Sequence) or isinstance(value, str) or not 0 < len(value) <= VALUES_MAX:
        return value
    return value[0] if len(value) == 1 else ", ".join(str(one) for one in value if isinstance(one, str | int | Decimal))


def _value(entry: object, path: Path) -> object:
    for at, name in enumerate(path):
        if not isinstance(entry, Mapping):
            return None
        if name == "*":
            found = (_value(member, path[at + 1 :]) for member in islice(entry.values(), VALUES_MAX))
            return next((value for value in found if value is not None), None)
        value = entry.get(name)
        if value is None and len(entry) <= MEMBERS_MAX:
            value = next((one for key, one in entry.items() if key.lower() == name.lower()), None)
        entry = value
    return entry
