"""What goes over the wire about many users at once: who there is, who spent what, and what was refused or changed."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from meter.contract.answers import Answer
from meter.contract.fields import Credits, Json, MemberOf, ObjectId, Time, TimeZone, UserId
from meter.contract.figures import GroupBy, UsageFigures
from meter.contract.requests import Format, Query

_OF_FIGURES = frozenset({"group_by", "path", "time_zone"})
_OF_SUMS = frozenset({"by", "metadata_member", "user_id"})
MEMBER = r"^[A-Za-z0-9_-]{1,64}$"
EventKind = Literal["refusal", "change", "error", "system", "quarantine"]


AccountState = Literal["active", "suspended", "in_debt", "empty"]
UserOrder = Literal[
    "user_id",
    "available",
    "-available",
    "reserved",
    "-reserved",
    "debt",
    "-debt",
    "spent_today",
    "-spent_today",
    "last_spent_at",
    "-last_spent_at",
]


class UsersQuery(Query):
    """Which users: those whose user_id begins with `starts_with`, by the state of their accounts (active: not
    suspended, with something to spend; empty: with nothing), by a plan, by a member of their metadata. `order` with
    `-` is from the greatest down.
    """

    starts_with: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:@/-]{0,128}$")] = ""
    state: AccountState | None = None
    plan_id: ObjectId | None = None
    metadata: MemberOf | None = None
    order: UserOrder = "user_id"
    format: Format | None = None


class UsageQuery(Query):
    """Sums by user, by UTC day, by the plan that users had when it was booked, or by a member of the metadata; `from`
    inclusive, `to` exclusive. Or, with `group_by`, `path` or `time_zone`, usage figures of that path and all below it:
    then `from` and `to` are where buckets begin.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [
                {"required": ["by", "metadata_member"], "properties": {"by": {"const": "metadata"}}},
                {"properties": {"by": {"not": {"const": "metadata"}}, "metadata_member": {"type": "null"}}},
            ]
        }
    )

    by: Literal["user", "day", "plan", "metadata"] = "user"
    metadata_member: Annotated[Annotated[str, Field(pattern=MEMBER)] | None, Field(validate_default=True)] = None
    user_id: UserId | None = None
    from_: Annotated[Time | None, Field(alias="from")] = None
    to: Time | None = None
    group_by: GroupBy | None = None
    path: UserId | None = None
    time_zone: TimeZone | None = None
    format: Format | None = None

    @property
    def is_of_figures(self) -> bool:
        """Whether usage figures are asked for, and not sums of transactions."""
        return bool(self.model_fields_set & _OF_FIGURES)

    @model_validator(mode="after")
    def _is_of_one_kind(self) -> Self:
        sums = sorted(self.model_fields_set & _OF_SUMS)
        if self.is_of_figures and sums:
            figures = ", ".join(sorted(self.model_fields_set & _OF_FIGURES))
            raise PydanticCustomError("usage", f"{', '.join(sums)} does not go with {figures}")
        return self

    @field_validator("metadata_member")
    @classmethod
    def _is_named_when_asked_for(cls, value: str | None, info: ValidationInfo) -> str | None:
        if "by" in info.data and (info.data["by"] == "metadata") != (value is not None):
            raise PydanticCustomError("member", "it is named with by=metadata, and only then")
        return value


class EventsQuery(Query):
    """Which events: of a kind, about a user; `from` inclusive, `to` exclusive."""

    kind: EventKind | None = None
    user_id: UserId | None = None
    from_: Annotated[Time | None, Field(alias="from")] = None
    to: Time | None = None
    format: Format | None = None


class UserSums(BaseModel):
    """A user: the balances, and all that ever came in and went."""

    user_id: str
    credits: Credits
    balance: Credits
    reserved: Credits
    available: Credits
    debt: Credits
    restricted: Credits
    """What is free of grants that are for some things only; part of `balance`."""
    granted: Credits
    spent: Credits
    expired: Credits
    voided: Credits
    open_reservations: int
    overdraft_limit: Credits
    suspended: bool
    plan_ids: list[str]
    spent_today: Credits
    """Charges less refunds of this day, in UTC."""
    last_spent_at: datetime | None


class UserPage(Answer):
    """Users, with their balances of now. Chosen and ordered they are by what the store has, which is as of `as_of`, and
    so are plans, `spent_today` and `last_spent_at`. `is_complete`: users of the last moment are among them.
    """

    items: list[UserSums]
    next_cursor: str | None
    is_complete: bool
    as_of: datetime


class Usage(BaseModel):
    """The sums of one key: user_id, day (2030-01-31), plan_id, or value. `spent` is `charged` less `refunded`."""

    key: str
    charges: int
    charged: Credits
    refunded: Credits
    spent: Credits
    granted: Credits


class UsagePage(Answer):
    """Sums by key. By plan they are of the time that users had it; who had none then is in no sum, and who had two is
    in both. `is_complete`: what was booked up to now is in them; else the store is behind.
    """

    items: list[Usage]
    next_cursor: str | None
    is_complete: bool


class FiguresPage(Answer):
    """Usage figures by group. `is_complete`: what was booked is in them, and nothing is being counted again."""

    items: list[UsageFigures]
    next_cursor: str | None
    is_complete: bool


class UsageAnswer(Answer):
    """Sums by key, or usage figures by group, as they were asked for."""

    items: list[Usage] | list[UsageFigures]
    next_cursor: str | None
    is_complete: bool


class Event(BaseModel):
    """What was refused (`refusal`), what somebody changed of plans, subscriptions and webhooks (`change`), and what
    went wrong (`error`, `system`, `quarantine`). `detail` has who, what and why.
    """

    event_id: str
    kind: EventKind | str
    user_id: str | None
    message: str
    detail: Json
    created_at: datetime


class EventPage(Answer):
    """Events, newest first."""

    items: list[Event]
    next_cursor: str | None
