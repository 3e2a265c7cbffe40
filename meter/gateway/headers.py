"""What a gateway says in headers: who asks, for how much, and which request it is.

A header that is sent twice is joined by a comma, as HTTP has it, and thereby names no possible user, amount or id. A
spelling with underscores is refused too: what is behind the gateway may take it for the same header.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from meter.amount import AmountScale
from meter.config import Settings
from meter.errors import ConfigError, InvalidAmount
from meter.gateway.ids import REQUEST_ID, reservation_id_of
from meter.gateway.settlement import Exchange, read_status, read_usage
from meter.http.rendered import Answered, problem
from meter.keys import OBJECT_ID, USER_ID, partition_of

RESERVATION = b"x-reservation-id"
ACTUAL = b"x-credits-actual"
STATUS = b"x-upstream-status"

Headers = Mapping[bytes, bytes]


class GatewayHeaders:
    """Reads the headers of one deployment. Every method raises `Answered`."""

    def __init__(self, settings: Settings, scale: AmountScale) -> None:
        """Raises `ConfigError` for an amount that the deployment cannot count."""
        self._user = settings.gateway_user_header
        self._estimate = settings.gateway_estimate_header
        self._request = settings.gateway_request_header
        self._user_name = self._user.lower().encode()
        self._estimate_name = self._estimate.lower().encode()
        self._request_name = self._request.lower().encode()
        names = (self._user_name, self._estimate_name, self._request_name, RESERVATION, ACTUAL, STATUS)
        self._misspelt = frozenset(name.replace(b"-", b"_") for name in names if b"-" in name)
        self._scale = scale
        self._default = self._setting("ESTIMATE_DEFAULT", settings.gateway_estimate_default)
        self._minimum = self._setting("ESTIMATE_MINIMUM", settings.gateway_estimate_minimum)
        self._partitions = settings.partitions
        self._secret = settings.gateway_secret.encode()

    def user(self, headers: Headers) -> str:
        """The user_id: 401 without one, 400 for one that cannot be."""
        if not self._misspelt.isdisjoint(headers):
            raise Answered(problem("invalid-id", "A header is spelt with an underscore; names have hyphens here."))
        value = headers.get(self._user_name)
        if not value:
            raise Answered(problem("missing-identity", f"The request needs the header {self._user}."))
        user_id = value.decode("latin-1")
        if not USER_ID.fullmatch(user_id):
            raise Answered(problem("invalid-id", f"The header {self._user} does not name one possible user."))
        return user_id

    def estimate(self, headers: Headers) -> int:
        """Units to hold: at least the minimum, since who holds nothing could spend without limit."""
        value = headers.get(self._estimate_name)
        if not value:
            return self._default
        try:
            return max(self._units(value.decode("latin-1")), self._minimum)
        except InvalidAmount as error:
            detail = f"The header {self._estimate} {error}."
            raise Answered(problem("invalid-estimate", detail)) from None

    def request_id(self, headers: Headers) -> str:
        """The id that the gateway gave the request; empty where it gave none."""
        value = headers.get(self._request_name)
        if not value:
            return ""
        request_id = value.decode("latin-1")
        if not REQUEST_ID.fullmatch(request_id):
            detail = f"The header {self._request} must be 1 to 128 visible ASCII characters without quotes."
            raise Answered(problem("invalid-id", detail))
        return request_id

    def reservation_id(self, user_id: str, request_id: str) -> str:
        """The reservation of a user's request."""
        partition = partition_of(user_id, self._partitions)
        return reservation_id_of(user_id, request_id, partition=partition, secret=self._secret)

    def settled(self, headers: Headers) -> str:
        """The reservation that a commit is about, by its own id or by user and request."""
        value = headers.get(RESERVATION)
        if value:
            reservation_id = value.decode("latin-1")
            if not OBJECT_ID.fullmatch(reservation_id):
                raise Answered(problem("invalid-id", "The header X-Reservation-Id does not name one reservation."))
            return reservation_id
        request_id = self.request_id(headers)
        if not request_id:
            detail = f"The request needs the header X-Reservation-Id, or {self._user} and {self._request}."
            raise Answered(problem("invalid-id", detail))
        return self.reservation_id(self.user(headers), request_id)

    def exchange(self, headers: Headers) -> Exchange:
        """How the request ended; it succeeded where no status is told."""
        status = headers.get(STATUS)
        value = headers.get(ACTUAL)
        usage = read_usage(value.decode("latin-1")) if value else None
        if value and usage is None:
            raise Answered(problem("invalid-usage", "The header X-Credits-Actual must be one number, not negative."))
        return Exchange(read_status(status.decode("latin-1")) if status else 200, usage)

    def _setting(self, name: str, amount: Decimal) -> int:
        try:
            return self._units(amount)
        except InvalidAmount as error:
            raise ConfigError(f"METER_GATEWAY_{name}={amount}: {error}") from None

    def _units(self, amount: str | Decimal) -> int:
        units = self._scale.units(amount)
        if units < 0:
            raise InvalidAmount("must not be negative")
        return units
