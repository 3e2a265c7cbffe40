"""The hot lane: hot requests go from the HTTP parser's callbacks into the batcher and out (DESIGN 4.11).

A protocol class for uvicorn. A hot request costs no task, no ASGI scope and no router; every other request is handed
to uvicorn's own implementation unchanged. The same handlers are plain routes too, so nothing here decides anything:
`METER_HOT_LANE=0`, or any other ASGI server, gives the same answers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from meter.api.exchange import Handler, Request
from meter.api.failure import failure
from meter.api.hot import HotHandlers
from meter.api.routes import header_list
from meter.keys import OBJECT_ID, USER_ID
from meter.wire import JSON_TYPE, Rendered, problem

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_JSON_HEAD: Final = b"content-type: " + JSON_TYPE + b"\r\ncontent-length: %d\r\n"
_NO_PATH: Final[Mapping[str, str]] = {}

Found = tuple[Handler, Mapping[str, str]]


class HotLane:
    """Which requests are hot, by method and exact target; no query, no escapes, nothing that needs a router."""

    def __init__(self, handlers: HotHandlers, body_max_bytes: int, responses: dict[int, int]) -> None:
        self.body_max_bytes = body_max_bytes
        self.responses = responses
        self._whole: dict[tuple[bytes, bytes], Found] = {
            (b"POST", b"/credits/deduct"): (handlers.deduct, _NO_PATH),
            (b"POST", b"/credits/reservations"): (handlers.reserve, _NO_PATH),
        }
        self._verbs: dict[bytes, Handler] = {
            b"commit": handlers.commit,
            b"release": handlers.release,
            b"extend": handlers.extend,
        }
        self._balance = handlers.balance

    def find(self, method: bytes, target: bytes) -> Found | None:
        """The handler of a hot request and the members of its path; None for every other request."""
        found = self._whole.get((method, target))
        if found is not None:
            return found
        parts = target.split(b"/")
        if method == b"POST" and len(parts) == 5 and target.startswith(b"/credits/reservations/"):
            handler, name = self._verbs.get(parts[4]), parts[3].decode("latin-1")
            if handler is not None and OBJECT_ID.fullmatch(name):
                return handler, {"reservation_id": name}
        elif method == b"GET" and len(parts) == 4 and target.startswith(b"/credits/balance/"):
            name = parts[3].decode("latin-1")
            if USER_ID.fullmatch(name):
                return self._balance, {"user_id": name}
        return None


class _Silent:
    """Stands where uvicorn wakes an ASGI task: a hot exchange has none."""

    def set(self) -> None:
        """Nobody waits."""


_SILENT: Final = _Silent()


class HotCycle:
    """One hot exchange, in the place of uvicorn's RequestResponseCycle, whose members the protocol expects."""

    __slots__ = (
        "body",
        "disconnected",
        "handler",
        "headers",
        "keep_alive",
        "message_event",
        "more_body",
        "path",
        "response_complete",
        "started",
        "waiting_for_100_continue",
    )

    def __init__(self, found: Found, headers: list[tuple[bytes, bytes]], *, keep_alive: bool, expects: bool) -> None:
        self.handler, self.path = found
        self.headers = headers
        self.keep_alive = keep_alive
        self.waiting_for_100_continue = expects
        self.body = bytearray()
        self.more_body = True
        self.started = False
        self.disconnected = False
        self.response_complete = False
        self.message_event = _SILENT


