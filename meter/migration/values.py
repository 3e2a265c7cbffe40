"""The values of a document, one by one, with a reason where one cannot be read."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from hashlib import blake2b

from meter.amount import AmountScale, is_countable, plain_decimal
from meter.clock import milliseconds
from meter.errors import InvalidAmount
from meter.keys import OBJECT_ID, USER_ID

ID_PREFIX = "import_"
DOUBLE_DIGITS = 15
"""How many significant digits a double keeps of any decimal; what arithmetic leaves beyond them is noise."""


class Unreadable(Exception):
    """A value cannot be read; the message says which and why."""


class Values:
    """The members of a document. Every reader raises `Unreadable`."""

    def __init__(self, members: Mapping[str, object]) -> None:
        self._members = members

    def number(self, name: str, default: int | None = None) -> Decimal:
        """A number from its digits."""
        value = self._members.get(name)
        if value is None and default is not None:
            return Decimal(default)
        try:
            found = Decimal(value) if isinstance(value, int) and value is not True else plain_decimal(value)
        except InvalidAmount as error:
            raise Unreadable(f"{name}: {error}" if name in self._members else f"{name} is missing") from None
        if isinstance(value, bool) or not is_countable(found):
            raise Unreadable(f"{name}: must be a number within reason")
        return found

    def whole(self, name: str) -> int:
        """A whole number."""
        found = self.number(name)
        if found != int(found):
            raise Unreadable(f"{name}: must be a whole number")
        return int(found)

    def text(self, name: str) -> str:
        """A text that is there."""
        value = self._members.get(name)
        if not isinstance(value, str) or not value:
            raise Unreadable(f"{name}: must be a text" if name in self._members else f"{name} is missing")
        return value

    def text_or_none(self, name: str) -> str | None:
        """A text, where there is one."""
        return None if self._members.get(name) in (None, "") else self.text(name)

    def user_id(self) -> str:
        """Who it is about."""
        user_id = self.text("user_id")
        if not USER_ID.fullmatch(user_id):
            raise Unreadable(f"user_id {user_id[:60]!r}: must be 1 to 128 of A-Z a-z 0-9 . _ : @ / -")
        return user_id

    def old_id(self) -> str:
        """The document's own id."""
        for name in ("_id", "id"):
            if self._members.get(name) not in (None, ""):
                return str(self._members[name])
        raise Unreadable("it has no _id")

    def flag(self, name: str, default: bool) -> bool:
        """Yes or no."""
        value = self._members.get(name, default)
        if not isinstance(value, bool):
            raise Unreadable(f"{name}: must be true or false")
        return value

    def microseconds(self, name: str) -> int:
        """A time since 1970; one without a zone is UTC, as credit-management writes them."""
        found = self._time(name)
        if found is None:
            raise Unreadable(f"{name} is missing")
        return round(found.timestamp() * 1_000_000)

    def milliseconds_or_none(self, name: str) -> int | None:
        """The same, where there is one."""
        found = self._time(name)
        return None if found is None else milliseconds(found)

    def _time(self, name: str) -> datetime | None:
        value = self._members.get(name)
        if value is None:
            return None
        try:
            found = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
        except ValueError:
            raise Unreadable(f"{name}: {str(value)[:60]!r} is no time") from None
        return found if found.tzinfo else found.replace(tzinfo=UTC)


def new_id(old: str) -> str:
    """The id under which something comes in: always the same one."""
    found = f"{ID_PREFIX}{old}"
    if len(found) <= 64 and OBJECT_ID.fullmatch(found):
        return found
    return ID_PREFIX + blake2b(old.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


def units_of(amount: Decimal, scale: AmountScale, name: str) -> int:
    """Units of an exact amount. Raises `Unreadable` for what cannot be represented: nothing is rounded."""
    try:
        return scale.units(amount)
    except InvalidAmount as error:
        raise Unreadable(f"{name} {amount:f}: {error}") from None


def without_noise(amount: Decimal) -> Decimal:
    """A sum of doubles to the digits that a double keeps."""
    return Decimal(f"{amount:.{DOUBLE_DIGITS}g}")
