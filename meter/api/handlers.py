"""Every call by its name: the one table from which the hot lane, the routes and the in-process `Meter` are served."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from meter.api.accounts import AccountHandlers
from meter.api.batch import BatchHandler
from meter.api.credits import CreditHandlers
from meter.api.frozen_clock import ClockHandlers
from meter.api.grants import GrantHandlers
from meter.api.jobs import JobHandlers
from meter.api.plans import PlanHandlers
from meter.api.reservations import ReservationHandlers
from meter.api.services import Services
from meter.api.webhooks import NotificationHandlers
from meter.http.exchange import Coroutine, Handler, Request, awaitable
from meter.http.rendered import Rendered


@dataclass(frozen=True, slots=True)
class Handlers:
    """Handlers by the name of their call. `hot` are those that take one step; `coroutines` has every call."""

    hot: Mapping[str, Handler]
    coroutines: Mapping[str, Coroutine]


def handlers_of(services: Services) -> Handlers:
    """What serves each call of meter/contract/calls.py."""
    credits_, reservations = CreditHandlers(services), ReservationHandlers(services)
    hot: dict[str, Handler] = {
        "deduct": credits_.deduct,
        "balance": credits_.balance,
        "explain": credits_.explain,
        "reserve": reservations.reserve,
        "reservation": reservations.reservation,
        "commit": reservations.commit,
        "release": reservations.release,
        "extend": reservations.extend,
    }
    one_step = {name: awaitable(handler) for name, handler in hot.items()}

    async def balance(request: Request) -> Rendered:
        return await (credits_.balance_at(request) if request.query else one_step["balance"](request))

    return Handlers(
        hot,
        {
            **one_step,
            "balance": balance,
            "add": credits_.add,
            "refund": credits_.refund,
            "history": credits_.history,
            "batch": BatchHandler(services).batch,
            "reservations": reservations.reservations,
            **_of_grants_and_accounts(services),
            **_of_plans(services),
            **_of_notifications(services),
        },
    )


def _of_grants_and_accounts(services: Services) -> Mapping[str, Coroutine]:
    grants, accounts, clock = GrantHandlers(services), AccountHandlers(services), ClockHandlers(services)
    return {
        "grants": grants.grants,
        "expiring": grants.expiring,
        "void": grants.void,
        "user": accounts.user,
        "configure": accounts.configure,
        "clock": clock.clock,
        "set_clock": clock.set_clock,
    }


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
        "allocate": plans.allocate,
        "expire": JobHandlers(services).expire,
    }


def _of_notifications(services: Services) -> Mapping[str, Coroutine]:
    notifications = NotificationHandlers(services)
    return {
        "webhooks": notifications.webhooks,
        "create_webhook": notifications.create,
        "update_webhook": notifications.update,
        "delete_webhook": notifications.delete,
        "rotate_webhook": notifications.rotate,
        "test_webhook": notifications.test,
        "notifications": notifications.log,
        "retry_notification": notifications.retry,
    }
