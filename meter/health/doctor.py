"""What is wrong with a deployment, and what to do about it: one row per check, judged from what was gathered before.

A check is a pure function of the evidence: it yields what it found, nothing where all is well. Nothing is repaired or
changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from meter.clock import time_text
from meter.config import Settings
from meter.health.presence import alive, serving
from meter.health.status import HALF, Facts, oldest_seconds
from meter.log import without_password

Level = Literal["ok", "warn", "fail", "skip"]

CLOCKS_APART_SECONDS = 1.0
BACKLOG_SECONDS = 10.0
MEMORY_WARN, MEMORY_FAIL = 70, 90
OLDEST_REDIS = (7, 0)
MENDED = ((7, 2, 11), (7, 4, 6), (8, 0, 4), (8, 2, 2))
"""The first releases of their lines without CVE-2025-49844 (a script that frees memory twice)."""
TOO_MUCH = (("FLUSHALL",), ("CONFIG", "GET", "save"), ("KEYS", "x"))
"""What no process of ours needs, and a leaked URL should not be able to do."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was found; what could not be asked for is None or empty."""

    settings: Settings
    facts: Facts
    version: str = ""
    infos: Sequence[Mapping[str, str]] = ()
    """What INFO says, of each server."""
    may: Sequence[str] = ()
    """Those of `TOO_MUCH` that our user may run."""
    clock_apart_seconds: float | None = None
    start_fault: str = ""
    """Why a process would not start, or a partition is not served."""
    start_reason: str = ""
    """Of that, in a word: rights, settings, ledger, schema, store."""
    schema_fault: str = ""
    remarks: Sequence[str] = ()
    """What is odd about the environment."""
    in_environment: Sequence[str] = ()
    """Variables whose values have a password in them."""


class Verdict(NamedTuple):
    """What a check found, and the remedy. `skip` where it could not look."""

    level: Level
    found: str
    remedy: str = ""


class Finding(NamedTuple):
    """The verdict of a check of a name."""

    name: str
    level: Level
    found: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Check:
    """One check. `needs_redis`: it can say nothing where Redis does not answer."""

    name: str
    judge: Callable[[Evidence], Iterator[Verdict]]
    needs_redis: bool = True
    passed: str = field(default="")


def findings_of(evidence: Evidence, only: str = "") -> list[Finding]:
    """Of each check what it found, one line or several; worst first within none: in the order of the checks."""
    found: list[Finding] = []
    for check in CHECKS:
        if only and check.name != only:
            continue
        if check.needs_redis and evidence.facts.redis_fault:
            found.append(Finding(check.name, "skip", "Redis does not answer", ""))
            continue
        verdicts = list(check.judge(evidence))
        found += [Finding(check.name, *verdict) for verdict in verdicts]
        if not verdicts:
            found.append(Finding(check.name, "ok", check.passed, ""))
    return found


def _redis(evidence: Evidence) -> Iterator[Verdict]:
    fault = evidence.facts.redis_fault
    if not fault:
        return
    if any(word in fault for word in ("NOAUTH", "WRONGPASS", "Authentication required", "invalid username-password")):
        yield Verdict("fail", "Redis wants a password, or another one.", "Put it into METER_REDIS_URL_FILE.")
    else:
        url = without_password(evidence.settings.redis_url)
        yield Verdict("fail", f"Redis at {url} does not answer: {fault}", "Start it, or set METER_REDIS_URL.")


def _version(evidence: Evidence) -> Iterator[Verdict]:
    told = [info.get("redis_version", "") for info in evidence.infos]
    if not any(told):
        yield _unasked("INFO")
        return
    for text, info in zip(told, evidence.infos, strict=True):
        version = _numbers(text)
        if "valkey_version" in info or not version:
            continue
        if version < OLDEST_REDIS:
            yield Verdict("fail", f"Redis {text} is older than 7.0.", "Update it.")
        elif not _is_mended(version):
            found = f"Redis {text} has CVE-2025-49844 unless your distribution patched it."
            yield Verdict("warn", found, "Update to 7.2.11, 7.4.6, 8.0.4 or 8.2.2.")


def _eviction(evidence: Evidence) -> Iterator[Verdict]:
    if not evidence.infos:
        yield _unasked("INFO")
    for info in evidence.infos:
        policy = info.get("maxmemory_policy", "noeviction")
        if policy != "noeviction":
            yield Verdict(
                "fail",
                f"maxmemory-policy is {policy}: Redis may delete balances.",
                "CONFIG SET maxmemory-policy noeviction, and in redis.conf.",
            )


