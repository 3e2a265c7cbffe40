"""The sweep: settles accounts that nobody touches, so that their holds and grants end in the ledger too.

Balances never wait for it (every script settles what is due first). It takes all that is due up to now, in bounded
batches, from an index that the scripts keep, so a run that was missed or killed is caught up by the next one.
"""

from __future__ import annotations

from meter import operation
from workers.context import Context

USERS_PER_CALL = 25
"""Each takes Redis some 60 to 120 µs, during which nobody else is served."""
CALLS_MAX = 10_000


async def sweep(ctx: Context) -> int:
    """Settles everything due in every partition; answers the number of transactions that made."""
    return sum([await _sweep_partition(ctx, number) for number in range(len(ctx["runtime"].engine.partitions))])


async def _sweep_partition(ctx: Context, number: int) -> int:
    engine, redis = ctx["runtime"].engine, ctx["runtime"].redis
    due_key = engine.partitions[number].due
    made = 0
    for _ in range(CALLS_MAX):
        users = await redis.due_users(due_key, await engine.now_ms(number), USERS_PER_CALL)
        if users:
            lines = await engine.run_many(number, [operation.expire(user) for user in users])
            made += sum(int(line.split(" ")[3]) for line in lines)
        if len(users) < USERS_PER_CALL:
            break
    return made
