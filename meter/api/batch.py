"""Several operations in one call."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from hashlib import blake2b

from meter.api.credits import deduct_operation
from meter.api.reservations import commit_operation, reserve_operation
from meter.api.services import Services, asked_of, user_of
from meter.contract.requests import BatchCommit, BatchDeduct, BatchOperation, BatchRequest, BatchReserve
from meter.engine import operations
from meter.engine.answers import FINGERPRINT, KEY_REUSED, NOTHING, word_of
from meter.engine.batcher import Mode
from meter.engine.operations import Operation
from meter.engine.presented import Presented, PresentedOperation
from meter.errors import MeterError
from meter.http.exchange import Request
from meter.http.reading import failure, read_body, read_key
from meter.http.rendered import Rendered, problem, validation_problem

_REUSED = problem("idempotency-key-reused", "The key was used before with another body; nothing was changed.")
_NOT_APPLIED = problem("batch-not-applied", "Another operation of the atomic batch was refused.")


_Payers = Mapping[str, tuple[str, Presented]]
"""The path of each API key, and what it is judged by."""


class BatchHandler:
    """Runs a batch: each partition's operations in order and in one script call."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._engine = services.engine
        self._settings = services.settings
        self._scale = services.scale
        self._renderer = services.renderer

    async def batch(self, request: Request) -> Rendered:
        """`POST /credits/batch`: each partition's operations in order and in one batch."""
        body, key = read_body(BatchRequest, request, self._scale), read_key(request)
        if len(body.operations) > self._settings.batch_max:
            return validation_problem([("/operations", f"must not be more than {self._settings.batch_max}")])
        payers = await self._payers(body.operations)
        many = [
            self._operation(one, payers, f"{key}.{n}" if key else "", request, n)
            for n, one in enumerate(body.operations)
        ]
        if key:
            many = _of_this_batch(body, many)
        places = await asyncio.gather(*(self._place(one, payers) for one in body.operations))
        if body.atomic and len(set(places)) > 1:
            detail = "Users of one atomic batch must share a partition, and reservations must exist."
            return problem("operations-span-partitions", detail)
        results: list[Rendered] = [_NOT_APPLIED] * len(many)
        groups: dict[int, list[int]] = {}
        for n, place in enumerate(places):
            groups.setdefault(place, []).append(n)
        mode: Mode = "atomic" if body.atomic else "keyed" if key else "each"
        await asyncio.gather(
            *(self._run_group(place, numbers, many, results, mode) for place, numbers in groups.items())
        )
        if any(result is _REUSED for result in results):
            return _REUSED
        if all(result.status >= 500 for result in results):
            return results[0]  # nothing was decided
        done = [result for result in results if result.status < 400]
        replayed = bool(done) and all(result.replayed for result in done)
        return Rendered(200, b'{"results":[' + b",".join(map(_result, results)) + b"]}", replayed=replayed)

    async def _payers(self, many: Sequence[BatchOperation]) -> _Payers:
        """Whose the API keys of a batch are, by their texts. One that nobody has is judged as the others are."""
        texts = {one.api_key for one in many if isinstance(one, BatchDeduct | BatchReserve) and one.api_key}
        keys = {text: self._services.any_key(text) for text in texts}
        owners = await asyncio.gather(*map(self._engine.owner_of, keys.values()))
        return {
            text: (owner or NOTHING, Presented(key)) for (text, key), owner in zip(keys.items(), owners, strict=True)
        }

    async def _place(self, one: BatchOperation, payers: _Payers) -> int:
        if isinstance(one, BatchDeduct | BatchReserve):
            if one.api_key is None:
                return self._engine.partition_of(user_of(one))
            return payers[one.api_key][1].key.root % len(self._engine.partitions)
        return await self._engine.partition_of_reservation(one.reservation_id) or 0

    def _operation(self, one: BatchOperation, payers: _Payers, key: str, request: Request, n: int) -> Operation:
        if isinstance(one, BatchDeduct | BatchReserve):
            if one.api_key is None:
                return self._spending(one, user_of(one), key, request, n)
            user_id, presented = payers[one.api_key]
            return PresentedOperation.of(self._spending(one, user_id, key, request, n), presented)
        if isinstance(one, BatchCommit):
            return commit_operation(one.reservation_id, one, key, request)
        return operations.release(one.reservation_id, asked_of(one, key, request))

    def _spending(self, one: BatchDeduct | BatchReserve, user_id: str, key: str, request: Request, n: int) -> Operation:
        if isinstance(one, BatchDeduct):
            return deduct_operation(one, key, request, user_id)
        return reserve_operation(self._services, one, key, request, user_id, f"/operations/{n}")

    async def _run_group(
        self, place: int, numbers: list[int], many: Sequence[Operation], results: list[Rendered], mode: Mode
    ) -> None:
        """Runs one partition's share and puts its answers into `results`."""
        try:
            lines = await self._engine.run_many(place, [many[n] for n in numbers], mode)
        except MeterError as error:
            for n in numbers:
                results[n] = failure(error)
            return
        if mode == "keyed" and all(word_of(line) == KEY_REUSED.word for line in lines):
            results[numbers[0]] = _REUSED
            return
        undone = mode == "atomic" and any(line.startswith("0 ") and not line.startswith("0 ok ") for line in lines)
        for n, line in zip(numbers, lines, strict=True):
            if not (undone and line.startswith("0 ok ")):
                results[n] = self._renderer.render(many[n][0], line)


def _of_this_batch(body: BatchRequest, many: Sequence[Operation]) -> list[Operation]:
    """The operations, each told from the one at its place in any other batch of the key: another body is refused as a
    whole, and so is a call of its own whose key happens to be that of an item. An id that a caller chose for a
    reservation stays a key of its own.
    """
    parts = (str(body.atomic), *(f"{one[0]} {one[FINGERPRINT]}" for one in many))
    whole = blake2b("\x1f".join(parts).encode(), digest_size=12).hexdigest()

    def told_apart(asked: BatchOperation, one: Operation) -> Operation:
        if isinstance(asked, BatchReserve) and asked.reservation_id:
            return one
        told = blake2b(f"{whole} {one[FINGERPRINT]}".encode(), digest_size=12).hexdigest()
        changed = (*one[:FINGERPRINT], told, *one[FINGERPRINT + 1 :])
        return PresentedOperation.of(changed, *one.presented) if isinstance(one, PresentedOperation) else changed

    return [told_apart(asked, one) for asked, one in zip(body.operations, many, strict=True)]


def _result(rendered: Rendered) -> bytes:
    """An answer as an item of a batch: with its status (a problem has it already)."""
    if rendered.body.startswith(b'{"type"'):
        return rendered.body
    return b'{"status":%d,' % rendered.status + rendered.body[1:]
