"""Every call by its name: the one table from which routes and the in-process `Meter` are served."""

from __future__ import annotations

from collections.abc import Mapping

from meter.api.accounts import ManagementHandlers
from meter.api.credits import HotHandlers
from meter.api.grants import LedgerHandlers
from meter.api.jobs import JobHandlers
from meter.api.plans import PlanHandlers
from meter.api.services import Services
from meter.api.webhooks import NotificationHandlers
from meter.http.exchange import Coroutine, Request, awaitable
from meter.http.rendered import Rendered


def coroutines_of(services: Services, hot: HotHandlers) -> Mapping[str, Coroutine]:
    """Name of a call -> coroutine."""
    management = ManagementHandlers(services, hot)
    ledger = LedgerHandlers(services, hot)
    plans = PlanHandlers(services)
    notifications = NotificationHandlers(services)
    balance_now = awaitable(hot.balance)

    async def balance(request: Request) -> Rendered:
        return await (ledger.balance(request) if request.query else balance_now(request))

    return {
        "add": ledger.add,
        "deduct": awaitable(hot.deduct),
        "reserve": awaitable(hot.reserve),
        "reservations": ledger.reservations,
        "reservation": awaitable(hot.reservation),
        "commit": awaitable(hot.commit),
        "release": awaitable(hot.release),
        "extend": awaitable(hot.extend),
        "refund": ledger.refund,
        "batch": management.batch,
        "balance": balance,
        "history": ledger.history,
        "expiring": ledger.expiring,
        "grants": ledger.grants,
        "void": management.void,
        "explain": awaitable(hot.explain),
        "user": management.user,
        "configure": management.configure,
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
        "webhooks": notifications.webhooks,
        "create_webhook": notifications.create,
        "update_webhook": notifications.update,
        "delete_webhook": notifications.delete,
        "rotate_webhook": notifications.rotate,
        "test_webhook": notifications.test,
        "notifications": notifications.log,
        "retry_notification": notifications.retry,
        "clock": management.clock,
        "set_clock": management.set_clock,
    }
