"""The jobs: what time makes due, done a page at a time by whoever asks.

The worker runs each by its schedule until nothing is left, `meter jobs …` does the same by hand, and
`POST /credits/jobs/…` does one page. All follow the time that the scripts see, catch up on what was missed, and done
twice do nothing twice; any number of processes may be at one.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Self

from meter.alerts.channels import channels_of, close_channels
from meter.alerts.dispatcher import Dispatcher
from meter.alerts.notification import AsyncNotificationQueue
from meter.alerts.reminders import Place, remind_page
from meter.alerts.webhook import WebhookSender
from meter.amount import AmountScale
from meter.clock import DAY_MS
from meter.errors import StoreUnavailable
from meter.ledger.api_keys import apply_due_keys
from meter.ledger.forgetting import rotate_due
from meter.ledger.log_file import LedgerFile
from meter.ledger.pending_grants import OLD_AFTER_MS, Intake, apply_old
from meter.ledger.rate_cards import DUE, apply_due
from meter.ledger.refusals import forget_refusals
from meter.ledger.rollup import is_counting, roll_up_page
from meter.ledger.sweep import any_due, expire_page
from meter.plans.allocation import Allocation
from meter.plans.runways import warn_page
from meter.runtime import Runtime
from meter.store.base import Store
from meter.store.key_rows import ApiKeyRow
from meter.store.rows import RateCardRow
from meter.top_ups.carrying import TopUps
from meter.top_ups.provider import PaymentProvider
from meter.top_ups.providers import provider_of

SCRIPT_CALLS_PER_PAGE = 8
SUBSCRIPTIONS_PER_PAGE = 500
DELIVERY_PATIENCE_SECONDS = 5.0
"""How long a page of deliveries waits for those that are under way; a target that hangs takes longer."""
PAGES_MAX = 100_000


@dataclass(frozen=True, slots=True)
class Page:
    """How much was done, and whether more is due that can be done at once."""

    done: int
    more: bool


Job = Callable[[], Awaitable[Page]]

COUNTED = {
    "expire": "transactions",
    "allocate": "allocated",
    "pending": "applied",
    "remind": "reminded",
    "deliver": "attempted",
    "rotate": "rotated",
    "rollup": "counted",
    "runway": "warned",
    "top_up": "carried_out",
}
"""What each job counts, in its answers."""
_IN_REDIS = ("expire", "rotate")


class Jobs:
    """The jobs of one process, by name. Each raises `Unavailable`. `close` them.

    `ledger`: where the errors of grants are told besides the store.
    """

    def __init__(self, runtime: Runtime, ledger: LedgerFile | None = None) -> None:
        self._runtime = runtime
        self._ledger = ledger
        self._engine = runtime.engine
        self._sender: WebhookSender | None = None
        self._dispatcher: Dispatcher | None = None
        self._channels: dict[str, AsyncNotificationQueue] = {}
        self._provider: PaymentProvider | None = None
        self._top_ups: TopUps | None = None
        self._reminded_to: Place | None = None
        self._warned_to: str | None = None
        self.by_name: dict[str, Job] = {
            "expire": self.expire,
            "allocate": self.allocate,
            "pending": self.pending,
            "remind": self.remind,
            "deliver": self.deliver,
            "rotate": self.rotate,
            "rollup": self.rollup,
            "runway": self.runway,
            "top_up": self.top_up,
        }
        """In the order in which one makes work for the next."""
        self.set_aside: Counter[str] = Counter()
        """Rows that could not be handled and are set aside with an alarm: `subscription`, `grant`."""
        self.names = tuple(self.by_name) if runtime.store is not None else _IN_REDIS
        """Those that can be done here: without a store only what is in Redis alone."""

    async def expire(self) -> Page:
        """Ends credits and holds that are due; counts transactions. No balance waits for it."""
        made, more = await expire_page(self._engine, self._runtime.redis, SCRIPT_CALLS_PER_PAGE)
        return Page(made, more and made > 0)

    async def allocate(self) -> Page:
        """Grants every period of a subscription that has begun; counts subscriptions that moved on."""
        allocation = Allocation(self._engine, self._store(), self._runtime.settings.partitions)
        page = await allocation.page(SUBSCRIPTIONS_PER_PAGE)
        self._note("subscription", page.aside)
        return Page(page.moved, page.more)

    async def pending(self) -> Page:
        """Applies grants, rate cards and API keys that are durable and that Redis does not seem to have; counts the
        grants that it has now.
        """
        store = self._store()
        await apply_due(self._engine, store)
        await apply_due_keys(self._engine, store)
        intake = Intake(self._engine, store, self._ledger)
        applied = await apply_old(intake, store, await self._pending_until_ms())
        self._note("grant", intake.refused)
        return Page(applied, more=False)

    async def remind(self) -> Page:
        """Makes the alerts of credits that end soon; counts those that are new."""
        days, now_ms = self._runtime.settings.expiring_day_numbers, await self._engine.now_ms()
        added, self._reminded_to = await remind_page(self._store(), now_ms, days, self._reminded_to)
        return Page(added, self._reminded_to is not None)

    async def deliver(self) -> Page:
        """Makes alerts into deliveries and attempts those that are due; counts the attempts."""
        done = await self.dispatcher.deliver(DELIVERY_PATIENCE_SECONDS)
        return Page(done.attempted, done.more)

    async def rotate(self) -> Page:
        """Lets Redis forget what is older than the idempotency window; counts the partitions that had such."""
        store, keep_days = self._runtime.store, self._runtime.settings.refusals_keep_days
        if store is not None and keep_days:
            await forget_refusals(store, await self._engine.now_ms() - keep_days * DAY_MS)
        return Page(await rotate_due(self._engine, waits=store is not None), more=False)

    async def rollup(self) -> Page:
        """Counts a page of what the usage figures do not have yet; counts transactions that were looked at."""
        return Page(*await roll_up_page(self._store(), self._runtime.settings.usage_bucket_minutes))

    async def runway(self) -> Page:
        """Makes the alerts of credits that run out soon; counts those that are new."""
        days, now_ms = self._runtime.settings.runs_out_day_numbers, await self._engine.now_ms()
        added, self._warned_to = await warn_page(self._store(), now_ms, days, self._warned_to)
        return Page(added, self._warned_to is not None)

    async def top_up(self) -> Page:
        """Carries out requests for credits that are due; counts those that moved on."""
        return Page(*await self.top_ups.page())

    async def is_due(self, name: str, ahead_ms: int) -> bool:
        """Whether a job would find anything to do in so many milliseconds, by reading alone; True of one that looks for
        itself. Raises `Unavailable`.
        """
        if name == "expire":
            return await any_due(self._engine, self._runtime.redis, ahead_ms)
        if name == "allocate":
            allocation = Allocation(self._engine, self._store(), self._runtime.settings.partitions)
            return await allocation.any_due(ahead_ms)
        if name == "pending":
            due = await self._store().find(RateCardRow, {"state": DUE}, order_by="rate_card_id", limit=1)
            due_keys = await self._store().find(ApiKeyRow, {"state": DUE}, order_by="created_at_ms", limit=1)
            return bool(
                due or due_keys or await self._store().pending_grants(await self._pending_until_ms() + ahead_ms, 1)
            )
        if name == "rollup":
            return await is_counting(self._store())
        if name == "top_up":
            return await self.top_ups.is_any_due(ahead_ms)
        return True

    async def until_done(self, name: str, progress: Callable[[int], None] = lambda _: None) -> int:
        """Runs a job until nothing is due; answers how much was done, and tells how much so far."""
        job, done = self.by_name[name], 0
        for _ in range(PAGES_MAX):
            page = await job()
            done += page.done
            progress(done)
            if not page.more:
                break
        return done

    @property
    def dispatcher(self) -> Dispatcher:
        """What delivers in this process; made when it is first asked for. Raises `ConfigError`."""
        if self._dispatcher is None:
            store, settings = self._store(), self._runtime.settings
            self._channels = channels_of(settings.notify, self._runtime.redis)
            self._sender = WebhookSender(allow_private=settings.webhook_allow_private)
            scale = AmountScale(settings.decimal_places)
            self._dispatcher = Dispatcher(store, self._sender, self._channels, scale, self._engine.now_ms)
        return self._dispatcher

    @property
    def bought(self) -> Mapping[str, int]:
        """Requests for credits that this process has ended, by outcome."""
        return {} if self._top_ups is None else self._top_ups.ended

    @property
    def top_ups(self) -> TopUps:
        """What buys in this process; made when it is first asked for. Raises `ConfigError`."""
        if self._top_ups is None:
            self._provider = provider_of(self._runtime.settings)
            intake = Intake(self._engine, self._store(), self._ledger)
            scale = AmountScale(self._runtime.settings.decimal_places)
            self._top_ups = TopUps(self._engine, self._store(), intake, scale, self._provider)
        return self._top_ups

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Cuts off deliveries that are under way. What is asked for afterwards opens anew what it needs."""
        dispatcher, sender, channels = self._dispatcher, self._sender, self._channels
        self._dispatcher, self._sender, self._channels = None, None, {}
        if dispatcher is not None:
            await dispatcher.close()
        if sender is not None:
            await sender.close()
        provider, self._provider, self._top_ups = self._provider, None, None
        if provider is not None:
            await provider.close()
        await close_channels(channels.values())

    async def _pending_until_ms(self) -> int:
        """Grants that were pending before that are not just on their way. Their times are of the clock that made them,
        and a test clock may be ahead of the real one.
        """
        return max(time.time_ns() // 1_000_000, await self._engine.now_ms()) - OLD_AFTER_MS

    def _note(self, what: str, count: int) -> None:
        if count:
            self.set_aside[what] += count

    def _store(self) -> Store:
        if self._runtime.store is None:
            raise StoreUnavailable("this job needs a store; METER_STORE_URL is none")
        return self._runtime.store
