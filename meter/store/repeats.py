"""Operation ids of a flush that the store knows already: the first use of an id keeps it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from meter.store.rows import GrantRow, OperationRow


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
