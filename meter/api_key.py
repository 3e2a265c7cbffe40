"""The text of an API key: drawn by lot, kept nowhere but as its hash, and checked for slips without asking anybody.

`mk_live_` (`mk_test_` where it was made with the test clock allowed), eight hex digits of the CRC-32 of the root of its
path, which find the partition for any number of them, 32 random bytes in base 62, and the CRC-32 of that in base 62.
"""

from __future__ import annotations

import re
import secrets
import string
from hashlib import sha256
from typing import NamedTuple
from zlib import crc32

API_KEY = re.compile(r"mk_(live|test)_([0-9a-f]{8})[0-9A-Za-z]{43}([0-9A-Za-z]{6})")
PREFIX = "mk_"
"""What every key begins with, and no key of a provider of models does."""
KEY_ID = re.compile(r"key_[0-9a-f]{20}")

_DIGITS = string.digits + string.ascii_uppercase + string.ascii_lowercase
_RANDOM_BYTES, _RANDOM_DIGITS, _CHECK_DIGITS = 32, 43, 6


class ApiKey(NamedTuple):
    """A key by what may be kept of it. `root` is the CRC-32 of the root of its path."""

    key_id: str
    hash: str
    """SHA-256 of the text, in hex. The text has 256 random bits, so that nobody guesses one by its hash."""
    root: int


def new_api_key(user_id: str, *, is_test: bool) -> tuple[str, ApiKey]:
    """The text of a new key of a path, of an operator's where the user_id is "", and what may be kept of it."""
    kind = "test" if is_test else "live"
    number = int.from_bytes(secrets.token_bytes(_RANDOM_BYTES))
    text = f"{PREFIX}{kind}_{crc32(_root_of(user_id)):08x}{_in_base_62(number, _RANDOM_DIGITS)}"
    text += _checksum(text)
    return text, _known(text)


def read_api_key(text: str) -> ApiKey | None:
    """What a key is known by; None for a text that is none, one with a slip in it among them."""
    found = API_KEY.fullmatch(text)
    if found is None or _checksum(text[:-_CHECK_DIGITS]) != found[3]:
        return None
    return _known(text)


def unknown_api_key(text: str) -> ApiKey:
    """What stands for a text that is no key: nobody has one of that hash."""
    hashed = sha256(b"\0" + text.encode("utf-8", "surrogatepass")).hexdigest()
    return ApiKey(key_id_of(hashed), hashed, 0)


def key_id_of(hashed: str) -> str:
    """The id of the key with that hash: what the ledger and the log call it."""
    return f"key_{hashed[:20]}"


def _known(text: str) -> ApiKey:
    hashed = sha256(text.encode()).hexdigest()
    root = text.rpartition("_")[2][:8]
    return ApiKey(key_id_of(hashed), hashed, int(root, 16))


def _root_of(user_id: str) -> bytes:
    return user_id.partition("/")[0].encode("ascii")


def _checksum(text: str) -> str:
    return _in_base_62(crc32(text.encode()), _CHECK_DIGITS)


def _in_base_62(number: int, digits: int) -> str:
    found = []
    for _ in range(digits):
        number, digit = divmod(number, len(_DIGITS))
        found.append(_DIGITS[digit])
    return "".join(reversed(found))
