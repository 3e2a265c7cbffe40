"""What a failed call of Redis means, in one line with its remedy: it is away, or it refuses us.

By the words of the server and of redis-py, which for one cause differ between their versions. Nothing of a URL is
repeated: it has a password.
"""

from __future__ import annotations

from meter.connection_faults import TlsOptions, first_line, has_no_address, texts_of, tls_refusal
from meter.errors import RedisDenied, RedisUnavailable, RedisUnknown

REDIS = "METER_REDIS_URL"
QUEUE = "METER_QUEUE_URL"

# Words of the server, in small letters, and what they mean for whoever wrote the URL. The first
# that is found counts.
_DENIED = (
    (("called without any password configured", "no password is set"), "Redis has no password and refuses one"),
    (
        ("authentication required", "noauth", "hello must be called with the client already authenticated"),
        "Redis wants a password and was given none: redis://user:password@host:6379/0",
    ),
    (("invalid username-password", "wrongpass", "invalid password"), "Redis refuses the user or the password"),
    (("running in protected mode",), "Redis is in protected mode: give it a password, or `bind` the right address"),
    (("db index is out of range", "invalid db index"), "there is no database of that number"),
    (
        ("cross slot", "crossslot", "cluster mode", "moved ", "movederror"),
        "it is a Redis Cluster: redis+cluster://host:6379",
    ),
    (("cluster support disabled",), "it is no Redis Cluster: redis://host:6379/0"),
    (("no such master with that name", "no such primary with that name"), "the Sentinels know no master of that name"),
    (("protocol error, got",), "what answers there is no Redis"),
)
_RIGHTS = (
    "no permissions to",
    "noperm",
    "the user executing the script can't",
    "acl failure",
)
_RIGHTS_REMEDY = "docs/redis.md has the ACL that is needed"
_TLS = TlsOptions("METER_REDIS_CA_FILE", "METER_REDIS_CERT_FILE and METER_REDIS_KEY_FILE", "redis://")
_LOADING = "Redis is reading its data from disk and serves when that is done"


def fault_of(error: Exception, variable: str = REDIS) -> RedisUnavailable:
    """`RedisDenied` where waiting does not help, `RedisUnknown` where it hardly does, else that Redis is away."""
    texts = [*texts_of(error), type(error).__name__.lower()]  # redis-py 6 cuts off the word that it has a class for
    if any(words in text for text in texts for words in _RIGHTS):
        return RedisDenied("redis", f"{variable}: Redis refuses its user: {first_line(error)}; {_RIGHTS_REMEDY}")
    for words, meaning in _DENIED:
        if any(word in text for text in texts for word in words):
            return RedisDenied("redis", f"{variable}: {meaning} ({first_line(error)})")
    if meaning := tls_refusal(texts, _TLS):
        return RedisDenied("redis", f"{variable}: {meaning} ({first_line(error)})")
    if has_no_address(texts):
        return RedisUnknown("redis", f"{variable}: its host has no address ({first_line(error)})")
    if "loading the dataset" in str(error).lower():
        return RedisUnavailable("redis", _LOADING)
    return RedisUnavailable("redis", f"{type(error).__name__}: {first_line(error)}")


def is_of_rights(message: str) -> bool:
    """Whether a server's refusal is for want of a right: a script may have been cut off by it."""
    return any(words in message.lower() for words in _RIGHTS)
