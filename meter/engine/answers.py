"""What an operation is, declared once, and how its line of answer is read by name.

A line is "flag word field field …": the flag is 1 for the stored answer of an earlier call, the word is `ok` or that of
a refusal, the fields are those of the declaration, and the last three are the balances where it has them. A listing
puts its items behind the fields, each after a ";", and its balances after the last one. Who reads many lines takes the
place of a field once, by its name (`Declared.field`); who reads few asks `Declared.read`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from meter.engine.behind import NOTHING_BEHIND, RESTRICTED_MARK, Behind, read_behind
from meter.engine.outbox import Entry, Kind

Operation = tuple[str, ...]
"""(name, key, fingerprint, extra, own arguments…), all text; `as_arguments` makes of it what a script reads."""

NAME, KEY, FINGERPRINT, EXTRA, SUBJECT = range(5)
"""Places in an operation; the first own argument names what it is about."""
FLAG, WORD, FIRST = range(3)
"""Places in a line that was split at its blanks; `FIRST` is that of the first field."""
AVAILABLE, RESERVED, DEBT = -3, -2, -1
"""Places of the balances in a line that has them."""

OK = "ok"
REPLAYED = "1"
NOTHING = "-"
"""What stands for a text that is not there."""


class Form(Enum):
    """What the text of a field means."""

    TEXT = "as it is"
    TEXT_OR_NONE = "as it is, or NOTHING"
    UNITS = "an amount"
    COUNT = "a number"
    MOMENT = "milliseconds since 1970"
    SPAN = "milliseconds"
    YES_OR_NO = "1 or 0"
    MARK = "NOTHING for no, anything else for yes"
    LIST_OF_UNITS = "amounts between commas, or NOTHING"
    VIOLATIONS = "rules that refuse (meter/engine/rules.py), or NOTHING"


FORMS: Mapping[str, Form] = {
    **dict.fromkeys(("user_id", "grant_id", "reservation_id", "state", "would", "next_cursor"), Form.TEXT),
    "transaction_id": Form.TEXT_OR_NONE,
    **dict.fromkeys(("amount", "taken", "uncovered", "charged", "released", "forfeited", "left", "voided"), Form.UNITS),
    **dict.fromkeys(("required", "short", "overdraft_limit", "next_credits_amount"), Form.UNITS),
    **dict.fromkeys(("granted", "scheduled", "spent", "expired"), Form.UNITS),
    **dict.fromkeys(("reservations", "transactions", "backlog", "removed"), Form.COUNT),
    **dict.fromkeys(("expires_at_ms", "next_credits_at_ms", "now_ms"), Form.MOMENT),
    "expires_in_ms": Form.SPAN,
    **dict.fromkeys(("late", "frozen", "rotated", "was_full", "trimmed", "pool", "use_pools"), Form.YES_OR_NO),
    "suspended": Form.MARK,
    "low_credit_thresholds": Form.LIST_OF_UNITS,
    **dict.fromkeys(("dimension", "key_id", "scopes", "scope", "rule"), Form.TEXT),
    **dict.fromkeys(("model", "models", "top_up"), Form.TEXT_OR_NONE),
    "violations": Form.VIOLATIONS,
    "held": Form.UNITS,
    **dict.fromkeys(("holds", "requests"), Form.COUNT),
}
"""What the field of a name is, in whichever answer it stands. An answer with another field cannot be declared."""


class Subject(Enum):
    """What the first own argument of an operation names."""

    USER = "user"
    RESERVATION = "reservation"
    NONE = ""


class Balances(NamedTuple):
    """An account after an operation, in units."""

    available: int
    reserved: int
    debt: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """A refusal: its word, its fields, and whether the balances follow."""

    word: str
    fields: tuple[str, ...] = ()
    balances: bool = True


INSUFFICIENT = Refusal("insufficient", ("user_id", "required", "violations"))
BUDGET_REACHED = Refusal("budget_reached", ("user_id", "required", "violations"))
RATE_LIMITED = Refusal("rate_limited", ("violations",))
SUSPENDED = Refusal("suspended", ("violations",))
OVERFLOW = Refusal("overflow")
OUTBOX_FULL = Refusal("outbox_full", balances=False)
TOO_MANY = Refusal("too_many")
TOO_MANY_RESTRICTIONS = Refusal("too_many_restrictions")
EXISTS = Refusal("exists")
ENDED = Refusal("ended")
OVER = Refusal("over", ("user_id", "state"))
EXCEEDS = Refusal("exceeds", ("user_id", "left"))
NOT_FOUND = Refusal("not_found", balances=False)
LIVE = Refusal("live", ("user_id", "reservations", "scheduled"))
FINISHED = Refusal("finished", ("state", "user_id", "charged"), balances=False)
KEY_REUSED = Refusal("key_reused", balances=False)
BACKWARDS = Refusal("backwards", ("now_ms",), balances=False)
UNKNOWN_MODEL = Refusal("unknown_model", ("model",), balances=False)
UNPRICED = Refusal("unpriced", ("dimension",), balances=False)
UNBOUNDED = Refusal("unbounded", balances=False)
UNCOUNTABLE = Refusal("uncountable", balances=False)
NOT_PRICED = Refusal("not_priced", balances=False)
RATES_MISSING = Refusal("rates_missing", balances=False)
INVALID_KEY = Refusal("invalid_key", balances=False)
SCOPE_MISSING = Refusal("scope_missing", ("scope",), balances=False)
MODEL_NOT_ALLOWED = Refusal("model_not_allowed", ("model",), balances=False)
OF_ANY = (KEY_REUSED, INVALID_KEY, SCOPE_MISSING, MODEL_NOT_ALLOWED)
"""What any operation may be refused with that has a key or is asked for by an API key."""
INCOMPLETE_RULE = Refusal("incomplete_rule", ("rule",), balances=False)
NO_RULE = Refusal("no_rule", ("rule",), balances=False)
TOO_MANY_RULES = Refusal("too_many_rules", balances=False)
NO_TOP_UP = Refusal("no_top_up", balances=False)
PENDING = Refusal("pending", ("user_id", "grant_id", "amount"), balances=False)
"""No word of the scripts: the grant is durable, but Redis went away before it had it."""


class Line:
    """A line of answer, read. `line[name]` is the text of a field, `behind` what stands behind them."""

    __slots__ = ("_fields", "balances", "behind", "items", "replayed", "text", "word")

    def __init__(
        self,
        text: str,
        *,
        word: str,
        replayed: bool,
        fields: dict[str, str],
        balances: Balances | None,
        items: tuple[str, ...],
        behind: Behind = NOTHING_BEHIND,
    ) -> None:
        self.text, self.word, self.replayed, self.behind = text, word, replayed, behind
        self._fields, self.balances, self.items = fields, balances, items

    @property
    def ok(self) -> bool:
        """Whether the operation was done, now or before."""
        return self.word == OK

    @property
    def fields(self) -> Mapping[str, str]:
        """The texts of the fields by name."""
        return self._fields

    def __getitem__(self, name: str) -> str:
        return self._fields[name]

    def get(self, name: str) -> str | None:
        """The text of a field; None where this line has none of that name."""
        return self._fields.get(name)

    def units(self, name: str) -> int:
        """A field that is a number."""
        return int(self._fields[name])


Values = tuple[object, ...]


@dataclass(frozen=True)
class Declared:
    """One operation: all that Python knows of the order of its arguments and of its answer.

    `arguments` and `answer` are the names of its Lua head, in order. `books` are the kinds that its own code records,
    first the one that its answer is about; `answered` makes that answer, after the user_id, from such an entry (None
    from one of an older script, which booked too little). `upkeep`: no caller asks for it, meter itself does. `several`
    names what the arguments repeat at their end.
    """

    name: str
    subject: Subject
    arguments: tuple[str, ...] = ()
    answer: tuple[str, ...] = ()
    balances: bool = True
    items: tuple[str, ...] = ()
    books: tuple[Kind, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    answered: Callable[[Entry], Values | None] | None = None
    upkeep: bool = False
    several: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        unknown = {*self.answer, *(name for refusal in self.refusals for name in refusal.fields)} - FORMS.keys()
        if unknown:
            raise ValueError(f"{self.name}: meter.engine.answers.FORMS does not say what {sorted(unknown)} are")
        if self.books and not self.upkeep and self.answered is None:
            raise ValueError(f"{self.name}: no `answered` makes its answer from an entry of kind {self.books[0]}")

    def argument(self, name: str) -> int:
        """The place of an argument in the operation. Raises `ValueError` for one that it does not have."""
        return SUBJECT + self.arguments.index(name)

    def field(self, name: str) -> int:
        """The place of a field in a line of answer that was split at its blanks. Raises `ValueError`."""
        return FIRST + self.answer.index(name)

    def asks(self, one: Operation, name: str) -> str | None:
        """What an operation of this name asks for; None for an argument that it does not have."""
        return one[self.argument(name)] if name in self.arguments else None

    def asking(self, one: Operation, **changed: str) -> Operation:
        """The operation with other arguments."""
        parts = list(one)
        for name, text in changed.items():
            parts[self.argument(name)] = text
        return tuple(parts)

    def read(self, text: str) -> Line:
        """Reads a line that the operation answered. Raises `ValueError` for one that is not as declared."""
        told, behind = self._told(text)
        head, *items = told.split(";") if self.items else [told]  # else it is a letter of a name like any other
        flag, word, *values = head.split(" ")
        names, has_balances = self._shape(word)
        balances = None
        if items:
            balances = Balances(*map(int, items.pop().split(" ")[1:]))
        elif has_balances:
            values, last = values[:-3], values[-3:]
            balances = Balances(*map(int, last))
        fields = dict(zip(names, values, strict=True))
        listed = tuple(item for item in items if item)
        replayed = flag == REPLAYED
        return Line(
            text,
            word=word,
            replayed=replayed,
            fields=fields,
            balances=balances,
            items=listed,
            behind=behind,
        )

    def _told(self, text: str) -> tuple[str, Behind]:
        """The line, and what stands behind it: behind a refusal, what stands behind its balances."""
        if is_ok(text) or (text[text.rfind(" ") + 1] == RESTRICTED_MARK and self._shape(word_of(text))[1]):
            return read_behind(text)
        return text, NOTHING_BEHIND

    def refusing(self, word: str, balances: Balances | None, **fields: object) -> str:
        """The line of a refusal with this word; of the fields those that it has."""
        names, _ = self._shape(word)
        told = [*(fields[name] for name in names), *(balances or ())]
        return " ".join(map(str, ("0", word, *told)))

    def _shape(self, word: str) -> tuple[tuple[str, ...], bool]:
        if word == OK:
            return self.answer, self.balances
        for refusal in (*self.refusals, *OF_ANY):
            if refusal.word == word:
                return refusal.fields, refusal.balances
        raise ValueError(f"{self.name} does not refuse with {word!r}")


def as_arguments(one: Operation) -> tuple[str | int, ...]:
    """An operation as lua/prelude.lua reads it: name, number of arguments, the caller's part, its own arguments."""
    name, key, fingerprint, extra, *own = one
    caller = f"{key}\n{fingerprint}\n{extra}" if key or extra or fingerprint else ""
    return (name, len(own) + 1, caller, *own)


def word_of(line: str) -> str:
    """The word of a line: `ok`, or that of a refusal."""
    return line.partition(" ")[2].partition(" ")[0]


def is_ok(line: str) -> bool:
    """Whether a line says that the operation was done, now or before."""
    return word_of(line) == OK


def names(text: str) -> tuple[str, ...]:
    """Names between blanks."""
    return tuple(text.split())


def subject_of(one: Operation) -> str:
    """The user_id or the reservation_id that an operation is about."""
    return one[SUBJECT]


def drawn(draws: Sequence[tuple[str, int]]) -> str:
    """Draws as a script reads them."""
    return " ".join(f"{grant_id} {part}" for grant_id, part in draws)


def plain(name: str, *own: str) -> Operation:
    """An operation that has no key and carries no members."""
    return (name, "", "", "", *own)
