"""What goes over the wire about jobs: how much was done, and whether more is due that can be done at once."""

from __future__ import annotations

from meter.contract.answers import Answer


class Expired(Answer):
    """Credits and holds ended, which made that many transactions."""

    transactions: int
    more: bool


class Allocated(Answer):
    """That many subscriptions moved on."""

    allocated: int
    more: bool


class Applied(Answer):
    """Redis has that many grants now which were durable alone."""

    applied: int
    more: bool


class Reminded(Answer):
    """That many alerts of credits that end soon are new."""

    reminded: int
    more: bool


class Attempted(Answer):
    """That many deliveries were attempted; the log of deliveries says how they went."""

    attempted: int
    more: bool


class RolledUp(Answer):
    """That many transactions were looked at which the usage figures did not have."""

    counted: int
    more: bool


class Warned(Answer):
    """That many alerts of credits that run out soon are new."""

    warned: int
    more: bool


class CarriedOut(Answer):
    """That many requests to buy credits moved on."""

    carried_out: int
    more: bool


class Rotated(Answer):
    """That many partitions have let go what was older than the idempotency window."""

    rotated: int
    more: bool
