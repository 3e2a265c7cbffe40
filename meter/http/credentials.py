"""The API key that a request brings, as clients of providers send theirs: `Authorization: Bearer mk_…`, or
`x-api-key: mk_…`. Whatever else stands there is somebody else's, and none of our business.
"""

from __future__ import annotations

from collections.abc import Mapping

from meter.api_key import PREFIX
from meter.http.rendered import Answered, problem

AUTHORIZATION, X_API_KEY = b"authorization", b"x-api-key"
_BEARER = b"bearer "
_MARK = PREFIX.encode()


def brought_key(headers: Mapping[bytes, bytes]) -> str:
    """The text of the key, "" where there is none. A header that is sent twice is joined by a comma and thereby no key.
    Raises `Answered` for two that differ.
    """
    found = {key for name in (AUTHORIZATION, X_API_KEY) if (key := key_of(name, headers.get(name, b"")))}
    if len(found) > 1:
        raise Answered(problem("invalid-id", "The request brings two API keys, and they differ."))
    return found.pop().decode("latin-1") if found else ""


def key_of(name: bytes, value: bytes) -> bytes:
    """The key that a header brings, b"" where it brings none of ours."""
    if name == AUTHORIZATION:
        if value[: len(_BEARER)].lower() != _BEARER:
            return b""
        value = value[len(_BEARER) :].strip()
    return value if name in (AUTHORIZATION, X_API_KEY) and value.startswith(_MARK) else b""
