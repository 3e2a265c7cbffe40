"""Every Redis key of `meter`, and which partition a user belongs to. The only place with key strings."""

from __future__ import annotations

import re
from zlib import crc32

SCHEMA = "2"

USER_ID = re.compile(r"[A-Za-z0-9_.:@/-]{1,128}")
"""user_id: never a brace, which would move the hash tag (DESIGN 4.12)."""

OBJECT_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
"""reservation_id, grant_id, transaction_id."""

TAG = re.compile(r"[A-Za-z0-9_.:@/-]{1,64}")
"""A word that says what an operation is for."""

TAG_OF_GRANT = re.compile(r"[A-Za-z0-9_.:@/-]{1,63}\*|[A-Za-z0-9_.:@/-]{1,64}")
"""What a grant may be spent on: a tag, or with a `*` all that begin so."""

TAGS_MAX = 8

OPERATION_KEY = re.compile(r"[!#-\[\]-~]{1,128}")
"""An idempotency key: visible ASCII without the two characters that JSON escapes."""

OUR_RESERVATION_ID = re.compile(r"([rq])([0-9]{1,4})(?:of([0-9]{1,4}))?_([A-Za-z0-9_-]{22})")
"""A reservation_id that we made: `r`, or `q` for the request of a gateway, its partition, of how many (once `meter
repartition` has changed that), and what nobody can guess.
"""

REQUEST_ID = OPERATION_KEY
"""The id that a gateway or a client gave a request; the ledger keeps it, so it may be what a key may be."""

ACTOR = OPERATION_KEY
"""Who asked for a change: a person or a system, in the words of whoever calls."""

# The order in which lua/prelude.lua binds them.
_NAMES = (
    "meta",
    "accounts",
    "grants",
    "order",
    "holds",
    "agenda",
    "due",
    "recent:a",
    "recent:b",
    "outbox",
    "profiles",
    "rates",
    "keys",
    "rules",
    "counters",
    "calendar",
)


class PartitionKeys:
    """The keys of one partition; all share the hash tag `{pN}`, hence one cluster slot."""

    __slots__ = (
        "accounts",
        "all",
        "api_keys",
        "calendar",
        "counters",
        "due",
        "holds",
        "meta",
        "number",
        "offers",
        "outbox",
        "prefix",
        "profiles",
        "rates",
        "recent",
        "rules",
    )

    def __init__(self, number: int, prefix: str = "meter") -> None:
        self.number = number
        self.prefix = f"{prefix}:{{p{number}}}"
        self.all = tuple(f"{self.prefix}:{name}" for name in _NAMES)
        by_name = dict(zip(_NAMES, self.all, strict=True))
        self.meta = by_name["meta"]
        self.accounts = by_name["accounts"]
        self.holds = by_name["holds"]
        self.due = by_name["due"]
        self.outbox = by_name["outbox"]
        self.offers = f"{self.prefix}:offers"
        self.profiles = by_name["profiles"]
        self.rates = by_name["rates"]
        self.api_keys = by_name["keys"]
        self.rules = by_name["rules"]
        self.counters = by_name["counters"]
        self.calendar = by_name["calendar"]
        self.recent = (by_name["recent:a"], by_name["recent:b"])


def workers_key(prefix: str) -> str:
    """Where the workers of a deployment tell of themselves."""
    return f"{prefix}:workers"


def console_key(prefix: str) -> str:
    """Where the logins of the console are."""
    return f"{prefix}:console"


def queue_prefix(prefix: str) -> str:
    """What every key of arq's begins with."""
    return f"{prefix}:arq:"


def nobodys_key(prefix: str) -> str:
    """A key that is never made: rights are asked for on it."""
    return f"{prefix}:selftest"


def schema_of(partitions: int, *, is_moved: bool) -> str:
    """What meta says of its schema. Once `meter repartition` has changed how many partitions there are, their number is
    in it: every script compares it, so that a process that knows another number decides nothing any more.
    """
    return f"{SCHEMA}/{partitions}" if is_moved else SCHEMA


def partition_of(user_id: str, partitions: int) -> int:
    """The partition of a user: a stable hash of what comes before the first `/`, so a team shares one."""
    if partitions == 1:
        return 0
    return crc32(user_id.partition("/")[0].encode("ascii")) % partitions
