"""Who asks, for how much, and which request it is: read from the headers of a request, before anything else of it.

The one reader of all that stands before a metered API: middleware, proxy and gateways. A header that is sent twice is
joined by a comma, as HTTP has it (RFC 9110, 5.3), and thereby names no possible user, amount or id. A spelling with
underscores is refused too: what is behind may take it for the same header.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from meter.errors import InvalidAmount
from meter.http.credentials import brought_key
from meter.http.exchange import joined_headers
from meter.http.rendered import Answered, Rendered, problem
from meter.keys import REQUEST_ID, USER_ID
from meter.usage import Number
from meter.usage.number import read_number

Headers = Iterable[tuple[bytes, bytes]]
"""Names in lower case, as ASGI has them."""

JoinedHeaders = Mapping[bytes, bytes]
"""The same by name (`joined_headers`)."""


@dataclass(frozen=True, slots=True)
class Admitted:
    """A request with an identity and an estimate of its credits; whether the credits are there is asked next."""

    user_id: str
    estimate: Number
    request_id: str | None = None
    """The id of the request, which the ledger keeps; one that cannot be is not kept."""
    is_told: bool = field(default=False, compare=False)
    """Whether the client sent the estimate."""
    api_key: str = field(default="", repr=False)
    """The API key that the client brought; then the user_id is who is named beside it, "" where nobody is, until it is
    known whose the key is (`Charger.known`).
    """


def json_number(value: bytes) -> Number:
    """A JSON number that is not negative. Raises `InvalidAmount`."""
    number = read_number(value)
    if number is None:
        raise InvalidAmount("must be there once, with a number that is not negative")
    return number


class Admission:
    """Reads three headers. Its methods but `admit` raise `Answered`.

    An estimate that a client sends counts as `minimum_estimate` at least, since an account without credits could hold
    nothing, spend without limit, and have nothing to take it from. `read_estimate` raises `InvalidAmount`; `spelt` are
    further headers that nobody may send with underscores.
    """

    def __init__(
        self,
        *,
        user_id_header: str = "X-User-Id",
        estimate_header: str = "X-Estimated-Tokens",
        request_id_header: str = "X-Request-Id",
        default_estimate: Number = 100,
        minimum_estimate: Number = 1,
        read_estimate: Callable[[bytes], Number] = json_number,
        spelt: Iterable[bytes] = (),
    ) -> None:
        self._user_id_header, self._user_id_name = user_id_header, user_id_header.lower().encode()
        self._estimate_header, self._estimate_name = estimate_header, estimate_header.lower().encode()
        self._request_id_header, self._request_id_name = request_id_header, request_id_header.lower().encode()
        names = (self._user_id_name, self._estimate_name, *spelt)
        self._misspelt = frozenset(name.replace(b"-", b"_") for name in names if b"-" in name)
        self._default_estimate = default_estimate
        self._minimum_estimate = minimum_estimate
        self._read_estimate = read_estimate

    def admit(self, headers: Headers) -> Admitted | Rendered:
        """The identity and the estimate, or the answer that refuses the request: 401 or 400."""
        joined = joined_headers(headers)
        try:
            api_key = brought_key(joined)
            is_named = not api_key or bool(joined.get(self._user_id_name))
            user_id, estimate = self.user_id(joined) if is_named else "", self.estimate(joined)
        except Answered as refusal:
            return refusal.rendered
        request_id = joined.get(self._request_id_name, b"").decode("latin-1")
        is_told = self._estimate_name in joined
        request_id = request_id if REQUEST_ID.fullmatch(request_id) else ""
        return Admitted(user_id, estimate, request_id or None, is_told, api_key)

    def user_id(self, headers: JoinedHeaders) -> str:
        """The user_id: 401 without one, 400 for one that cannot be."""
        if not self._misspelt.isdisjoint(headers):
            raise Answered(problem("invalid-id", "A header is spelt with an underscore; names have hyphens here."))
        value = headers.get(self._user_id_name)
        if not value:
            raise Answered(problem("missing-identity", f"The request needs the header {self._user_id_header}."))
        user_id = value.decode("latin-1")
        if not USER_ID.fullmatch(user_id):
            raise Answered(problem("invalid-id", f"The header {self._user_id_header} does not name one possible user."))
        return user_id

    def estimate(self, headers: JoinedHeaders) -> Number:
        """Credits to hold: at least the minimum."""
        value = headers.get(self._estimate_name)
        if value is None:
            return self._default_estimate
        try:
            return max(self._read_estimate(value), self._minimum_estimate)
        except InvalidAmount as error:
            raise Answered(problem("invalid-estimate", f"The header {self._estimate_header} {error}.")) from None

    def request_id(self, headers: JoinedHeaders) -> str:
        """The id of the request, for whom it decides something; empty where there is none."""
        value = headers.get(self._request_id_name)
        if not value:
            return ""
        request_id = value.decode("latin-1")
        if not REQUEST_ID.fullmatch(request_id):
            detail = f"The header {self._request_id_header} must be 1 to 128 visible ASCII characters without quotes."
            raise Answered(problem("invalid-id", detail))
        return request_id
