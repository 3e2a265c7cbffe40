"""`meter top-up …`: what is bought for a user when few credits are left, by hand, on the deployment itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from meter.cli.acting import Actor
from meter.cli.calling import Called, on
from meter.cli.deployment import DATA_DIR, DataDir
from meter.cli.measure import Json

if TYPE_CHECKING:
    from meter.client.credits import Credits
    from meter.contract.answers import Refusal
    from meter.contract.top_ups import ListedTopUp, TopUp, TopUpPage

    Told = TopUp | TopUpPage | Refusal

top_ups = typer.Typer(no_args_is_help=True, help="What is bought when few credits are left.")

PAGE = 500
UserId = Annotated[str, typer.Argument(help="Whose it is.")]


class Within(StrEnum):
    """A period of the calendar in UTC."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"


@top_ups.command("set")
def set_(
    user_id: UserId,
    below: Annotated[str, typer.Option(help="It buys when no more than this is available.")],
    amount: Annotated[str, typer.Option(help="Credits that it buys.")],
    payment_reference: Annotated[str, typer.Option(help="What the provider of payments knows the payer by.")],
    most: Annotated[str | None, typer.Option(help="Credits that it buys within a period at most.")] = None,
    period: Annotated[Within, typer.Option(help="That period.")] = Within.MONTH,
    actor: Actor = "",
    data_dir: DataDir = DATA_DIR,
    as_json: Json = False,
) -> None:
    """Say what is bought, when and by whom. What is off stays off."""

    async def ask(meter: Credits) -> Told:
        return await meter.set_top_up(
            user_id, below=below, amount=amount, payment_reference=payment_reference, most=most, period=period.value
        )

    _tell(ask, actor, data_dir, as_json=as_json)


@top_ups.command()
def show(user_id: UserId, data_dir: DataDir = DATA_DIR, as_json: Json = False) -> None:
    """Show what is bought for a user."""
    _tell(lambda meter: meter.top_up(user_id), "", data_dir, as_json=as_json)


@top_ups.command("on")
def on_(user_id: UserId, actor: Actor = "", data_dir: DataDir = DATA_DIR, as_json: Json = False) -> None:
    """Turn it on. It buys at once where few are left."""
    _tell(lambda meter: meter.switch_top_up(user_id, enabled=True), actor, data_dir, as_json=as_json)


@top_ups.command("off")
def off(user_id: UserId, actor: Actor = "", data_dir: DataDir = DATA_DIR, as_json: Json = False) -> None:
    """Turn it off. What is set is kept."""
    _tell(lambda meter: meter.switch_top_up(user_id, enabled=False), actor, data_dir, as_json=as_json)


@top_ups.command()
def remove(user_id: UserId, actor: Actor = "", data_dir: DataDir = DATA_DIR, as_json: Json = False) -> None:
    """Buy nothing any more, and forget the payer."""
    _tell(lambda meter: meter.remove_top_up(user_id), actor, data_dir, as_json=as_json)


@top_ups.command("list")
def list_(
    user_id: Annotated[str | None, typer.Option("--user", help="Of this user alone.")] = None,
    cursor: Annotated[str, typer.Option(help="The next_cursor of the page before.")] = "",
    data_dir: DataDir = DATA_DIR,
    as_json: Json = False,
) -> None:
    """Show requests to buy credits, newest first."""
    _tell(lambda meter: meter.top_ups(user_id=user_id, limit=PAGE, cursor=cursor), "", data_dir, as_json=as_json)


def _tell(ask: Callable[[Credits], Awaitable[Told]], actor: str, data_dir: Path, *, as_json: bool) -> None:
    called = Called(on(data_dir), actor, as_json=as_json, more="--cursor {cursor}")
    called.tell(lambda meter, _: ask(meter), _shown)


def _shown(answer: Any) -> str:
    return "\n".join(map(_line, answer.items)) if hasattr(answer, "items") else _of_user(answer)


def _of_user(found: TopUp) -> str:
    if found.state == "none":
        return f"{found.user_id}: nothing is bought"
    most = "" if found.most is None else f", {found.most} within a {found.period} at most"
    waits = f", waits for {found.top_up_id}" if found.top_up_id else ""
    payer = f" by {found.payment_reference}"
    return f"{found.user_id} {found.state}: {found.amount} credits at {found.below}{most}{payer}{waits}"


def _line(found: ListedTopUp) -> str:
    stands = found.outcome if found.state == "ended" else found.step
    why = f" ({found.reason})" if found.reason else ""
    back = ", reversed" if found.reversed_at else ""
    return f"{found.created_at:%Y-%m-%dT%H:%M:%SZ} {found.top_up_id} {found.user_id} {found.amount} {stands}{back}{why}"
