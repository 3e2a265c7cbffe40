"""`CreditDeductionMiddleware`: meters routes of an ASGI application by the usage that its responses tell.

    app.add_middleware(CreditDeductionMiddleware, credit_service=meter, path_prefix="/api")

Per request it holds the estimate, lets the application run, reads the usage off the response as it passes by, and
commits it. The response keeps its body, its status and its headers; streams are never held back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Container, Sequence
from typing import Literal

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from meter.charging import Admission, Charge, ChargePolicy, Charger, Ending, MeteredPaths, Missing
from meter.charging.amounts import header_value
from meter.charging.policy import SUCCESS
from meter.charging.problems import refused, unavailable
from meter.client.credits import Credits
from meter.contract.answers import Committed, Refusal
from meter.errors import Unavailable
from meter.http.endpoint import send_rendered
from meter.http.rendered import Rendered
from meter.log import logger
from meter.usage import Format, Number, Shape, shape_of

HELD_BYTES_MAX = 64 * 1024
"""A JSON response up to this size waits for its commit, so that its header can tell what was deducted."""
SETTLE_SECONDS_MAX = 1.0
"""A response waits no longer for its commit, which goes on without it."""
FREE_METHOD = "OPTIONS"

_log = logger("meter.middleware")


class CreditDeductionMiddleware:
    """Pure ASGI. The first seven keywords are those of `credit-management`, which this replaces.

    **Which requests.** HTTP requests at and below `path_prefix`, but for those at and below a path of `skip_paths`,
    by every reading of a path (`meter.charging.paths`). OPTIONS is free: a CORS preflight can carry no identity. HEAD
    is metered, as it runs the handler of GET. Websockets and other paths pass untouched.

    **Refusals**, all as problems with `detail` and `code`: 401 without `user_id_header`; 400 when that or the
    estimate is malformed, negative or there twice; 402 without the credits; 403 for a suspended account; 503 when
    nobody can say, unless `fail_open`, which serves unmetered.

    **Charges.** The number at `response_usage_key`, or what the API of `usage_format` reports. A response of a
    status outside `charge_statuses`, and a request that ends in an exception without a response, cost nothing. A
    response that ends without usage costs `on_missing_usage`; one whose client left before usage was told costs
    `on_disconnect`. A stream that breaks off costs the usage it told so far. The commit survives the client and the
    cancelled request, and is waited for at shutdown, before the application closes its meter.

    **`X-Credits-Deducted`** equals what was charged. It is there when that is more than nothing and known before the
    response starts: for JSON in one piece, or with a Content-Length of at most `HELD_BYTES_MAX`. Streams never have it.

    Raises ValueError for a path without its leading slash, an unknown format, or a malformed key.
    """

    def __init__(
        self,
        app: ASGIApp,
        credit_service: Credits,
        *,
        path_prefix: str = "/api",
        user_id_header: str = "X-User-Id",
        estimated_tokens_header: str = "X-Estimated-Tokens",
        default_estimated_tokens: Number = 100,
        response_usage_key: str = "total_token",
        skip_paths: Sequence[str] | None = None,
        usage_format: Format | str = Format.KEY,
        minimum_estimated_tokens: Number = 1,
        charge_statuses: Container[int] = SUCCESS,
        on_missing_usage: Missing | str = Missing.RELEASE,
        on_disconnect: Missing | str = Missing.ESTIMATE,
        over: Literal["cap", "overdraft"] = "cap",
        ttl_seconds: float | None = None,
        fail_open: bool = False,
    ) -> None:
        self.app = app
        self._paths = MeteredPaths(path_prefix, skip_paths or ())
        self._admission = Admission(
            user_id_header=user_id_header,
            estimate_header=estimated_tokens_header,
            default_estimate=default_estimated_tokens,
            minimum_estimate=minimum_estimated_tokens,
        )
        policy = ChargePolicy(
            shape=_shape(Format(usage_format), response_usage_key),
            charge_statuses=charge_statuses,
            on_missing_usage=Missing(on_missing_usage),
            on_disconnect=Missing(on_disconnect),
            over=over,
            ttl_seconds=ttl_seconds,
        )
        self._charger = Charger(credit_service, policy)
        self._fail_open = fail_open

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, self._settling(receive), send)
        elif scope["type"] == "http" and self._meters(scope):
            await self._metered(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def _meters(self, scope: Scope) -> bool:
        return scope["method"] != FREE_METHOD and self._paths.cover(scope["path"], scope.get("root_path", ""))

    async def _metered(self, scope: Scope, receive: Receive, send: Send) -> None:
        admitted = self._admission.admit(scope["headers"])
        if isinstance(admitted, Rendered):
            await send_rendered(admitted, send)
            return
        try:
            charge = await self._charger.open(admitted)
        except Unavailable as error:
            if not self._fail_open:
                await send_rendered(unavailable(error), send)
                return
            _log.warning("served unmetered", why=str(error))
            await self.app(scope, receive, send)
            return
        if isinstance(charge, Refusal):
            await send_rendered(refused(charge), send)
            return
        scope.setdefault("state", {})["credit_reservation"] = charge.reserved
        await MeteredResponse(charge, receive, send).run(self.app, scope)

    def _settling(self, receive: Receive) -> Receive:
        """Settles what is under way before the application hears of the shutdown, and closes its meter."""

        async def settled_receive() -> Message:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                await self._charger.close()
            return message

        return settled_receive


class MeteredResponse:
    """One metered request on its way through the application."""

    def __init__(self, charge: Charge, receive: Receive, send: Send) -> None:
        self._charge = charge
        self._receive = receive
        self._send = send
        self._requested = False
        self._started = False
        self._client_gone = False
        self._held: list[Message] = []
        self._held_bytes = 0
        self._length: int | None = None

    async def run(self, app: ASGIApp, scope: Scope) -> None:
        """Runs the application and sees to it that the hold is settled, however that ends."""
        try:
            await app(scope, self.receive, self.send)
        except BaseException as error:
            # An outer middleware cancels us when the client leaves in the middle of a stream.
            cancelled = isinstance(error, asyncio.CancelledError)
            left = self._client_gone or (self._started and cancelled)
            settlement = self._charge.settle(Ending.GONE if left else Ending.CUT)
            if not cancelled:
                await _wait(settlement)
            raise
        await self._send_held()
        await _wait(self._charge.settle(Ending.GONE if self._client_gone else Ending.CUT))

    async def receive(self) -> Message:
        """As the server's, but it notices that the client went away; a request that broke off itself costs nothing."""
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self._client_gone = self._requested or self._started
        else:
            self._requested = not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        """As the server's, with an eye on the response."""
        if message["type"] == "http.response.start":
            await self._start(message)
        elif message["type"] == "http.response.body":
            await self._body(message)
        else:  # trailers, and extensions such as pathsend: nothing to be read, nothing to be held
            await self._send_held()
            await self._deliver(message)
            if message["type"] in ("http.response.pathsend", "http.response.zerocopysend"):
                self._charge.settle(Ending.CLEAN)

    async def _start(self, message: Message) -> None:
        headers = list(message.get("headers", ()))
        self._started = True
        self._charge.respond(message["status"], headers)
        if self._charge.counts and _is_json(headers):
            self._length = _content_length(headers)
            self._held.append(message)
            return
        if not self._charge.counts:
            await _wait(self._charge.settle(Ending.CLEAN))
        await self._deliver(message)

    async def _body(self, message: Message) -> None:
        body, is_last = message.get("body", b""), not message.get("more_body", False)
        self._charge.see(body)
        if self._held:
            self._held.append(message)
            self._held_bytes += len(body)
            if is_last:
                await self._tell_deducted(self._charge.settle(Ending.CLEAN))
            if is_last or self._length is None or max(self._length, self._held_bytes) > HELD_BYTES_MAX:
                await self._send_held()
            return
        try:
            await self._deliver(message)
        finally:
            if is_last:
                self._charge.settle(Ending.CLEAN)

    async def _tell_deducted(self, settlement: asyncio.Task[object]) -> None:
        await _wait(settlement)
        outcome = settlement.result() if settlement.done() else None
        if isinstance(outcome, Committed) and outcome.charged > 0:
            start = self._held[0]
            told = (b"x-credits-deducted", header_value(outcome.charged))
            self._held[0] = {**start, "headers": [*start.get("headers", ()), told]}

    async def _send_held(self) -> None:
        held, self._held = self._held, []
        for message in held:
            await self._deliver(message)

    async def _deliver(self, message: Message) -> None:
        try:
            await self._send(message)
        except OSError:  # how a server may say that the client left
            self._client_gone = True
            raise


async def _wait(settlement: asyncio.Task[object]) -> None:
    """Waits a little for a settlement, without taking it along when we are cancelled."""
    await asyncio.wait({settlement}, timeout=SETTLE_SECONDS_MAX)


def _shape(usage_format: Format, key: str) -> Shape:
    return shape_of(usage_format, key if usage_format in (Format.KEY, Format.AUTO) else None)


def _is_json(headers: Sequence[tuple[bytes, bytes]]) -> bool:
    media_type = next((value for name, value in headers if name.lower() == b"content-type"), b"")
    media_type = media_type.partition(b";")[0].strip().lower()
    return media_type == b"application/json" or media_type.endswith(b"+json")


def _content_length(headers: Sequence[tuple[bytes, bytes]]) -> int | None:
    text = next((value for name, value in headers if name.lower() == b"content-length"), b"")
    return int(text) if text.isdigit() else None
