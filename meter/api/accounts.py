"""The handlers that need more than one step, or that nobody calls per request."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import orjson

from meter.api.credits import HotHandlers, commit_operation, deduct_operation
from meter.api.services import Services, asked_of, path_id, path_user
from meter.clock import NEVER_MS, milliseconds
from meter.contract.requests import (
    BatchCommit,
    BatchDeduct,
    BatchOperation,
    BatchRequest,
    BatchReserve,
    ClockRequest,
    UserRequest,
    VoidRequest,
)
from meter.engine import operations
from meter.engine.operations import Asked, Operation
from meter.errors import MeterError
from meter.http.exchange import Request
from meter.http.reading import failure, read_body, read_key
from meter.http.rendered import Answered, Rendered, problem, validation_problem

_NOT_APPLIED = problem("batch-not-applied", "Another operation of the atomic batch was refused.")


class ManagementHandlers:
    """One coroutine per route: a request in, its answer out. Raises `Answered` or a `MeterError`."""

    def __init__(self, services: Services, hot: HotHandlers) -> None:
        self._engine = services.engine
        self._redis = services.redis
        self._settings = services.settings
        self._scale = services.scale
        self._renderer = services.renderer
        self._hot = hot

    async def batch(self, request: Request) -> Rendered:
        """`POST /credits/batch`: each partition's operations in order and in one batch."""
        body, key = read_body(BatchRequest, request, self._scale), read_key(request)
        if len(body.operations) > self._settings.batch_max:
            return validation_problem([("/operations", f"must not be more than {self._settings.batch_max}")])
        many = [self._operation(one, f"{key}.{n}" if key else "", n) for n, one in enumerate(body.operations)]
        places = await asyncio.gather(*map(self._place, body.operations))
        if body.atomic and len(set(places)) > 1:
            detail = "Users of one atomic batch must share a partition, and reservations must exist."
            return problem("operations-span-partitions", detail)
        results: list[Rendered] = [_NOT_APPLIED] * len(many)
        groups: dict[int, list[int]] = {}
        for n, place in enumerate(places):
            groups.setdefault(place, []).append(n)
        await asyncio.gather(
            *(self._run_group(place, numbers, many, results, body.atomic) for place, numbers in groups.items())
        )
        if all(result.status >= 500 for result in results):
            return results[0]  # nothing was decided
        done = [result for result in results if result.status < 400]
        replayed = bool(done) and all(result.replayed for result in done)
        return Rendered(200, b'{"results":[' + b",".join(map(_result, results)) + b"]}", replayed=replayed)

    async def void(self, request: Request) -> Rendered:
        """`POST /credits/grants/{user_id}/{grant_id}/void`"""
        body = read_body(VoidRequest, request, self._scale)
        user_id, grant_id = path_user(request), path_id(request, "grant_id")
        one = operations.void(user_id, grant_id, asked_of(body, read_key(request)))
        return self._renderer.render("void", await self._engine.run(user_id, one))

    async def user(self, request: Request) -> Rendered:
        """`GET /credits/users/{user_id}`"""
        user_id = path_user(request)
        return await self._user(user_id, await self._engine.run(user_id, operations.balance(user_id)))

    async def configure(self, request: Request) -> Rendered:
        """`PATCH /credits/users/{user_id}`"""
        user_id, body = path_user(request), read_body(UserRequest, request, self._scale)
        thresholds = body.low_credit_thresholds
        one = operations.configure(
            user_id,
            overdraft_limit=body.overdraft_limit,
            suspended=body.suspended,
            thresholds=None if thresholds is None else tuple(sorted(set(thresholds), reverse=True)),
            metadata="" if body.metadata is None else orjson.dumps(body.metadata).decode(),
            asked=Asked(read_key(request)),
        )
        return await self._user(user_id, await self._engine.run(user_id, one))

    async def clock(self, request: Request) -> Rendered:
        """`GET /test-clock`"""
        self._require_test_clock()
        return self._renderer.clock((await self._engine.run_many(0, (operations.clock(),)))[0])

    async def set_clock(self, request: Request) -> Rendered:
        """`PUT /test-clock`: every partition gets the same time."""
        self._require_test_clock()
        body = read_body(ClockRequest, request, self._scale)
        if (body.now is None) == (body.advance_seconds is None):
            return validation_problem([("", "name either now or advance_seconds")])
        if body.now is not None:
            to_ms = milliseconds(body.now)
        else:
            to_ms = await self._engine.now_ms() + round((body.advance_seconds or 0) * 1000)
        if to_ms >= NEVER_MS:
            return validation_problem([("/now", "must be before the year 2286")])
        lines = [
            (await self._engine.run_many(number, (operations.clock("set", to_ms),)))[0]
            for number in range(self._settings.partitions)
        ]
        return self._renderer.clock(lines[0])

    def _require_test_clock(self) -> None:
        if not self._settings.test_clock:
            raise Answered(problem("not-found", "The test clock is off; METER_TEST_CLOCK=1 turns it on."))

    async def _user(self, user_id: str, line: str) -> Rendered:
        keys = self._engine.partitions[self._engine.partition_of(user_id)]
        metadata = await self._redis.profile(keys.profiles, user_id)
        text = "null" if metadata is None else metadata.decode()
        return self._renderer.render("configure", line, f',"metadata":{text}')

    async def _place(self, one: BatchOperation) -> int:
        if isinstance(one, BatchDeduct | BatchReserve):
            return self._engine.partition_of(one.user_id)
        return await self._engine.partition_of_reservation(one.reservation_id) or 0

    def _operation(self, one: BatchOperation, key: str, n: int) -> Operation:
        if isinstance(one, BatchDeduct):
            return deduct_operation(one, key)
        if isinstance(one, BatchReserve):
            return self._hot.reserve_operation(one, key, f"/operations/{n}")
        if isinstance(one, BatchCommit):
            return commit_operation(one.reservation_id, one, key)
        return operations.release(one.reservation_id, asked_of(one, key))

    async def _run_group(
        self, place: int, numbers: list[int], many: Sequence[Operation], results: list[Rendered], atomic: bool
    ) -> None:
        """Runs one partition's share and puts its answers into `results`."""
        try:
            lines = await self._engine.run_many(place, [many[n] for n in numbers], "atomic" if atomic else "each")
        except MeterError as error:
            for n in numbers:
                results[n] = failure(error)
            return
        undone = atomic and any(line.startswith("0 ") and not line.startswith("0 ok ") for line in lines)
        for n, line in zip(numbers, lines, strict=True):
            if not (undone and line.startswith("0 ok ")):
                results[n] = self._renderer.render(many[n][0], line)


def _result(rendered: Rendered) -> bytes:
    """An answer as an item of a batch: with its status (a problem has it already)."""
    if rendered.body.startswith(b'{"type"'):
        return rendered.body
    return b'{"status":%d,' % rendered.status + rendered.body[1:]
