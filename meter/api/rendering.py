"""From a line of the Lua program to the JSON of the wire, in one pass and without objects in between.

What a line says and in which order is the declaration's (meter/engine/operations.py); its members are named as its
fields are, without their unit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from meter.amount import AmountScale
from meter.api.plain_answers import PlainAnswers, seconds_text
from meter.api.price_text import multiplier_text, price_json
from meter.api.refusals import DETAILS, FAULTS, SLUGS, slugs_of
from meter.api.restriction_text import of_row_json, only_json, parts_json, restricted_json
from meter.api.rule_text import (
    levels_json,
    paying_json,
    rate_json,
    retry_after,
    rules_json,
    standing_headers,
    violations_json,
)
from meter.clock import NEVER_MS, time_text
from meter.contract.calls import CALLS
from meter.contract.problems import PROBLEMS, Problem
from meter.contract.rate_headers import Headers
from meter.engine.answers import (
    AVAILABLE,
    BACKWARDS,
    BUDGET_REACHED,
    DEBT,
    FINISHED,
    FIRST,
    FLAG,
    FORMS,
    INCOMPLETE_RULE,
    INSUFFICIENT,
    KEY_REUSED,
    NO_RULE,
    NOTHING,
    OF_ANY,
    OK,
    OUTBOX_FULL,
    PENDING,
    RATE_LIMITED,
    RATES_MISSING,
    REPLAYED,
    RESERVED,
    SUSPENDED,
    UNPRICED,
    WORD,
    Balances,
    Form,
    Line,
)
from meter.engine.at_end import read_at_end
from meter.engine.behind import MARKS, RESTRICTED_MARK, read_behind
from meter.engine.declarations import DECLARED
from meter.engine.operations import BALANCE, CONFIGURE, EXPLAIN, GRANTS, RESERVATIONS
from meter.engine.parts import GROUP, ROWS, first_of, path_of, whole_of
from meter.engine.priced import QUOTE
from meter.engine.prices import read_price
from meter.engine.restrictions import restricted_in
from meter.engine.rules import read_paying, read_rate
from meter.engine.upkeep import CLOCK, RULES
from meter.http.cursors import Cursors
from meter.http.rendered import JSON_TYPE, Rendered, json_text, page, problem, problem_of, validation_problem
from meter.ledger.entry_rows import own_key
from meter.store.rows import GrantRow, ReservationRow, TransactionRow

_STATUS = {call.operation or call.name: call.status for call in CALLS}
_STATUS |= {f"{name}_usage": _STATUS[name] for name in ("deduct", "reserve", "commit")}

SHOWN: Mapping[str, tuple[str, ...]] = {BALANCE.name: ("user_id",)}
"""The members of an answer that does not show all of its fields."""
_USER = CONFIGURE.answer
"""What both of the calls about an account show of it."""


_OF_RULES = {one.word: one.fields for one in (INSUFFICIENT, BUDGET_REACHED, SUSPENDED, RATE_LIMITED)}
"""Refusals that name the rules which refuse."""

_Convert = Callable[[str], str]


class _Member(NamedTuple):
    """A member of an answer: the JSON in front of its value, what makes the value, and the place of its text."""

    text: str
    convert: _Convert
    place: int


class _Refused(NamedTuple):
    kind: Problem
    members: tuple[_Member, ...]
    balances: bool


class Renderer:
    """Renders answers of one deployment's amounts."""

    def __init__(self, scale: AmountScale) -> None:
        self._amount = scale.text
        self._plain = PlainAnswers(scale).of
        self._converters: dict[Form, _Convert] = {
            Form.TEXT: _quoted,
            Form.TEXT_OR_NONE: lambda value: "null" if value == NOTHING else f'"{value}"',
            Form.UNITS: lambda value: self._amount(int(value)),
            Form.COUNT: str,
            Form.MOMENT: lambda value: time_text(int(value)),
            Form.SPAN: lambda value: seconds_text(int(value)),
            Form.YES_OR_NO: lambda value: "true" if value == "1" else "false",
            Form.MARK: lambda value: "false" if value == NOTHING else "true",
            Form.LIST_OF_UNITS: self._amounts,
            Form.VIOLATIONS: lambda value: violations_json(value, self._amount),
        }
        self._shapes = {name: self._compiled(one.answer, SHOWN.get(name, one.answer)) for name, one in DECLARED.items()}
        self._users = {one.name: self._compiled(one.answer, _USER) for one in (CONFIGURE, BALANCE)}
        self._refusals = {
            (name, refusal.word): _Refused(
                PROBLEMS[slugs[0]], self._compiled(refusal.fields, refusal.fields), refusal.balances
            )
            for name, one in DECLARED.items()
            for refusal in (*one.refusals, *OF_ANY)
            if (slugs := slugs_of(one, refusal))
        }

    def render(self, name: str, line: str) -> Rendered:
        """The answer of the operation `name`."""
        write = self._plain.get(name)
        if write is None:
            return self.render_any(name, line)
        flag, word, *fields = line.split(" ")
        if word != OK:
            return self._refusal(name, [flag, word, *fields])
        if fields[-1][0] in MARKS:
            return self.render_any(name, line)
        body = f"{{{write(*fields)}}}".encode()
        return tuple.__new__(Rendered, (_STATUS[name], body, JSON_TYPE, flag == REPLAYED, (), None, ""))

    def render_any(self, name: str, line: str) -> Rendered:
        """The answer of any operation, by its declaration alone: `render` is this, and quicker for those that count."""
        fields = line.split(" ")
        if fields[WORD] != OK:
            return self._refusal(name, fields)
        told, behind = read_behind(line)
        fields = told.split(" ")
        limited = f',"limited_by":"{behind.limited_by}"' if behind.limited_by else ""
        text = self._members(self._shapes[name], fields) + limited + self._balances(fields, behind.restricted)
        text += self._price(behind.price) + self._paying(behind.pools)
        is_replayed = fields[FLAG] == REPLAYED
        headers: Headers = ()
        if behind.rate:
            rate = read_rate(behind.rate)
            text += f',"rate_limit":{rate_json(rate)}'
            headers = () if is_replayed else standing_headers(rate)  # the body is that of then
        return Rendered(_STATUS[name], f"{{{text}}}".encode(), JSON_TYPE, is_replayed, headers)

    def balance(self, line: str) -> Rendered:
        """A balance, and what its restricted grants are for."""
        rendered = self.render(BALANCE.name, line)
        text = read_behind(line)[1].restricted
        if not text:
            return rendered
        return rendered._replace(body=rendered.body[:-1] + f"{parts_json(text, self._amount)}}}".encode())

    def quote(self, line: str) -> Rendered:
        """What a reserve would hold, and what refuses it."""
        fields = line.split(" ")
        if fields[WORD] != OK:
            return self._refusal(QUOTE.name, fields)
        told, behind = read_behind(line)
        fields = told.split(" ")
        answer = QUOTE.read(told)
        text = (
            f'"user_id":"{answer["user_id"]}","amount":{self._amount(answer.units("amount"))},'
            f'"would":"{answer["would"]}","violations":{violations_json(answer["violations"], self._amount)}'
            f"{self._balances(fields, behind.restricted)}{self._price(behind.price)}{self._paying(behind.pools)}"
            f"{levels_json(behind.levels, self._amount)}"
        )
        return Rendered(200, f"{{{text}}}".encode())

    def _paying(self, text: str) -> str:
        """Who pays, and what all of them have; "" where no pool could."""
        return f",{paying_json(read_paying(text), self._amount)}" if text else ""

    def _price(self, text: str) -> str:
        """The member of an answer that says how its amount came about; "" of one that no rate card priced."""
        return f',"price":{price_json(read_price(text), self._amount)}' if text else ""

    def user(self, name: str, line: str, rules: str, metadata: str, terms: str) -> Rendered:
        """What an account may do, from the answers to the operation `name` and to `rules`; `metadata` is JSON text,
        `terms` what it says of prices (lua/state/rates.lua).
        """
        fields = line.split(" ")
        if fields[WORD] != OK:
            return self._refusal(name, fields)
        line, behind = read_behind(line)
        fields = line.split(" ")
        card, times = (None if term == NOTHING else term for term in terms.split(" ")[:2])
        multiplier = "null" if times is None else multiplier_text(int(times))
        text = (
            f'{self._members(self._users[name], fields)},"rate_card":{json_text(card)},"price_multiplier":{multiplier},'
            f"{rules_json(RULES.read(rules), self._amount)}{self._balances(fields, behind.restricted)}"
            f'{self._paying(behind.pools)},"metadata":{metadata}'
        )
        return Rendered(200, f"{{{text}}}".encode(), JSON_TYPE, fields[FLAG] == REPLAYED)

    def grants(self, line: str, cursors: Cursors) -> Rendered:
        """A page of grants; the script's position becomes one of these cursors of the user."""
        answer = GRANTS.read(line)
        items = (self._grant(dict(zip(GRANTS.items, item.split(" "), strict=False))) for item in answer.items)
        return _page(answer, cursors, items)

    def reservations(self, line: str, cursors: Cursors) -> Rendered:
        """A page of open reservations."""
        answer = RESERVATIONS.read(line)
        items = (dict(zip(RESERVATIONS.items, item.split(" "), strict=True)) for item in answer.items)
        return _page(answer, cursors, (self._reservation(answer["user_id"], item) for item in items))

    def explanation(self, line: str, amount: int) -> Rendered:
        """What a deduct of `amount` units would do."""
        answer = EXPLAIN.read(line)
        burns = ",".join(self._burn(*item.split(" ")) for item in answer.items)
        next_ms = answer.units("next_credits_at_ms")
        text = (
            f'"user_id":"{answer["user_id"]}","amount":{self._amount(amount)},"would":"{answer["would"]}",'
            f'"violations":{violations_json(answer["violations"], self._amount)},'
            f'"short":{self._amount(answer.units("short"))},"burns":[{burns}],'
            f'"overdraft_limit":{self._amount(answer.units("overdraft_limit"))},'
            f'"next_credits_at":{time_text(next_ms) if next_ms else "null"},'
            f'"next_credits_amount":{self._amount(answer.units("next_credits_amount"))}'
            f"{self._of_balances(answer.balances, answer.behind.restricted)}{self._paying(answer.behind.pools)}"
            f"{levels_json(answer.behind.levels, self._amount)}"
        )
        return Rendered(200, f"{{{text}}}".encode())

    def transaction(self, row: TransactionRow) -> str:
        """An item of a history."""
        draws = row.draws if isinstance(row.draws, list) else []
        parts = ",".join(self._burn(str(draw[0]), str(draw[1])) for draw in draws if isinstance(draw, list))
        detail = row.detail if isinstance(row.detail, dict) else {}
        reference = row.reference or own_key(row.operation_id)  # rows of before there was a column
        reservation_id = None if row.reservation_id is None else whole_of(row.reservation_id)
        return (
            f'{{"transaction_id":"{row.transaction_id}","seq":{row.seq},"kind":"{row.kind}","user_id":"{row.user_id}",'
            f'"amount":{self._amount(row.amount)},"draws":[{parts}],'
            f'"available_after":{self._amount(row.available_after)},"reserved_after":{self._amount(row.reserved_after)},'
            f'"debt_after":{self._amount(row.debt_after)},"created_at":{time_text(row.created_at_ms)},'
            f'"reservation_id":{json_text(reservation_id)},"refund_of":{json_text(row.refund_of)},"reference":{json_text(reference)},"actor":{json_text(detail.get("actor"))},"key_id":{json_text(detail.get("key_id"))},'
            f'"description":{json_text(row.description)},"metadata":{json_text(row.metadata)}{_shared(row)}{self._priced(row)}'
            f"{of_row_json(detail, self._amount)}}}"
        )

    def _priced(self, row: TransactionRow) -> str:
        """What a row says of its price; nothing of one that has to do with none."""
        detail = row.detail if isinstance(row.detail, dict) else {}
        if detail.get("priced") is False:
            return ',"priced":false'
        return self._price(str(detail.get("price", "")))

    def stored_grant(self, row: GrantRow, now_ms: int) -> str:
        """A grant as the store has it, with what is due by now counted as done."""
        state, remaining = row.state, row.remaining
        if state in ("active", "exhausted", "scheduled") and row.expires_at_ms <= now_ms:
            state, remaining = "expired", 0
        effective_ms = row.effective_at_ms or row.created_at_ms
        numbers = (row.amount, remaining, row.reserved, row.priority, effective_ms, row.expires_at_ms)
        texts = [row.grant_id, *map(str, numbers), str(row.created_at_ms)]
        return self._grant_json(
            texts, row.source, "pending" if row.pending else state, row.at_end or "", row.only or ""
        )

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
        after = Balances(0, 0, 0) if row is None else Balances(row.available_after, row.reserved_after, row.debt_after)
        detail = row.detail if row is not None and isinstance(row.detail, dict) else {}
        balances = self._of_balances(after, str(detail.get("restricted", "")))
        return Rendered(200, f'{{"user_id":"{user_id}"{balances}}}'.encode())

    def clock(self, line: str) -> Rendered:
        """The time that scripts see."""
        answer = CLOCK.read(line)
        if answer.word == KEY_REUSED.word:
            return problem(slug := SLUGS[answer.word][0], DETAILS[slug])
        now = time_text(answer.units("now_ms"))
        if answer.word == BACKWARDS.word:
            return problem(SLUGS[answer.word][0], f"The clock stands at {now[1:-1]} already.")
        frozen = "true" if answer["frozen"] == "1" else "false"
        return Rendered(200, f'{{"now":{now},"frozen":{frozen}}}'.encode(), replayed=answer.replayed)

    def _refusal(self, name: str, fields: list[str]) -> Rendered:
        word = fields[WORD]
        if word in FAULTS:
            return validation_problem([FAULTS[word]])
        if word == UNPRICED.word:
            return validation_problem([(f"/usage/{fields[FIRST]}", "has no rate for the model, nor has its parent")])
        if word == RATES_MISSING.word:
            detail = "Redis lacks rates of the active version of the rate card: `meter rebuild` brings them back."
            return problem(SLUGS[word][0], detail, '"reason":"rates"')
        if word == PENDING.word:
            members = self._members(self._compiled(PENDING.fields, PENDING.fields), fields)
            return Rendered(202, f'{{{members},"state":"pending"}}'.encode())
        if word == OUTBOX_FULL.word:
            detail = "The store is behind: spending waits, commits and releases go on."
            return problem(SLUGS[word][0], detail, '"reason":"store"')
        if word in (INCOMPLETE_RULE.word, NO_RULE.word):
            fault = "is new, so its members must all be there" if word == INCOMPLETE_RULE.word else "is not there"
            return validation_problem([(f"/{fields[FIRST]}", fault)])
        refused = self._refusals[name, word]
        members = self._members(refused.members, fields)
        if word == FINISHED.word:
            state = fields[FIRST + FINISHED.fields.index("state")]
            return problem(f"reservation-{state}", f"The reservation is {state} already.", members)
        if refused.balances:
            *told, last = fields
            is_told = last[0] == RESTRICTED_MARK
            members += self._balances(told, last[1:]) if is_told else self._balances(fields)
        rendered = problem_of(refused.kind, DETAILS[refused.kind.slug], members.removeprefix(","))
        if word not in _OF_RULES:
            return rendered
        at = FIRST + _OF_RULES[word].index("violations")
        return rendered._replace(headers=retry_after(fields[at]))

    def _balances(self, fields: list[str], restricted: str = "") -> str:
        """The balances, and what is told of restricted grants."""
        available, reserved, debt = int(fields[AVAILABLE]), int(fields[RESERVED]), int(fields[DEBT])
        free, balance = self._amount(available), available + reserved + restricted_in(restricted)
        return (
            f',"credits":{free},"balance":{self._amount(balance)},"reserved":{self._amount(reserved)},'
            f'"available":{free},"debt":{self._amount(debt)}'
            f"{restricted_json(restricted, self._amount) if restricted else ''}"
        )

    def _of_balances(self, balances: Balances | None, restricted: str = "") -> str:
        return "" if balances is None else self._balances([*map(str, balances)], restricted)

    def _members(self, members: tuple[_Member, ...], fields: list[str]) -> str:
        return ",".join([text + convert(fields[place]) for text, convert, place in members])

    def _compiled(self, fields: Sequence[str], shown: Sequence[str]) -> tuple[_Member, ...]:
        return tuple(
            _Member(f'"{name.removesuffix("_ms")}":', self._converters[FORMS[name]], FIRST + fields.index(name))
            for name in shown
        )

    def _amounts(self, value: str) -> str:
        return "[" + ("" if value == "-" else ",".join(self._amount(int(v)) for v in value.split(","))) + "]"

    def _grant(self, item: Mapping[str, str]) -> str:
        texts = [item[name] for name in _GRANT_TEXTS]
        state = _grant_state(item["class"], item["state"])
        only = item.get("only", "").removeprefix("=")
        return self._grant_json(texts, item["source"], state, item.get("at_end", ""), only)

    def _grant_json(self, texts: Sequence[str], source: str, state: str, at_end: str, only: str) -> str:
        """`texts` as `_GRANT_TEXTS` names them."""
        grant_id, amount, remaining, reserved, priority, effective, expires, created = texts
        return (
            f'{{"grant_id":"{grant_id}","amount":{self._amount(int(amount))},'
            f'"remaining":{self._amount(int(remaining))},"reserved":{self._amount(int(reserved))},'
            f'"priority":{priority},"effective_at":{time_text(int(effective))},"expires_at":{time_text(int(expires))},'
            f'"created_at":{time_text(int(created))},"source":"{source}","state":"{state}",'
            f'"rollover":{self._rollover(at_end, int(expires))}{only_json(only)}}}'
        )

    def _rollover(self, at_end: str, expires_ms: int) -> str:
        most, span, *_ = read_at_end(at_end)
        if most is None:
            return "null"
        until_ms = min(NEVER_MS, expires_ms + span)
        return f'{{"max_amount":{self._amount(most)},"expires_at":{time_text(until_ms)}}}'

    def _reservation(self, user_id: str, item: Mapping[str, str]) -> str:
        return (
            f'{{"reservation_id":"{item["reservation_id"]}","user_id":"{user_id}","state":"open",'
            f'"amount":{self._amount(int(item["amount"]))},"charged":0,'
            f'"expires_at":{time_text(int(item["expires_at_ms"]))},"created_at":{time_text(int(item["created_at_ms"]))}}}'
        )

    def _burn(self, grant_id: str, amount: str) -> str:
        return f'{{"grant_id":"{grant_id}","amount":{self._amount(int(amount))}}}'


def _shared(row: TransactionRow) -> str:
    """Whose transaction it is and which is the first, where several pay."""
    if not isinstance(row.detail, dict) or not row.detail.keys() & {ROWS, GROUP}:
        return ""
    path, group = path_of(row.user_id, row.detail), first_of(row.transaction_id, row.detail)
    return f',"path":{json_text(path)},"group":{json_text(group)}'


_GRANT_TEXTS = (
    "grant_id",
    "amount",
    "remaining",
    "reserved",
    "priority",
    "effective_at_ms",
    "expires_at_ms",
    "created_at_ms",
)


def _page(answer: Line, cursors: Cursors, items: Iterable[str]) -> Rendered:
    position = answer["next_cursor"]
    return page(
        items,
        None if position == NOTHING else cursors.write(position.replace("~", " "), scope=answer["user_id"]),
    )


def _quoted(value: str) -> str:
    return f'"{value}"'


def _grant_state(class_: str, state: str) -> str:
    if state != "-":
        return {"e": "expired", "v": "voided", "p": "pending"}[state]
    return {"S": "scheduled", "X": "exhausted"}.get(class_, "active")
