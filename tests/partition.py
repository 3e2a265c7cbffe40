"""A partition as the tests drive it: straight to the Lua program, at a frozen time, with answers by name."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal

from redis.exceptions import NoScriptError

from meter.engine import operations, upkeep
from meter.engine.answers import FORMS, SUBJECT, Form, as_arguments
from meter.engine.batcher import Mode
from meter.engine.declarations import DECLARED
from meter.engine.opening import NO_WATERMARK, Watermark
from meter.engine.operations import Operation
from meter.engine.outbox import Entry, Unread, read_outbox_entry
from meter.engine.presented import presented_arguments
from meter.engine.programs import Program, apply_program, open_program
from meter.engine.short_answers import in_full
from meter.keys import SCHEMA, PartitionKeys

T0 = 1_700_000_000_000
SECOND = 1_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
WINDOW = DAY
GRACE = HOUR

APPLY, OPEN = apply_program(), open_program()

_NUMBERS = {Form.UNITS, Form.COUNT, Form.MOMENT, Form.SPAN, Form.YES_OR_NO}
_NUMBER = re.compile(r"-?\d+")


@dataclass(frozen=True)
class Answer:
    """One line of answer. `balances` are (available, reserved, debt); `items` those of a listing."""

    line: str
    replayed: bool
    status: str
    fields: dict[str, Any]
    balances: tuple[int, int, int] | None
    items: tuple[tuple[str, ...], ...] = ()

    def __getitem__(self, name: str) -> Any:
        return self.fields[name]


def read_answer(name: str, line: str) -> Answer:
    """Reads a line that the operation `name` answered; a field too many or too few is an error."""
    read = DECLARED[name].read(line)
    assert line[:2] in ("0 ", "1 "), line
    assert read.balances is None or min(read.balances) >= 0, line
    fields = {field: int(text) if FORMS[field] in _NUMBERS else text for field, text in read.fields.items()}
    assert all(_NUMBER.fullmatch(text) for field, text in read.fields.items() if FORMS[field] in _NUMBERS), line
    listed = tuple(tuple(item.split(" ")) for item in read.items)
    return Answer(line, read.replayed, read.word, fields, read.balances, listed)


@dataclass
class Partition:
    """One partition of a server and the limits that its program is told. `run` and `batch` have their own sender."""

    client: Any
    number: int = 0
    grace_ms: int = GRACE
    reservations_max: int = 10_000
    grants_max: int = 1_000
    window_ms: int = WINDOW
    outbox_max: int = 0
    program: Program = APPLY
    sender: str = "own"
    batch_number: int = field(default=0, init=False)
    told: Watermark = field(default=NO_WATERMARK, init=False)
    asked: dict[tuple[str, int], tuple[Operation, ...]] = field(default_factory=dict, init=False)
    """What was asked for in each batch that was applied, by sender and number."""

    def __post_init__(self) -> None:
        self.keys = PartitionKeys(self.number)

    def open(
        self,
        *,
        decimal_places: int = 6,
        partitions: int = 1,
        how: str = "create",
        schema: str = SCHEMA,
        watermark: tuple[int, int, str] = NO_WATERMARK,
        ledger: str = "",
    ) -> str:
        """Runs lua/open.lua."""
        arguments = (schema, decimal_places, partitions, how, *watermark, ledger)
        answer: bytes = self.client.eval(OPEN.source, len(self.keys.all), *self.keys.all, *arguments)
        return answer.decode()

    def freeze(self, now_ms: int = T0) -> None:
        """Sets the time, backwards too, behind the program's back."""
        self.client.hset(self.keys.meta, mapping={"clock_ms": now_ms})

    def run(self, one: Operation) -> Answer:
        """One operation, its answer."""
        return self.batch(one)[0]

    def batch(self, *many: Operation, mode: Mode = "each") -> list[Answer]:
        """Operations in one batch that must be applied (or, when atomic, may be undone), their answers."""
        self.batch_number += 1
        head, *lines = self.send(self.sender, self.batch_number, *many, mode=mode).split("\n")
        assert head == "done" or (mode == "atomic" and head == "undone"), head
        return [read_answer(one[0], line) for one, line in zip(many, lines, strict=True)]

    def send(
        self,
        sender: str,
        number: int,
        *many: Operation,
        mode: Mode | Literal["ask"] = "each",
        known: Watermark = NO_WATERMARK,
        looks: bool = True,
        latest_ms: int = 0,
    ) -> str:
        """The reply to a batch, without the place of the last transaction, which is kept as `told`."""
        limits = (self.grace_ms, self.reservations_max, self.grants_max, self.window_ms, self.outbox_max)
        arguments: list[str | int] = [sender, number, mode, self.number, *limits, len(many), *known, int(looks)]
        arguments.append(latest_ms)
        keys: list[str | int] = []
        for one in many:
            keys += presented_arguments(one, len(arguments) + SUBJECT)
            arguments += as_arguments(one)
        arguments += keys
        try:
            reply = self.client.evalsha(self.program.sha, len(self.keys.all), *self.keys.all, *arguments)
        except NoScriptError:
            reply = self.client.eval(self.program.source, len(self.keys.all), *self.keys.all, *arguments)
        text: str = reply.decode()
        head, *lines = text.split("\n")
        word, *place = head.split(" ")
        if word in ("refused", "late"):
            return text
        if place:
            self.told = (int(place[0]), int(place[1]), place[2])
        if word == "done":
            self.asked[sender, number] = many
        if word in ("done", "stored", "undone"):
            asked = self.asked.get((sender, number), many) if word == "stored" else many
            lines = in_full(lines, asked, self.number, sender, number) if asked else lines
        return "\n".join([word, *lines])

    def advance(self, milliseconds: int) -> int:
        """Moves the frozen clock, answers the new time."""
        answer = self.run(upkeep.clock("advance", milliseconds))
        assert answer.status == "ok"
        now: int = answer["now_ms"]
        return now

    def fields(self, name: str) -> dict[bytes, bytes]:
        """A hash of the partition, without its sentinel (lua/state/sentinel.lua)."""
        found: dict[bytes, bytes] = self.client.hgetall(f"{self.keys.prefix}:{name}")
        return {key: text for key, text in found.items() if key}

    def members(self, name: str) -> list[bytes]:
        """A sorted set of the partition, without its sentinel."""
        return [member for member in self.client.zrange(f"{self.keys.prefix}:{name}", 0, -1) if member]

    def entries(self) -> list[Entry]:
        """The outbox."""
        return entries_of(self.client.xrange(self.keys.outbox))

    def kinds(self) -> list[str]:
        """The kinds of the outbox' entries."""
        return [entry.kind for entry in self.entries()]

    def entry_of(self, transaction_id: str) -> Entry:
        """The outbox entry of a transaction."""
        return next(entry for entry in self.entries() if entry.transaction_id == transaction_id)

    def refund(self, user_id: str, transaction_id: str, amount: int | None = None, *, refunded: int = 0) -> Answer:
        """Refunds a charge as it is in the outbox."""
        charge = self.entry_of(transaction_id)
        draws = tuple((draw.grant_id, draw.amount) for draw in charge.draws if draw.amount > 0)
        one = operations.refund(user_id, transaction_id, amount, charged=charge.amount, refunded=refunded, draws=draws)
        return self.run(one)

    def remaining(self, user_id: str) -> dict[str, int]:
        """What each known grant of a user has left, in burn order."""
        return {item[0]: int(item[2]) for item in self.run(operations.grants(user_id, "all", "", 1000)).items}


def entries_of(stream: Any) -> list[Entry]:
    """The transactions of what XRANGE answers of an outbox."""
    found: list[Entry] = []
    for entry_id, members in stream:
        for entry in read_outbox_entry(int(entry_id.split(b"-")[0]), members[b"e"], 0):
            assert not isinstance(entry, Unread), entry
            found.append(entry)
    return found


def dump(client: Any) -> dict[str, Any]:
    """Everything that a server holds, to be compared."""
    readers = {
        "hash": client.hgetall,
        "zset": lambda key: client.zrange(key, 0, -1, withscores=True),
        "stream": client.xrange,
    }
    return {key.decode(): readers[client.type(key).decode()](key) for key in sorted(client.keys("*"))}
