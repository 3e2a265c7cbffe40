"""From a line of the Lua program to the JSON of the wire, in one pass and without objects in between.

The tables below name, in order, what each operation answers (the "Answers" line of its Lua file).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

import orjson

from meter.amount import AmountScale
from meter.operation import NEVER_MS
from meter.problem import CONTENT_TYPE, PROBLEMS, Problem

JSON_TYPE = b"application/json"

_SHAPES: dict[str, tuple[str, ...]] = {
    "grant": ("user_id", "grant_id", "transaction_id", "amount:units"),
    "deduct": ("user_id", "transaction_id:none", "amount:units", "taken:units", "uncovered:units"),
    "reserve": ("user_id", "reservation_id", "amount:units", "expires_at:time", "expires_in:seconds"),
    "commit": (
        "user_id",
        "reservation_id",
        "transaction_id",
        "charged:units",
        "released:units",
        "forfeited:units",
        "uncovered:units",
        "late:flag",
    ),
    "release": ("user_id", "reservation_id", "transaction_id", "released:units", "forfeited:units"),
    "extend": ("user_id", "reservation_id", "amount:units", "expires_at:time", "expires_in:seconds"),
    "reservation": (
        "user_id",
        "reservation_id",
        "state",
        "amount:units",
        "charged:units",
        "expires_at:time",
    ),
    "refund": ("user_id", "transaction_id", "amount:units", "forfeited:units", "left:units"),
    "void": ("user_id", "grant_id", "transaction_id", "voided:units"),
    "balance": ("user_id",),
    "configure": ("user_id", "overdraft_limit:units", "suspended:dash", "low_credit_thresholds:list"),
}

_CREATED = {"reserve": 201}

# refusal word -> (slug, what its own fields are)
_REFUSALS: dict[str, tuple[str, tuple[str, ...]]] = {
    "insufficient": ("insufficient-credits", ("user_id", "required:units")),
    "suspended": ("account-suspended", ()),
    "key_reused": ("idempotency-key-reused", ()),
    "exists": ("grant-exists", ()),
    "over": ("grant-over", ("state:ended",)),
    "exceeds": ("refund-exceeds-charge", ("user_id", "left:units")),
    "ended": ("validation-error", ()),
    "overflow": ("validation-error", ()),
}

_DETAILS = {
    "insufficient-credits": "The available credits do not cover the amount; nothing was changed.",
    "account-suspended": "The account is suspended; nothing was changed.",
    "idempotency-key-reused": "The key was used before with another body; nothing was changed.",
    "grant-exists": "The user has a grant of that id already; nothing was changed.",
    "grant-over": "The grant has ended; there is nothing to void.",
    "refund-exceeds-charge": "The refund is more than what is left of the charge; nothing was changed.",
    "reservation-not-found": "No reservation has that id.",
    "grant-not-found": "The user has no grant of that id.",
    "too-many-reservations": "The account has as many open reservations as it may have.",
    "too-many-grants": "The account has as many grants as it may have.",
}

_FAULTS = {
    "ended": ("/expires_at", "must be later than now and than effective_at"),
    "overflow": ("/amount", "is more than the account can count exactly"),
}


@dataclass(frozen=True, slots=True)
class Rendered:
    """What goes back to a caller: an HTTP status, a body and its type."""

    status: int
    body: bytes
    content_type: bytes = JSON_TYPE
    replayed: bool = False


class Renderer:
    """Renders answers of one deployment's amounts."""

    def __init__(self, scale: AmountScale) -> None:
        self._amount = scale.text
        self._shapes = {name: self._compiled(shape) for name, shape in _SHAPES.items()}
        self._refusals = {word: (PROBLEMS[slug], self._compiled(shape)) for word, (slug, shape) in _REFUSALS.items()}

    def render(self, name: str, line: str, extra_members: str = "") -> Rendered:
        """The answer of the operation `name`. `extra_members` are JSON members that the line does not know."""
        fields = line.split(" ")
        if fields[1] != "ok":
            return self._refusal(name, fields)
        text = self._members(self._shapes[name], fields, 2) + self._balances(fields) + extra_members
        return Rendered(_CREATED.get(name, 200), f"{{{text}}}".encode(), JSON_TYPE, fields[0] == "1")

    def grants(self, line: str) -> Rendered:
        """A page of grants."""
        head, *items, _ = line.split(";")
        return self._page(head, (self._grant(item.split(" ")) for item in items if item))

    def reservations(self, line: str) -> Rendered:
        """A page of open reservations."""
        head, *items, _ = line.split(";")
        user_id = head.split(" ")[2]
        return self._page(head, (self._reservation(user_id, item.split(" ")) for item in items if item))

    def explanation(self, line: str, amount: int) -> Rendered:
        """What a deduct of `amount` units would do."""
        head, *items, tail = line.split(";")
        _, _, user_id, would, short, next_at, next_amount, limit = head.split(" ")
        burns = ",".join(self._burn(item.split(" ")) for item in items if item)
        text = (
            f'"user_id":"{user_id}","amount":{self._amount(amount)},"would":"{would}",'
            f'"short":{self._amount(int(short))},"burns":[{burns}],"overdraft_limit":{self._amount(int(limit))},'
            f'"next_credits_at":{"null" if next_at == "0" else time_text(int(next_at))},'
            f'"next_credits_amount":{self._amount(int(next_amount))}{self._balances(tail.split(" "))}'
        )
        return Rendered(200, f"{{{text}}}".encode())

    def clock(self, line: str) -> Rendered:
        """The time that scripts see."""
        fields = line.split(" ")
        if fields[1] == "backwards":
            detail = f"The clock stands at {time_text(int(fields[2]))[1:-1]} already."
            return problem("clock-backwards", detail)
        frozen = "true" if fields[3] == "1" else "false"
        return Rendered(200, f'{{"now":{time_text(int(fields[2]))},"frozen":{frozen}}}'.encode())

    def _refusal(self, name: str, fields: list[str]) -> Rendered:
        word = fields[1]
        if word == "not_found":
            slug = "grant-not-found" if name == "void" else "reservation-not-found"
            return problem(slug, _DETAILS[slug])
        if word == "finished":
            members = f'"user_id":"{fields[3]}","state":"{fields[2]}","charged":{self._amount(int(fields[4]))}'
            return problem(f"reservation-{fields[2]}", f"The reservation is {fields[2]} already.", members)
        if word == "too_many":
            slug = "too-many-grants" if name == "grant" else "too-many-reservations"
            return problem(slug, _DETAILS[slug], self._balances(fields)[1:])
        kind, shape = self._refusals[word]
        members = self._members(shape, fields, 2)
        if len(fields) > len(shape) + 2:
            members += self._balances(fields)
        if word in _FAULTS:
            return validation_problem([_FAULTS[word]])
        return _problem(kind, _DETAILS[kind.slug], members.removeprefix(","))

    def _balances(self, fields: list[str]) -> str:
        available, reserved, debt = int(fields[-3]), int(fields[-2]), int(fields[-1])
        free = self._amount(available)
        return (
            f',"credits":{free},"balance":{self._amount(available + reserved)},"reserved":{self._amount(reserved)},'
            f'"available":{free},"debt":{self._amount(debt)}'
        )

    def _members(self, shape: tuple[tuple[str, _Convert], ...], fields: list[str], at: int) -> str:
        return ",".join([name + convert(fields[at + n]) for n, (name, convert) in enumerate(shape)])

    def _compiled(self, shape: tuple[str, ...]) -> tuple[tuple[str, _Convert], ...]:
        converters: dict[str, _Convert] = {
            "": _quoted,
            "none": lambda value: "null" if value == "-" else f'"{value}"',
            "units": lambda value: self._amount(int(value)),
            "time": lambda value: time_text(int(value)),
            "seconds": lambda value: _seconds(int(value)),
            "flag": lambda value: "true" if value == "1" else "false",
            "dash": lambda value: "false" if value == "-" else "true",
            "ended": lambda value: '"voided"' if value == "v" else '"expired"',
            "list": self._amounts,
        }
        return tuple((f'"{name}":', converters[kind]) for name, _, kind in (item.partition(":") for item in shape))

    def _amounts(self, value: str) -> str:
        return "[" + ("" if value == "-" else ",".join(self._amount(int(v)) for v in value.split(","))) + "]"

    def _grant(self, f: list[str]) -> str:
        grant_id, amount, remaining, reserved, priority, effective, expires, created, _, class_, state, source = f
        return (
            f'{{"grant_id":"{grant_id}","amount":{self._amount(int(amount))},'
            f'"remaining":{self._amount(int(remaining))},"reserved":{self._amount(int(reserved))},'
            f'"priority":{priority},"effective_at":{time_text(int(effective))},"expires_at":{time_text(int(expires))},'
            f'"created_at":{time_text(int(created))},"source":"{source}","state":"{_grant_state(class_, state)}"}}'
        )

    def _reservation(self, user_id: str, fields: list[str]) -> str:
        reservation_id, amount, ends, created = fields
        return (
            f'{{"reservation_id":"{reservation_id}","user_id":"{user_id}","state":"open",'
            f'"amount":{self._amount(int(amount))},"expires_at":{time_text(int(ends))},'
            f'"created_at":{time_text(int(created))}}}'
        )

    def _burn(self, fields: list[str]) -> str:
        return f'{{"grant_id":"{fields[0]}","amount":{self._amount(int(fields[1]))}}}'

    def _page(self, head: str, items: Iterable[str]) -> Rendered:
        cursor = head.split(" ")[3]
        next_cursor = "null" if cursor == "-" else f'"{cursor}"'
        return Rendered(200, f'{{"items":[{",".join(items)}],"next_cursor":{next_cursor}}}'.encode())


