"""The commands of support and operators: what HTTP answers, on a line of a terminal."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

import typer

from meter.cli.acting import Actor
from meter.cli.calling import All, Called, Key, Url, key_of, over, pairs, table, text
from meter.cli.measure import Json

support = typer.Typer()

User = Annotated[str, typer.Argument(help="The user_id.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; the ledger has it.")]
Repeat = Annotated[str, typer.Option("--idempotency-key", help="Names the change, so that sent twice it is done once.")]
Dry = Annotated[bool, typer.Option("--dry-run", help="Tell what it would come to; change nothing.")]
Since = Annotated[datetime | None, typer.Option("--from", help="From that time on, in UTC.")]
Until = Annotated[datetime | None, typer.Option("--to", help="Before that time, in UTC.")]


def _utc(when: datetime | None) -> datetime | None:
    return None if when is None else when.replace(tzinfo=UTC) if when.tzinfo is None else when


@support.command()
def find(
    anything: Annotated[str, typer.Argument(metavar="ID", help="Any id.")],
    url: Url = "",
    key: Key = "",
    as_json: Json = False,
) -> None:
    """Tell whose an id is: of a user, request, transaction, reservation, grant, key, delivery or refusal."""
    Called(over(url, key), as_json=as_json).tell(
        lambda meter, _: meter.find(anything),
        lambda found: _columns(found, kind="kind", id="id", user="user_id", at="at"),
    )


@support.command()
def users(
    prefix: Annotated[str, typer.Option(help="How the user_ids begin.")] = "",
    state: Annotated[Literal["active", "suspended", "in_debt", "empty"] | None, typer.Option()] = None,
    plan: Annotated[str | None, typer.Option(help="A plan_id.")] = None,
    order: Annotated[
        str, typer.Option(help="available, debt, spent_today and such; - in front: most first.")
    ] = "user_id",
    every: All = False,
    url: Url = "",
    key: Key = "",
    as_json: Json = False,
) -> None:
    """List users, by what they have and did."""
    heads = ("user", "available", "held", "debt", "spent today", "last spent", "plans")

    def show(page: Any) -> str:
        rows = [
            (one.user_id, one.available, one.reserved, one.debt, one.spent_today, one.last_spent_at, one.plan_ids)
            for one in page.items
        ]
        return table(rows, heads)

    Called(over(url, key), as_json=as_json).tell(
        lambda meter, cursor: meter.users(starts_with=prefix, state=state, plan_id=plan, order=order, cursor=cursor),  # type: ignore[arg-type]
        show,
        every_page=every,
    )


@support.command()
def balance(
    user: User,
    at: Annotated[datetime | None, typer.Option(help="As of that time, in UTC.")] = None,
    url: Url = "",
    key: Key = "",
    as_json: Json = False,
) -> None:
    """Tell what a user has."""
    Called(over(url, key), as_json=as_json).tell(
        lambda meter, _: meter.balance(user, at=_utc(at)),
        lambda found: pairs(found, "available", "reserved", "balance", "debt"),
    )


@support.command()
def grants(user: User, every: All = False, url: Url = "", key: Key = "", as_json: Json = False) -> None:
    """List the grants of a user in burn order; with --all those that ended, too."""

    def show(page: Any) -> str:
        named = {"grant": "grant_id", "free": "remaining", "held": "reserved", "of": "amount", "ends": "expires_at"}
        return _columns(page, **named, priority="priority", state="state")

    Called(over(url, key), as_json=as_json).tell(
        lambda meter, cursor: meter.grants(user, state="all" if every else "live", cursor=cursor),
        show,
        every_page=every,
    )


@support.command()
def holds(user: User, every: All = False, url: Url = "", key: Key = "", as_json: Json = False) -> None:
    """List the open reservations of a user."""

    def show(page: Any) -> str:
        rows = [(one.reservation_id, one.amount, one.created_at, one.expires_at) for one in page.items]
        return table(rows, ("reservation", "amount", "made", "ends"))

    Called(over(url, key), as_json=as_json).tell(
        lambda meter, cursor: meter.reservations(user, cursor=cursor), show, every_page=every
    )


def _ledger(page: Any) -> str:
    rows = [(one.created_at, one.kind, one.amount, _left(one), one.user_id, _what(one)) for one in page.items]
    return table(rows, ("time", "kind", "amount", "available", "user", "what"))


def _columns(page: Any, **names: str) -> str:
    """Members of the items under these heads."""
    return table([tuple(getattr(one, name) for name in names.values()) for one in page.items], tuple(names))


def _left(one: Any) -> Any:
    return one.available if one.kind == "refusal" else one.available_after


def _what(one: Any) -> str:
    if one.kind == "refusal":
        return f"{one.reason}: {', '.join(_rule(rule) for rule in one.violations)}"
    return " ".join(str(part) for part in (getattr(one, "transaction_id", ""), one.reference, one.description) if part)


def _rule(rule: Any) -> str:
    limit = "" if rule.limit is None else f" {text(rule.limit)}"
    return f"{rule.rule} of {rule.user_id}{limit}"


@support.command()
def history(
    user: Annotated[str, typer.Argument(help="The user_id; everybody where none is given.")] = "",
    kind: Annotated[str | None, typer.Option(help="Kinds with commas: deduct,commit,refund.")] = None,
    actor: Annotated[str | None, typer.Option(help="Who asked for it.")] = None,
    since: Since = None,
    until: Until = None,
    refusals: Annotated[bool, typer.Option("--refusals", help="With what was refused.")] = False,
    every: All = False,
    url: Url = "",
    key: Key = "",
    as_json: Json = False,
) -> None:
    """List transactions, newest first."""
    Called(over(url, key), as_json=as_json).tell(
        lambda meter, cursor: meter.transactions(
            user_id=user or None,
            kind=kind,  # type: ignore[arg-type]
            actor=actor,
            from_=_utc(since),
            to=_utc(until),
            refusals=refusals,
            cursor=cursor,
        ),
        _ledger,
        every_page=every,
    )


@support.command()
def show(
    transaction: Annotated[str, typer.Argument(help="The transaction_id.")],
    url: Url = "",
    key: Key = "",
    as_json: Json = False,
) -> None:
    """Tell all that belongs to a transaction: of a charge its hold and refunds, and what can still be refunded."""

    class Chain:
        def __init__(self, items: Any) -> None:
            self.items = items

    Called(over(url, key), as_json=as_json).tell(
        lambda meter, _: meter.transaction(transaction),
        lambda story: f"{_ledger(Chain(story.chain))}\nrefundable  {text(story.refundable)}",
    )


@support.command()
def explain(user: User, amount: str, url: Url = "", key: Key = "", as_json: Json = False) -> None:
    """Tell whether a deduct would pass now; exit code 4 where it would be refused."""
    refused: list[bool] = []

    def shown(found: Any) -> str:
        if found.would == "ok":
            burns = ", ".join(f"{text(one.amount)} of {one.grant_id}" for one in found.burns)
            return f"Yes. It burns {burns or 'nothing'}."
        rules = "; ".join(_rule(rule) for rule in found.violations)
        coming = ""
        if found.next_credits_at is not None:
            coming = f" {text(found.next_credits_amount)} come on {text(found.next_credits_at)}."
        short = f" It is {text(found.short)} short." if found.short else ""
        return f"No, {found.would}.{short} {rules}.{coming}"

    called = Called(over(url, key), as_json=as_json)

    async def ask(meter: Any, _: str) -> Any:
        found = await meter.explain(user, amount)
        if found:
            refused.append(found.would != "ok")
        return found

    called.tell(ask, shown)
    if any(refused):
        raise typer.Exit(4)


@support.command()
def refusals(
    user: Annotated[str, typer.Argument(help="The user_id; without one, how often was refused.")] = "",
    by: Annotated[str, typer.Option(help="reason, user, hour, with commas.")] = "reason",
    since: Since = None,
    until: Until = None,
    every: All = False,
    url: Url = "",
    key: Key = "",
    as_json: Json = False,
) -> None:
    """Tell what was refused: of a user each with the figures of its moment, else counted."""
    called = Called(over(url, key), as_json=as_json)
    if user:
        called.tell(lambda meter, cursor: meter.refusals_of(user, cursor=cursor), _ledger, every_page=every)
        return
    words = by.split(",")
    called.tell(
        lambda meter, cursor: meter.refusals(
            *words,  # type: ignore[arg-type]
            from_=_utc(since),
            to=_utc(until),
            cursor=cursor,
        ),
        lambda page: _columns(page, **{word: word for word in (*words, "refusals")}),
        every_page=every,
    )


def _after(answer: Any) -> str:
    effect = getattr(answer, "effect", None)
    if effect is None:
        return f"can spend {text(answer.available)}"
    place = "" if effect.burns_at is None else f", burns at place {effect.burns_at}"
    following = "" if effect.next_grant_id is None else f", next burns {effect.next_grant_id}"
    return f"would go from {text(effect.available_before)} to {text(effect.available_after)}{place}{following}"


@support.command()
def add(
    user: User,
    amount: str,
    reason: Reason,
    ends: Annotated[str, typer.Option(help="30d, a time such as 2030-01-31, or never.")] = "never",
    priority: Annotated[int, typer.Option(help="What has less burns first.")] = 10,
    only: Annotated[list[str] | None, typer.Option(help="A tag of what it is for; more than once.")] = None,
    grant_id: Annotated[str | None, typer.Option("--id", help="The grant_id: the same twice is one grant.")] = None,
    dry_run: Dry = False,
    idempotency_key: Repeat = "",
    actor: Actor = "",
    url: Url = "",
    key: Key = "",
    as_json: Json = False,
) -> None:
    """Give a user credits."""
    once = None if dry_run else key_of(idempotency_key)
    Called(over(url, key), actor, as_json=as_json).tell(
        lambda meter, _: meter.add(
            user,
            amount,
            description=reason,
            expires_at=_end(ends),
            priority=priority,
            only=only or None,
            grant_id=grant_id,
            dry_run=dry_run,
            idempotency_key=once,
        ),
        lambda found: f"{found.grant_id}: {_after(found) if hasattr(found, 'available') else 'soon'}",
    )


def _end(ends: str) -> datetime | None:
    if ends == "never":
        return None
    if ends.endswith("d") and ends[:-1].isdigit():
        return datetime.now(UTC) + timedelta(days=int(ends[:-1]))
    try:
        return _utc(datetime.fromisoformat(ends))
    except ValueError:
        raise typer.BadParameter("30d, a time such as 2030-01-31T00:00, or never", param_hint="--ends") from None


@support.command(context_settings={"ignore_unknown_options": True})
def adjust(
    user: User,
    amount: Annotated[str, typer.Argument(help="+5 gives, -5 takes of what is free.")],
    reason: Reason,
    grant: Annotated[str | None, typer.Option(help="Take of that grant, or give as it.")] = None,
    dry_run: Dry = False,
    idempotency_key: Repeat = "",
    actor: Actor = "",
    url: Url = "",
    key: Key = "",
    as_json: Json = False,
) -> None:
    """Set right what a user has."""
    once = None if dry_run else key_of(idempotency_key)
    Called(over(url, key), actor, as_json=as_json).tell(
        lambda meter, _: meter.adjust(
            user, amount.removeprefix("+"), reason, grant_id=grant, dry_run=dry_run, idempotency_key=once
        ),
        lambda found: f"{text(found.amount)}: {_after(found) if hasattr(found, 'available') else 'soon'}",
    )


@support.command()
def deduct(
    user: User,
    amount: str,
    reason: Reason = "",
    shortfall: Annotated[Literal["reject", "partial", "overdraft"], typer.Option()] = "reject",
    tag: Annotated[list[str] | None, typer.Option(help="What it is for; more than once.")] = None,
    idempotency_key: Repeat = "",
    actor: Actor = "",
    url: Url = "",
    key: Key = "",
    as_json: Json = False,
) -> None:
    """Charge a user."""
    once = key_of(idempotency_key)
    Called(over(url, key), actor, as_json=as_json).tell(
        lambda meter, _: meter.deduct(
            user, amount, description=reason or None, shortfall=shortfall, tags=tag or None, idempotency_key=once
        ),
        lambda found: f"{text(found.transaction_id)}: {_after(found)}",
    )


@support.command()
def refund(
    transaction: Annotated[str, typer.Argument(help="The transaction_id of a charge.")],
    reason: Reason,
    amount: Annotated[str | None, typer.Argument(help="All that is left of it when not given.")] = None,
    dry_run: Dry = False,
    idempotency_key: Repeat = "",
    actor: Actor = "",
    url: Url = "",
    key: Key = "",
    as_json: Json = False,
) -> None:
    """Give back a charge, or part of it."""
    once = None if dry_run else key_of(idempotency_key)

    async def ask(meter: Any, _: str) -> Any:
        story = await meter.transaction(transaction)
        if not story:
            return story
        whose = story.transaction.user_id
        return await meter.refund(whose, transaction, amount, description=reason, dry_run=dry_run, idempotency_key=once)

    def shown(found: Any) -> str:
        return f"{text(found.amount)} back, {text(found.left)} left of the charge, {_after(found)}"

    Called(over(url, key), actor, as_json=as_json).tell(ask, shown)


@support.command()
def void(
    user: User,
    grant: Annotated[str, typer.Argument(help="The grant_id.")],
    reason: Reason,
    dry_run: Dry = False,
    idempotency_key: Repeat = "",
    actor: Actor = "",
    url: Url = "",
    key: Key = "",
    as_json: Json = False,
) -> None:
    """Take back what is free of a grant."""
    once = None if dry_run else key_of(idempotency_key)
    Called(over(url, key), actor, as_json=as_json).tell(
        lambda meter, _: meter.void(user, grant, description=reason, dry_run=dry_run, idempotency_key=once),
        lambda found: f"{text(found.voided)} taken, {_after(found)}",
    )


@support.command()
def release(
    reservation: Annotated[str, typer.Argument(help="The reservation_id.")],
    reason: Reason = "",
    actor: Actor = "",
    url: Url = "",
    key: Key = "",
    as_json: Json = False,
) -> None:
    """Let go what a reservation holds."""
    Called(over(url, key), actor, as_json=as_json).tell(
        lambda meter, _: meter.release(reservation, description=reason or None), _after
    )


@support.command()
def usage(
    by: Annotated[str, typer.Option(help="user, path, model, key, day, hour and more, with commas.")] = "day",
    path: Annotated[str | None, typer.Option(help="Of that path and all below it.")] = None,
    since: Since = None,
    until: Until = None,
    zone: Annotated[str, typer.Option(help="Of days and hours.")] = "UTC",
    every: All = False,
    url: Url = "",
    key: Key = "",
    as_json: Json = False,
) -> None:
    """Sum up what was used and charged."""
    words = by.split(",")

    async def ask(meter: Any, cursor: str) -> Any:
        since_, until_ = _utc(since), _utc(until)
        return await meter.figures(*words, path=path, from_=since_, to=until_, time_zone=zone, cursor=cursor)

    sums = ("requests", "charged", "refunded", "spent")
    Called(over(url, key), as_json=as_json).tell(
        ask, lambda page: _columns(page, **{word: word for word in (*words, *sums)}), every_page=every
    )


@support.command()
def status(url: Url = "", key: Key = "", as_json: Json = False) -> None:
    """Tell whether everything works; exit code 1 where nothing is served."""
    states: list[str] = []

    async def ask(meter: Any, _: str) -> Any:
        found = await meter.system_status()
        states.append(getattr(found, "state", ""))
        return found

    def shown(found: Any) -> str:
        outbox = f"outbox {found.outbox.waiting}, oldest {found.outbox.oldest_ms / 1000:.1f} s"
        seen = [f"{one.kind} {one.id} {one.version}, seen {text(one.seen_at)}" for one in found.processes]
        return "\n".join([found.sentence, *found.warnings, f"{outbox}; store {found.store.kind}", *seen])

    Called(over(url, key), as_json=as_json).tell(ask, shown)
    if "unavailable" in states:
        raise typer.Exit(1)