class HotProtocol(HttpToolsProtocol):
    """uvicorn's httptools protocol with a hot lane, which the application carries as `app.state.hot_lane`."""

    def __init__(self, config: Config, server_state: ServerState, app_state: dict[str, Any], _loop: Any = None) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._lane: HotLane = config.loaded_app.state.hot_lane
        self._usable = not config.root_path and config.limit_concurrency is None
        self._blocked = False

    def on_message_begin(self) -> None:
        """A request begins; the ASGI scope is made when it turns out not to be hot."""
        self.url = b""
        self.expect_100_continue = False
        self.headers = []

    def on_headers_complete(self) -> None:
        """The target is known: hot, or uvicorn's."""
        found = self._lane.find(self.parser.get_method(), self.url) if self._usable else None
        if found is None or self.parser.should_upgrade():
            self._hand_over()
            return
        keep_alive = self.parser.get_http_version() != "1.0" and self.parser.should_keep_alive()
        cycle = HotCycle(found, self.headers, keep_alive=keep_alive, expects=self.expect_100_continue)
        current, self.cycle = self.cycle, cycle  # type: ignore[assignment]
        if current is None or current.response_complete:
            self._start_hot(cycle)
        else:  # pipelined: answered in order, so it waits for the one before it
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, self.app))  # type: ignore[arg-type]

    def on_body(self, body: bytes) -> None:
        """A part of the body; one that is too long is answered at once and the rest is skipped."""
        cycle: object = self.cycle
        if not isinstance(cycle, HotCycle):
            super().on_body(body)
        elif not cycle.response_complete:
            cycle.body += body
            if len(cycle.body) > self._lane.body_max_bytes and cycle.started:
                self._refuse_body(cycle)

    def on_message_complete(self) -> None:
        """The request is whole."""
        cycle: object = self.cycle
        if not isinstance(cycle, HotCycle):
            super().on_message_complete()
        elif not cycle.response_complete:
            cycle.more_body = False
            if cycle.started:
                self._handle(cycle)

    def resume_writing(self) -> None:
        """The client reads again: the next pipelined request may be answered."""
        super().resume_writing()
        if self._blocked:
            self._blocked = False
            self.on_response_complete()

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
        if len(cycle.body) > self._lane.body_max_bytes:
            self._refuse_body(cycle)
        elif not cycle.more_body:
            self._handle(cycle)
        elif cycle.waiting_for_100_continue:
            self.transport.write(_CONTINUE)

    def _handle(self, cycle: HotCycle) -> None:
        try:
            request = Request(cycle.path, "", dict(cycle.headers), bytes(cycle.body))
            cycle.handler(request, self._responder(cycle))
        except Exception as error:  # every way out of a handler is an answer
            self._respond(cycle, failure(error))

    def _responder(self, cycle: HotCycle) -> Callable[[Rendered], None]:
        return lambda rendered: self._respond(cycle, rendered)

    def _refuse_body(self, cycle: HotCycle) -> None:
        self._respond(cycle, problem("body-too-large", f"The limit is {self._lane.body_max_bytes} bytes."))

    def _respond(self, cycle: HotCycle, rendered: Rendered) -> None:
        """Writes an answer in one piece and lets the next request come."""
        if cycle.response_complete:
            return
        cycle.response_complete = True
        self._lane.responses[rendered.status] += 1
        if cycle.disconnected or self.transport.is_closing():
            return
        parts = [STATUS_LINE[rendered.status], self._default_headers(), _head(rendered)]
        if not cycle.keep_alive:
            parts.append(b"connection: close\r\n")
        parts += (b"\r\n", rendered.body)
        self.transport.write(b"".join(parts))
        if not cycle.keep_alive:
            self.transport.close()
        if self.flow.write_paused:
            self._blocked = True  # a client that does not read gets no further answers meanwhile
        else:
            self.on_response_complete()

    def _default_headers(self) -> bytes:
        """The server's own headers; uvicorn makes a new list of them each second."""
        return b"".join([b"%b: %b\r\n" % header for header in self.server_state.default_headers])


def _head(rendered: Rendered) -> bytes:
    if rendered.status == 200 and rendered.content_type == JSON_TYPE and not rendered.replayed:
        return _JSON_HEAD % len(rendered.body)
    return b"".join([b"%b: %b\r\n" % header for header in header_list(rendered)])
