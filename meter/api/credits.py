"""The handlers that a gateway calls per request: no coroutine, one submit, one answer, and no rule about credits."""

from __future__ import annotations

from meter.api.services import Services, asked_of, path_id, path_user, refused_without_asking
from meter.contract.requests import (
    CommitRequest,
    DeductRequest,
    ExplainQuery,
    ExtendRequest,
    ReleaseRequest,
    ReserveRequest,
)
from meter.engine import operations
from meter.engine.operations import Operation
from meter.http.exchange import Request, Respond
from meter.http.reading import read_body, read_key, read_query
from meter.http.rendered import Answered, validation_problem


class HotHandlers:
    """The handlers that a gateway calls per request: no coroutine, one submit, one answer."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._engine = services.engine
        self._scale = services.scale
        self._render = services.renderer.render

    def deduct(self, request: Request, respond: Respond) -> None:
        """`POST /credits/deduct`"""
        body = read_body(DeductRequest, request, self._scale)
        self._on_user(body.user_id, deduct_operation(body, read_key(request)), respond)

    def reserve(self, request: Request, respond: Respond) -> None:
        """`POST /credits/reservations`"""
        body = read_body(ReserveRequest, request, self._scale)
        self._on_user(body.user_id, self.reserve_operation(body, read_key(request)), respond)

    def commit(self, request: Request, respond: Respond) -> None:
        """`POST /credits/reservations/{reservation_id}/commit`"""
        body = read_body(CommitRequest, request, self._scale)
        reservation_id = path_id(request, "reservation_id")
        self._on_reservation(reservation_id, commit_operation(reservation_id, body, read_key(request)), respond)

    def release(self, request: Request, respond: Respond) -> None:
        """`POST /credits/reservations/{reservation_id}/release`"""
        body = read_body(ReleaseRequest, request, self._scale)
        reservation_id = path_id(request, "reservation_id")
        self._on_reservation(
            reservation_id, operations.release(reservation_id, asked_of(body, read_key(request))), respond
        )

    def extend(self, request: Request, respond: Respond) -> None:
        """`POST /credits/reservations/{reservation_id}/extend`"""
        body = read_body(ExtendRequest, request, self._scale)
        reservation_id = path_id(request, "reservation_id")
        ttl_ms = None if body.ttl_seconds is None else self.ttl_ms(body.ttl_seconds)
        one = operations.extend(reservation_id, ttl_ms, body.add_amount, asked_of(body, read_key(request)))
        self._on_reservation(reservation_id, one, respond)

    def reservation(self, request: Request, respond: Respond) -> None:
        """`GET /credits/reservations/{reservation_id}`"""
        reservation_id = path_id(request, "reservation_id")
        self._on_reservation(reservation_id, operations.reservation(reservation_id), respond)

    def balance(self, request: Request, respond: Respond) -> None:
        """`GET /credits/balance/{user_id}`"""
        user_id = path_user(request)
        self._on_user(user_id, operations.balance(user_id), respond)

    def explain(self, request: Request, respond: Respond) -> None:
        """`GET /credits/explain/{user_id}`"""
        user_id, amount = path_user(request), read_query(ExplainQuery, request, self._scale).amount
        renderer = self._services.renderer
        self._engine.submit(
            user_id,
            operations.explain(user_id, amount),
            lambda line: respond(refused_without_asking(line) or renderer.explanation(str(line), amount)),
        )

    def reserve_operation(self, body: ReserveRequest, key: str, pointer: str = "") -> Operation:
        """The operation of a reserve; the id is the caller's or ours. `pointer`: where the body is in the request."""
        ttl_seconds = body.ttl_seconds or self._services.settings.reservation_ttl_seconds
        reservation_id = body.reservation_id or self._engine.new_reservation_id(body.user_id)
        return operations.reserve(
            body.user_id,
            reservation_id,
            body.amount,
            self.ttl_ms(ttl_seconds, pointer),
            chosen=body.reservation_id is not None,
            asked=asked_of(body, key),
        )

    def ttl_ms(self, ttl_seconds: float, pointer: str = "") -> int:
        """Milliseconds of a time to live. Raises `Answered` above the longest one allowed."""
        longest = self._services.settings.reservation_ttl_max_seconds
        if ttl_seconds > longest:
            raise Answered(validation_problem([(f"{pointer}/ttl_seconds", f"must not be more than {longest}")]))
        return max(1, round(ttl_seconds * 1000))

    def _on_user(self, user_id: str, one: Operation, respond: Respond) -> None:
        self._engine.submit(
            user_id, one, lambda line: respond(refused_without_asking(line) or self._render(one[0], str(line)))
        )

    def _on_reservation(self, reservation_id: str, one: Operation, respond: Respond) -> None:
        self._engine.submit_for_reservation(
            reservation_id, one, lambda line: respond(refused_without_asking(line) or self._render(one[0], str(line)))
        )


def deduct_operation(body: DeductRequest, key: str) -> Operation:
    """The operation of a deduct."""
    return operations.deduct(body.user_id, body.amount, body.shortfall, asked_of(body, key))


def commit_operation(reservation_id: str, body: CommitRequest, key: str) -> Operation:
    """The operation of a commit."""
    return operations.commit(reservation_id, body.amount, body.over, asked_of(body, key))
