"""Which Redis a store is served with: a row per change in the store's deployment table, named by its time.

A rebuild on any other Redis would take the ledger away from the one that serves it now, so whoever starts one is asked.
The address is what tells one Redis from another: an empty one has nothing else to be known by.
"""

from __future__ import annotations

from datetime import UTC, datetime

from meter.errors import MeterError
from meter.redis_urls import place_of, split_hosts
from meter.store.base import Store
from meter.store.rows import DeploymentRow, WatermarkRow

PREFIX = "redis."
ROWS_READ = 50
"""The newest rows of the table by name: more than it has beside ours."""
ADDRESS_CHARS_MAX = 200


class ServedElsewhere(MeterError):
    """The store was last served with another Redis; the message names both."""


def address_of(redis_url: str) -> str:
    """Host, port and database of a Redis, or its socket: what tells it from others, without user and password."""
    place, parts = place_of(redis_url), split_hosts(redis_url)
    if place.kind != "server":
        hosts = ",".join(sorted("{}:{}".format(*address) for address in place.hosts))
        which = "cluster" if place.kind == "cluster" else f"master {place.service} of Sentinels"
        return f"{which} {hosts}"[:ADDRESS_CHARS_MAX]
    if parts.scheme == "unix":
        return f"unix:{parts.path}?{parts.query}"[:ADDRESS_CHARS_MAX]
    host = (parts.hostname or "localhost").replace("localhost", "127.0.0.1")
    return f"{host}:{parts.port or 6379}/{parts.path.strip('/') or '0'}"[:ADDRESS_CHARS_MAX]


async def claim(store: Store, redis_url: str, now_ms: int) -> None:
    """Notes that the store is served with this Redis, which has its history. Raises `StoreUnavailable`."""
    last = await _last(store)
    if last is None or last.value != address_of(redis_url):
        at_ms = now_ms if last is None else max(now_ms, _ms_of(last) + 1)  # clocks of machines differ
        await store.insert(DeploymentRow(name=f"{PREFIX}{at_ms:013}", value=address_of(redis_url)))


async def check_served_here(store: Store, redis_url: str, watermark: WatermarkRow | None) -> None:
    """Raises `ServedElsewhere` when the store was last served with a Redis at another address."""
    last, here = await _last(store), address_of(redis_url)
    if last is None or _is_same(last.value, here):
        return
    since = _time(_ms_of(last))
    flushed = "" if watermark is None else f", last flush {_time(watermark.updated_at_ms)}"
    raise ServedElsewhere(
        f"this store is served with the Redis at {last.value} (since {since}{flushed}), and this is the one at {here}: "
        f"a rebuild takes the ledger away from {last.value}"
    )


def _is_same(one: str, other: str) -> bool:
    """Whether two addresses are of one Redis. Of a cluster, and of Sentinels, any node names it."""
    (kind, _, hosts), (other_kind, _, other_hosts) = one.rpartition(" "), other.rpartition(" ")
    return kind == other_kind and not set(hosts.split(",")).isdisjoint(other_hosts.split(","))


async def _last(store: Store) -> DeploymentRow | None:
    rows = await store.find(DeploymentRow, {}, order_by="name", descending=True, limit=ROWS_READ)
    return next((row for row in rows if row.name.startswith(PREFIX)), None)


def _ms_of(row: DeploymentRow) -> int:
    return int(row.name.removeprefix(PREFIX))


def _time(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
