"""The exceptions of `meter`: broken promises only. A refusal (no credits, unknown id) is a value: `Refusal`.

MeterError
├── ConfigError            a setting is wrong; the process must not start
│   └── ForeignLedger      METER_STORE_URL and METER_REDIS_URL each have a ledger, and not the same one
├── ScriptError            a Lua program failed: a bug of ours or a foreign write into our keys
│   └── ScriptCutOff       it was refused a command on its way, after it may have written
├── InvalidAmount          an amount cannot be represented exactly
└── Unavailable            the call was not decided; it may be tried again
    ├── RedisUnavailable   Redis did not answer in time, or refuses writes
    │   ├── NotBegun       nothing of it was done, nor will be
    │   ├── NotReplicated  it was done, and fewer replicas than METER_WAIT_REPLICAS have it yet
    │   ├── Undecided      what became of it is being found out
    │   └── RedisDenied    it answers, and refuses what METER_REDIS_URL says or what its user does
    ├── PartitionRefused   the partition's data is missing, closed or of another schema
    ├── StoreUnavailable   the durable store did not answer
    │   ├── StoreUnknown   its host has no address
    │   └── StoreDenied    it answers, and refuses what METER_STORE_URL says
    └── Overloaded         the bounded queue is full
"""

from __future__ import annotations

from asyncio import Future


class MeterError(Exception):
    """Base of everything this package raises on its own account."""


class ConfigError(MeterError):
    """A setting is wrong: the message says which one, its value and what would be right."""


class ForeignLedger(ConfigError):
    """The store and Redis do not belong together: nothing is served from the one by way of the other."""


class ScriptError(MeterError):
    """A Lua program failed; the message names the file and line of `lua/`."""


class ScriptCutOff(ScriptError):
    """Redis took a right away while a program ran, and what that wrote before stays: its partition is not sound."""


class InvalidAmount(MeterError, ValueError):
    """An amount is not a decimal number in range; the message says what is accepted."""


class Unavailable(MeterError):
    """The call was not decided. `retry_after_seconds` says when another try makes sense; `word`, for log and probes,
    whether what is missing is away or refuses us.
    """

    retry_after_seconds = 1
    word = "away"

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class RedisUnavailable(Unavailable):
    """Redis did not answer within the budget. An operation without a key may or may not have been applied."""


class NotBegun(RedisUnavailable):
    """The call did not reach Redis in time: nothing of it was done, nor will be."""

    def __init__(self) -> None:
        super().__init__("redis", "Redis did not answer in time")


class NotReplicated(RedisUnavailable):
    """The call was done, but a master that dies now takes it along. The same call with the same key waits anew."""

    def __init__(self, acknowledged: int, wanted: int) -> None:
        told = (
            f"it was done, but {acknowledged} of {wanted} replicas have it yet: ask again with the same Idempotency-Key"
        )
        super().__init__("replicas", told)


class Undecided(RedisUnavailable):
    """Redis did not answer in time. `outcome` tells later what became of the call: its lines, `NotBegun`, or another
    `Unavailable` where nobody can say any more.
    """

    def __init__(self, why: str, outcome: Future[list[str] | Unavailable]) -> None:
        super().__init__("redis", why)
        self.outcome = outcome


class RedisUnknown(RedisUnavailable):
    """The host of METER_REDIS_URL has no address: a name that is wrong, or that an orchestrator has not made yet."""


class RedisDenied(RedisUnavailable):
    """Redis refuses the password, the TLS, the database or the commands of METER_REDIS_URL: waiting does not help."""

    word = "refuses"


class PartitionRefused(Unavailable):
    """Redis holds no sound data for the partition; nothing was applied and nothing is read as zero."""


class StoreUnavailable(Unavailable):
    """The store did not answer, or lost the connection: nothing of the call is known to be done."""

    def __init__(self, detail: str) -> None:
        super().__init__("store", detail)


class StoreUnknown(StoreUnavailable):
    """The host of METER_STORE_URL has no address: a name that is wrong, or that an orchestrator has not made yet."""


class StoreDenied(StoreUnavailable):
    """The store refuses the user, the password, the database or an option of its URL: waiting does not help."""

    word = "refuses"


class OtherLoop(MeterError):
    """A meter of one event loop was used in another, or a blocking one inside an event loop."""


class Overloaded(Unavailable):
    """More operations wait than `METER_QUEUE_MAX` allows; nothing was applied."""