def _persistence(evidence: Evidence) -> Iterator[Verdict]:
    if not evidence.infos:
        yield _unasked("INFO")
    for info in evidence.infos:
        if info.get("aof_enabled") == "0":
            found = "appendonly is no: a restart loses all balances not in the store."
            yield Verdict("fail", found, "CONFIG SET appendonly yes, and in redis.conf.")
        elif info.get("aof_last_write_status", "ok") != "ok":
            found = f"The last append failed: {info['aof_last_write_status']}."
            yield Verdict("fail", found, "Free disk space, then BGREWRITEAOF.")


def _memory(evidence: Evidence) -> Iterator[Verdict]:
    if not evidence.infos:
        yield _unasked("INFO")
    for info in evidence.infos:
        most, used = int(info.get("maxmemory", 0)), int(info.get("used_memory", 0))
        if not most:
            found = "maxmemory is 0: the kernel may kill Redis instead."
            yield Verdict("warn", found, "Set maxmemory below what the machine has.")
        elif (share := 100 * used / most) > MEMORY_WARN:
            remedy = "Raise maxmemory, or lower METER_OUTBOX_RETENTION_SECONDS."
            found = f"Redis uses {_mebibytes(used)} of {_mebibytes(most)}, {share:.0f} %."
            yield Verdict("fail" if share > MEMORY_FAIL else "warn", found, remedy)


def _replica(evidence: Evidence) -> Iterator[Verdict]:
    if not evidence.infos:
        yield _unasked("INFO")
    elif all(info.get("connected_slaves", "0") == "0" for info in evidence.infos):
        found = "No replica: a lost disk costs what the worker has not stored yet."
        yield Verdict("warn", found, "Give Redis a replica, and METER_WAIT_REPLICAS=1 where that is not enough.")


def _acl(evidence: Evidence) -> Iterator[Verdict]:
    fault = evidence.start_fault
    if "refuses its user" in fault:
        yield Verdict("fail", fault, "docs/redis.md has the ACL that is needed.")
    elif evidence.may:
        prefix = evidence.settings.key_prefix
        names = ", ".join(evidence.may)
        rule = f"ACL SETUSER meter on >PASSWORD ~{prefix}:* +@all -@dangerous +info"
        yield Verdict("warn", f"This user may run {names}.", f"{rule}; docs/redis.md has it command by command.")


def _clock(evidence: Evidence) -> Iterator[Verdict]:
    apart = evidence.clock_apart_seconds
    if apart is None:
        yield Verdict("skip", "Redis' time is not known")
    elif abs(apart) > CLOCKS_APART_SECONDS:
        found = f"This machine's clock is {abs(apart):.1f} s from Redis'."
        yield Verdict("warn", found, "Run chrony or timesyncd on both.")


def _worker(evidence: Evidence) -> Iterator[Verdict]:
    facts = evidence.facts
    if evidence.settings.store_url == "none":
        yield Verdict("skip", "METER_STORE_URL=none: there is nothing to store")
    elif not alive(facts.workers, facts.now_ms):
        since = f" since {time_text(facts.workers[0].seen_at_ms)[1:-1]}" if facts.workers else ""
        yield Verdict("fail", f"No worker seen{since}: nothing is stored, granted or sent.", "Start `meter worker`.")


def _backlog(evidence: Evidence) -> Iterator[Verdict]:
    facts, most = evidence.facts, evidence.settings.outbox_max
    waiting, oldest = sum(one.backlog for one in facts.partitions), oldest_seconds(facts)
    highest = max((one.backlog for one in facts.partitions), default=0)
    if evidence.settings.store_url == "none":
        yield Verdict("skip", "METER_STORE_URL=none: there is nothing to store")
        return
    is_high = bool(most) and HALF * highest >= most
    if waiting and (is_high or oldest > BACKLOG_SECONDS):
        stops = f" spending stops at {most} of a partition." if most else ""
        found = f"{waiting} transactions wait, the oldest {oldest:.0f} s."
        remedy = f"Look at the worker's log and the store;{stops or ' there is no limit.'}"
        yield Verdict("fail" if is_high else "warn", found, remedy)


