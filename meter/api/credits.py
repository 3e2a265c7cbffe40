"""The calls that spend credits in one step or give them back, and those that tell what there is and was."""

from __future__ import annotations

from functools import partial

from meter.api.exports import Items, listed
from meter.api.plain_bodies import PlainDeduct
from meter.api.services import Services, asked_of, path_user, unanswered, usage_of, user_of
from meter.api.trials import Trials
from meter.clock import milliseconds
from meter.contract.answers import Transaction
from meter.contract.requests import (
    BalanceQuery,
    DeductRequest,
    ExplainQuery,
    HistoryQuery,
    RefundRequest,
    TraceQuery,
)
from meter.engine import operations, priced
from meter.engine.operations import UNKEYED, Operation
from meter.engine.outbox import CHARGES, seq_of
from meter.engine.parts import path_of
from meter.http.cursors import NUMBER, Cursors
from meter.http.exchange import Request, Respond
from meter.http.reading import read_actor, read_body, read_key, read_query
from meter.http.rendered import Answered, Rendered, problem
from meter.ledger.history import Filter, History, charged_rows
from meter.ledger.tail import Tail
from meter.store.rows import TransactionRow

NEWEST_FIRST = Cursors("history", NUMBER)
BY_TIME = Cursors("trace", NUMBER, NUMBER, NUMBER)


class CreditHandlers:
    """Handlers of the hot lane take a `Respond`: one submit, one answer. Each raises `Answered` or a `MeterError`."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._engine = services.engine
        self._store = services.store
        self._scale = services.scale
        self._renderer = services.renderer
        self._plain = services.plain_bodies
        self._trials = Trials(services)
        self._history = History(Tail(services.engine, services.redis, services.store), services.store)

    def deduct(self, request: Request, respond: Respond) -> None:
        """`POST /credits/deduct`"""
        body = self._plain.deduct(request) or read_body(DeductRequest, request, self._scale)
        key = read_key(request)
        if body.api_key is not None:
            by_key = partial(deduct_operation, body, key, request)
            self._services.ask_by_key(body.api_key, by_key, respond)
            return
        user_id = user_of(body)
        self._services.ask(user_id, deduct_operation(body, key, request, user_id), respond, request.caller)

    def balance(self, request: Request, respond: Respond) -> None:
        """`GET /credits/balance/{user_id}`"""
        user_id, render = path_user(request), self._renderer.balance
        self._engine.submit(
            user_id, operations.balance(user_id), lambda line: respond(unanswered(line) or render(str(line)))
        )

    def explain(self, request: Request, respond: Respond) -> None:
        """`GET /credits/explain/{user_id}`"""
        user_id, query = path_user(request), read_query(ExplainQuery, request, self._scale)
        amount = query.amount
        renderer = self._renderer
        self._engine.submit(
            user_id,
            operations.explain(user_id, amount, query.tags or ""),
            lambda line: respond(unanswered(line) or renderer.explanation(str(line), amount)),
        )

    async def refund(self, request: Request) -> Rendered:
        """`POST /credits/refund`"""
        body, key = read_body(RefundRequest, request, self._scale), read_key(request)
        read_actor(request)  # refused before anything is looked up
        rows = await self._charge(body.user_id, body.transaction_id)
        body = body.model_copy(update={"reference": body.reference or rows[0].reference})
        one = operations.refund_rows(
            body.user_id,
            body.transaction_id,
            body.amount,
            charges=await charged_rows(rows, self._store),
            path=rows[0].user_id,
            asked=UNKEYED if body.dry_run else asked_of(body, key, request),
        )
        if body.dry_run:
            return await self._trials.answer(body.user_id, one)
        return self._renderer.render("refund", await self._engine.run(body.user_id, one))

    async def balance_at(self, request: Request) -> Rendered:
        """`GET /credits/balance/{user_id}`, with `?at=` a time in the past."""
        user_id, query = path_user(request), read_query(BalanceQuery, request, self._scale)
        if query.at is None or milliseconds(query.at) >= await self._services.now_ms(user_id):
            return self._renderer.balance(await self._engine.run(user_id, operations.balance(user_id)))
        return self._renderer.balances_at(user_id, await self._history.at(user_id, milliseconds(query.at)))

    async def history(self, request: Request) -> Rendered:
        """`GET /credits/history/{user_id}`"""
        user_id, query = path_user(request), read_query(HistoryQuery, request, self._scale)
        await self._services.now_ms(user_id)  # refuses where Redis lost the partition: a part of a history is none

        async def page_from(cursor: str, limit: int) -> Items:
            [before] = NEWEST_FIRST.read(cursor, user_id) or [None]
            wanted = Filter(
                kinds=() if query.kind is None else (query.kind,),
                reference=query.reference,
                from_ms=None if query.from_ is None else milliseconds(query.from_),
                to_ms=None if query.to is None else milliseconds(query.to),
                before_seq=None if before is None else int(before),
            )
            rows = await self._history.page(user_id, wanted, limit)
            following = NEWEST_FIRST.write(rows[-1].seq, scope=user_id) if len(rows) == limit else None
            return Items([self._renderer.transaction(row) for row in rows], following)

        return await listed("history", request, query, Transaction, page_from)

    async def trace(self, request: Request) -> Rendered:
        """`GET /credits/history`"""
        query = read_query(TraceQuery, request, self._scale)

        async def page_from(cursor: str, limit: int) -> Items:
            found = BY_TIME.read(cursor, query.reference)
            before = (int(found[0]), int(found[1]), int(found[2])) if found else None
            rows = await self._history.traced(query.reference, before, limit)
            following = None
            if len(rows) == limit:
                last = rows[-1]
                following = BY_TIME.write(last.created_at_ms, last.seq, last.partition, scope=query.reference)
            return Items([self._renderer.transaction(row) for row in rows], following)

        return await listed("history", request, query, Transaction, page_from)

    async def _charge(self, user_id: str, transaction_id: str) -> list[TransactionRow]:
        """The ledger rows of a charge, one for each who paid, that of the path first. Raises `Answered`."""
        place = seq_of(transaction_id)
        missing = Answered(problem("transaction-not-found", "The user has no transaction of that id."))
        if place is None or (place[0] != self._engine.partition_of(user_id) and not self._engine.opening.before):
            raise missing
        row = await self._history.transaction(transaction_id, *place)
        if row is None or user_id not in (row.user_id, path_of(row.user_id, row.detail)):
            await self._services.now_ms(user_id)  # refuses where Redis lost the partition
            raise missing
        if row.kind not in CHARGES:
            raise Answered(problem("not-refundable", f"The transaction is a {row.kind}, not a charge."))
        return await self._history.all_of(row)


def deduct_operation(body: DeductRequest | PlainDeduct, key: str, request: Request, user_id: str) -> Operation:
    """The operation of a deduct."""
    asked = asked_of(body, key, request, begins=True)
    if body.amount is None:
        otherwise = body.amount_without_price if isinstance(body, DeductRequest) else None
        return priced.deduct_usage(user_id, usage_of(body), body.shortfall, asked, amount=otherwise)
    return operations.deduct(user_id, body.amount, body.shortfall, asked)
