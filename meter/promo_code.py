"""The text of a promo code: what people type in, in capitals or not. It is kept as an HMAC alone.

One that is drawn by lot has 79 random bits, so that nobody finds it by its HMAC. One that people chose (`SPRING10`) can
be guessed by who has the rows and the secret: `METER_CODE_SECRET` keeps it from who has the rows alone.
"""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Sequence

_TEXT = re.compile(r"[A-Z0-9][A-Z0-9._-]{2,63}")
TEXT_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{2,63}$"
"""What a text may be when it is chosen."""
CODE_ID = re.compile(r"code_[0-9a-f]{20}")

_LETTERS = "ABCDEFGHJKMNPQRSTUVWXYZ23456789"
"""None that is taken for another one."""
_GROUPS, _PER_GROUP = 4, 4


def new_text() -> str:
    """A text drawn by lot: `K7QX-M2RA-9TDW-PHB4`."""
    return "-".join("".join(secrets.choice(_LETTERS) for _ in range(_PER_GROUP)) for _ in range(_GROUPS))


def new_code_id() -> str:
    """What a code is called by, in rows and grants; it says nothing of the text."""
    return f"code_{secrets.token_hex(10)}"


def read_text(text: str) -> str | None:
    """A text as it is compared: in capitals, without blanks around it; None for one that no code has."""
    if not text.isascii():  # capitals of other letters may be ASCII
        return None
    found = text.strip().upper()
    return found if _TEXT.fullmatch(found) else None


def hmacs_of(text: str, secret: str) -> Sequence[str]:
    """What a text is found by: under each of the secrets, which have commas between them; new codes are kept under the
    first.
    """
    return [hmac.new(one.encode(), text.encode(), "sha256").hexdigest() for one in secret.split(",")]
