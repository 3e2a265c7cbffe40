"""The templates of the pages, escaped throughout: what a customer is called is text and nothing else."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from meter.client.calls import wire_text
from meter.console import figures
from meter.console.rail import RAIL
from meter.console.visit import ROOT, Visit, link

if TYPE_CHECKING:
    from jinja2 import Environment


@cache
def _environment() -> Environment:
    """Made for the first page: Jinja2 costs a sidecar that shows none 30 ms of its start and 3 MB."""
    from jinja2 import Environment, PackageLoader, StrictUndefined  # noqa: PLC0415

    found = Environment(
        loader=PackageLoader("meter.console", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters["amount"] = figures.amount
    found.filters["plain"] = figures.plain
    found.filters["when"] = figures.when
    found.filters["nearly"] = figures.nearly
    found.filters["wire"] = wire_text
    found.filters["span"] = figures.duration
    found.globals["rail"] = RAIL
    found.globals["link"] = link
    found.globals["share"] = figures.share
    return found


def page(name: str, visit: Visit | None, under: str, **members: object) -> str:
    """The HTML of a page, `under` a screen of the rail; without a visit, one that anybody may see."""
    now = None if visit is None else visit.now
    here = () if visit is None else (visit.path.removeprefix(f"{ROOT}/").replace(ROOT, "overview"), under)
    return str(_environment().get_template(name).render(visit=visit, now=now, here=here, **members))
