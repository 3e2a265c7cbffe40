"""The hot lane: hot requests go from the HTTP parser's callbacks into the batcher and out (DESIGN 4.11).

A protocol class for uvicorn. A hot request costs no task, no ASGI scope and no router; every other request is handed
to uvicorn's own implementation unchanged. The same handlers are plain routes too, so nothing here decides anything:
`METER_HOT_LANE=0`, or any other ASGI server, gives the same answers.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE
from uvicorn.server import ServerState

from meter.api.lane.cycle import Found, HotCycle, HotFlow
from meter.api.lane.plain import PlainReader
from meter.http.bounded import ANSWER, HEAD, IDLE, BoundedProtocol
from meter.http.browsers import BrowserGuard
from meter.http.endpoint import header_list
from meter.http.exchange import Handler, joined_headers
from meter.http.reading import failure
from meter.http.rendered import JSON_TYPE, Rendered, problem
from meter.http.request_id import brought_id, named_body, new_request_id
from meter.keys import OBJECT_ID, USER_ID

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_DONE: Final = STATUS_LINE[200] + b"%bcontent-type: " + JSON_TYPE + b"\r\ncontent-length: "
"""What answers that are done begin with, once the server's own headers are put in."""
_NO_PATH: Final[Mapping[str, str]] = {}
_AUTHORIZE: Final = "/gateway/authorize"
_PLAIN_TARGET: Final = re.compile(rb"[A-Za-z0-9._~:@/!$&'()*+,;=-]+(\?[A-Za-z0-9._~:@/?!$&'()*+,;=%-]*)?")
"""What is read the same with and without a parser of URLs: no escapes in the path, no fragment."""


class HotLane:
    """Which requests are hot, by method and exact target; no query, no escapes, nothing that needs a router."""

    def __init__(
        self,
        handlers: Mapping[str, Handler],
        body_max_bytes: int,
        responses: dict[int, int],
        guard: BrowserGuard,
        gateway: Mapping[str, Handler] | None = None,
    ) -> None:
        """`handlers` are the hot ones by the name of their call. `responses` counts answers by status. `gateway` has
        `authorize` and `commit` where gateways are served.
        """
        self._guard = guard
        self.body_max_bytes = body_max_bytes
        self.responses = responses
        self._whole: dict[tuple[bytes, bytes], Found] = {
            (b"POST", b"/credits/deduct"): Found(handlers["deduct"], _NO_PATH),
            (b"POST", b"/credits/reservations"): Found(handlers["reserve"], _NO_PATH),
        }
        self._verbs: dict[bytes, Handler] = {
            b"commit": handlers["commit"],
            b"release": handlers["release"],
            b"extend": handlers["extend"],
        }
        self._balance = handlers["balance"]
        self._gateway = gateway or {}
        self.plain = PlainReader(self.find, guard.is_plain, body_max_bytes)
        self._default_list: list[tuple[bytes, bytes]] | None = None
        self._default_bytes = self._done = b""

    def find(self, method: bytes, target: bytes) -> Found | None:
        """What serves a hot request; None for every other one."""
        found = self._whole.get((method, target))
        if found is not None:
            return found
        if target.startswith(b"/gateway/"):
            return self._find_gateway(target)
        parts = target.split(b"/")
        if method == b"POST" and len(parts) == 5 and target.startswith(b"/credits/reservations/"):
            handler, name = self._verbs.get(parts[4]), parts[3].decode("latin-1")
            if handler is not None and OBJECT_ID.fullmatch(name):
                return Found(handler, {"reservation_id": name})
        elif method == b"GET" and len(parts) == 4 and target.startswith(b"/credits/balance/"):
            name = parts[3].decode("latin-1")
            if USER_ID.fullmatch(name):
                return Found(self._balance, {"user_id": name})
        return None

    def _find_gateway(self, target: bytes) -> Found | None:
        """Any method, with a query; what the client asked for may follow the authorizer's path."""
        if not self._gateway or not _PLAIN_TARGET.fullmatch(target):
            return None
        path, _, query = target.decode("ascii").partition("?")
        if path == "/gateway/commit":
            return Found(self._gateway["commit"], _NO_PATH, query, reads_body=False)
        if path == _AUTHORIZE:
            return Found(self._gateway["authorize"], _NO_PATH, query, reads_body=False)
        if path.startswith(_AUTHORIZE + "/"):
            rest = path[len(_AUTHORIZE) + 1 :]
            return Found(self._gateway["authorize"], {"rest": rest}, query, reads_body=False)
        return None

    def is_taken(self, found: Found, headers: Mapping[bytes, bytes]) -> bool:
        """Whether the lane answers; a page of an allowed origin is answered with what its browser wants to hear."""
        return not (found.reads_body and self._guard.is_leave_given(headers))

    def refusal(self, cycle: HotCycle) -> Rendered | None:
        """The answer to a request that a page of others made a browser send."""
        if self._guard.is_plain(cycle.headers):
            return None
        return self._guard.refusal(
            cycle.headers, reads=cycle.method in (b"GET", b"HEAD"), passed_on=not cycle.found.reads_body
        )

    def text(self, cycle: HotCycle, rendered: Rendered, state: ServerState) -> bytes:
        """The answer to a request as it is sent. `state` has the headers of the server, a new list each second."""
        if state.default_headers is not self._default_list:
            self._default_list = state.default_headers
            self._default_bytes = b"".join([b"%b: %b\r\n" % header for header in self._default_list])
            self._done = _DONE % self._default_bytes
        brought = "" if cycle.bare else brought_id(cycle.headers)
        request_id = (brought or rendered.request_id or new_request_id()).encode()
        status, body, content_type, replayed, headers, _, _ = rendered
        is_plain = status == 200 and content_type == JSON_TYPE and not (replayed or headers)
        if is_plain and cycle.keep_alive and cycle.method != b"HEAD":
            return b"%b%d\r\nx-request-id: %b\r\n\r\n%b" % (self._done, len(body), request_id, body)
        return self._any_text(cycle, rendered, request_id)

    def _any_text(self, cycle: HotCycle, rendered: Rendered, request_id: bytes) -> bytes:
        body = named_body(rendered, request_id.decode())
        lines = [b"%b: %b\r\n" % header for header in header_list(rendered, body)]
        head = [STATUS_LINE[rendered.status], self._default_bytes, *lines, b"x-request-id: %b\r\n" % request_id]
        if not cycle.keep_alive:
            head.append(b"connection: close\r\n")
        return b"".join([*head, b"\r\n", b"" if cycle.method == b"HEAD" else body])


