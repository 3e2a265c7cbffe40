"""The sweep: settles accounts that nobody touches, so that their holds and grants end in the ledger too.

Balances never wait for it (every script settles what is due first). It takes what is due up to now, in bounded batches,
from an index that the scripts keep, so a run that was missed or killed is caught up by the next one.
"""

from __future__ import annotations

from meter.engine import upkeep
from meter.engine.engine import Engine
from meter.engine.redis import RedisGateway
from meter.engine.upkeep import EXPIRE

USERS_PER_CALL = 25
"""Each takes Redis some 60 to 120 µs, during which nobody else is served."""


async def expire_page(engine: Engine, redis: RedisGateway, calls_max: int) -> tuple[int, bool]:
    """`expire_due` in every partition."""
    done = [await expire_due(engine, redis, number, calls_max) for number in range(len(engine.partitions))]
    return sum(made for made, _ in done), any(more for _, more in done)


async def any_due(engine: Engine, redis: RedisGateway, ahead_ms: int) -> bool:
    """Whether anything will be due in so many milliseconds."""
    for number, keys in enumerate(engine.partitions):
        if await redis.due_users(keys.due, await engine.now_ms(number) + ahead_ms, 1):
            return True
    return False


async def expire_due(engine: Engine, redis: RedisGateway, number: int, calls_max: int) -> tuple[int, bool]:
    """Settles what is due in a partition; answers the number of transactions that made, and whether more may be due."""
    due_key, made = engine.partitions[number].due, 0
    for _ in range(calls_max):
        users = await redis.due_users(due_key, await engine.now_ms(number), USERS_PER_CALL)
        if users:
            lines = await engine.run_many(number, [upkeep.expire(user) for user in users])
            made += sum(EXPIRE.read(line).units("transactions") for line in lines)
        if len(users) < USERS_PER_CALL:
            return made, False
    return made, True
