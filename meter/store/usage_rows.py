"""The rows of the usage figures: what was used and charged, added up by path, time and what it was for."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from meter.store.row import Feature, Milliseconds, ObjectId, Row, UserId, VersionedRow

ModelName = Annotated[str, Field(max_length=128)]
CardVersion = Annotated[str, Field(max_length=160)]
Dimension = Annotated[str, Field(max_length=32)]

TAGS = ("model", "feature", "key_id", "rate_card_version")


class Counted(Row):
    """What figures are kept by; "" where a transaction does not say."""

    path: UserId
    bucket_ms: Milliseconds
    """When its bucket begins."""
    model: ModelName = ""
    feature: Feature = ""
    key_id: ObjectId = ""
    rate_card_version: CardVersion = ""
    """rate_card_id@version."""


class UsageRow(Counted):
    """How often a path was charged in a bucket, and units of charges and refunds."""

    TABLE: ClassVar[str] = "usage_figures"
    KEY = ("path", "bucket_ms", *TAGS)
    INDEXES = (("bucket_ms",),)
    SUMS = ("requests", "charged", "refunded")

    requests: int = 0
    charged: int = 0
    refunded: int = 0


class UsageQuantityRow(Counted):
    """How much of a dimension a path was charged for in a bucket."""

    TABLE: ClassVar[str] = "usage_quantities"
    KEY = ("path", "bucket_ms", *TAGS, "dimension")
    INDEXES = (("bucket_ms",),)
    SUMS = ("quantity",)

    dimension: Dimension
    quantity: int = 0


class UsageGapRow(VersionedRow):
    """Transactions of a partition that the usage figures do not have yet: those behind `after_seq` up to `until_seq`,
    from the time `from_ms` on. `version` also counts what changed of them meanwhile.
    """

    TABLE: ClassVar[str] = "usage_gaps"
    KEY = ("partition", "until_seq")

    partition: int
    until_seq: int
    after_seq: int
    from_ms: Milliseconds