class HotProtocol(BoundedProtocol):
    """The bounded protocol with a hot lane, which the application carries as `app.state.hot_lane`.

    Nothing is hot under a root path, a concurrency limit or an access log, which only uvicorn's own way serves.
    """

    def __init__(self, config: Config, server_state: ServerState, app_state: dict[str, Any], _loop: Any = None) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._lane: HotLane = config.loaded_app.state.hot_lane
        self._usable = not config.root_path and config.limit_concurrency is None and not config.access_log
        self._parsing: HotCycle | None = None  # the request that the parser is in, when it is a hot one
        self._unread: HotCycle | None = None  # written to a client that does not read
        self._advancing = self._again = False
        self._source = ""

    def data_received(self, data: bytes) -> None:
        """Plain hot requests are taken from the front while nothing else is going on; the parser has the rest."""
        while data and self._phase == IDLE and self._usable and not self.transport.is_closing():
            plain = self._lane.plain.read(data, self._bounds)
            if plain is None:
                break
            cycle, size = plain
            data = data[size:]
            self.cycle = cycle  # type: ignore[assignment]
            self._phase = ANSWER
            self._handle(cycle)
        if data:
            super().data_received(data)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has come."""
        super().connection_made(transport)
        self._source = self.client[0] if self.client else ""
        self.flow = HotFlow(transport, self.pipeline)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone. A request that never became whole is counted as the ordinary route would answer it."""
        super().connection_lost(exc)
        cycle = self._parsing
        if cycle is not None and cycle.started and cycle.more_body and cycle.found.reads_body:
            self._respond(cycle, problem("malformed-json", "The client went away."))

    def on_message_begin(self) -> None:
        """A request begins; the ASGI scope is made when it turns out not to be hot."""
        self._enter(HEAD)
        self._parsing = None
        self.url = b""
        self.expect_100_continue = False
        self.headers = []

    def on_headers_complete(self) -> None:
        """The target is known: hot, or uvicorn's."""
        if self.transport.is_closing():  # it follows one that closed the connection, so it is not run
            return
        self.check_head()
        if self.parser.should_upgrade():  # comes once more without
            return
        method = self.parser.get_method()
        found = self._lane.find(method, self.url) if self._usable else None
        headers = joined_headers(self.headers)
        if found is None or not self._lane.is_taken(found, headers):
            self._hand_over()
            return
        cycle = HotCycle(
            found,
            method,
            headers,
            keep_alive=self.parser.get_http_version() != "1.0" and self.parser.should_keep_alive(),
            expects=self.expect_100_continue and found.reads_body,
        )
        self._parsing = cycle
        current, self.cycle = self.cycle, cycle  # type: ignore[assignment]
        if current is None or current.response_complete:
            self._start_hot(cycle)
        else:  # pipelined: answered in order, so it waits for the one before it
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, self.app))  # type: ignore[arg-type]

    def on_body(self, body: bytes) -> None:
        """A part of the body; one that is too long is answered at once and the rest is skipped."""
        cycle = self._parsing
        if cycle is None:
            super().on_body(body)
        elif cycle.pieces is not None and cycle.found.reads_body and not cycle.answered:
            cycle.pieces += body
            if cycle.started and len(cycle.pieces) > self._lane.body_max_bytes:
                self._refuse_body(cycle)

    def on_message_complete(self) -> None:
        """The request is whole."""
        cycle = self._parsing
        if cycle is None or self.parser.should_upgrade():
            super().on_message_complete()
            return
        cycle.more_body, cycle.body = False, bytes(cycle.pieces or b"")
        self._enter(ANSWER if self._owes() else IDLE)
        if cycle.started and cycle.found.reads_body and not cycle.answered:
            self._handle(cycle)

    def on_response_complete(self) -> None:
        """Starts the next pipelined request. A loop: thousands that are answered at once must not nest."""
        if not self.pipeline:
            super().on_response_complete()
            return
        self._again = True
        if self._advancing:
            return
        self._advancing = True
        try:
            while self._again:
                self._again = False
                super().on_response_complete()
        finally:
            self._advancing = False

    def resume_writing(self) -> None:
        """The client reads again: the next request may be answered."""
        super().resume_writing()
        cycle, self._unread = self._unread, None
        if cycle is not None:
            self._complete(cycle)

    def _hand_over(self) -> None:
        """Gives uvicorn what its own on_message_begin would have made of the request so far."""
        headers, url, expects = self.headers, self.url, self.expect_100_continue
        super().on_message_begin()
        self.headers.extend(headers)  # the scope holds this very list
        self.url, self.expect_100_continue = url, expects
        super().on_headers_complete()

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        """Called for the next pipelined request too, which may be a hot one."""
        if isinstance(cycle, HotCycle):
            self._start_hot(cycle)
        else:
            super()._start_asgi_task(cycle, app)

    def _start_hot(self, cycle: HotCycle) -> None:
        cycle.started = True
        refusal = self._lane.refusal(cycle)
        if refusal is not None:
            self._respond(cycle, refusal)
            return
        if cycle.waiting_for_100_continue:
            self.transport.write(_CONTINUE)
        if len(cycle.pieces or cycle.body) > self._lane.body_max_bytes:
            self._refuse_body(cycle)
        elif not (cycle.more_body and cycle.found.reads_body):
            self._handle(cycle)
        else:
            self.flow.resume_reading()

    def _handle(self, cycle: HotCycle) -> None:
        cycle.source = self._source
        try:
            cycle.found.handler(cycle, partial(self._respond, cycle))
        except Exception as error:  # every way out of a handler is an answer
            self._respond(cycle, failure(error, cycle.headers))

    def _refuse_body(self, cycle: HotCycle) -> None:
        self._respond(cycle, problem("body-too-large", f"The limit is {self._lane.body_max_bytes} bytes."))

    def _respond(self, cycle: HotCycle, rendered: Rendered) -> bool:
        """Writes an answer in one piece and lets the next request come; whether the client was still there."""
        if cycle.answered:
            return False
        cycle.answered = True
        self._lane.responses[rendered.status] += 1
        if self.transport.is_closing():
            return False
        self.transport.write(self._lane.text(cycle, rendered, self.server_state))
        if self.flow.write_paused and cycle.keep_alive:
            self._unread = cycle  # a client that does not read gets no further answers meanwhile
        else:
            self._complete(cycle)
        return True

    def _complete(self, cycle: HotCycle) -> None:
        cycle.response_complete = True
        if not cycle.keep_alive:
            self.transport.close()
        if self.pipeline:
            self.on_response_complete()
        else:
            super().on_response_complete()
