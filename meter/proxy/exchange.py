"""One request through the proxy: out to the upstream, its response back, and the charge settled at the end."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from starlette.types import Receive, Scope, Send

from meter.charging.amounts import header_value
from meter.charging.background import WatchedWork
from meter.charging.charge import Charge
from meter.charging.policy import Ending
from meter.charging.problems import standing
from meter.charging.routes import OTHER
from meter.charging.verdicts import Settled
from meter.contract.answers import Deducted
from meter.http.rendered import problem
from meter.log import logger
from meter.proxy.body import RequestBody
from meter.proxy.client import Client, ClientGone
from meter.proxy.connection import UpstreamConnection
from meter.proxy.counts import ProxyCounts
from meter.proxy.headers import RESERVATION_ID, Forwarding, Header, content_length, downstream, value_of
from meter.proxy.injection import UsageChunkFilter
from meter.proxy.options import ProxyOptions
from meter.proxy.problems import answer, readable
from meter.proxy.upstream import Upstream, UpstreamError, is_timeout

_log = logger("meter.proxy")


@dataclass(frozen=True, slots=True)
class Route:
    """What every exchange of a proxy shares."""

    options: ProxyOptions
    upstream: Upstream
    forwarding: Forwarding
    usage_headers: tuple[bytes, ...]
    counts: ProxyCounts


class ProxyExchange:
    """`charge` is None for a request that is not metered; `asks_usage`: it asks for usage that its client did not."""

    def __init__(
        self,
        route: Route,
        scope: Scope,
        receive: Receive,
        send: Send,
        charge: Charge | WatchedWork | None,
        *,
        asks_usage: bool = False,
        provider: str = OTHER,
        key_owner: str = "",
    ) -> None:
        """`key_owner`: whose API key the client brought, which was looked up; "" where it brought none."""
        self._route = route
        self._key_owner = key_owner
        self._scope = scope
        self._headers: list[Header] = list(scope["headers"])
        self._receive = receive
        self._send = send
        self._client = Client(receive, send, stall_seconds=route.options.client_stall_seconds)
        self._charge = charge
        self._provider = provider
        self._filter = UsageChunkFilter() if asks_usage else None
        self._leash = asyncio.timeout(None)

    async def run(self, ours: list[Header]) -> None:
        """Carries the exchange out and settles its charge, however it ends."""
        ending = Ending.CUT
        try:
            async with self._leash:
                self._client.watch(self._client_left)
                ending = await self._carry(ours)
        except TimeoutError:
            if not self._leash.expired():
                raise
            ending = self._left_ending()
        finally:
            self._client.unwatch()
            if self._charge is not None:
                settled, counts = self._charge.settle(ending), self._route.counts
                if isinstance(self._charge, Charge):
                    counts.ended(ending)
                if settled is not None:
                    settled.add_done_callback(lambda task: counts.settled(_outcome_of(task)))

    async def _carry(self, ours: list[Header]) -> Ending:
        try:
            response = await self._request()
        except ClientGone:
            return Ending.CUT
        except UpstreamError as error:
            await self._fail(error)
            return Ending.CUT
        try:
            return await self._relay(response, ours)
        finally:
            response.close()

    async def _request(self) -> UpstreamConnection:
        """Sends the request on. Raises `ClientGone`, or one of `UpstreamError`."""
        scope, metered = self._scope, self._charge is not None
        peer = scope.get("client")
        headers = self._route.forwarding.upstream(
            self._headers,
            client=peer[0] if peer else None,
            scheme=scope["scheme"],
            metered=metered,
            key_owner=self._key_owner,
        )
        first = await self._client.read()
        body: bytes | RequestBody = first if self._client.requested else RequestBody(self._client, [first])
        if self._filter is not None:  # the request is not as its client wrote it, and its response is looked into
            headers = [header for header in headers if header[0] not in (b"accept-encoding", b"content-encoding")]
            headers.append((b"accept-encoding", b"identity"))
        length = content_length(self._headers)
        return await self._route.upstream.request(scope["method"], _target(scope), headers, body, length)

    async def _relay(self, response: UpstreamConnection, ours: list[Header]) -> Ending:
        """Streams the response to the client. An upstream that breaks off leaves the client's response broken, too:
        the server closes its connection, because no last piece was sent.
        """
        headers = response.headers
        if self._charge is not None:
            self._charge.respond(response.status, headers)
        consumed = self._route.usage_headers if self._charge is not None else ()
        if self._filter is not None:
            if _is_plain_event_stream(headers):
                consumed = (*consumed, b"content-length")
            else:
                self._filter = None
        await self._client.start(response.status, downstream(headers, response.status, ours, consumed))
        drained = 0
        while True:
            try:
                chunk = await response.read()
            except UpstreamError as error:
                if self._client.gone and not self._client.requested:
                    return Ending.GONE  # the client broke off its upload, and that our connection
                _log.warning("the upstream broke off", why=f"{type(error).__name__}: {error}")
                return self._left_ending() if self._client.missed else Ending.CUT
            if self._client.gone:
                drained += len(chunk)
                if drained > self._route.options.drain_bytes_max:
                    return self._left_ending()
            is_last = response.was_read
            if is_last and response.trailers and self._charge is not None:
                self._charge.trail(response.trailers)
            await self._pass_on(chunk, is_last=is_last)
            if is_last:
                break
        # Who left behind the last byte has left nothing; who left before it pays as one who left, drained or not.
        return self._left_ending() if self._client.missed else Ending.CLEAN

    async def _pass_on(self, chunk: bytes, *, is_last: bool) -> None:
        if self._charge is not None and chunk:
            self._charge.see(chunk)
        if self._filter is not None:
            chunk = self._filter.feed(chunk) + (self._filter.finish() if is_last else b"")
        if chunk or is_last:
            await self._client.send(chunk, more=not is_last)

    async def _fail(self, error: BaseException) -> None:
        if self._client.gone:
            return
        slug = "upstream-timeout" if is_timeout(error) else "upstream-unreachable"
        self._route.counts.upstream_faults[slug,] += 1
        _log.warning("the upstream did not answer", problem=slug, why=f"{type(error).__name__}: {error}")
        headers = [] if self._client.requested else self._headers
        detail = f"The upstream did not answer: {type(error).__name__}."
        await answer(readable(problem(slug, detail), self._provider), headers, self._receive, self._send)

    def _client_left(self) -> None:
        """Gives the exchange the time that is left for it: none, unless the upstream works on a whole request."""
        options = self._route.options
        drains = options.disconnect == "drain" and self._charge is not None and self._client.requested
        now = asyncio.get_running_loop().time()
        self._leash.reschedule(now + options.drain_seconds if drains else now)

    def _left_ending(self) -> Ending:
        """A client that broke off its own request is charged only for what it got."""
        return Ending.GONE if self._client.requested or self._client.started else Ending.CUT


def _outcome_of(settlement: asyncio.Task[Settled | Deducted | None]) -> Settled | Deducted | None:
    return None if settlement.cancelled() else settlement.result()


def metered_headers(charge: Charge) -> list[Header]:
    """What a client is told about its hold."""
    reserved = charge.reserved
    left = reserved.available if reserved.usable is None else reserved.usable
    left = left if reserved.spendable is None else reserved.spendable
    return [
        (RESERVATION_ID, reserved.reservation_id.encode()),
        (b"x-credits-reserved", header_value(reserved.amount)),
        (
            b"x-credits-remaining",
            header_value(left),
        ),
        *standing(reserved.rate_limit),
    ]


def _target(scope: Scope) -> bytes:
    path: bytes = scope["raw_path"]
    query: bytes = scope["query_string"]
    return path + b"?" + query if query else path


def _is_plain_event_stream(headers: list[Header]) -> bool:
    media_type = (value_of(headers, b"content-type") or b"").partition(b";")[0].strip().lower()
    return media_type == b"text/event-stream" and value_of(headers, b"content-encoding") is None
