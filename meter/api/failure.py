"""What a broken promise looks like to a caller."""

from __future__ import annotations

import secrets
from logging import getLogger

from meter.api.rendering import Rendered, problem
from meter.errors import Unavailable
from meter.http.exchange import Refused

_log = getLogger("meter.api")


def failure(error: Exception) -> Rendered:
    """The answer for an exception: 503 when the call was not decided, else 500 with an id that the log has too."""
    if isinstance(error, Refused):
        return error.rendered
    if isinstance(error, Unavailable):
        return problem("metering-unavailable", str(error), f'"reason":"{error.reason}"')
    fault_id = secrets.token_hex(6)
    _log.error("internal error %s", fault_id, exc_info=error)
    return problem("internal-error", f"The log has the cause under {fault_id}.", f'"id":"{fault_id}"')
