"""The answer to a gateway: plain status and headers, in the dialect that it understands."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from meter.engine.answers import Operation
from meter.engine.presented import Presented, PresentedOperation
from meter.http.exchange import Respond
from meter.http.rendered import Rendered, problem

UNMETERED = ((b"x-credits-metered", b"0"),)
"""The header of an answer that nobody decided (METER_FAIL_MODE=open)."""


class GatewayAnswer:
    """The answer to a gateway: the first of what was decided and the deadline, which is `due` by the loop's clock.
    `serves` is asked, where it is set, when nobody can decide, and answers whether it allowed the request.
    """

    __slots__ = ("_respond", "_timer", "done", "due", "identity", "limits", "nginx", "presented", "serves")

    def __init__(self, respond: Respond, timeout_seconds: float) -> None:
        self._respond = respond
        self.nginx = False
        self.done = False
        self.serves: Callable[[], bool] | None = None
        self.presented: tuple[Presented, ...] = ()
        """The API key that the request brought."""
        self.identity: tuple[tuple[bytes, bytes], ...] = ()
        """The header that tells the gateway whose key that is."""
        self.limits: tuple[tuple[bytes, bytes], ...] = ()
        """The headers that tell where the tightest rate limit stands."""
        loop = asyncio.get_running_loop()
        self.due = loop.time() + timeout_seconds
        self._timer = loop.call_at(self.due, self._expire)

    def asking(self, operation: Operation) -> Operation:
        """The operation, asked for by the key of the request."""
        return PresentedOperation.of(operation, *self.presented) if self.presented else operation

    def allow(
        self,
        reservation_id: str,
        reserved: bytes,
        remaining: bytes,
        more: tuple[tuple[bytes, bytes], ...] = (),
        *,
        replayed: bool = False,
    ) -> bool:
        """200 and no body; whether the gateway was there to be told."""
        headers = (
            (b"x-reservation-id", reservation_id.encode()),
            (b"x-credits-reserved", reserved),
            (b"x-credits-remaining", remaining),
            *more,
            *self.identity,
            *self.limits,
        )
        if self.serves is not None and more is not UNMETERED:
            headers = (*headers, (b"x-credits-metered", b"1"))  # none that the client sent is passed on
        return self._finish(Rendered(200, b"", b"", replayed, headers))

    def refuse(self, rendered: Rendered, remaining: bytes = b"") -> None:
        """The refusal itself; nginx, which knows 401 and 403 only, gets its status and kind in headers."""
        headers = (
            *rendered.headers,
            (b"x-reservation-id", b""),
            (b"x-credits-reserved", b"0"),
            (b"x-credits-remaining", remaining),
        )
        if self.nginx:
            told = ((b"x-meter-status", b"%d" % rendered.status), (b"x-meter-problem", slug_of(rendered)))
            again = ((b"retry-after", b"1"),) if rendered.status == 503 else ()
            self._finish(Rendered(403, b"", b"", headers=(*headers, *told, *again)))
        else:
            self._finish(rendered._replace(headers=headers))

    def give_up(self, rendered: Rendered) -> None:
        """Nobody can decide: refuses, unless the request is served all the same."""
        if not self.done and self.serves is not None and self.serves():
            return
        self.refuse(rendered)

    def _expire(self) -> None:
        self.give_up(problem("metering-unavailable", "Redis did not answer in time.", '"reason":"redis"'))

    def _finish(self, rendered: Rendered) -> bool:
        if self.done:
            return False
        self.done = True
        self._timer.cancel()
        return self._respond(rendered)


def slug_of(rendered: Rendered) -> bytes:
    """The kind of a problem: its body begins with the type."""
    return rendered.body.partition(b'"/problems/')[2].partition(b'"')[0]
