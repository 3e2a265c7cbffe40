"""`CreditDeductionMiddleware`: meters routes of an ASGI application by the usage that its responses tell.

    app.add_middleware(CreditDeductionMiddleware, credit_service=meter, path_prefix="/api")

Per request it holds the estimate, lets the application run, reads the usage off the response as it passes by, and
commits it. The response keeps its body, its status and its headers; streams are never held back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Container, Sequence
from copy import copy

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from meter.charging.admission import Admission
from meter.charging.amounts import header_value
from meter.charging.asking import EstimateRules
from meter.charging.charge import Charge, Charger
from meter.charging.paths import MeteredPaths
from meter.charging.policy import SUCCESS, ChargePolicy, Ending, Missing, Over
from meter.charging.priced import ChargeBy
from meter.charging.problems import refused, standing, unavailable
from meter.client.credits import Credits
from meter.contract.answers import Committed, Refusal
from meter.errors import Unavailable
from meter.http.endpoint import send_rendered
from meter.http.incoming import Incoming
from meter.http.read_ahead import ReadAhead
from meter.http.rendered import Rendered
from meter.http.request_id import WorkingFor
from meter.log import logger
from meter.usage import Format, Number, Shape, shape_of

READ_AHEAD_BYTES = 1024 * 1024
"""A request is read up to this size for the model that it names, where a rate card may price what it uses."""
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
    nobody can say, unless `fail_open`, which serves unmetered. A refusal has the headers of Starlette's and FastAPI's
    `CORSMiddleware`, whichever of the two was added first; any other has to be added after this, to be outside.

    **Rate limits.** Where one counts the request, its response has `RateLimit-Policy` and `RateLimit` for the tightest;
    what rules refuse has `Retry-After` where waiting helps.

    **Rate cards.** With a `usage_format` of a provider, a user who has a rate card (its own, a level's, or `default`)
    pays what the usage costs by it: the request is read first (`READ_AHEAD_BYTES`), and what it may come to is held.
    Who has none pays the tokens themselves, as everybody does under `charge_by="amount"`; under `"card"` it is refused.

    **Charges.** The number at `response_usage_key`, or what the API of `usage_format` reports. A response of a
    status outside `charge_statuses`, and a request that ends in an exception without a response, cost nothing. A
    response that ends without usage costs `on_missing_usage`; one whose client left before usage was told costs
    `on_disconnect`, however the application went on. A stream that breaks off costs the usage it told so far.

    **The end.** The commit survives the client and the cancelled request. At shutdown (SIGTERM) what is still under way
    is settled by what was seen of it, before the application closes its meter; that takes at most 10 seconds. What a
    server kills before that stays held until the hold ends by itself (`ttl_seconds`), and is released then.

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
        over: Over = "cap",
        ttl_seconds: float | None = None,
        fail_open: bool = False,
        charge_by: ChargeBy | str = ChargeBy.AUTO,
    ) -> None:
        self.app = app
        self._paths = MeteredPaths(path_prefix, skip_paths or ())
        self._admission = Admission(
            user_id_header=user_id_header,
            estimate_header=estimated_tokens_header,
            default_estimate=default_estimated_tokens,
            minimum_estimate=minimum_estimated_tokens,
        )
        by = ChargeBy.AMOUNT if Format(usage_format) is Format.KEY else ChargeBy(charge_by)
        self._estimates = (
            None
            if by is ChargeBy.AMOUNT
            else EstimateRules(default=default_estimated_tokens, minimum=minimum_estimated_tokens)
        )
        policy = ChargePolicy(
            charge_by=by,
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
            with WorkingFor(scope["headers"]):
                await self._metered(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def _meters(self, scope: Scope) -> bool:
        return scope["method"] != FREE_METHOD and self._paths.cover(scope["path"], scope.get("root_path", ""))

    async def _metered(self, scope: Scope, receive: Receive, send: Send) -> None:
        admitted = self._admission.admit(scope["headers"])
        if isinstance(admitted, Rendered):
            await self._refuse(admitted, scope, receive, send)
            return
        estimate = None
        if self._estimates is not None:
            receive = ahead = ReadAhead(receive)
            await ahead.read(READ_AHEAD_BYTES)
            body = ahead.raw() if ahead.is_whole() else None
            estimate = self._estimates.estimate(admitted, body, scope["path"])._replace(amount=admitted.estimate)
        try:
            known = await self._charger.known(admitted) if admitted.api_key else admitted
            charge = known if isinstance(known, Refusal) else await self._charger.open(known, estimate=estimate)
        except Unavailable as error:
            if not self._fail_open or admitted.api_key:  # whether a key works nobody else can say
                await self._refuse(unavailable(error), scope, receive, send)
                return
            _log.warning("served unmetered", why=str(error))
            await self.app(scope, receive, send)
            return
        if isinstance(charge, Refusal):
            await self._refuse(refused(charge), scope, receive, send)
            return
        scope.setdefault("state", {})["credit_reservation"] = charge.reserved
        incoming, is_head = Incoming(receive, scope["headers"]), scope["method"] == "HEAD"
        await MeteredResponse(charge, incoming, send, is_head=is_head).run(self.app, scope)

    async def _refuse(self, rendered: Rendered, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers in the application's place, with the headers of a `CORSMiddleware` of Starlette's further inside."""

        async def answer(scope: Scope, _: Receive, send: Send) -> None:
            await send_rendered(rendered, send, head=scope["method"] == "HEAD")

        cors = _cors_inside(self.app)
        if cors is None:
            await answer(scope, receive, send)
        else:
            around = copy(cors)
            around.app = answer
            await around(scope, receive, send)

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

    def __init__(self, charge: Charge, incoming: Incoming, send: Send, *, is_head: bool) -> None:
        self._charge = charge
        self._is_head = is_head
        self._incoming = incoming
        self._send = send
        self._started = False
        self._send_failed = False
        self._limits = standing(charge.reserved.rate_limit)
        """Where the tightest rate limit stands, which the response tells."""
        self._held: list[Message] = []
        self._held_bytes = 0
        self._length: int | None = None
        self._left_to_send: int | None = None
        """Bytes of the announced length that the client was not given while it was there; None: nobody knows."""

    async def run(self, app: ASGIApp, scope: Scope) -> None:
        """Runs the application and sees to it that the hold is settled, however that ends."""
        try:
            await app(scope, self._incoming.receive, self.send)
        except BaseException as error:
            # An outer middleware cancels us when the client leaves in the middle of a stream.
            cancelled = isinstance(error, asyncio.CancelledError)
            settlement = self._charge.settle(self._ending(Ending.CUT, left=self._started and cancelled))
            if not cancelled:
                await _wait(settlement)
            raise
        finally:
            self._incoming.close()
        await self._send_held()
        await _wait(self._charge.settle(self._ending(Ending.CUT)))

    async def send(self, message: Message) -> None:
        """As the server's, with an eye on the response."""
        if message["type"] == "http.response.start":
            await self._start(message)
        elif message["type"] == "http.response.body":
            await self._body(message)
        else:  # trailers, and extensions such as pathsend: nothing to be read, nothing to be held
            await self._send_held()
            ending = self._ending(Ending.CLEAN)
            await self._deliver(message)
            if message["type"] in ("http.response.pathsend", "http.response.zerocopysend"):
                self._charge.settle(ending)

    def _ending(self, ending: Ending, *, left: bool = False) -> Ending:
        """How it ended, when it ends now. Who was given all of the announced length has not left early; of a response
        without a length nobody can say that, since whoever stands in between may have stopped it for the client's sake.
        """
        gone = left or self._incoming.gone or self._send_failed
        return Ending.GONE if gone and self._left_to_send != 0 else ending

    async def _start(self, message: Message) -> None:
        headers = list(message.get("headers", ()))
        if self._limits:
            message = {**message, "headers": [*headers, *self._limits]}
        self._started = True
        self._charge.respond(message["status"], headers)
        length = _content_length(headers)
        if not self._incoming.gone:
            self._left_to_send = 0 if self._is_head else length
        if self._charge.counts and _is_json(headers):
            self._length = length
            self._held.append(message)
            return
        if not self._charge.counts:
            await _wait(self._charge.settle(Ending.CLEAN))
        await self._deliver(message)

    async def _body(self, message: Message) -> None:
        body, is_last = message.get("body", b""), not message.get("more_body", False)
        self._charge.see(body)
        if self._left_to_send is not None and not self._incoming.gone:
            self._left_to_send = max(0, self._left_to_send - len(body))
        ending = self._ending(
            Ending.CLEAN
        )  # before it is given to the server, which then says that the exchange is over
        if self._held:
            self._held.append(message)
            self._held_bytes += len(body)
            if is_last:
                await self._tell_deducted(self._charge.settle(ending))
            if is_last or self._length is None or max(self._length, self._held_bytes) > HELD_BYTES_MAX:
                await self._send_held()
            return
        try:
            await self._deliver(message)
        finally:
            if is_last:
                self._charge.settle(Ending.GONE if self._send_failed else ending)

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
            self._send_failed = True
            raise


def _cors_inside(app: object) -> CORSMiddleware | None:
    """What answers to other origins between us and the routes; the metering may have been added behind it."""
    while app is not None and not isinstance(app, CORSMiddleware):
        app = getattr(app, "middleware_stack", None) or getattr(app, "app", None)
    return app


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
