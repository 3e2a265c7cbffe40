"""What an operator may do to a user, one row each: the form, the call it makes, and what it came to in words.

A form is sent with the Idempotency-Key that it was made with, so that sending it twice books once.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from starlette.responses import Response

from meter.api.gate import ADMIN_WRITE
from meter.client.calls import NULL
from meter.console.answering import done, notice, shown
from meter.console.figures import clock, places_of, plain
from meter.console.forms import Field, Filled, blank, missing, refused
from meter.console.visit import Visit, link
from meter.contract.answers import Added, Adjusted, Answer, Balances, Refunded, Refusal, Released, Voided
from meter.contract.keys import IssuedKey
from meter.errors import Unavailable
from meter.keys import USER_ID

TYPED_ABOVE = Decimal(1000)
"""Credits that are taken only by who types the user id."""
CONFIRM = Field("confirm", "Type the user id, so that it is the right one")
REASON = Field("reason", "Reason, kept in the history", pointer="description")
_ENDS = {"30d": ("in 30 days", 30), "90d": ("in 90 days", 90), "1y": ("in 1 year", 365), "never": ("never", 0)}


@dataclass(frozen=True, slots=True)
class Plan:
    """An action on a user, ready to be asked for: `effect` says what it will do."""

    title: str
    button: str
    fields: Sequence[Field]
    effect: Sequence[tuple[str, str]] = ()
    is_typed: bool = False

    @property
    def all_fields(self) -> list[Field]:
        """The fields, and the one that makes sure of whom it is about."""
        return [*self.fields, CONFIRM] if self.is_typed else list(self.fields)

    @property
    def names(self) -> set[str]:
        """What the fields are called."""
        return {field.name for field in self.all_fields}


Prepare = Callable[[Visit, str], Awaitable["Plan | Refusal"]]
Do = Callable[[Visit, str, Mapping[str, str]], Awaitable[Answer | Refusal]]
Say = Callable[[Answer, Mapping[str, str]], str]


@dataclass(frozen=True, slots=True)
class Action:
    """What may be done: how the form is made, the call, and its result in words."""

    prepare: Prepare
    do: Do
    say: Say


async def form_page(visit: Visit) -> Response:
    """The form of an action, empty."""
    return await _at_form(visit, None)


async def send_form(visit: Visit) -> Response:
    """The action itself, or its form with what is wrong."""
    return await _at_form(visit, visit.form)


async def _at_form(visit: Visit, values: Mapping[str, str] | None) -> Response:
    action = ACTIONS.get(visit.path.rpartition("/")[2])
    user_id = (visit.query if values is None else values).get("id", "")
    if action is None or not USER_ID.fullmatch(user_id):
        return notice(404, "There is nothing here", "The console knows no such action, or no such user.", visit)
    if not visit.may_write:
        return notice(403, "This key may not change anything", f"It needs the scope `{ADMIN_WRITE}`.", visit)
    asked = visit if values is None else replace(visit, query=values)
    plan = await action.prepare(asked, user_id)
    if isinstance(plan, Refusal):
        return notice(plan.status, "This cannot be done", plan.detail, visit)
    if values is None:
        return _form(visit, user_id, plan, replace(blank(plan.all_fields), values=visit.query))
    faults = missing(plan.all_fields, values)
    if plan.is_typed and not faults and values["confirm"].strip() != user_id:
        faults = {"confirm": f"This is not {user_id}."}
    filled = Filled(plan.all_fields, values, values.get("key", ""), faults)
    return _form(visit, user_id, plan, filled, 422) if faults else await _send(visit, user_id, action, plan, filled)


async def _send(visit: Visit, user_id: str, action: Action, plan: Plan, filled: Filled) -> Response:
    try:
        found = await action.do(visit, user_id, filled.values)
    except Unavailable as error:
        fault = f"{error}. It may or may not have been done: send the form again, which books it once."
        return _form(visit, user_id, plan, replace(filled, fault=fault), 503)
    if isinstance(found, Refusal):
        faults, fault = refused(plan.all_fields, found)
        return _form(visit, user_id, plan, replace(filled, faults=faults, fault=fault), found.status)
    if isinstance(found, IssuedKey):
        return shown("issued.html", visit, user_id=user_id, issued=found)
    return done(visit, link("user", id=user_id), action.say(found, filled.values))


def _form(visit: Visit, user_id: str, plan: Plan, filled: Filled, status: int = 200) -> Response:
    return shown(
        "form.html", visit, status, under="users", user_id=user_id, plan=plan, filled=filled, names=_carried(visit)
    )


def _carried(visit: Visit) -> Mapping[str, str]:
    """What the form is about, beside the user."""
    told = visit.form or visit.query
    return {name: told[name] for name in ("tx", "grant", "hold", "key_id") if name in told}


def _amount(values: Mapping[str, str], name: str = "amount") -> str:
    """An amount as it was typed: the call reads it, digit by digit. Commas that group are none of it."""
    return values.get(name, "").replace(",", "").strip()


def _now_has(found: Answer) -> str:
    return f" Can spend {_plain(found.available)} now." if isinstance(found, Balances) else ""


def _plain(amount: Decimal) -> str:
    return plain(amount, places_of([amount]))


# Add credits


_OPTIONS = [(name, label) for name, (label, _) in _ENDS.items()]
ADD_FIELDS = (
    Field("amount", "Amount", "amount", unit="credits"),
    Field("ends", "End", "select", value="30d", options=_OPTIONS, pointer="expires_at"),
    REASON,
)


async def _prepare_add(visit: Visit, user_id: str) -> Plan | Refusal:
    user = await visit.credits.user(user_id)
    if isinstance(user, Refusal):
        return user
    priority = Field("priority", "Priority, the lowest burns first", "number", value="10", required=False)
    return Plan("Add credits", "Add credits", [*ADD_FIELDS, priority], [("Can spend now", _plain(user.available))])


async def _add(visit: Visit, user_id: str, values: Mapping[str, str]) -> Answer | Refusal:
    days = _ENDS.get(values.get("ends", ""), ("", 30))[1]
    made_at = values.get("made_at", "")  # the same end, and thereby the same body, however often the form is sent
    since = datetime.fromtimestamp(int(made_at), UTC) if re.fullmatch(r"[0-9]{1,10}", made_at) else visit.now
    expires_at = since + timedelta(days=days) if days else None
    priority = values.get("priority", "").strip() or "10"
    return await visit.credits.add(
        user_id,
        _amount(values),
        description=values["reason"].strip(),
        priority=int(priority) if priority.isdigit() else -1,
        expires_at=expires_at,
        idempotency_key=values.get("key") or None,
    )


def _say_added(found: Answer, values: Mapping[str, str]) -> str:
    if not isinstance(found, Added):
        return f"{_amount(values)} credits are durable and come as soon as Redis is back."
    return f"Added {_plain(found.amount)} credits, as {found.grant_id}.{_now_has(found)}"


# Adjust


async def _prepare_adjust(visit: Visit, user_id: str) -> Plan | Refusal:
    user = await visit.credits.user(user_id)
    if isinstance(user, Refusal):
        return user
    fields = [
        Field("way", "What to do", "select", value="take", options=[("take", "Take"), ("give", "Give")]),
        Field("amount", "Amount", "amount", unit="credits"),
        Field("grant", "Of the grant", required=False, hint="In burn order when empty.", pointer="grant_id"),
        replace(REASON, pointer="reason"),
    ]
    effect = [("Can spend now", _plain(user.available)), ("Takes", "only what is free, and never makes debt")]
    amount = _amount(visit.query)
    is_much = re.fullmatch(r"[0-9]{1,20}(\.[0-9]{1,20})?", amount) and Decimal(amount) > TYPED_ABOVE
    return Plan("Adjust", "Adjust", fields, effect, is_typed=bool(is_much) and visit.query.get("way") != "give")


async def _adjust(visit: Visit, user_id: str, values: Mapping[str, str]) -> Answer | Refusal:
    return await visit.credits.adjust(
        user_id,
        _amount(values) if values.get("way") == "give" else f"-{_amount(values)}",
        values["reason"].strip(),
        grant_id=values.get("grant", "").strip() or None,
        idempotency_key=values.get("key") or None,
    )


def _say_adjusted(found: Answer, values: Mapping[str, str]) -> str:
    if not isinstance(found, Adjusted):
        return f"{_amount(values)} credits are durable and come as soon as Redis is back."
    way = "Gave" if found.amount > 0 else "Took"
    return f"{way} {_plain(abs(found.amount))} credits.{_now_has(found)}"


# Refund


async def _prepare_refund(visit: Visit, user_id: str) -> Plan | Refusal:
    if not visit.query.get("tx"):
        fields = [
            Field("tx", "Transaction id of the charge", pointer="transaction_id"),
            Field("amount", "Amount, all that is left of it when empty", "amount", required=False, unit="credits"),
            REASON,
        ]
        return Plan("Refund a charge", "Refund", fields)
    story = await visit.credits.transaction(visit.query["tx"])
    if isinstance(story, Refusal):
        return story
    charge, left = story.transaction, story.refundable or Decimal(0)
    effect = [
        ("Charged", f"{_plain(charge.amount)} at {clock(charge.created_at, visit.now)}, to {charge.user_id}"),
        ("For", charge.description or charge.reference or charge.transaction_id),
        ("Can be refunded", _plain(left)),
    ]
    amount = Field("amount", "Amount", "amount", value=format(left.normalize(), "f"), unit="credits")
    return Plan("Refund a charge", f"Refund {_plain(left)} credits", [amount, REASON], effect)


async def _refund(visit: Visit, user_id: str, values: Mapping[str, str]) -> Answer | Refusal:
    return await visit.credits.refund(
        user_id,
        values.get("tx", "").strip(),
        _amount(values) or None,
        description=values["reason"].strip(),
        idempotency_key=values.get("key") or None,
    )


def _say_refunded(found: Answer, values: Mapping[str, str]) -> str:
    del values
    if not isinstance(found, Refunded):
        return "Refunded."
    lost = f"; {_plain(found.forfeited)} of it ended with its grant" if found.forfeited else ""
    return f"Refunded {_plain(found.amount)} credits{lost}.{_now_has(found)}"


# Void a grant, release a hold


async def _prepare_void(visit: Visit, user_id: str) -> Plan | Refusal:
    grants = await visit.credits.grants(user_id, limit=500)
    if isinstance(grants, Refusal):
        return grants
    grant = next((one for one in grants.items if one.grant_id == visit.query.get("grant", "")), None)
    free = Decimal(0) if grant is None else grant.remaining
    effect = [("Grant", visit.query.get("grant", "")), ("Takes", f"{_plain(free)} free credits")]
    if grant is not None and grant.reserved:
        effect.append(("Stays", f"{_plain(grant.reserved)} held, until the holds end"))
    return Plan("Void a grant", f"Void {_plain(free)} credits", [REASON], effect, is_typed=free > TYPED_ABOVE)


async def _void(visit: Visit, user_id: str, values: Mapping[str, str]) -> Answer | Refusal:
    reason, key = values["reason"].strip(), values.get("key") or None
    return await visit.credits.void(user_id, values.get("grant", ""), description=reason, idempotency_key=key)


def _say_voided(found: Answer, values: Mapping[str, str]) -> str:
    del values
    return f"Voided {_plain(found.voided)} credits.{_now_has(found)}" if isinstance(found, Voided) else "Voided."


async def _prepare_release(visit: Visit, user_id: str) -> Plan | Refusal:
    del user_id
    hold = await visit.credits.reservation(visit.query.get("hold", ""))
    if isinstance(hold, Refusal):
        return hold
    effect = [("Hold", hold.reservation_id), ("Gives back", f"{_plain(hold.amount)} credits")]
    return Plan("Release a hold", f"Release {_plain(hold.amount)} credits", [REASON], effect)


async def _release(visit: Visit, user_id: str, values: Mapping[str, str]) -> Answer | Refusal:
    del user_id
    reason, key = values["reason"].strip(), values.get("key") or None
    return await visit.credits.release(values.get("hold", ""), description=reason, idempotency_key=key)


def _say_released(found: Answer, values: Mapping[str, str]) -> str:
    del values
    return (
        f"Released {_plain(found.released)} credits.{_now_has(found)}" if isinstance(found, Released) else "Released."
    )


# The account


async def _prepare_suspend(visit: Visit, user_id: str) -> Plan | Refusal:
    del visit
    effect = [("From then on", "every reserve and deduct of it, and of all below it, is refused"), ("Stays", "credits")]
    return Plan(f"Suspend {user_id}", f"Suspend {user_id}", [REASON], effect, is_typed=True)


async def _prepare_resume(visit: Visit, user_id: str) -> Plan | Refusal:
    del visit
    return Plan(f"Resume {user_id}", f"Resume {user_id}", [REASON], [("From then on", "it may spend again")])


def _setting(*, suspended: bool) -> Do:
    async def do(visit: Visit, user_id: str, values: Mapping[str, str]) -> Answer | Refusal:
        reason, key = values["reason"].strip(), values.get("key") or None
        return await visit.credits.configure(user_id, suspended=suspended, description=reason, idempotency_key=key)

    return do


async def _prepare_top_up_on(visit: Visit, user_id: str) -> Plan | Refusal:
    found = await visit.credits.top_up(user_id)
    if isinstance(found, Refusal):
        return found
    buys = f"{_plain(found.amount or Decimal(0))} credits at {_plain(found.below or Decimal(0))}"
    return Plan("Turn auto top-up on", "Turn auto top-up on", [REASON], [("Buys", buys)])


async def _prepare_top_up_off(visit: Visit, user_id: str) -> Plan | Refusal:
    del visit, user_id
    effect = [("From then on", "nothing is bought"), ("Stays", "what is set, and a payment that was asked for")]
    return Plan("Turn auto top-up off", "Turn auto top-up off", [REASON], effect)


def _switching(*, enabled: bool) -> Do:
    async def do(visit: Visit, user_id: str, values: Mapping[str, str]) -> Answer | Refusal:
        reason, key = values["reason"].strip(), values.get("key") or None
        return await visit.credits.switch_top_up(user_id, enabled=enabled, description=reason, idempotency_key=key)

    return do


async def _prepare_account(visit: Visit, user_id: str) -> Plan | Refusal:
    user = await visit.credits.user(user_id)
    if isinstance(user, Refusal):
        return user
    alerts = " ".join(format(one.normalize(), "f") for one in user.low_credit_thresholds)
    limit = format(user.overdraft_limit.normalize(), "f")
    multiplier = "" if user.price_multiplier is None else format(user.price_multiplier.normalize(), "f")
    fields = [
        Field("overdraft_limit", "Overdraft", "amount", value=limit, unit="credits"),
        Field(
            "low_credit_thresholds",
            "Alerts at",
            value=alerts,
            required=False,
            hint="Amounts with spaces between; none when empty.",
        ),
        Field("rate_card", "Rate card", value=user.rate_card or "", required=False, hint="That of above when empty."),
        Field("price_multiplier", "Price multiplier", value=multiplier, required=False, hint="Of above when empty."),
        REASON,
    ]
    return Plan("Edit the account", "Save", fields)


async def _change_account(visit: Visit, user_id: str, values: Mapping[str, str]) -> Answer | Refusal:
    return await visit.credits.configure(
        user_id,
        overdraft_limit=_amount(values, "overdraft_limit"),
        low_credit_thresholds=values.get("low_credit_thresholds", "").replace(",", "").split(),
        rate_card=values.get("rate_card", "").strip() or NULL,
        price_multiplier=values.get("price_multiplier", "").strip() or NULL,
        description=values["reason"].strip(),
        idempotency_key=values.get("key") or None,
    )


# Keys


async def _prepare_new_key(visit: Visit, user_id: str) -> Plan | Refusal:
    del visit
    effect = [("May", f"spend as {user_id}, and read its balance"), ("Its text", "is shown once, on the next page")]
    return Plan("New key", "Make a key", [Field("name", "Name, to tell it from others")], effect)


async def _new_key(visit: Visit, user_id: str, values: Mapping[str, str]) -> Answer | Refusal:
    return await visit.credits.create_key(
        user_id, name=values["name"].strip(), idempotency_key=values.get("key") or None
    )


async def _prepare_rotate_key(visit: Visit, user_id: str) -> Plan | Refusal:
    del user_id
    hours = Field("hours", "The old key works on for", "number", value="24", unit="hours", pointer="overlap_seconds")
    effect = [("Key", visit.query.get("key_id", "")), ("Its text", "is shown once, on the next page")]
    return Plan("Rotate a key", "Make the new key", [hours], effect)


async def _rotate_key(visit: Visit, user_id: str, values: Mapping[str, str]) -> Answer | Refusal:
    del user_id
    hours = values.get("hours", "").strip()
    return await visit.credits.rotate_key(
        values.get("key_id", ""),
        overlap_seconds=int(hours) * 3600 if hours.isdigit() else -1,
        idempotency_key=values.get("key") or None,
    )


async def _prepare_revoke_key(visit: Visit, user_id: str) -> Plan | Refusal:
    del user_id
    effect = [("Key", visit.query.get("key_id", "")), ("From then on", "the very next call with it is refused")]
    return Plan("Revoke a key", "Revoke the key", [replace(REASON, pointer="reason")], effect, is_typed=True)


async def _revoke_key(visit: Visit, user_id: str, values: Mapping[str, str]) -> Answer | Refusal:
    del user_id
    reason, key = values["reason"].strip(), values.get("key") or None
    return await visit.credits.revoke_key(values.get("key_id", ""), reason=reason, idempotency_key=key)


ACTIONS = {
    "add": Action(_prepare_add, _add, _say_added),
    "adjust": Action(_prepare_adjust, _adjust, _say_adjusted),
    "refund": Action(_prepare_refund, _refund, _say_refunded),
    "void": Action(_prepare_void, _void, _say_voided),
    "release": Action(_prepare_release, _release, _say_released),
    "suspend": Action(_prepare_suspend, _setting(suspended=True), lambda *_: "Suspended. Nothing of it is served."),
    "resume": Action(_prepare_resume, _setting(suspended=False), lambda *_: "Resumed. It may spend again."),
    "top-up-on": Action(_prepare_top_up_on, _switching(enabled=True), lambda *_: "Auto top-up is on."),
    "top-up-off": Action(_prepare_top_up_off, _switching(enabled=False), lambda *_: "Auto top-up is off."),
    "account": Action(_prepare_account, _change_account, lambda *_: "The account is changed."),
    "new-key": Action(_prepare_new_key, _new_key, lambda *_: "Made."),
    "rotate-key": Action(_prepare_rotate_key, _rotate_key, lambda *_: "Rotated."),
    "revoke-key": Action(_prepare_revoke_key, _revoke_key, lambda *_: "Revoked. The very next call is refused."),
}
