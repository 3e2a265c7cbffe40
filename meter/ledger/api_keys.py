"""API keys from the store to Redis: durable first, then in the partition of their path, then marked as active.

What Redis is told is how the key stands as a whole, under the number of its last change: told twice, or by two
processes at once, it is the same, and nothing brings a revoked key back. A revocation goes the other way round.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from meter.engine.answers import is_ok
from meter.engine.api_keys import Terms, change_key, put_keys
from meter.engine.engine import Engine
from meter.engine.operations import UNKEYED, Asked, Operation
from meter.store.catalog import Catalog
from meter.store.key_rows import REVOKED, ApiKeyRow

ACTIVE, DUE = "active", "due"
EVERYWHERE = -1
"""The partition of an operator's key."""
KEYS_PER_OPERATION = 100
PAGE = 500


def terms_of(row: ApiKeyRow) -> Terms:
    """What a key may do, as the scripts are told."""
    return Terms(row.hash, row.user_id or "", words_of(row.scopes), row.expires_at_ms, words_of(row.models))


def words_of(kept: object) -> list[str]:
    """A list of words, as a row keeps it."""
    return [str(word) for word in kept] if isinstance(kept, list) else []


async def apply_keys(engine: Engine, store: Catalog, changes: Sequence[tuple[ApiKeyRow, str]], asked: Asked) -> bool:
    """Lets Redis have keys of one path as they are, all in one step: (row, what changed) of each. False, and they are
    gone from the store, where there are as many accounts of nothing as there may be. Raises `Unavailable`: then the
    sweep does it again.
    """
    rows = [row for row, _ in changes]
    user_id = rows[0].user_id
    partition = EVERYWHERE if user_id is None else engine.partition_of(user_id)
    if user_id is None:
        for number in range(len(engine.partitions)):
            await engine.run_many(number, [put_keys([_kept(row) for row in rows])])
    else:
        many = [
            change_key(user_id, row.key_id, change, row.version, terms_of(row).text, asked) for row, change in changes
        ]
        if not is_ok((await engine.run_many(partition, many))[0]):
            await store.remove(rows)
            return False
    for row in rows:
        # False: it was changed meanwhile, and its own change is told by whoever made it.
        # Who made it may have known another number of partitions: `meter repartition` changes that.
        active = {"state": ACTIVE, "version": row.version + 1, "partition": partition}
        await store.swap(row.model_copy(update=active))
    return True


async def apply_due_keys(engine: Engine, store: Catalog) -> int:
    """Tells Redis of the keys that a process left half done, and answers how many there were. Raises `Unavailable`."""
    rows = await store.find(ApiKeyRow, {"state": DUE}, order_by="created_at_ms", limit=PAGE)
    for row in rows:
        await apply_keys(engine, store, [(row, "issue" if row.version == 1 else "change")], UNKEYED)
    return len(rows)


async def restore_keys(store: Catalog, partition: int) -> AsyncIterator[Operation]:
    """The operations by which an empty partition has its keys again, and those of operators."""
    for number in (partition, EVERYWHERE):
        after = None
        while page := await store.find(
            ApiKeyRow, {"partition": number}, order_by="key_id", after=after, limit=KEYS_PER_OPERATION
        ):
            yield put_keys([_kept(row) for row in page if row.state != REVOKED])
            after = (page[-1].key_id,)


def _kept(row: ApiKeyRow) -> tuple[str, int, str]:
    return row.key_id, row.version, terms_of(row).text
