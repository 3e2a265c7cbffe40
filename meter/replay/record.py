"""What a replay did, as the replay itself saw it, and how that compares with what the sidecar says.

The record is a fold over events: a call was sent, a call was answered. A journal file holds the same events, so that a
replay that was interrupted is checked later by the same code. It must not know HTTP or files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum

ZERO = Decimal(0)
FAILURES_MAX = 10


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a replay."""

    run_id: str
    url: str
    trace: str
    started_at: str


class Verb(StrEnum):
    """The calls of a replay."""

    GRANT = "grant"
    RESERVE = "reserve"
    COMMIT = "commit"
    RELEASE = "release"


@dataclass(frozen=True, slots=True)
class Sent:
    """A call is about to leave. `subject`: the reservation_id, for a grant the user_id."""

    verb: Verb
    subject: str
    user_id: str
    amount: Decimal


@dataclass(frozen=True, slots=True)
class Done:
    """A call was answered. `doubtful`: an earlier try of it went without an answer.

    `amount` is what was held, charged or released; `late`: the hold had ended; `code` is the sidecar's word for a
    refusal.
    """

    verb: Verb
    subject: str
    status: int
    amount: Decimal = ZERO
    uncovered: Decimal = ZERO
    doubtful: bool = False
    late: bool = False
    code: str = ""


Event = Sent | Done


@dataclass(slots=True)
class Account:
    """One user. `granted` counts once it is answered, `asked` when it is sent; `held` once it was read back."""

    asked: Decimal = ZERO
    granted: Decimal = ZERO
    charged: Decimal = ZERO
    held: Decimal = ZERO


@dataclass(slots=True)
class Pending:
    """A reservation whose end is not known. `last`: the call that was sent last; `held`: the reserve was answered."""

    user_id: str
    amount: Decimal
    last: Verb = Verb.RESERVE
    held: bool = False
    requested: Decimal = ZERO

    @property
    def unanswered(self) -> bool:
        """Whether a call is open that was applied 0 or 1 times."""
        return not self.held or self.last is not Verb.RESERVE


@dataclass(frozen=True, slots=True)
class Difference:
    """Where the sidecar contradicts the record."""

    user_id: str
    what: str
    expected: str
    actual: str


@dataclass(frozen=True, slots=True)
class Reading:
    """What the sidecar says about a reservation."""

    state: str
    amount: Decimal
    charged: Decimal


