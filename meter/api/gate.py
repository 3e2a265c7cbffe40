"""Who may call: with `METER_AUTH=keys` every call wants an API key (docs/keys.md), which is looked up before anything
else is read. An operator's key is for every path. A user's is for the few calls below, for itself: whatever else it
names is as unknown.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from meter.api.handlers import Handlers
from meter.api.refusals import DETAILS
from meter.api.services import Services
from meter.api_key import ApiKey
from meter.contract.call import ME, Call
from meter.contract.calls import BY_NAME
from meter.engine.answers import NOTHING, is_ok
from meter.engine.api_keys import IDENTIFY, identify
from meter.engine.presented import SPEND
from meter.errors import MeterError
from meter.http.credentials import brought_key
from meter.http.exchange import Caller, Coroutine, Handler, KnownRequest, Request, Respond, awaitable
from meter.http.reading import failure
from meter.http.rendered import Answered, Rendered, problem

ADMIN_READ, ADMIN_WRITE = "admin:read", "admin:write"
OF_USERS = frozenset({"deduct", "reserve", "quote", "commit", "release", "extend", "reservation"})
"""What a user's key may call for itself, with the scope `spend`."""
_METER_KEY = b"x-meter-key"
"""Where a gateway sends its own key, beside that of its client."""


class Gate:
    """Lets callers in, one by one."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._engine = services.engine

    def over(self, handlers: Handlers) -> Handlers:
        """The same calls, each behind the gate; those about oneself look at their keys themselves."""
        hot = {name: self.hot(scope_of(BY_NAME[name]), one, name) for name, one in handlers.hot.items()}
        coroutines = {
            name: one if BY_NAME[name].prefix == ME else self.coroutine(scope_of(BY_NAME[name]), one, name)
            for name, one in handlers.coroutines.items()
        }
        return Handlers(hot, coroutines)

    def hot(self, scope: str, handler: Handler, name: str = "") -> Handler:
        """A handler of the hot lane behind the gate."""

        def gated(request: Request, respond: Respond) -> None:
            def heard(key: ApiKey, line: str | MeterError) -> None:
                try:
                    let_in = self._let_in(scope, name, key, request, respond, line)
                    handler(request, let_in)
                except Exception as error:  # every way out is an answer
                    respond(failure(error, request.headers))

            self._identify(request, heard)

        return gated

    def coroutine(self, scope: str, run: Coroutine, name: str = "") -> Coroutine:
        """A coroutine behind the gate."""

        async def gated(request: Request) -> Rendered:
            refusal = await awaitable(partial(self._admit, scope, name))(request)
            return _for_caller(request, await run(request)) if refusal is _LET_IN else refusal

        return gated

    def _admit(self, scope: str, name: str, request: Request, respond: Respond) -> None:
        def heard(key: ApiKey, line: str | MeterError) -> None:
            try:
                self._let_in(scope, name, key, request, respond, line)
                respond(_LET_IN)
            except Exception as error:  # every way out is an answer
                respond(failure(error, request.headers))

        self._identify(request, heard)

    def _identify(self, request: Request, heard: Callable[[ApiKey, str | MeterError], None]) -> None:
        """Looks the key of a request up. Raises `Answered`, and `Overloaded`."""
        key = request.key if isinstance(request, KnownRequest) else self._key_of(request)
        place = key.root % len(self._engine.partitions)
        self._engine.submit_to(place, identify(key), lambda line: heard(key, line))

    def _key_of(self, request: Request) -> ApiKey:
        """The key that a request brings. Raises `Answered`."""
        text = request.headers.get(_METER_KEY, b"").decode("latin-1") or brought_key(request.headers)
        if not text:
            detail = "The call needs an API key: Authorization: Bearer mk_…, x-api-key or X-Meter-Key."
            raise Answered(problem("missing-identity", detail))
        return self._services.attempts.read(request.source, text)

    async def scopes_of(self, key: ApiKey) -> frozenset[str]:
        """What an operator's key may do now; nothing of one that works no more or is a user's. Raises `MeterError`."""
        (line,) = await self._engine.run_many(key.root % len(self._engine.partitions), (identify(key),))
        told = IDENTIFY.read(line) if is_ok(line) else None
        if told is None or told["user_id"] != NOTHING:
            return frozenset()
        return frozenset(told["scopes"].split(","))

    def _let_in(
        self, scope: str, name: str, key: ApiKey, request: Request, respond: Respond, line: str | MeterError
    ) -> Respond:
        """Notes who calls; answers how that one is answered. Raises `Answered`, and why nobody can say."""
        if isinstance(line, MeterError):
            raise line
        if not is_ok(line):
            raise self._services.attempts.refused(request.source, key)
        self._services.attempts.let_in(key)
        told = IDENTIFY.read(line)
        user_id = None if told["user_id"] == NOTHING else told["user_id"]
        needed = scope if user_id is None or name not in OF_USERS else SPEND
        if needed not in told["scopes"].split(","):
            raise Answered(problem("key-not-allowed", DETAILS["key-not-allowed"], f'"scope":"{needed}"'))
        request.bare, request.caller = False, Caller(key, user_id)
        return respond if user_id is None else lambda rendered: respond(_for_caller(request, rendered))


def scope_of(call: Call) -> str:
    """What an operator's key needs for a call."""
    return ADMIN_READ if call.method == "GET" or call.name == "quote" else ADMIN_WRITE


def _for_caller(request: Request, rendered: Rendered) -> Rendered:
    """An answer as its caller reads it: ids that were its own choice are told as it chose them."""
    caller = request.caller
    if caller is None or caller.user_id is None:
        return rendered
    return rendered._replace(body=rendered.body.replace(f'"{caller.own_mark}'.encode(), b'"'))


_LET_IN = Rendered(200, b"")
"""What stands for no refusal."""
