"""Every command that is sent to Redis, and the keys: what its users must be allowed, asked for at each start.

A script that meets a missing right stops where it is, and what it wrote before stays (Redis does not roll back): a
balance without its ledger entry. So nobody starts who could meet one. Asked between MULTI and DISCARD: Redis checks a
command and its keys when it is queued, and nothing is ever run.

A test compares the lists with the calls in lua/ and meter/, and with what arq is seen to send.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum

from meter.keys import nobodys_key

Arguments = tuple[str, ...]

KEY = "KEY"
"""Stands for a key in the arguments below."""


class Who(StrEnum):
    """Who sends a command."""

    SCRIPT = "the Lua programs"
    PROCESS = "sidecar and worker"
    QUEUE = "arq, in the worker"
    NODE = "sidecar and worker on a Redis Cluster"
    LED = "sidecar and worker behind Sentinels"
    WAITING = "sidecar and worker with METER_WAIT_REPLICAS"


# Each with arguments that the server takes for a whole call.
SCRIPT_COMMANDS: dict[str, Arguments] = {
    "EXISTS": (KEY,),
    "HDEL": (KEY, "f"),
    "HGET": (KEY, "f"),
    "HLEN": (KEY,),
    "HMGET": (KEY, "f"),
    "HSET": (KEY, "f", "v"),
    "TIME": (),
    "UNLINK": (KEY,),
    "XADD": (KEY, "*", "f", "v"),
    "XDEL": (KEY, "0-1"),
    "XRANGE": (KEY, "-", "+"),
    "XTRIM": (KEY, "MINID", "~", "0-1"),
    "ZADD": (KEY, "0", "m"),
    "ZRANGEBYLEX": (KEY, "-", "+"),
    "ZRANGEBYSCORE": (KEY, "-inf", "0"),
    "ZREM": (KEY, "m"),
}
PROCESS_COMMANDS: dict[str, Arguments] = {
    "DISCARD": (),
    "EVAL": ("return 0", "1", KEY),
    "EVALSHA": ("0" * 40, "1", KEY),
    "EXISTS": (KEY,),
    "HDEL": (KEY, "f"),
    "HGET": (KEY, "f"),
    "HMGET": (KEY, "f"),
    "HSCAN": (KEY, "0"),
    "HSET": (KEY, "f", "v"),
    "INFO": (),
    "MULTI": (),
    "PING": (),
    "TIME": (),
    "UNLINK": (KEY,),
    "XADD": (KEY, "*", "f", "v"),
    "XRANGE": (KEY, "-", "+"),
    "XREAD": ("COUNT", "1", "STREAMS", KEY, "0"),
    "ZRANGEBYSCORE": (KEY, "-inf", "+inf"),
}
QUEUE_COMMANDS: dict[str, Arguments] = {
    "DBSIZE": (),
    "DEL": (KEY,),
    "DISCARD": (),
    "EXEC": (),
    "EXISTS": (KEY,),
    "EXPIRE": (KEY, "1"),
    "GET": (KEY,),
    "INCRBY": (KEY, "1"),
    "INFO": (),
    "MULTI": (),
    "PSETEX": (KEY, "1", "v"),
    "SET": (KEY, "v"),
    "SETEX": (KEY, "1", "v"),
    "UNWATCH": (),
    "WATCH": (KEY,),
    "ZADD": (KEY, "0", "m"),
    "ZCARD": (KEY,),
    "ZINCRBY": (KEY, "1", "m"),
    "ZRANGEBYSCORE": (KEY, "-inf", "+inf"),
    "ZREM": (KEY, "m"),
    "ZSCORE": (KEY, "m"),
}
NODE_COMMANDS: dict[str, Arguments] = {"ASKING": (), "CLUSTER": ("SLOTS",)}
LED_COMMANDS: dict[str, Arguments] = {"ROLE": ()}
WAITING_COMMANDS: dict[str, Arguments] = {"WAIT": ("0", "1")}
COMMANDS = {
    Who.SCRIPT: SCRIPT_COMMANDS,
    Who.PROCESS: PROCESS_COMMANDS,
    Who.QUEUE: QUEUE_COMMANDS,
    Who.NODE: NODE_COMMANDS,
    Who.LED: LED_COMMANDS,
    Who.WAITING: WAITING_COMMANDS,
}

UNQUEUED = ("MULTI", "DISCARD", "EXEC", "WATCH", "UNWATCH")
"""Redis runs these between MULTI and DISCARD, so they are asked for by themselves."""


def calls(who: Iterable[Who], key: str) -> list[Arguments]:
    """One whole call of each command that can be queued, on `key`."""
    wanted = {name: arguments for one in who for name, arguments in COMMANDS[one].items()}
    return [
        (name, *(key if part == KEY else part for part in arguments))
        for name, arguments in sorted(wanted.items())
        if name not in UNQUEUED
    ]


def reaching(who: Iterable[Who], keys: Sequence[str]) -> list[Arguments]:
    """A call that writes and one that reads, for each key, which change nothing even where they are run."""
    writes, reads = ("ZREM", "ZSCORE") if Who.QUEUE in who else ("HDEL", "HGET")
    return [call for key in keys for call in ((writes, key, " "), (reads, key, " "))]


def why_denied(variable: str, refused: Sequence[str], key_prefix: str) -> str:
    """One line: the commands and the keys that a user lacks, and where the remedy is."""
    known = {name for commands in COMMANDS.values() for name in commands}
    commands = [name for name in refused if name in known]
    keys = [name for name in refused if name not in known]
    keys = [name for name in keys if name != nobodys_key(key_prefix)] or keys
    lacks = [f"the commands {', '.join(commands)}"] if commands else []
    lacks += [f"the keys {', '.join(keys[:3])} (its pattern must be ~{key_prefix}:*)"] if keys else []
    return f"{variable}: Redis refuses its user {' and '.join(lacks)}; docs/redis.md has the ACL that is needed"
