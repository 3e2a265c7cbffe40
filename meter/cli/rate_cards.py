"""`meter rate-cards …`: what models cost, by hand and from the price map that people have."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from datetime import datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from meter.cli.acting import Actor, actor_of
from meter.cli.calling import Called, on, refused
from meter.cli.deployment import DATA_DIR, DataDir, settings_of
from meter.cli.ending import complain, run
from meter.cli.measure import Json
from meter.errors import ConfigError

if TYPE_CHECKING:
    from meter.client.credits import Credits
    from meter.contract.answers import Refusal
    from meter.contract.rates import RateCard, RateCardPage, RateCardVersionPage
    from meter.migration.price_map import Mapped

    Told = RateCard | RateCardPage | RateCardVersionPage | Refusal

rate_cards = typer.Typer(no_args_is_help=True, help="Rate cards: what models cost.")

PAGE = 500
SHOWN_MAX = 20
DEFAULT = "default"
Card = Annotated[str, typer.Argument(help="The rate_card_id.")]
File = Annotated[Path, typer.Argument(help="A file of JSON.", exists=True, dir_okay=False)]
Effective = Annotated[datetime | None, typer.Option(help="From when on it prices; at once when not given.")]


@rate_cards.command("import")
def import_(
    file: File,
    card: Annotated[str, typer.Option(help="The rate_card_id.")] = DEFAULT,
    markup: Annotated[
        str, typer.Option(help="What each price is multiplied by; a credit is a dollar without it.")
    ] = "1",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Map and report, and change nothing.")] = False,
    effective_at: Effective = None,
    actor: Actor = "",
    data_dir: DataDir = DATA_DIR,
    as_json: Json = False,
) -> None:
    """Make a version of a card out of LiteLLM's price map (model_prices_and_context_window.json).

    Says what could not be mapped, and why; exit code 1 when nothing could.
    """
    settings, who = settings_of(data_dir), actor_of(actor)
    mapped = _mapped(file, markup, settings.decimal_places)

    async def put(meter: Credits) -> Told:
        return await meter.put_rate_card(card, mapped.models, effective_at=_moment(effective_at))

    async def told() -> int:
        version = None
        if mapped.models and not dry_run:
            async with on(data_dir)() as meter:
                answer: Any = await put(meter.by(who))
            if not answer:
                return refused(answer)
            version = answer.version
        _report(mapped, card, version, as_json=as_json)
        return 0 if mapped.models else 1

    run(told())


@rate_cards.command("list")
def list_(data_dir: DataDir = DATA_DIR, as_json: Json = False) -> None:
    """Show the cards that there are."""
    _tell(lambda meter: meter.rate_cards(limit=PAGE), "", data_dir, as_json=as_json)


@rate_cards.command()
def show(
    card: Card = DEFAULT,
    versions: Annotated[bool, typer.Option("--versions", help="All versions, not just the one that prices.")] = False,
    data_dir: DataDir = DATA_DIR,
    as_json: Json = False,
) -> None:
    """Show what a card costs."""

    async def read(meter: Credits) -> Told:
        return await (meter.rate_card_versions(card, limit=PAGE) if versions else meter.rate_card(card))

    _tell(read, "", data_dir, as_json=as_json)


@rate_cards.command()
def put(
    card: Card,
    file: File,
    effective_at: Effective = None,
    actor: Actor = "",
    data_dir: DataDir = DATA_DIR,
    as_json: Json = False,
) -> None:
    """Make the next version of a card from the body of a PUT: {"models": {…}, "minimum": …, "per_request": …}."""
    body = _read(file)
    known = {"models", "minimum", "per_request"}
    if not isinstance(body, dict) or not isinstance(body.get("models"), dict) or body.keys() - known:
        complain(ConfigError(f"{file}: must be an object of {', '.join(sorted(known))}"), 2)
    costs = {name: body[name] for name in ("minimum", "per_request") if name in body}

    async def ask(meter: Credits) -> Told:
        return await meter.put_rate_card(card, body["models"], effective_at=_moment(effective_at), **costs)

    _tell(ask, actor, data_dir, as_json=as_json)


@rate_cards.command()
def activate(
    card: Card,
    version: Annotated[int, typer.Argument(help="The version that is to price.")],
    effective_at: Effective = None,
    actor: Actor = "",
    data_dir: DataDir = DATA_DIR,
    as_json: Json = False,
) -> None:
    """Let a version price, an older one as well."""
    ask = lambda meter: meter.activate_rate_card(card, version, effective_at=_moment(effective_at))  # noqa: E731
    _tell(ask, actor, data_dir, as_json=as_json)


def _mapped(file: Path, markup: str, places: int) -> Mapped:
    from meter.migration.price_map import PriceMap

    try:
        times = Decimal(markup)
    except InvalidOperation:
        times = Decimal(0)
    if not times.is_finite() or times <= 0:
        raise typer.BadParameter("must be a number above 0", param_hint="--markup")
    try:
        return PriceMap(times, places).read(_read(file))
    except ValueError as error:
        complain(ConfigError(f"{file}: {error}"), 2)


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_text("utf-8"), parse_float=Decimal)
    except (OSError, ValueError, RecursionError) as error:
        complain(ConfigError(f"{file}: is no JSON: {error}"), 2)


def _moment(when: datetime | None) -> datetime | None:
    return None if when is None else when.astimezone()


def _tell(ask: Callable[[Credits], Awaitable[Told]], actor: str, data_dir: Path, *, as_json: bool) -> None:
    called = Called(on(data_dir), actor, as_json=as_json, more=f"only the first {PAGE} are shown")
    called.tell(lambda meter, _: ask(meter), lambda answer: "\n".join(map(_lines, getattr(answer, "items", [answer]))))


def _lines(one: Any) -> str:
    active = "prices" if one.active_version == one.version else f"version {one.active_version} prices"
    models = [f"  {model}: {json.dumps(line, default=str)}" for model, line in getattr(one, "models", {}).items()]
    return "\n".join([f"{one.rate_card_id} version {one.version}, {active}", *models])


def _report(mapped: Mapped, card: str, version: int | None, *, as_json: bool) -> None:
    if as_json:
        told = {
            "rate_card_id": card,
            "version": version,
            "models": len(mapped.models),
            "rounded": mapped.rounded,
            "not_mapped": mapped.not_mapped,
            "ignored": dict(mapped.ignored),
        }
        typer.echo(json.dumps(told))
        return
    made = "nothing was changed" if version is None else f"version {version} prices"
    typer.echo(f"{card}: {len(mapped.models)} models, {made}; {mapped.rounded} rates were rounded up")
    for model, why in [*mapped.not_mapped.items()][:SHOWN_MAX]:
        typer.echo(f"not mapped: {model}: {why}")
    if len(mapped.not_mapped) > SHOWN_MAX:
        typer.echo(f"not mapped: {len(mapped.not_mapped) - SHOWN_MAX} more, all with --json")
    for name, models in mapped.ignored.most_common():
        typer.echo(f"no place for {name}, of {models} models")
