"""`meter codes …`: promo codes by hand, on the deployment itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from meter.cli.acting import Actor
from meter.cli.calling import Called, on, once
from meter.cli.deployment import DATA_DIR, DataDir
from meter.cli.measure import Json

if TYPE_CHECKING:
    from meter.client.credits import Credits
    from meter.contract.answers import Refusal
    from meter.contract.codes import CodePage, CreatedCode, ListedCode

    Told = CreatedCode | ListedCode | CodePage | Refusal

codes = typer.Typer(no_args_is_help=True, help="Promo codes. Each text is told once.")

PAGE = 500


@codes.command()
def create(
    amount: Annotated[str, typer.Argument(help="Credits that one who redeems it gets.")],
    max_total: Annotated[int, typer.Option(help="How often it may be redeemed.")],
    code: Annotated[str | None, typer.Option(help="Its text; drawn by lot when not given.")] = None,
    max_per_user: Annotated[int, typer.Option(help="How often by one user.")] = 1,
    valid_days: Annotated[int | None, typer.Option(help="For how many days the credits last.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="A tag of what the credits are for; more than once.")] = None,
    priority: Annotated[int, typer.Option(help="Burn order of the credits: lower is first.")] = 10,
    starts_at: Annotated[datetime | None, typer.Option(help="From when on it is taken.")] = None,
    ends_at: Annotated[datetime | None, typer.Option(help="From when on it is taken no more.")] = None,
    description: Annotated[str | None, typer.Option(help="What the ledger calls its grants.")] = None,
    actor: Actor = "",
    data_dir: DataDir = DATA_DIR,
    as_json: Json = False,
) -> None:
    """Make a promo code and show its text, this once."""

    async def make(meter: Credits) -> Told:
        return await meter.create_code(
            amount,
            max_total=max_total,
            code=code,
            max_per_user=max_per_user,
            valid_days=valid_days,
            only=only or None,
            priority=priority,
            starts_at=None if starts_at is None else starts_at.astimezone(),
            ends_at=None if ends_at is None else ends_at.astimezone(),
            description=description,
        )

    _tell(make, actor, data_dir, as_json=as_json)


@codes.command("list")
def list_(
    cursor: Annotated[str, typer.Option(help="The next_cursor of the page before.")] = "",
    data_dir: DataDir = DATA_DIR,
    as_json: Json = False,
) -> None:
    """Show what is known of promo codes: all but their texts."""
    _tell(lambda meter: meter.codes(limit=PAGE, cursor=cursor), "", data_dir, as_json=as_json)


@codes.command()
def stop(
    code_id: Annotated[str, typer.Argument(help="The code_id, as `meter codes list` shows it.")],
    reason: Annotated[str | None, typer.Option(help="Why, for the log of changes.")] = None,
    actor: Actor = "",
    data_dir: DataDir = DATA_DIR,
    as_json: Json = False,
) -> None:
    """Take a promo code no more; what it gave stays."""
    _tell(lambda meter: meter.stop_code(code_id, reason=reason), actor, data_dir, as_json=as_json)


def _tell(ask: Callable[[Credits], Awaitable[Told]], actor: str, data_dir: Path, *, as_json: bool) -> None:
    called = Called(on(data_dir), actor, as_json=as_json, more="--cursor {cursor}")
    called.tell(lambda meter, _: ask(meter), _shown)


def _shown(answer: Any) -> str:
    return once("\n".join(map(_line, getattr(answer, "items", [answer]))), getattr(answer, "code", None))


def _line(code: ListedCode) -> str:
    ends = "" if code.ends_at is None else f" until {code.ends_at:%Y-%m-%dT%H:%M:%SZ}"
    lasting = f" for {','.join(code.only)}" if code.only else ""
    lasting += "" if code.valid_days is None else f" for {code.valid_days} days"
    named = f" ({code.description})" if code.description else ""
    return f"{code.code_id} {code.state} {code.amount} credits{lasting} {code.redeemed}/{code.max_total}{ends}{named}"
