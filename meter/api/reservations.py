"""The calls that hold credits before work starts, and settle for what was used."""

from __future__ import annotations

from decimal import Decimal
from functools import partial

from meter.api.plain_bodies import PlainCommit, PlainReserve
from meter.api.services import Services, asked_of, lists_of, path_id, usage_of, user_of
from meter.contract.requests import (
    CommitRequest,
    ExtendRequest,
    ReleaseRequest,
    ReservationsQuery,
    ReserveRequest,
)
from meter.engine import operations, priced
from meter.engine.operations import Operation
from meter.http.cursors import ID, NUMBER, Cursors
from meter.http.exchange import Request, Respond
from meter.http.reading import read_body, read_key, read_query
from meter.http.rendered import Answered, Rendered, page, problem, validation_problem
from meter.keys import OBJECT_ID

BY_END = Cursors("open reservations", r"([0-9]{13} h [A-Za-z0-9_.:-]{1,128})")  # as the script has it
BY_CREATION = Cursors("reservations", NUMBER, ID)


class ReservationHandlers:
    """Handlers of the hot lane take a `Respond`: one submit, one answer. Each raises `Answered` or a `MeterError`."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._engine = services.engine
        self._lists = lists_of(services)
        self._scale = services.scale
        self._renderer = services.renderer
        self._plain = services.plain_bodies

    def reserve(self, request: Request, respond: Respond) -> None:
        """`POST /credits/reservations`"""
        body = self._plain.reserve(request) or read_body(ReserveRequest, request, self._scale)
        key = read_key(request)
        if body.api_key is not None:
            by_key = partial(reserve_operation, self._services, body, key, request)
            self._services.ask_by_key(body.api_key, by_key, respond)
            return
        user_id = user_of(body)
        operation = reserve_operation(self._services, body, key, request, user_id)
        self._services.ask(user_id, operation, respond, request.caller)

    def commit(self, request: Request, respond: Respond) -> None:
        """`POST /credits/reservations/{reservation_id}/commit`"""
        body = self._plain.commit(request) or read_body(CommitRequest, request, self._scale)
        reservation_id = path_id(request, "reservation_id")
        operation = commit_operation(reservation_id, body, read_key(request), request)
        self._services.ask_of_reservation(reservation_id, operation, respond, request.caller)

    def release(self, request: Request, respond: Respond) -> None:
        """`POST /credits/reservations/{reservation_id}/release`"""
        body = self._plain.release(request) or read_body(ReleaseRequest, request, self._scale)
        reservation_id = path_id(request, "reservation_id")
        operation = operations.release(reservation_id, asked_of(body, read_key(request), request))
        self._services.ask_of_reservation(reservation_id, operation, respond, request.caller)

    def extend(self, request: Request, respond: Respond) -> None:
        """`POST /credits/reservations/{reservation_id}/extend`"""
        body = read_body(ExtendRequest, request, self._scale)
        reservation_id = path_id(request, "reservation_id")
        ttl_ms = None if body.ttl_seconds is None else milliseconds_to_live(self._services, body.ttl_seconds)
        operation = operations.extend(
            reservation_id, ttl_ms, body.add_amount, asked_of(body, read_key(request), request)
        )
        self._services.ask_of_reservation(reservation_id, operation, respond, request.caller)

    def reservation(self, request: Request, respond: Respond) -> None:
        """`GET /credits/reservations/{reservation_id}`"""
        reservation_id = path_id(request, "reservation_id")
        operation = operations.reservation(reservation_id)
        self._services.ask_of_reservation(reservation_id, operation, respond, request.caller)

    async def reservations(self, request: Request) -> Rendered:
        """`GET /credits/reservations`: open ones by their end, others by their making."""
        query = read_query(ReservationsQuery, request, self._scale)
        if query.state == "open":
            [position] = BY_END.read(query.cursor, query.user_id) or [""]
            operation = operations.reservations(query.user_id, position, query.limit)
            return self._renderer.reservations(await self._engine.run(query.user_id, operation), BY_END)
        if self._lists is None:
            return problem("not-implemented", "The store lists finished reservations; METER_STORE_URL is none.")
        state = None if query.state == "all" else query.state
        after = BY_CREATION.read(query.cursor, query.user_id)
        behind = (int(after[0]), after[1]) if after else None
        rows = await self._lists.reservations(query.user_id, state, behind, query.limit)
        last = rows[-1] if len(rows) == query.limit else None
        cursor = (
            None if last is None else BY_CREATION.write(last.created_at_ms, last.reservation_id, scope=query.user_id)
        )
        return page([self._renderer.stored_reservation(row) for row in rows], cursor)


def reserve_operation(
    services: Services,
    body: ReserveRequest | PlainReserve,
    key: str,
    request: Request,
    user_id: str,
    pointer: str = "",
) -> Operation:
    """The operation of a reserve; the id is the caller's or ours. `pointer`: where the body is in the request."""
    ttl_seconds = body.ttl_seconds or services.settings.reservation_ttl_seconds
    ttl_ms, chosen = milliseconds_to_live(services, ttl_seconds, pointer), body.reservation_id is not None
    reservation_id = body.reservation_id or services.engine.new_reservation_id(user_id)
    if chosen and request.caller is not None:
        reservation_id = request.caller.own(reservation_id)
        if not OBJECT_ID.fullmatch(reservation_id):
            raise Answered(
                validation_problem([(f"{pointer}/reservation_id", "is too long for a user's key to choose")])
            )
    asked = asked_of(body, key, request, begins=True)
    if body.amount is None:
        usage = usage_of(body)
        otherwise = body.amount_without_price if isinstance(body, ReserveRequest) else None
        return priced.reserve_usage(
            user_id, reservation_id, usage, ttl_ms, chosen=chosen, asked=asked, amount=otherwise
        )
    return operations.reserve(user_id, reservation_id, body.amount, ttl_ms, chosen=chosen, asked=asked)


def milliseconds_to_live(services: Services, ttl_seconds: int | Decimal, pointer: str = "") -> int:
    """Milliseconds of a time to live. Raises `Answered` above the longest one allowed."""
    longest = services.settings.reservation_ttl_max_seconds
    if ttl_seconds > longest:
        raise Answered(validation_problem([(f"{pointer}/ttl_seconds", f"must not be more than {longest}")]))
    return max(1, round(ttl_seconds * 1000))


def commit_operation(reservation_id: str, body: CommitRequest | PlainCommit, key: str, request: Request) -> Operation:
    """The operation of a commit."""
    if body.usage is not None:
        asked = asked_of(body, key, request)
        return priced.commit_usage(reservation_id, usage_of(body), body.over, asked, shortfall=body.shortfall)
    return operations.commit(
        reservation_id, body.amount, body.over, asked_of(body, key, request), shortfall=body.shortfall
    )