_Convert = Callable[[str], str]


def problem(slug: str, detail: str, members: str = "") -> Rendered:
    """A refusal as a problem; `members` are further JSON members without braces."""
    return _problem(PROBLEMS[slug], detail, members)


def validation_problem(faults: Iterable[tuple[str, str]], slug: str = "validation-error") -> Rendered:
    """A refusal of the request itself: (JSON pointer, what is wrong) for each fault."""
    errors = [{"pointer": pointer, "detail": detail} for pointer, detail in faults]
    first = f"{errors[0]['pointer'] or 'body'}: {errors[0]['detail']}"
    return problem(slug, first, f'"errors":{orjson.dumps(errors).decode()}')


def time_text(ms: int) -> str:
    """A JSON string with an RFC 3339 time in UTC with milliseconds; null for never."""
    if ms >= NEVER_MS:
        return "null"
    seconds, rest = divmod(ms, 1000)
    return f'"{_second_text(seconds)}.{rest:03d}Z"'


@lru_cache(maxsize=4096)
def _second_text(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _problem(kind: Problem, detail: str, members: str) -> Rendered:
    return Rendered(kind.status, kind.body(detail, members.encode()), CONTENT_TYPE)


def _quoted(value: str) -> str:
    return f'"{value}"'


def _seconds(ms: int) -> str:
    return str(ms // 1000) if ms % 1000 == 0 else f"{ms / 1000:.3f}".rstrip("0")


def _grant_state(class_: str, state: str) -> str:
    if state != "-":
        return "expired" if state == "e" else "voided"
    return {"S": "scheduled", "X": "exhausted"}.get(class_, "active")
