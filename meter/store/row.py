"""What every row of the store is made of. Amounts are integer units, times are milliseconds since 1970 in UTC."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field

Units = Annotated[int, Field(ge=-(2**53) + 1, le=2**53 - 1)]
Milliseconds = Annotated[int, Field(ge=0)]
Millionths = Annotated[int, Field(gt=0)]
UserId = Annotated[str, Field(max_length=128)]
ObjectId = Annotated[str, Field(max_length=128)]
Reference = Annotated[str, Field(max_length=128)]
TransactionId = Annotated[str, Field(max_length=64)]
Word = Annotated[str, Field(max_length=32)]
AnswerLine = Annotated[str, Field(max_length=3000)]
Feature = Annotated[str, Field(max_length=64)]
PriceText = Annotated[str, Field(max_length=2000)]
KeyMark = Annotated[str, Field(max_length=2000)]
TermsText = Annotated[str, Field(max_length=4000)]
TagsText = Annotated[str, Field(max_length=600)]
PlanRulesText = Annotated[str, Field(max_length=4000)]
CountersText = Annotated[str, Field(max_length=100)]


class Row(BaseModel):
    """A row. `TABLE` names it, `KEY` is its primary key, `UNIQUE` and `INDEXES` are tuples of field names; so are the
    `SUMS` of a row that is added to what is there.
    """

    model_config = ConfigDict(frozen=True)

    TABLE: ClassVar[str]
    KEY: ClassVar[tuple[str, ...]]
    UNIQUE: ClassVar[tuple[tuple[str, ...], ...]] = ()
    INDEXES: ClassVar[tuple[tuple[str, ...], ...]] = ()
    SUMS: ClassVar[tuple[str, ...]] = ()


class VersionedRow(Row):
    """A row that several processes may change: each change counts `version` up by one."""

    version: int = 1
