"""What a gateway says in headers: who asks, for how much, which request it is, and how it ended."""

from __future__ import annotations

from decimal import Decimal

import orjson

from meter.amount import AmountScale
from meter.charging.admission import Admission, JoinedHeaders
from meter.charging.models import all_names
from meter.config import Settings
from meter.errors import ConfigError, InvalidAmount
from meter.gateway.ids import ReservationNames
from meter.gateway.settlement import Outcome, read_status, read_usage
from meter.gateway.told_usage import usage_in
from meter.http.rendered import Answered, problem
from meter.keys import OBJECT_ID
from meter.usage import Usage

RESERVATION = b"x-reservation-id"
ACTUAL = b"x-credits-actual"
USED = b"x-usage"
STATUS = b"x-upstream-status"


class GatewayHeaders:
    """Reads the headers of one deployment. Every method raises `Answered`."""

    def __init__(self, settings: Settings, scale: AmountScale, names: ReservationNames) -> None:
        """Raises `ConfigError` for an amount that the deployment cannot count."""
        self._scale = scale
        self._default = self._setting("ESTIMATE_DEFAULT", settings.gateway_estimate_default)
        self._estimate_name = settings.gateway_estimate_header.lower().encode()
        self._model_name = settings.gateway_model_header.lower().encode()
        self._named = f"{settings.gateway_user_header} and {settings.gateway_request_header}"
        self.reservation_id = names.of
        """The reservation of a user's request."""
        admission = Admission(
            user_id_header=settings.gateway_user_header,
            estimate_header=settings.gateway_estimate_header,
            request_id_header=settings.gateway_request_header,
            default_estimate=self._default,
            minimum_estimate=self._setting("ESTIMATE_MINIMUM", settings.gateway_estimate_minimum),
            read_estimate=lambda value: self._units(value.decode("latin-1")),
            spelt=(settings.gateway_request_header.lower().encode(), RESERVATION, ACTUAL, STATUS),
        )
        self._admission = admission
        self.user_name = settings.gateway_user_header.lower().encode()
        """The header that names the user."""
        self.user_id, self.request_id = admission.user_id, admission.request_id

    def check_owner(self, headers: JoinedHeaders, user_id: str) -> None:
        """Whoever is named beside an API key is the one whose it is: 400 else."""
        if headers.get(self.user_name) and self.user_id(headers) != user_id:
            raise Answered(problem("invalid-id", "The API key is not that of the user who is named beside it."))

    def estimate(self, headers: JoinedHeaders) -> int:
        """Units to hold. The template of a gateway may leave the header empty: then there is none."""
        return int(self._admission.estimate(headers)) if headers.get(self._estimate_name) else self._default

    def models(self, headers: JoinedHeaders) -> tuple[str, ...]:
        """The names of the model that a gateway knows of; none where it names none."""
        value = headers.get(self._model_name)
        return all_names([value.decode("latin-1")]) if value else ()

    def settled(self, headers: JoinedHeaders) -> str:
        """The reservation that a commit is about, by its own id or by user and request."""
        value = headers.get(RESERVATION)
        if value:
            reservation_id = value.decode("latin-1")
            if not OBJECT_ID.fullmatch(reservation_id):
                raise Answered(problem("invalid-id", "The header X-Reservation-Id does not name one reservation."))
            return reservation_id
        request_id = self.request_id(headers)
        if not request_id:
            raise Answered(problem("invalid-id", f"The request needs the header X-Reservation-Id, or {self._named}."))
        return self.reservation_id(self.user_id(headers), request_id)

    def outcome(self, headers: JoinedHeaders) -> Outcome:
        """How the request ended; it succeeded where no status is told."""
        status = headers.get(STATUS)
        value = headers.get(ACTUAL)
        usage = read_usage(value.decode("latin-1")) if value else None
        if value and usage is None:
            raise Answered(problem("invalid-usage", "The header X-Credits-Actual must be one number, not negative."))
        told = None if usage else self._used(headers.get(USED))
        usage = told.total if told is not None else usage
        return Outcome(read_status(status.decode("latin-1")) if status else 200, usage, told=told)

    def _used(self, value: bytes | None) -> Usage | None:
        if not value:
            return None
        try:
            told = usage_in(orjson.loads(value))
        except orjson.JSONDecodeError:
            told = None
        if told is None:
            raise Answered(problem("invalid-usage", "The header X-Usage must be an object of quantities, as JSON."))
        return told

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
