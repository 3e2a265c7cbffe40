"""Who asks, and for how much: read from the headers of a request, before anything else of it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from meter.http.rendered import Rendered, problem
from meter.keys import USER_ID
from meter.usage import Number
from meter.usage.number import read_number

Headers = Iterable[tuple[bytes, bytes]]
"""Names in lower case, as ASGI has them."""

REQUEST_ID = b"x-request-id"
_VISIBLE = re.compile(rb"[!-~]{1,128}")


@dataclass(frozen=True, slots=True)
class Admitted:
    """A request with an identity and an estimate of its credits; whether the credits are there is asked next."""

    user_id: str
    estimate: Number
    request_id: str | None = None
    """The `X-Request-Id`, which the ledger keeps; one that is not visible ASCII is not kept."""


class Admission:
    """Reads two headers. One that is sent twice, or spelt with underscores too, is refused: one of the two may come
    from somebody else, and what is behind may take the other.

    An estimate is a JSON number that is not negative; one that a client sends counts as `minimum_estimate` at least,
    since an account without credits could hold nothing, spend without limit, and have nothing to take it from.
    """

    def __init__(
        self,
        *,
        user_id_header: str = "X-User-Id",
        estimate_header: str = "X-Estimated-Tokens",
        default_estimate: Number = 100,
        minimum_estimate: Number = 1,
    ) -> None:
        self._user_id_header, self._user_id_name = user_id_header, user_id_header.lower().encode()
        self._estimate_header, self._estimate_name = estimate_header, estimate_header.lower().encode()
        names = (self._user_id_name, self._estimate_name)
        self._misspelt = frozenset(name.replace(b"-", b"_") for name in names if b"-" in name)
        self._default_estimate = default_estimate
        self._minimum_estimate = minimum_estimate

    def admit(self, headers: Headers) -> Admitted | Rendered:
        """The identity and the estimate, or the answer that refuses the request: 401 or 400."""
        identities, estimates, request_id = [], [], None
        for name, value in headers:
            if name in self._misspelt:
                return problem("invalid-id", "A header is spelt with an underscore; names have hyphens here.")
            if name == self._user_id_name:
                identities.append(value)
            elif name == self._estimate_name:
                estimates.append(value)
            elif name == REQUEST_ID and _VISIBLE.fullmatch(value):
                request_id = value.decode()
        user_id = self._user_id(identities)
        if isinstance(user_id, Rendered):
            return user_id
        estimate = self._estimate(estimates)
        return estimate if isinstance(estimate, Rendered) else Admitted(user_id, estimate, request_id)

    def _user_id(self, found: list[bytes]) -> str | Rendered:
        if not found or found == [b""]:
            return problem("missing-identity", f"The request needs the header {self._user_id_header}.")
        if len(found) > 1:
            return problem("invalid-id", f"The header {self._user_id_header} is there more than once.")
        user_id = found[0].decode("latin-1")
        if not USER_ID.fullmatch(user_id):
            return problem("invalid-id", f"The header {self._user_id_header} names no possible user.")
        return user_id

    def _estimate(self, found: list[bytes]) -> Number | Rendered:
        if not found:
            return self._default_estimate
        estimate = read_number(found[0]) if len(found) == 1 else None
        if estimate is None:
            detail = f"The header {self._estimate_header} must be there once, with a number that is not negative."
            return problem("invalid-estimate", detail)
        return max(estimate, self._minimum_estimate)
