"""uvicorn's HTTP protocol, with bounds on what one client can make the process keep or wait for.

uvicorn itself reads heads of any size for ever, and drops answers that it owes when what follows them is no HTTP.
What is beyond a bound, or no HTTP, is told after every answer that is owed, and ends the connection.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, NamedTuple, NoReturn

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from meter.http.endpoint import header_list
from meter.http.rendered import Rendered, problem
from meter.http.request_id import named, new_request_id


class Bounds(NamedTuple):
    """What one connection may take. The head's are those of nginx and Envoy, rounded."""

    head_max_bytes: int = 65536
    """Request line and headers together. One more read of the socket may have come when it is noticed."""
    headers_max: int = 100
    head_seconds: float = 10.0
    """From the first byte of a request to the end of its headers."""
    body_seconds: float | None = 60.0
    """From the end of the headers to the end of the body; None where uploads may take as long as they like."""
    connections_max: int = 4096


IDLE: Final = 0
HEAD: Final = 1
BODY: Final = 2
ANSWER: Final = 3
"""What a connection waits for: the next request, the rest of its head, of its body, or our answer."""


class _BeyondBoundsError(Exception):
    """Stops the parser in the middle of a head."""


class BoundedProtocol(HttpToolsProtocol):
    """The bounds are those of `app.state.bounds` where the application has them. Nothing is ever upgraded: a request
    that asks for it is answered as if it had not (RFC 9110, 7.8).
    """

    def __init__(self, config: Config, server_state: ServerState, app_state: dict[str, Any], _loop: Any = None) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.ws_protocol_class = None
        bounds = getattr(getattr(config.loaded_app, "state", None), "bounds", None) or Bounds()
        self._bounds: Bounds = bounds
        self._limits = (float(self.timeout_keep_alive), bounds.head_seconds, bounds.body_seconds, None)
        self._interval_seconds = min(limit for limit in self._limits if limit is not None)
        self._phase: int = IDLE
        self._since = 0.0
        self._head_bytes = 0
        self._fault: Rendered | None = None  # why the parser was stopped
        self._last_word: bytes | None = None  # said once every answer that is owed was given
        self._watch: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has come, perhaps one too many."""
        super().connection_made(transport)
        self._enter(IDLE)
        if len(self.connections) > self._bounds.connections_max:
            detail = f"{self._bounds.connections_max} connections are open, which is all that may be."
            self._end_with(problem("too-many-connections", detail))
        else:
            self._watch = self.loop.call_later(self._interval_seconds, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        if self._watch is not None:
            self._watch.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes of any number of requests. What follows the last word is not read."""
        if self._last_word is not None or self.transport.is_closing():
            return
        if self._phase == HEAD:
            self._head_bytes += len(data)
            if self._head_bytes > self._bounds.head_max_bytes:
                self._end_with(self._head_too_large())
                return
        elif self._phase == IDLE:
            self._enter(HEAD)  # blank lines before a request count too
            self._head_bytes = len(data) if len(data) < self._bounds.head_max_bytes else 0
        while data:
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as upgrade:
                data = self._without_upgrade() + data[upgrade.args[0] :]
            except httptools.HttpParserError:
                self._end_with(self._fault or problem("malformed-request", "This is no HTTP/1.1 request."))
                return

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._enter(HEAD)

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header, whole."""
        super().on_header(name, value)
        if len(self.headers) > self._bounds.headers_max:
            self._refuse_head()

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self.check_head()
        if not self.parser.should_upgrade():
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The request is whole."""
        if self.parser.should_upgrade():
            return
        super().on_message_complete()
        self._enter(ANSWER if self._owes() else IDLE)

    def on_response_complete(self) -> None:
        """An answer is out: the next request that waits begins, or the last word is said.

        In the place of uvicorn's own, which makes a timer for each answer.
        """
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        if self.flow.read_paused:
            self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
        elif self._last_word is not None:
            self._say_last_word()
        elif self._phase == ANSWER:
            self._enter(IDLE)

    def _without_upgrade(self) -> bytes:
        """The head once more, for a new parser, without what made the parser stop before the body.

        CONNECT stops it too, and asks for what nothing here is; it is left without its target, which is no request.
        """
        lines = [self.parser.get_method(), b" ", self.url, b" HTTP/", self.parser.get_http_version().encode(), b"\r\n"]
        if lines[0] == b"CONNECT":
            lines = [b"CONNECT\r\n"]
        lines += [b"%b: %b\r\n" % header for header in self.headers if header[0] != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        return b"".join([*lines, b"\r\n"])

    def check_head(self) -> None:
        """The client has so long for the body from now on. Raises, into the parser, for a head that is too large."""
        if len(self.url) + sum([len(name) + len(value) for name, value in self.headers]) > self._bounds.head_max_bytes:
            self._refuse_head()
        self._enter(BODY)

    def _enter(self, phase: int) -> None:
        self._phase, self._since, self._head_bytes = phase, self.loop.time(), 0

    def _refuse_head(self) -> NoReturn:
        self._fault = self._head_too_large()
        raise _BeyondBoundsError

    def _head_too_large(self) -> Rendered:
        bounds = self._bounds
        detail = f"Request line and headers may have {bounds.head_max_bytes} bytes and {bounds.headers_max} headers."
        return problem("head-too-large", detail)

    def _look(self) -> None:
        """Looks whether the client is late: at intervals, so that a request costs no timer."""
        if self.transport.is_closing():
            return
        limit = self._limits[self._phase]
        if limit is not None and self.loop.time() - self._since >= limit and not self.flow.read_paused:
            if self._phase == IDLE:
                self.transport.close()
            else:
                part = "headers" if self._phase == HEAD else "body"
                self._end_with(problem("request-timeout", f"The {part} did not come within {limit:g} s."))
        else:
            self._watch = self.loop.call_later(self._interval_seconds, self._look)

    def _owes(self) -> bool:
        """Whether a request that has come is not answered yet."""
        return bool(self.pipeline) or (self.cycle is not None and not self.cycle.response_complete)

    def _end_with(self, rendered: Rendered) -> None:
        """Nothing more is read; says why when all that is owed was answered, and closes."""
        rendered = named(rendered, new_request_id())  # a head that was not read names nothing
        headers = [*self.server_state.default_headers, *header_list(rendered), (b"connection", b"close")]
        lines = [b"%b: %b\r\n" % header for header in headers]
        self._last_word = b"".join([STATUS_LINE[rendered.status], *lines, b"\r\n", rendered.body])
        if self.cycle is not None and self.cycle.more_body and not self.cycle.response_complete:
            self._give_up_the_unfinished()
        elif not self._owes():
            self._say_last_word()

    def _give_up_the_unfinished(self) -> None:
        """The request that will never be whole is not owed an answer of its own; those before it are."""
        if self.pipeline and self.pipeline[0][0] is self.cycle:
            self.pipeline.popleft()
        else:
            self._say_last_word()

    def _say_last_word(self) -> None:
        if self._last_word is not None and not self.transport.is_closing():
            self.transport.write(self._last_word)
            self.transport.close()
