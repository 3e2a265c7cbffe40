"""The proxy as an ASGI application: decides what is metered and refused, and has an exchange carry out the rest."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

from starlette.datastructures import State
from starlette.types import Receive, Scope, Send

from meter.charging.background import WatchedWork
from meter.charging.charge import Charge, Charger
from meter.charging.paths import has_controls
from meter.charging.problems import refused, unavailable
from meter.charging.routes import FREE, OVERRIDES, Asked
from meter.client.credits import Credits
from meter.contract.answers import Refusal
from meter.errors import Unavailable
from meter.http.bounded import Bounds
from meter.http.rendered import Rendered, problem
from meter.http.request_id import Identified
from meter.log import logger
from meter.proxy.counts import ProxyCounts
from meter.proxy.exchange import ProxyExchange, Route, metered_headers
from meter.proxy.headers import Forwarding, Header, wants_upgrade
from meter.proxy.options import ProxyOptions
from meter.proxy.probes import ProxyProbes
from meter.proxy.problems import answer
from meter.proxy.upstream import Upstream

FREE_METHOD = "OPTIONS"
UNMETERED: Header = (b"x-credits-metered", b"0")

_log = logger("meter.proxy")


class Proxy:
    """Serves HTTP; needs its lifespan. With `owned`, that opens and closes the meter, too."""

    def __init__(
        self,
        options: ProxyOptions,
        credits_: Credits,
        *,
        owned: AbstractAsyncContextManager[object] | None = None,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        """`stopping`: whether the server takes no new requests any more, which `/readyz` tells."""
        self.state = State({"bounds": Bounds(body_seconds=None)})  # an upload may take as long as it likes
        self._options = options
        self._paths = options.paths()
        self._rules = options.rules()
        self._admission = options.admission()
        policy = options.policy()
        self._charger = Charger(credits_, policy)
        self._owned = owned
        self.counts = ProxyCounts()
        self._probes = ProxyProbes(options, credits_, self.counts, stopping)
        dropped = [options.estimated_tokens_header]
        if not options.forward_identity:
            dropped.append(options.user_id_header)
        self._identified = Identified(self._serve)
        self._route = Route(
            options,
            Upstream(options),
            Forwarding(
                dropped=dropped,
                preserve_host=options.preserve_host,
                ours=(options.user_id_header, options.estimated_tokens_header),
            ),
            policy.usage_headers,
            self.counts,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._identified(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._live(receive, send)
        else:
            await receive()
            await send({"type": "websocket.close"})

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Everything that exchanges need; at the end, all charges are settled."""
        async with AsyncExitStack() as stack:
            if self._owned is not None:
                await stack.enter_async_context(self._owned)
            stack.push_async_callback(self._charger.close)
            await stack.enter_async_context(self._route.upstream)
            await stack.enter_async_context(self._probes.served())
            yield

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers: list[Header] = list(scope["headers"])
        if scope["method"] == "CONNECT" or wants_upgrade(headers):
            detail = "The proxy carries HTTP requests only: no upgrade, no websocket, no tunnel."
            await self._refuse(problem("not-implemented", detail), [*headers, (b"expect", b"")], receive, send)
            return
        if not scope["path"].startswith("/") or has_controls(scope["path"]):
            detail = "A path begins with a slash and holds no control characters, which servers read differently."
            await self._refuse(problem("invalid-path", detail), headers, receive, send)
            return
        charge: Charge | WatchedWork | None = None
        ours: list[Header] = []
        outcome = "free"
        if scope["method"] != FREE_METHOD and self._paths.cover(scope["path"]):
            found = await self._admitted(scope, headers)
            if isinstance(found, Rendered):
                await self._refuse(found, headers, receive, send)
                return
            charge = None if isinstance(found, Asked) else found
            if isinstance(charge, Charge):
                ours, outcome = metered_headers(charge), "metered"
            elif found is None:
                ours, outcome = [UNMETERED], "unmetered"
        self.counts.request(outcome)
        await ProxyExchange(self._route, scope, receive, send, charge).run(ours)

    async def _refuse(self, rendered: Rendered, headers: list[Header], receive: Receive, send: Send) -> None:
        self.counts.request(str(rendered.status))
        await answer(rendered, headers, receive, send)

    async def _admitted(self, scope: Scope, headers: list[Header]) -> Charge | WatchedWork | Asked | Rendered | None:
        """A hold for the request, or its refusal; None for a request to be served unmetered, `FREE` for a free one."""
        admitted = self._admission.admit(headers)
        if isinstance(admitted, Rendered):
            return admitted
        asked = self._rules.asked(scope["method"], scope["path"])
        if asked.free and not any(name in OVERRIDES for name, _ in headers):
            return self._charger.watch(admitted.user_id, asked) or FREE
        try:
            charge = await self._charger.open(admitted, asked)
        except Unavailable as error:
            if self._options.fail == "closed":
                return unavailable(error)
            _log.warning("forwarded unmetered: user %s, estimate %s: %s", admitted.user_id, admitted.estimate, error)
            return None
        return refused(charge) if isinstance(charge, Refusal) else charge

    async def _live(self, receive: Receive, send: Send) -> None:
        stage = "startup"
        await receive()
        try:
            async with self.running():
                await send({"type": "lifespan.startup.complete"})
                stage = "shutdown"
                await receive()
        except Exception as error:
            await send({"type": f"lifespan.{stage}.failed", "message": f"{type(error).__name__}: {error}"})
            raise
        await send({"type": "lifespan.shutdown.complete"})