@dataclass(slots=True)
class Record:
    """Everything that was sent and answered, added up."""

    accounts: dict[str, Account] = field(default_factory=dict)
    pending: dict[str, Pending] = field(default_factory=dict)
    requests: int = 0
    granted: int = 0
    refused: int = 0
    committed: int = 0
    released: int = 0
    failed: int = 0
    charged_credits: Decimal = ZERO
    released_credits: Decimal = ZERO
    uncovered_credits: Decimal = ZERO
    held_credits: Decimal = ZERO
    unknown_applied: int = 0
    unknown_not_applied: int = 0
    failures: list[str] = field(default_factory=list)
    contradictions: list[Difference] = field(default_factory=list)

    def apply(self, event: Event) -> None:
        """Adds an event. Raises `KeyError` for an answer to a call that was never sent."""
        if isinstance(event, Sent):
            self._sent(event)
        elif event.verb is Verb.GRANT:
            self._grant_done(event)
        elif event.verb is Verb.RESERVE:
            self._reserve_done(event)
        elif event.verb is Verb.COMMIT:
            self._commit_done(event)
        else:
            self._release_done(event)

    @property
    def granted_credits(self) -> Decimal:
        """What the grants that were answered add up to."""
        return sum((account.granted for account in self.accounts.values()), ZERO)

    def settle(self, reservation_id: str, reading: Reading | None) -> Difference | None:
        """Closes a pending reservation by what the sidecar says of it (None: never heard of).

        A call without an answer was applied 0 or 1 times, and then as it was asked; all else is a difference.
        """
        one = self.pending.pop(reservation_id)
        applied = reading is not None and reading.state in _STATES_AFTER[one.last]
        if one.unanswered:
            self.unknown_applied += applied
            self.unknown_not_applied += not applied
        if reading is None:
            what = f"state of {reservation_id}"
            return Difference(one.user_id, what, "open", "never heard of") if one.held else None
        account = self.accounts[one.user_id]
        account.charged += reading.charged
        self.charged_credits += reading.charged
        if reading.state == "open":
            account.held += reading.amount
            self.held_credits += reading.amount
        return _misfit(reservation_id, one, reading)

    def differences(self, user_id: str, balances: Mapping[str, Decimal]) -> list[Difference]:
        """Where the balances of a user contradict the record: granted - charged - held must be what is free."""
        account = self.accounts[user_id]
        balance = account.granted - account.charged
        if account.granted != account.asked and balances["balance"] == account.asked - account.charged:
            balance = account.asked - account.charged  # the grant was never answered; it was applied
        expected = {
            "balance": balance,
            "reserved": account.held,
            "available": balance - account.held,
            "debt": ZERO,
        }
        return [
            Difference(user_id, what, credits_text(value), credits_text(balances[what]))
            for what, value in expected.items()
            if balances[what] != value
        ]

    def _sent(self, event: Sent) -> None:
        if event.verb is Verb.GRANT:
            self.accounts.setdefault(event.user_id, Account()).asked += event.amount
        elif event.verb is Verb.RESERVE:
            self.accounts.setdefault(event.user_id, Account())
            self.pending[event.subject] = Pending(event.user_id, event.amount)
            self.requests += 1
        else:
            one = self.pending[event.subject]
            one.last, one.requested = event.verb, event.amount

    def _grant_done(self, event: Done) -> None:
        if event.status == 200:
            account = self.accounts[event.subject]
            account.granted = account.asked
        else:
            self._fail(event)

    def _reserve_done(self, event: Done) -> None:
        one = self.pending[event.subject]
        if event.status == 201:
            one.held = True
            self.granted += 1
            if event.amount not in (ZERO, one.amount):  # older journals do not have it
                self._contradict(one, f"held by {event.subject}", one.amount, event)
        elif event.status == 402:
            self.refused += 1
            if not event.doubtful:  # else the first try may still have been granted
                del self.pending[event.subject]
        else:
            self._fail(event)

    def _commit_done(self, event: Done) -> None:
        if event.status != 200:
            self._fail(event)
            return
        one = self.pending.pop(event.subject)
        self.accounts[one.user_id].charged += event.amount
        self.committed += 1
        self.charged_credits += event.amount
        self.uncovered_credits += event.uncovered
        if event.amount + event.uncovered != one.requested:
            self._contradict(one, f"charged + uncovered of {event.subject}", one.requested, event)
        elif event.amount < min(one.requested, one.amount) and not event.late:
            self._contradict(one, f"charged for {event.subject}", min(one.requested, one.amount), event)

    def _release_done(self, event: Done) -> None:
        if event.status != 200:
            self._fail(event)
            return
        one = self.pending.pop(event.subject)
        self.released += 1
        self.released_credits += event.amount
        if event.amount != one.amount:
            self._contradict(one, f"released of {event.subject}", one.amount, event)

    def _contradict(self, one: Pending, what: str, expected: Decimal, event: Done) -> None:
        actual = event.amount + event.uncovered
        self.contradictions.append(Difference(one.user_id, what, credits_text(expected), credits_text(actual)))

    def _fail(self, event: Done) -> None:
        self.failed += 1
        if len(self.failures) < FAILURES_MAX:
            self.failures.append(f"{event.verb} of {event.subject}: {event.status} {event.code}".rstrip())


_STATES_AFTER: dict[Verb, frozenset[str]] = {
    Verb.RESERVE: frozenset({"open", "expired"}),
    Verb.COMMIT: frozenset({"committed"}),
    Verb.RELEASE: frozenset({"released"}),
}


def _misfit(reservation_id: str, one: Pending, reading: Reading) -> Difference | None:
    states = _STATES_AFTER[Verb.RESERVE] | _STATES_AFTER[one.last]
    if reading.state not in states:
        return Difference(one.user_id, f"state of {reservation_id}", " or ".join(sorted(states)), reading.state)
    if reading.amount != one.amount:
        what = f"amount of {reservation_id}"
        return Difference(one.user_id, what, credits_text(one.amount), credits_text(reading.amount))
    if reading.charged > one.requested:
        what, limit = f"charged for {reservation_id}", f"at most {credits_text(one.requested)}"
        return Difference(one.user_id, what, limit, credits_text(reading.charged))
    return None


def credits_text(amount: Decimal) -> str:
    """A plain decimal without trailing zeros."""
    text = f"{amount:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
