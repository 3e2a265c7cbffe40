"""What goes over the wire about oneself."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from meter.contract.fields import Time, TimeZone
from meter.contract.figures import GroupBy
from meter.contract.requests import Format, Query


class MyUsageQuery(Query):
    """Sums of what one spent by UTC day, by plan, or in all (`user`); `from` inclusive, `to` exclusive. Or, with
    `group_by` or `time_zone`, usage figures of one's own path and all below it, as those of `GET /credits/usage`.
    """

    by: Literal["day", "plan", "user"] | None = None
    from_: Annotated[Time | None, Field(alias="from")] = None
    to: Time | None = None
    group_by: GroupBy | None = None
    time_zone: TimeZone | None = None
    format: Format | None = None

    @property
    def is_of_figures(self) -> bool:
        """Whether usage figures are asked for, and not sums of transactions."""
        return self.group_by is not None or self.time_zone is not None

    @model_validator(mode="after")
    def _is_of_one_kind(self) -> Self:
        if self.is_of_figures and self.by is not None:
            raise PydanticCustomError("usage", "by does not go with group_by and time_zone")
        return self
