"""Operation ids of a flush that the store knows already: the first use of an id keeps it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from meter.store.rows import GrantRow, OperationRow

ALSO = "also"
"""What the operation_id of a key begins with that two partitions knew before `meter repartition` made one of them: the
first of them keeps its own, the other is found by its fingerprint, too. No caller's key has a blank.
"""


def also(operation_id: str, fingerprint: str) -> str:
    """The other name of a key."""
    return f"{ALSO} {fingerprint} {operation_id}"


def plain(operation_id: str) -> str:
    """The key by its own name."""
    return operation_id.split(" ", 2)[2] if operation_id.startswith(f"{ALSO} ") else operation_id


def own_grant(grant: GrantRow, found: Sequence[GrantRow]) -> GrantRow | None:
    """Of the grants that have the id or a name of the key of another, the one that a repeated call means."""
    other = None if grant.operation_id is None else also(grant.operation_id, grant.fingerprint or "")
    return next((row for row in found if other is not None and row.operation_id == other), found[0] if found else None)


def new_operations(
    operations: Sequence[OperationRow], stored: Mapping[str, str]
) -> tuple[list[OperationRow], list[str]]:
    """The operations to insert, and the ids that another transaction has. `stored`: transaction_id by operation_id."""
    known, new, repeated = dict(stored), [], []
    for operation in operations:
        first = known.setdefault(operation.operation_id, operation.transaction_id)
        if first != operation.transaction_id:
            repeated.append(operation.operation_id)
        elif operation.operation_id not in stored:
            new.append(operation)
    return new, repeated


def own_operations(
    grants: Sequence[GrantRow], stored: Mapping[str, tuple[str, str]]
) -> tuple[Sequence[GrantRow], list[str]]:
    """The grants, without the operation_id where another grant has it, and those ids.

    `stored`: (user_id, grant_id) by operation_id. An id that were written twice would stop the partition's flush.
    """
    owners, repeated = dict(stored), []
    for grant in grants:
        if grant.operation_id is not None:
            key = (grant.user_id, grant.grant_id)
            if owners.setdefault(grant.operation_id, key) != key:
                repeated.append(grant.operation_id)
    if not repeated:
        return grants, repeated
    kept = []
    for grant in grants:
        owner = None if grant.operation_id is None else owners[grant.operation_id]
        is_own = owner is None or owner == (grant.user_id, grant.grant_id)
        kept.append(grant if is_own else grant.model_copy(update={"operation_id": None}))
    return kept, repeated
