"""From a line of the Lua program to the JSON of the wire, in one pass and without objects in between.

The tables below name, in order, what each operation answers (the "Answers" line of its Lua file).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from meter.amount import AmountScale
from meter.clock import NEVER_MS, time_text
from meter.contract.problems import PROBLEMS
from meter.http.cursors import Cursors
from meter.http.rendered import JSON_TYPE, Rendered, json_text, page, problem, problem_of, validation_problem
from meter.store.rows import GrantRow, ReservationRow, TransactionRow

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

_ROLLOVER = re.compile(r"([0-9]+)\+([0-9]+)")  # of at_end, in lua/state/grant.lua

# refusal word -> (slug, what its own fields are)
_REFUSALS: dict[str, tuple[str, tuple[str, ...]]] = {
    "insufficient": ("insufficient-credits", ("user_id", "required:units")),
    "suspended": ("account-suspended", ()),
    "key_reused": ("idempotency-key-reused", ()),
    "exists": ("grant-exists", ()),
    "over": ("grant-over", ("user_id", "state:ended")),
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

    def grants(self, line: str, cursors: Cursors) -> Rendered:
        """A page of grants; the script's position becomes one of these cursors of the user."""
        head, *items, _ = line.split(";")
        return self._page(head, cursors, (self._grant(item.split(" ")) for item in items if item))

    def reservations(self, line: str, cursors: Cursors) -> Rendered:
        """A page of open reservations."""
        head, *items, _ = line.split(";")
        user_id = head.split(" ")[2]
        return self._page(head, cursors, (self._reservation(user_id, item.split(" ")) for item in items if item))

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

    def transaction(self, row: TransactionRow) -> str:
        """An item of a history."""
        draws = row.draws if isinstance(row.draws, list) else []
        parts = ",".join(self._burn([str(draw[0]), str(draw[1])]) for draw in draws if isinstance(draw, list))
        # A key with a blank is one of our own making (meter/ledger/pending_grants.py).
        reference = None if row.operation_id is None or " " in row.operation_id else row.operation_id
        return (
            f'{{"transaction_id":"{row.transaction_id}","seq":{row.seq},"kind":"{row.kind}","user_id":"{row.user_id}",'
            f'"amount":{self._amount(row.amount)},"draws":[{parts}],'
            f'"available_after":{self._amount(row.available_after)},"reserved_after":{self._amount(row.reserved_after)},'
            f'"debt_after":{self._amount(row.debt_after)},"created_at":{time_text(row.created_at_ms)},'
            f'"reservation_id":{json_text(row.reservation_id)},"reference":{json_text(reference)},'
            f'"description":{json_text(row.description)},"metadata":{json_text(row.metadata)}}}'
        )

    def stored_grant(self, row: GrantRow, now_ms: int) -> str:
        """A grant as the store has it, with what is due by now counted as done."""
        state, remaining = row.state, row.remaining
        if state in ("active", "exhausted", "scheduled") and row.expires_at_ms <= now_ms:
            state, remaining = "expired", 0
        class_ = {"scheduled": "S", "exhausted": "X"}.get(state, "L")
        ended = "p" if row.pending else {"expired": "e", "voided": "v"}.get(state, "-")
        effective_ms = row.effective_at_ms or row.created_at_ms
        numbers = (row.amount, remaining, row.reserved, row.priority, effective_ms, row.expires_at_ms)
        words = [class_, ended, row.source, row.at_end or ""]
        return self._grant([row.grant_id, *map(str, numbers), str(row.created_at_ms), "0", *words])

    def stored_reservation(self, row: ReservationRow) -> str:
        """A reservation as the store has it."""
        ended = row.expires_at_ms if row.ended_at_ms is None else row.ended_at_ms
        return (
            f'{{"reservation_id":"{row.reservation_id}","user_id":"{row.user_id}","state":"{row.state}",'
            f'"amount":{self._amount(row.amount)},"charged":{self._amount(row.charged)},'
            f'"expires_at":{time_text(ended)},"created_at":{time_text(row.created_at_ms)}}}'
        )

    def balances_at(self, user_id: str, row: TransactionRow | None) -> Rendered:
        """The balances that a transaction left; zeros where there is none."""
        after = (0, 0, 0) if row is None else (row.available_after, row.reserved_after, row.debt_after)
        return Rendered(200, f'{{"user_id":"{user_id}"{self._balances([*map(str, after)])}}}'.encode())

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
        if word == "pending":
            members = f'"user_id":"{fields[2]}","grant_id":"{fields[3]}","amount":{self._amount(int(fields[4]))}'
            return Rendered(202, f'{{{members},"state":"pending"}}'.encode())
        if word == "outbox_full":
            detail = "The store is behind: spending waits, commits and releases go on."
            return problem("metering-unavailable", detail, '"reason":"store"')
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
        return problem_of(kind, _DETAILS[kind.slug], members.removeprefix(","))

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
        grant_id, amount, remaining, reserved, priority, effective, expires, created, _, class_, state, source = f[:12]
        return (
            f'{{"grant_id":"{grant_id}","amount":{self._amount(int(amount))},'
            f'"remaining":{self._amount(int(remaining))},"reserved":{self._amount(int(reserved))},'
            f'"priority":{priority},"effective_at":{time_text(int(effective))},"expires_at":{time_text(int(expires))},'
            f'"created_at":{time_text(int(created))},"source":"{source}","state":"{_grant_state(class_, state)}",'
            f'"rollover":{self._rollover(f[12:], int(expires))}}}'
        )

    def _rollover(self, at_end: list[str], expires_ms: int) -> str:
        found = _ROLLOVER.match(at_end[0]) if at_end else None
        if found is None:
            return "null"
        until_ms = min(NEVER_MS, expires_ms + int(found[2]))
        return f'{{"max_amount":{self._amount(int(found[1]))},"expires_at":{time_text(until_ms)}}}'

    def _reservation(self, user_id: str, fields: list[str]) -> str:
        reservation_id, amount, ends, created = fields
        return (
            f'{{"reservation_id":"{reservation_id}","user_id":"{user_id}","state":"open",'
            f'"amount":{self._amount(int(amount))},"charged":0,"expires_at":{time_text(int(ends))},'
            f'"created_at":{time_text(int(created))}}}'
        )

    def _burn(self, fields: list[str]) -> str:
        return f'{{"grant_id":"{fields[0]}","amount":{self._amount(int(fields[1]))}}}'

    def _page(self, head: str, cursors: Cursors, items: Iterable[str]) -> Rendered:
        _, _, user_id, position = head.split(" ")
        return page(items, None if position == "-" else cursors.write(position.replace("~", " "), scope=user_id))


_Convert = Callable[[str], str]


def _quoted(value: str) -> str:
    return f'"{value}"'


def _seconds(ms: int) -> str:
    return str(ms // 1000) if ms % 1000 == 0 else f"{ms / 1000:.3f}".rstrip("0")


def _grant_state(class_: str, state: str) -> str:
    if state != "-":
        return {"e": "expired", "v": "voided", "p": "pending"}[state]
    return {"S": "scheduled", "X": "exhausted"}.get(class_, "active")