def _store(evidence: Evidence) -> Iterator[Verdict]:
    settings, facts = evidence.settings, evidence.facts
    if settings.store_url == "none":
        yield Verdict("warn", "METER_STORE_URL is none: Redis is all there is.", "Name a store, or back Redis up.")
        return
    if evidence.schema_fault:
        yield Verdict("fail", evidence.schema_fault, "`meter migrate`, by this version or a newer one.")
    elif facts.store_fault and evidence.start_reason not in ("settings", "ledger"):
        until = f"METER_OUTBOX_MAX={settings.outbox_max} transactions wait" if settings.outbox_max else "Redis is full"
        why = facts.store_fault.rstrip(". ")
        found = f"The store does not answer: {why}. Adds are refused, spending goes on until {until}."
        yield Verdict("fail", found, "Start it, or set METER_STORE_URL.")
    hosts = {name.rpartition("-")[0].rpartition("-")[0] for name in _processes(evidence)}
    if settings.store_url.startswith("sqlite") and len(hosts) > 1:
        yield Verdict("warn", "SQLite with several machines.", "Use PostgreSQL.")


def _settings(evidence: Evidence) -> Iterator[Verdict]:
    if evidence.start_reason == "settings":
        yield Verdict("fail", evidence.start_fault, "Set it back.")
    for line in evidence.remarks:
        yield Verdict("warn", line if line.endswith(("?", ".")) else f"{line}.", "Correct the name, or unset it.")


def _identity(evidence: Evidence) -> Iterator[Verdict]:
    if evidence.start_reason == "ledger":
        yield Verdict("fail", evidence.start_fault, "Correct one URL; do not rebuild.")


def _bind(evidence: Evidence) -> Iterator[Verdict]:
    settings = evidence.settings
    is_open = not settings.uds and settings.host not in ("localhost", "::1") and not settings.host.startswith("127.")
    if is_open and settings.auth != "keys":
        found = f"Listens on {settings.host} without keys."
        yield Verdict("fail", found, "METER_AUTH=keys and `meter keys create`.")


def _secrets(evidence: Evidence) -> Iterator[Verdict]:
    for name in evidence.in_environment:
        yield Verdict("warn", f"A password is in {name}.", f"Use {name}_FILE, mode 0600.")


def _versions(evidence: Evidence) -> Iterator[Verdict]:
    facts = evidence.facts
    told = {one.version for one in alive(facts.workers, facts.now_ms)}
    told |= {one.version for one in serving(facts.sidecars, facts.now_ms)}
    told |= {evidence.version} if evidence.version else set()
    if len(told) > 1:
        yield Verdict("warn", f"Versions differ: {', '.join(sorted(told))}.", "Finish the upgrade.")


CHECKS: tuple[Check, ...] = (
    Check("redis", _redis, needs_redis=False, passed="Redis answers."),
    Check("version", _version, passed="Redis is recent enough."),
    Check("eviction", _eviction, passed="Redis deletes nothing by itself."),
    Check("persistence", _persistence, passed="Every write is kept on disk."),
    Check("memory", _memory, passed="Redis has room."),
    Check("replica", _replica, passed="Redis has a replica."),
    Check("acl", _acl, passed="The user may do what it needs, and no more."),
    Check("clock", _clock, passed="The clocks agree."),
    Check("worker", _worker, passed="A worker is seen."),
    Check("backlog", _backlog, passed="The store keeps up."),
    Check("store", _store, needs_redis=False, passed="The store answers."),
    Check("settings", _settings, needs_redis=False, passed="Nothing is odd about them."),
    Check("identity", _identity, passed="Redis and store belong together."),
    Check("bind", _bind, needs_redis=False, passed="Strangers are kept out."),
    Check("secrets", _secrets, needs_redis=False, passed="No password is in the environment."),
    Check("processes", _versions, passed="All are of one version."),
)

NAMES = tuple(check.name for check in CHECKS)


def _processes(evidence: Evidence) -> list[str]:
    facts = evidence.facts
    workers = [one.worker_id for one in alive(facts.workers, facts.now_ms)]
    return workers + [one.sidecar_id for one in serving(facts.sidecars, facts.now_ms)]


def _unasked(command: str) -> Verdict:
    return Verdict("skip", f"this Redis does not answer {command}")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def _is_mended(version: tuple[int, ...]) -> bool:
    same = [one for one in MENDED if one[:2] == version[:2]]
    return version >= same[0] if same else version > MENDED[-1]


def _mebibytes(amount_bytes: int) -> str:
    return f"{amount_bytes / 2**20:.0f} MiB"
