"""The proxy as an ASGI application: decides what is metered and refused, and has an exchange carry out the rest."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

from starlette.datastructures import State
from starlette.types import Receive, Scope, Send

from meter.charging.admission import Admitted
from meter.charging.asking import asks_background
from meter.charging.charge import Charge, Charger
from meter.charging.paths import has_controls
from meter.charging.policy import Ending
from meter.charging.priced import ChargeBy
from meter.charging.problems import refused, unavailable
from meter.charging.routes import CHARGED, OTHER, OVERRIDES, Asked
from meter.client.credits import Credits
from meter.contract.answers import Refusal
from meter.errors import Unavailable
from meter.http.bounded import Bounds
from meter.http.draining import Drain
from meter.http.rendered import Rendered, problem
from meter.http.request_id import Identified
from meter.log import logger
from meter.proxy.asking import READ_FIRST_BYTES, AskedFirst, is_small_json
from meter.proxy.counts import ProxyCounts
from meter.proxy.exchange import ProxyExchange, Route, metered_headers
from meter.proxy.headers import Forwarding, Header, wants_upgrade
from meter.proxy.injection import may_inject
from meter.proxy.large_requests import Claim, LargeRequests
from meter.proxy.options import ProxyOptions
from meter.proxy.probes import ProxyProbes
from meter.proxy.problems import answer, readable
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
        drain: Drain | None = None,
    ) -> None:
        """`stopping`: whether the server is about to take no new requests any more, which `/readyz` tells; `drain` puts
        that off.
        """
        self._drain = drain or Drain(0)
        self.state = State({"bounds": Bounds(body_seconds=None)})  # an upload may take as long as it likes
        self._options = options
        self._paths = options.paths()
        self._rules = options.rules()
        self._estimates = options.estimates()
        self._admission = options.admission()
        self._large = LargeRequests(options.request_memory_bytes, options.request_bytes_max)
        policy = options.policy()
        self._prices = policy.charge_by is not ChargeBy.AMOUNT
        self._charger = Charger(credits_, policy)
        self._owned = owned
        self.counts = ProxyCounts()
        self._probes = ProxyProbes(options, credits_, self.counts, stopping, self._charger.unread)
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
                authorization=options.authorization(),
                identity_header=options.user_id_header,
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
            stack.enter_context(self._drain.put_off())
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
        if scope["method"] == FREE_METHOD or not self._paths.cover(scope["path"]):
            self.counts.request("free")
            await ProxyExchange(self._route, scope, receive, send, None).run([])
            return
        asked = self._rules.asked(scope["method"], scope["path"])
        admitted = self._admission.admit(headers)
        if isinstance(admitted, Rendered):
            await self._refuse(admitted, headers, receive, send, asked)
            return
        is_free = asked.free and not any(name in OVERRIDES for name, _ in headers)
        known = await self._known(admitted, anew=is_free) if admitted.api_key else admitted
        if isinstance(known, Rendered):
            await self._refuse(known, headers, receive, send, asked)
            return
        admitted = known
        if is_free:
            self.counts.request("free")
            watched = self._charger.watch(admitted.user_id, asked)
            await ProxyExchange(
                self._route,
                scope,
                receive,
                send,
                watched,
                provider=asked.clients,
                key_owner=_key_owner(admitted),
            ).run([])
            return
        with self._large.claim(admitted.user_id) as claim:
            await self._serve_metered(scope, headers, admitted, asked, receive, send, claim)

    async def _serve_metered(
        self,
        scope: Scope,
        headers: list[Header],
        admitted: Admitted,
        asked: Asked,
        receive: Receive,
        send: Send,
        claim: Claim,
    ) -> None:
        injects = self._options.inject_include_usage and may_inject(scope["method"], scope["path"])
        first = AskedFirst(receive, headers)
        receive, found = first, None
        if injects or asked.provider != OTHER:
            found = await self._read(first, admitted, asked, claim)
        elif self._prices and is_small_json(headers):
            await first.read(READ_FIRST_BYTES)
        if found is None:
            found = await self._charged(admitted, asked, first.body(self._options.request_bytes_max), scope["path"])
            if isinstance(found, Charge) and not first.is_gone():
                found = self._asked(found, first, injects=injects)
        if isinstance(found, Rendered):
            first.forget()  # a client that sends on is read for a while, else it would not read the answer
            await self._refuse(found, headers, receive, send, asked)
            return
        ours = [UNMETERED] if found is None else metered_headers(found)
        self.counts.request("unmetered" if found is None else "metered")
        await ProxyExchange(
            self._route,
            scope,
            receive,
            send,
            found,
            asks_usage=first.asks_usage,
            provider=asked.provider,
            key_owner=_key_owner(admitted),
        ).run(ours)

    async def _known(self, admitted: Admitted, *, anew: bool) -> Admitted | Rendered:
        """Whose API key a request brings, or its refusal."""
        try:
            known = await self._charger.known(admitted, anew=anew)
        except Unavailable as error:
            return unavailable(error)
        return refused(known) if isinstance(known, Refusal) else known

    async def _refuse(
        self, rendered: Rendered, headers: list[Header], receive: Receive, send: Send, asked: Asked = CHARGED
    ) -> None:
        self.counts.request(str(rendered.status))
        await answer(readable(rendered, asked.clients), headers, receive, send)

    async def _read(
        self, first: AskedFirst, admitted: Admitted, asked: Asked, claim: Claim
    ) -> Charge | Rendered | None:
        """Reads the request whole; a refusal for one that is too large, or whose user has nothing to pay it with.
        Nobody else may fill our memory, and whoever has a little may not fill all of it.
        """
        await first.read(READ_FIRST_BYTES)
        options = self._options
        if not (first.is_whole() or first.is_gone()):
            refused = await self._without_credits(admitted, asked)
            if refused is None:
                stall_seconds = options.client_stall_seconds
                refused = await first.read_large(options.request_bytes_max, claim, stall_seconds)
            if refused is not None:
                return refused
        return await first.unpack(options.request_bytes_max, claim)

    async def _without_credits(self, admitted: Admitted, asked: Asked) -> Rendered | None:
        """What refuses a user who has no credits and may have no debt."""
        if await self._charger.has_credits(admitted.user_id):
            return None
        refused = await self._charged(admitted, asked, None, "")
        if isinstance(refused, Charge):
            refused.settle(Ending.CUT)
            return None
        return refused

    async def _charged(
        self, admitted: Admitted, asked: Asked, body: bytes | None, path: str
    ) -> Charge | Rendered | None:
        """A hold for the request, or its refusal; None for a request to be served unmetered."""
        estimate = self._estimates.estimate(admitted, body, path)
        try:
            charge = await self._charger.open(admitted, asked, estimate)
        except Unavailable as error:
            if self._options.fail == "closed" or admitted.api_key:  # whether a key works nobody else can say
                return unavailable(error)
            _log.warning("forwarded unmetered: user %s, estimate %s: %s", admitted.user_id, estimate.amount, error)
            return None
        return refused(charge) if isinstance(charge, Refusal) else charge

    def _asked(self, charge: Charge, first: AskedFirst, *, injects: bool) -> Charge | Rendered:
        """The charge of a request whose usage will be told; else its refusal."""
        bytes_max = self._options.request_bytes_max
        refusal = first.ask_for_usage(bytes_max) if injects else None
        if refusal is None:
            body = first.body(bytes_max)
            charge.asks_background = body is not None and b"background" in body and asks_background(body)
            return charge
        charge.settle(Ending.CUT)
        return refusal

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


def _key_owner(admitted: Admitted) -> str:
    """Whose API key a request brought; "" where it brought none."""
    return admitted.user_id if admitted.api_key else ""
