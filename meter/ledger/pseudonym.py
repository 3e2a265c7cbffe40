"""The rows of a user under another name: what moved stays exact, what was said about a person goes.

Free text (description, metadata, profile) goes, but for the `feature` that usage figures count by. Ids that callers
chose may have the name in them (`user-1-welcome`): such an id is replaced, in every row alike, by one that nobody can
trace back. What callers repeat a call by goes as well, as its fingerprint is made from the name. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import TypeVar

from pydantic import JsonValue

from meter.engine.behind import POOLS_MARK, PRICE_MARK
from meter.engine.parts import PATH, is_part, whole_of
from meter.ledger.figures import feature_of
from meter.store.code_rows import RedemptionRow
from meter.store.plan_rows import PastPlanRow
from meter.store.rows import AnonymisationRow, GrantRow, OperationRow, QuarantineRow, ReservationRow, TransactionRow
from meter.store.top_up_rows import TopUpRow
from meter.store.usage_rows import UsageQuantityRow, UsageRow

Renamed = TypeVar(
    "Renamed",
    TransactionRow,
    GrantRow,
    ReservationRow,
    OperationRow,
    PastPlanRow,
    RedemptionRow,
    TopUpRow,
    QuarantineRow,
    UsageRow,
    UsageQuantityRow,
)

_SAID = frozenset({"profile", "fingerprint", "answered"})
"""Members of a transaction's detail that go: free text, and what is made from the name."""


@dataclass(frozen=True, slots=True)
class Pseudonym:
    """What replaces the name of one user."""

    mark: AnonymisationRow

    def is_named_in(self, text: str) -> bool:
        """Whether the name is anywhere in a text, in capitals or not."""
        return self.mark.user_id.casefold() in text.casefold()

    def identifier(self, text: str) -> str:
        """An id without the name. The secret is forgotten with the mark, so that nobody can try names."""
        if not self.is_named_in(text):
            return text
        made = blake2b(text.encode(), key=self.mark.secret.encode(), digest_size=8).hexdigest()
        return f"{self.mark.pseudonym}-{made}"

    def optional(self, text: str | None) -> str | None:
        """The same of what may be missing."""
        return None if text is None else self.identifier(text)

    def value(self, value: JsonValue) -> JsonValue:
        """The same of every text in a JSON value."""
        if isinstance(value, str):
            return self.identifier(value)
        if isinstance(value, list):
            return [self.value(one) for one in value]
        if isinstance(value, dict):
            return {self.identifier(name): self.value(one) for name, one in value.items()}
        return value

    def row(self, row: Renamed) -> Renamed:
        """A row of the user's under the other name."""
        match row:
            case TransactionRow():
                return row.model_copy(update=self._transaction(row))
            case GrantRow():
                return row.model_copy(update=self._grant(row))
            case ReservationRow():
                return row.model_copy(update=self._reservation(row))
            case OperationRow():  # a key that was used refuses every body from then on
                key = self.identifier(row.operation_id)
                return row.model_copy(update={"operation_id": key, "fingerprint": None, "answer": None})
            case UsageRow() | UsageQuantityRow():
                return row.model_copy(update={"path": self.mark.pseudonym, "feature": self.identifier(row.feature)})
            case PastPlanRow() | RedemptionRow():
                return row.model_copy(update={"user_id": self.mark.pseudonym})
            case TopUpRow():  # its payment is found by the owner under its id
                return row.model_copy(update={"user_id": self.mark.pseudonym, "reference": "-", "error": None})
            case QuarantineRow():  # nobody can say what of an entry that cannot be read is free text
                return row.model_copy(
                    update={"text": f"it named a user who was anonymised ({len(row.text)} characters)"}
                )

    def paid(self, row: TransactionRow) -> TransactionRow:
        """What another account paid for the user."""
        detail = row.detail if isinstance(row.detail, dict) else {}
        other = {**detail, PATH: self.mark.pseudonym}
        return row.model_copy(update={"detail": other, "reservation_id": self._hold(row.reservation_id)})

    def part(self, row: ReservationRow) -> ReservationRow:
        """What another account holds for the user."""
        return row.model_copy(update={"reservation_id": self._hold(row.reservation_id)})

    def _hold(self, reservation_id: str | None) -> str | None:
        if reservation_id is None or not is_part(reservation_id):
            return self.optional(reservation_id)
        whole = whole_of(reservation_id)
        return self.identifier(whole) + reservation_id.removeprefix(whole)

    def words(self, line: str | None) -> str | None:
        """A line that a script answered, whose words are ids and numbers; and a price, which names nobody."""
        return None if line is None else " ".join(map(self._word, line.split(" ")))

    def _word(self, word: str) -> str:
        if word.startswith(PRICE_MARK):
            return word
        if word.startswith(POOLS_MARK):
            return "|".join(",".join(map(self._word, part.split(","))) for part in word.split("|"))
        return self.mark.pseudonym if word == self.mark.user_id else self.identifier(word)

    def _transaction(self, row: TransactionRow) -> dict[str, object]:
        detail = row.detail if isinstance(row.detail, dict) else {}
        return {
            "user_id": self.mark.pseudonym,
            "operation_id": self.optional(row.operation_id),
            "reservation_id": self.optional(row.reservation_id),
            "reference": self.optional(row.reference),
            "draws": self.value(row.draws),
            "detail": {name: self._member(name, value) for name, value in detail.items() if name not in _SAID},
            "description": None,
            "metadata": self.feature(row.metadata),
        }

    def _member(self, name: str, value: JsonValue) -> JsonValue:
        return value if name == "price" else self.value(value)

    def feature(self, metadata: JsonValue) -> JsonValue:
        """What stays of metadata: what the usage figures count by."""
        found = feature_of(metadata)
        return {"feature": self.identifier(found)} if found else None

    def _grant(self, row: GrantRow) -> dict[str, object]:
        return {
            "user_id": self.mark.pseudonym,
            "grant_id": self.identifier(row.grant_id),
            "at_end": None if row.at_end and self.is_named_in(row.at_end) else row.at_end,
            "operation_id": None,
            "fingerprint": None,
            "description": None,
            "metadata": None,
            "reference": self.optional(row.reference),
        }

    def _reservation(self, row: ReservationRow) -> dict[str, object]:
        return {
            "user_id": self.mark.pseudonym,
            "reservation_id": self.identifier(row.reservation_id),
            "draws": self.value(row.draws),
            "answer": self.words(row.answer),
            "feature": self.optional(row.feature),
            "reference": self.optional(row.reference),
        }
