"""`meter keys …`: API keys by hand, on the deployment itself: the first operator's key is made so."""

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
    from meter.contract.keys import IssuedKey, KeyPage, ListedKey

    Told = IssuedKey | ListedKey | KeyPage | Refusal

keys = typer.Typer(no_args_is_help=True, help="API keys of users and operators. Each text is told once.")

PAGE = 500
KeyId = Annotated[str, typer.Argument(help="The key_id, as `meter keys list` shows it.")]


@keys.command()
def create(
    user_id: Annotated[str | None, typer.Argument(help="The path that the key names; with --admin none.")] = None,
    admin: Annotated[bool, typer.Option("--admin", help="An operator's: scopes admin:read and admin:write.")] = False,
    name: Annotated[str | None, typer.Option(help="What people call it.")] = None,
    scope: Annotated[list[str] | None, typer.Option(help="A scope; all of its kind when none is given.")] = None,
    model: Annotated[list[str] | None, typer.Option(help="A model that it is for; every one when none is.")] = None,
    expires_at: Annotated[datetime | None, typer.Option(help="From when on it works no more.")] = None,
    actor: Actor = "",
    data_dir: DataDir = DATA_DIR,
    as_json: Json = False,
) -> None:
    """Make a key and show its text, this once."""
    if admin is (user_id is not None):
        raise typer.BadParameter("name a user_id, or --admin for an operator's key: one of them")
    scopes = scope or (["admin:read", "admin:write"] if admin else None)
    ends = None if expires_at is None else expires_at.astimezone()

    async def make(meter: Credits) -> Told:
        return await meter.create_key(user_id, name=name, scopes=scopes, models=model, expires_at=ends)

    _tell(make, actor, data_dir, as_json=as_json)


@keys.command("list")
def list_(
    user_id: Annotated[str | None, typer.Argument(help="Whose; everybody's when not given.")] = None,
    cursor: Annotated[str, typer.Option(help="The next_cursor of the page before.")] = "",
    data_dir: DataDir = DATA_DIR,
    as_json: Json = False,
) -> None:
    """Show what is known of keys: all but their texts."""
    _tell(lambda meter: meter.keys(user_id, limit=PAGE, cursor=cursor), "", data_dir, as_json=as_json)


@keys.command()
def rotate(
    key_id: KeyId,
    overlap: Annotated[float, typer.Option(help="Seconds for which the old one still works.")] = 0,
    actor: Actor = "",
    data_dir: DataDir = DATA_DIR,
    as_json: Json = False,
) -> None:
    """Make a new key of the same path in the place of one, and show its text, this once."""
    _tell(lambda meter: meter.rotate_key(key_id, overlap_seconds=overlap), actor, data_dir, as_json=as_json)


@keys.command()
def revoke(
    key_id: KeyId,
    reason: Annotated[str | None, typer.Option(help="Why, for the log of changes.")] = None,
    actor: Actor = "",
    data_dir: DataDir = DATA_DIR,
    as_json: Json = False,
) -> None:
    """End a key: the very next call with it is refused."""
    _tell(lambda meter: meter.revoke_key(key_id, reason=reason), actor, data_dir, as_json=as_json)


def _tell(ask: Callable[[Credits], Awaitable[Told]], actor: str, data_dir: Path, *, as_json: bool) -> None:
    called = Called(on(data_dir), actor, as_json=as_json, more="--cursor {cursor}")
    called.tell(lambda meter, _: ask(meter), _shown)


def _shown(answer: Any) -> str:
    return once("\n".join(map(_line, getattr(answer, "items", [answer]))), getattr(answer, "key", None))


def _line(key: ListedKey) -> str:
    models = "" if key.models is None else f" models {','.join(key.models)}"
    ends = "" if key.expires_at is None else f" until {key.expires_at:%Y-%m-%dT%H:%M:%SZ}"
    named = f" ({key.name})" if key.name else ""
    return f"{key.key_id} {key.state} {key.user_id or 'operator'} {','.join(key.scopes)}{models}{ends}{named}"
