"""What a request used, as quantities by dimension: what a rate card prices."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.config import JsonDict
from pydantic_core import PydanticCustomError

from meter.contract.fields import AS_WHOLE

QUANTITY_MAX = 10**12
DIMENSIONS_MAX = 16
ALIASES_MAX = 24
DIMENSION = r"^[a-z_]{1,32}$"
MODEL = r"^[!#-+.-\[\]-~][!#-+\--\[\]-~]{0,127}$"
"""Visible ASCII without quotes, commas and backslashes, and no minus in front."""
OF_THE_LINE = frozenset({"model", "max_output", "per_request", "minimum", "free", "aliases", "above_input"})
"""No dimension is called so."""


def names_of_dimensions(others: frozenset[str], most: int) -> JsonDict:
    """What the document says of members that are dimensions, and some of `others` that a card's line has: how they are
    called, and how many there are.
    """
    taken = "|".join(sorted(OF_THE_LINE - others))
    return {"propertyNames": {"pattern": rf"^(?!(?:{taken})$)[a-z_]{{1,32}}$"}, "maxProperties": most}


_OF_A_USAGE = frozenset({"model", "aliases", "max_output"})


Model = Annotated[str, Field(pattern=MODEL)]
Quantity = Annotated[int, Field(ge=0, le=QUANTITY_MAX), AS_WHOLE]


class CommittedUsage(BaseModel):
    """What was used: quantities by dimension that do not overlap (`input`, `cache_read`, `cache_write`, `output`,
    `reasoning`, `audio_input`, `audio_output`, `images`, or names of your own). Without a `model`: that of the hold; of
    a hold, one that only the commit will tell.
    """

    model_config = ConfigDict(
        extra="allow",
        strict=True,
        frozen=True,
        protected_namespaces=(),
        json_schema_extra=names_of_dimensions(_OF_A_USAGE, DIMENSIONS_MAX + 1),
    )
    __pydantic_extra__: dict[str, Quantity]

    model: Model | None = None
    aliases: Annotated[tuple[Model, ...], Field(max_length=ALIASES_MAX, strict=False)] = ()
    """Other names of the model: where the card has no line for it, the first of them that has one counts."""
    max_output: Quantity | None = None
    """How much output there may be at most; of use in a reserve, and no part of what was used."""

    @property
    def quantities(self) -> dict[str, int]:
        """Quantities by dimension."""
        return dict(self.__pydantic_extra__ or {})

    @model_validator(mode="after")
    def _named(self) -> CommittedUsage:
        names = self.quantities
        for name in names:
            if not re.fullmatch(DIMENSION, name) or name in OF_THE_LINE:
                raise PydanticCustomError("dimension", f"{name[:40]!r} is no dimension: 1 to 32 of a-z and _")
        if len(names) > DIMENSIONS_MAX:
            raise PydanticCustomError("dimensions", f"has more than {DIMENSIONS_MAX} dimensions")
        return self


class Usage(CommittedUsage):
    """What is or may be used of a model: quantities by dimension that do not overlap. `max_output` bounds the output of
    a reserve.
    """

    model_config = ConfigDict(json_schema_extra=names_of_dimensions(_OF_A_USAGE, DIMENSIONS_MAX + 2))

    model: Model
