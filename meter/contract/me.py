"""What goes over the wire about oneself."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from meter.contract.fields import Time
from meter.contract.requests import Format, Query


class MyUsageQuery(Query):
    """Sums of what one spent by UTC day, by plan, or in all (`user`); `from` inclusive, `to` exclusive."""

    by: Literal["day", "plan", "user"] = "day"
    from_: Annotated[Time | None, Field(alias="from")] = None
    to: Time | None = None
    format: Format | None = None
