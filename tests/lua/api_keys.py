"""API keys for the tests of scripts."""

from __future__ import annotations

from collections.abc import Sequence

from meter.api_key import ApiKey, new_api_key
from meter.engine.api_keys import Terms, put_keys
from meter.engine.operations import Operation
from meter.engine.presented import Presented, PresentedOperation
from tests.partition import Partition

SPEND = ("spend", "read:self")


def put_key(
    partition: Partition,
    user_id: str = "u",
    scopes: Sequence[str] = SPEND,
    expires_at_ms: int | None = None,
    models: Sequence[str] = (),
) -> ApiKey:
    """A key that works in the partition."""
    _, key = new_api_key(user_id, is_test=True)
    terms = Terms(key.hash, user_id, scopes, expires_at_ms, models).text
    assert partition.run(put_keys([(key.key_id, 1, terms)])).status == "ok"
    return key


def by(key: ApiKey, one: Operation, scope: str = "spend") -> PresentedOperation:
    """The operation, asked for by a key."""
    return PresentedOperation.of(one, Presented(key, scope))
