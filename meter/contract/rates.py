"""What goes over the wire about rate cards: what models cost, what was used, and what that comes to."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from meter.contract.answers import Answer, Paid, Price, Would
from meter.contract.fields import AS_WHOLE, MARK, RATE, Amount, Credits, Time, read_units
from meter.contract.requests import Body
from meter.contract.rules import Level, Violation
from meter.contract.usage import DIMENSION, DIMENSIONS_MAX, OF_THE_LINE, QUANTITY_MAX, Model, names_of_dimensions

RATE_MAX_UNITS = 10**12
MODELS_MAX = 10_000
ACTIVATIONS_MAX = 100
"""Activations of one card that are still to come."""

Rate = Annotated[int, BeforeValidator(read_units), Field(gt=0, le=RATE_MAX_UNITS), WithJsonSchema({MARK: RATE})]
"""Units per million of a dimension. What costs nothing says `free`, so that no slip of a digit gives it away."""


_OF_A_LINE = frozenset({"free", "max_output", "aliases", "above_input"})


class AboveInput(Body):
    """Rates of the whole request when input, cache_read and cache_write together are more than `over`; a dimension that
    they do not name keeps its rate.
    """

    over: Annotated[int, Field(ge=1, le=QUANTITY_MAX), AS_WHOLE]
    rates: Annotated[
        dict[Annotated[str, Field(pattern=DIMENSION)], Rate],
        Field(min_length=1, json_schema_extra=names_of_dimensions(frozenset(), DIMENSIONS_MAX)),
    ]


class RateLineRequest(Body):
    """What a model costs: credits per million of each dimension. `free`: nothing; `max_output`: what a reserve counts
    on where the caller does not bound its output; `aliases`: other names of it.
    """

    model_config = ConfigDict(
        extra="allow", json_schema_extra=names_of_dimensions(_OF_A_LINE, DIMENSIONS_MAX + len(_OF_A_LINE))
    )
    __pydantic_extra__: dict[str, Rate]

    free: bool = False
    max_output: Annotated[int, Field(ge=1, le=QUANTITY_MAX), AS_WHOLE] | None = None
    aliases: Annotated[tuple[Model, ...], Field(max_length=100, strict=False)] = ()
    above_input: AboveInput | None = None

    @property
    def rates(self) -> dict[str, int]:
        """Units per million, by dimension."""
        return dict(self.__pydantic_extra__ or {})

    @model_validator(mode="after")
    def _sound(self) -> RateLineRequest:
        names = self.rates.keys() | (self.above_input.rates.keys() if self.above_input is not None else set())
        _check_names(names)
        if self.free and names:
            raise PydanticCustomError("free", "is free and has rates")
        return self


def _check_names(names: set[str]) -> None:
    for name in sorted(names):
        if not re.fullmatch(DIMENSION, name) or name in OF_THE_LINE:
            raise PydanticCustomError("dimension", f"{name[:40]!r} is no dimension: 1 to 32 of a-z and _")
    if len(names) > DIMENSIONS_MAX:
        raise PydanticCustomError("dimensions", f"has more than {DIMENSIONS_MAX} dimensions")


class RateCardRequest(Body):
    """A version of a rate card. `models` by name, "*" for every other model; a request costs at least `minimum`, and
    `per_request` besides what its usage costs. Active at once, or from `effective_at` on.
    """

    models: Annotated[dict[Model, RateLineRequest], Field(min_length=1, max_length=MODELS_MAX)]
    minimum: Amount = 0
    per_request: Amount = 0
    effective_at: Time | None = None

    @model_validator(mode="after")
    def _sound(self) -> RateCardRequest:
        names = set(self.models)
        for model, line in self.models.items():
            if not (line.free or line.rates or self.minimum or self.per_request):
                raise PydanticCustomError("rates", f"{model}: has no rate; what costs nothing says free: true")
            for alias in line.aliases:
                if alias in names:
                    raise PydanticCustomError("alias", f"{model}: {alias} is there twice")
                names.add(alias)
        return self


class ActivateRequest(Body):
    """Which version is to price, at once or from `effective_at` on."""

    version: Annotated[int, Field(ge=1), AS_WHOLE]
    effective_at: Time | None = None


class RateCard(Answer):
    """A version of a rate card, and which one prices now (null: none does yet). `effective_at` is when this one was
    activated last, or will be.
    """

    rate_card_id: str
    version: int
    active_version: int | None
    effective_at: datetime
    models: dict[str, dict[str, Any]]
    minimum: Credits
    per_request: Credits
    created_at: datetime


class ListedRateCard(BaseModel):
    """An item of the list of rate cards."""

    rate_card_id: str
    version: int
    """The youngest."""
    active_version: int | None
    created_at: datetime
    updated_at: datetime


class RateCardPage(Answer):
    """Rate cards by their id."""

    items: list[ListedRateCard]
    next_cursor: str | None


class RateCardVersionPage(Answer):
    """Versions of a rate card, in the order of their making."""

    items: list[RateCard]
    next_cursor: str | None


class Quote(Paid):
    """What a reserve would hold now, and what would become of it; nothing was changed. `violations` has what refuses
    it.
    """

    user_id: str
    amount: Credits
    would: Would
    violations: list[Violation]
    price: Price | None = None
    levels: list[Level] = Field(default_factory=list)
    """The account, and each level above it, that has rules, and what these stand at now."""
