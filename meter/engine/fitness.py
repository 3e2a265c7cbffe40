"""Whether a Redis may hold balances: one that evicts keys or keeps nothing on disk loses money in silence.

Asked once, before the first partition is opened, from what INFO says. A server that does not let itself be asked (some
that are rented, fakeredis) is taken as it is.
"""

from __future__ import annotations

from collections.abc import Mapping

OVERRIDE = "METER_REDIS_UNSAFE=1 takes it all the same."


def faults_of(info: Mapping[str, str]) -> list[str]:
    """What is wrong with a server, each in a sentence that names the remedy; `info` has INFO's fields as text."""
    faults = []
    policy = info.get("maxmemory_policy", "noeviction")
    if info.get("maxmemory", "0") != "0" and policy != "noeviction":
        faults.append(
            f"it may evict balances (maxmemory-policy {policy}): redis-cli CONFIG SET maxmemory-policy noeviction"
        )
    if info.get("aof_enabled", "1") == "0":
        faults.append("it loses what came after its last snapshot (appendonly no): redis-cli CONFIG SET appendonly yes")
    return faults


def is_replica(info: Mapping[str, str]) -> bool:
    """Whether the server only follows another one, and takes no writes."""
    return info.get("role") == "slave"
