"""Every call by its name: the one table from which the hot lane, the routes and the in-process `Meter` are served."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from inspect import iscoroutinefunction
from typing import cast

from meter.amount import AmountScale
from meter.api.accounts import AccountHandlers
from meter.api.adding import AddHandlers
from meter.api.anonymisation import AnonymisationHandler
from meter.api.batch import BatchHandler
from meter.api.codes import CodeHandlers
from meter.api.credits import CreditHandlers
from meter.api.deliveries import DeliveryHandlers
from meter.api.ending import EndingHandler
from meter.api.frozen_clock import ClockHandlers
from meter.api.grants import GrantHandlers
from meter.api.jobs import JobHandlers
from meter.api.keys import KeyHandlers
from meter.api.me import MeHandlers
from meter.api.plans import PlanHandlers
from meter.api.rate_cards import RateCardHandlers
from meter.api.refused import RefusalHandlers
from meter.api.reports import ReportHandlers
from meter.api.reservations import ReservationHandlers
from meter.api.runway import RunwayHandler
from meter.api.search import SearchHandlers
from meter.api.services import Services
from meter.api.system import SystemHandlers
from meter.api.top_ups import TopUpHandlers
from meter.api.webhooks import WebhookHandlers
from meter.contract.calls import CALLS
from meter.contract.requests import NoQuery
from meter.http.exchange import Coroutine, Handler, Request, awaitable
from meter.http.reading import read_query
from meter.http.rendered import Rendered


@dataclass(frozen=True, slots=True)
class Handlers:
    """Handlers by the name of their call. `hot` are those that take one step; `coroutines` has every call."""

    hot: Mapping[str, Handler]
    coroutines: Mapping[str, Coroutine]


def handlers_of(services: Services) -> Handlers:
    """What serves each call of meter/contract/calls.py: of the nouns below, the method that has its name.

    Raises `LookupError` for a call that nothing serves.
    """
    credits_ = CreditHandlers(services)
    nouns = (
        credits_,
        AddHandlers(services),
        ReservationHandlers(services),
        GrantHandlers(services),
        AccountHandlers(services),
        AnonymisationHandler(services),
        BatchHandler(services),
        ReportHandlers(services),
        KeyHandlers(services),
        CodeHandlers(services),
        MeHandlers(services),
        RateCardHandlers(services),
        RunwayHandler(services),
        JobHandlers(services),
        WebhookHandlers(services),
        DeliveryHandlers(services),
        ClockHandlers(services),
        SearchHandlers(services),
        RefusalHandlers(services),
        EndingHandler(services),
        SystemHandlers(services),
        TopUpHandlers(services),
    )
    methods = {call.name: found for noun in nouns for call in CALLS if (found := getattr(noun, call.name, None))}
    hot = {name: cast("Handler", method) for name, method in methods.items() if not iscoroutinefunction(method)}
    one_step = {name: awaitable(handler) for name, handler in hot.items()}

    async def balance(request: Request) -> Rendered:
        return await (credits_.balance_at(request) if request.query else one_step["balance"](request))

    coroutines: dict[str, Coroutine] = {
        **{name: cast("Coroutine", method) for name, method in methods.items() if name not in hot},
        **one_step,
        "balance": balance,
        **_of_plans(services),
    }
    unserved = [call.name for call in CALLS if call.name not in coroutines]
    if unserved:
        raise LookupError(f"no method of a handler in meter/api is called {' or '.join(unserved)}")
    for call in CALLS:
        if call.query is None:
            coroutines[call.name] = _without_query(coroutines[call.name], services.scale)
    return Handlers(hot, coroutines)


def _without_query(run: Coroutine, scale: AmountScale) -> Coroutine:
    """A call that has no parameters. The hot lane takes no target with a query: its own handlers need not look."""

    async def served(request: Request) -> Rendered:
        if request.query:
            read_query(NoQuery, request, scale)
        return await run(request)

    return served


def _of_plans(services: Services) -> Mapping[str, Coroutine]:
    plans = PlanHandlers(services)
    return {
        "plans": plans.list,
        "create_plan": plans.create,
        "plan": plans.read,
        "update_plan": plans.update,
        "delete_plan": plans.delete,
        "subscriptions": plans.subscriptions,
        "subscribe": plans.subscribe,
        "upgrade": plans.upgrade,
        "unsubscribe": plans.unsubscribe,
    }
