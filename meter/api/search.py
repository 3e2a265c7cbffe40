"""The calls by which support looks for something among all users."""

from __future__ import annotations

from meter.api.account_changes import changes_of
from meter.api.exports import Items, listed
from meter.api.refused import refused_json
from meter.api.services import Services
from meter.clock import milliseconds, utc_time
from meter.contract.search import FOUND_MAX, FindQuery, Found, FoundAnswer, LedgerRow, TransactionsQuery
from meter.engine.outbox import CHARGES, Kind, seq_of
from meter.http.cursors import Cursors
from meter.http.exchange import Request
from meter.http.reading import read_query
from meter.http.rendered import Answered, Rendered, answer, json_text, problem, validation_problem
from meter.ledger.across import Across, Place, Wanted
from meter.ledger.find import Finder
from meter.ledger.history import History
from meter.ledger.tail import Tail
from meter.store.rows import EventRow, TransactionRow

_PLACE = r"(-|[0-9]{1,16}/[A-Za-z0-9_.:-]{1,128})"
_BY_TIME = Cursors("transactions", _PLACE, _PLACE)
_OF_ONE = ("user_id", "reservation_id", "reference")


class SearchHandlers:
    """One coroutine per call: a request in, its answer out. Raises `Answered` or a `MeterError`."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._scale = services.scale
        self._history = History(Tail(services.engine, services.redis, services.store), services.store)

    async def find(self, request: Request) -> Rendered:
        """`GET /credits/find`"""
        query, store = read_query(FindQuery, request, self._scale), self._services.catalog("searches")
        finder = Finder(self._services.engine, self._services.redis, store, self._history)
        hits = await finder.find(query.id, FOUND_MAX)
        items = [
            Found.model_validate(
                {
                    "kind": hit.kind,
                    "id": hit.id,
                    "user_id": hit.user_id,
                    "at": None if hit.at_ms is None else utc_time(hit.at_ms),
                }
            )
            for hit in hits
        ]
        return answer(200, FoundAnswer(items=items))

    async def transactions(self, request: Request) -> Rendered:
        """`GET /credits/transactions`"""
        query = read_query(TransactionsQuery, request, self._scale)
        wanted, across = _wanted(query), Across(self._history, self._services.catalog("transactions of everybody"))
        scope = repr((wanted, query.include))

        async def page_from(cursor: str, limit: int) -> Items:
            places = [_read_place(part) for part in _BY_TIME.read(cursor, scope)] or [None, None]
            rows, behind = await across.page(wanted, places, limit, refusals=query.include is not None)
            following = None
            if behind is not None:
                following = _BY_TIME.write(*map(_place_text, [*behind, None][:2]), scope=scope)
            return Items([await self._item(row) for row in rows], following)

        return await listed("transactions", request, query, LedgerRow, page_from)

    async def transaction(self, request: Request) -> Rendered:
        """`GET /credits/transactions/{transaction_id}`"""
        across = Across(self._history, self._services.catalog("transactions of everybody"))
        row = await self._row(request.path["transaction_id"])
        chain = await across.chain(row)
        refundable = "null"
        if row.kind in CHARGES:
            refunded = sum(one.amount for one in chain if one.refund_of == row.transaction_id)
            refundable = format(self._scale.credits(row.amount - refunded), "f")
        told = ",".join([await self._item(one) for one in chain])
        text = f'{{"transaction":{await self._item(row)},"chain":[{told}],"refundable":{refundable}}}'
        return Rendered(200, text.encode())

    async def _row(self, transaction_id: str) -> TransactionRow:
        place = seq_of(transaction_id)
        row = None
        if place is not None and place[0] in self._history.partitions:
            row = await self._history.transaction(transaction_id, *place)
        if row is None:
            raise Answered(problem("transaction-not-found", "There is no transaction of that id."))
        return row

    async def _item(self, row: TransactionRow | EventRow) -> str:
        if isinstance(row, EventRow):
            return refused_json(row)
        changes = None
        if row.kind == Kind.ACCOUNT:
            changes = await changes_of(row, self._history, self._scale)
        return f'{self._services.renderer.transaction(row).removesuffix("}")},"changes":{json_text(changes)}}}'


def _wanted(query: TransactionsQuery) -> Wanted:
    named = [name for name in _OF_ONE if getattr(query, name) is not None]
    if len(named) > 1:
        raise Answered(validation_problem([(f"/{named[1]}", f"does not go with {named[0]}")]))
    name, _, value = (query.metadata or "").partition(":")
    return Wanted(
        query.user_id,
        query.reservation_id,
        query.reference,
        query.kind or (),
        query.actor,
        (name, value) if query.metadata else None,
        None if query.from_ is None else milliseconds(query.from_),
        None if query.to is None else milliseconds(query.to),
    )


def _read_place(text: str) -> Place | None:
    if text == "-":
        return None
    at_ms, _, name = text.partition("/")
    return Place(int(at_ms), name)


def _place_text(place: Place | None) -> str:
    return "-" if place is None else f"{place.at_ms}/{place.name}"
