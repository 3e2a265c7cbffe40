"""What a failed call of Redis means, in one line with its remedy: it is away, or it refuses us.

By the words of the server and of redis-py, which for one cause differ between their versions. Nothing of a URL is
repeated: it has a password.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator

from meter.errors import RedisDenied, RedisUnavailable, RedisUnknown

REDIS = "METER_REDIS_URL"
QUEUE = "METER_QUEUE_URL"

# Words of the server or of the TLS library, in small letters, and what they mean for whoever wrote the URL. The first
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
    (("cross slot", "crossslot", "cluster mode", "moved "), "it is a Redis Cluster: redis+cluster://host:6379"),
    (("cluster support disabled",), "it is no Redis Cluster: redis://host:6379/0"),
    (("no such master with that name",), "the Sentinels know no master of that name"),
    (("hostname mismatch", "ip address mismatch"), "its certificate is for another name: use the name that it has"),
    (("certificate has expired",), "its certificate has expired"),
    (
        ("self-signed", "self signed", "unable to get local issuer", "unable to get issuer"),
        "nobody known has signed its certificate: METER_REDIS_CA_FILE names the CA",
    ),
    (("certificate_verify_failed", "certificate verify failed"), "its certificate is refused"),
    (
        ("certificate required", "certificate_required", "alert bad certificate", "handshake failure"),
        "it wants a client certificate: METER_REDIS_CERT_FILE and METER_REDIS_KEY_FILE",
    ),
    (("wrong_version_number", "wrong version number", "record layer failure"), "it speaks no TLS there: redis://"),
    (("protocol error, got",), "what answers there is no Redis"),
)
_RIGHTS = (
    "no permissions to",
    "noperm",
    "the user executing the script can't",
    "acl failure",
)
_RIGHTS_REMEDY = "docs/redis.md has the ACL that is needed"
_NO_ADDRESS = (
    *("name or service not known", "nodename nor servname", "no address associated", "no data of requested type"),
    *("label empty or too long", "label too long"),
)
"""What resolvers say of a name that nobody knows; one that cannot be asked now says something else."""
_LOADING = "Redis is reading its data from disk and serves when that is done"


def fault_of(error: Exception, variable: str = REDIS) -> RedisUnavailable:
    """`RedisDenied` where waiting does not help, `RedisUnknown` where it hardly does, else that Redis is away."""
    texts = [text.lower() for text in _texts(error)]
    if any(words in text for text in texts for words in _RIGHTS):
        return RedisDenied("redis", f"{variable}: Redis refuses its user: {_first_line(error)}; {_RIGHTS_REMEDY}")
    for words, meaning in _DENIED:
        if any(word in text for text in texts for word in words):
            return RedisDenied("redis", f"{variable}: {meaning} ({_first_line(error)})")
    if any(words in text for text in texts for words in _NO_ADDRESS):
        return RedisUnknown("redis", f"{variable}: its host has no address ({_first_line(error)})")
    if "loading the dataset" in str(error).lower():
        return RedisUnavailable("redis", _LOADING)
    return RedisUnavailable("redis", f"{type(error).__name__}: {_first_line(error)}")


def is_of_rights(message: str) -> bool:
    """Whether a server's refusal is for want of a right: a script may have been cut off by it."""
    return any(words in message.lower() for words in _RIGHTS)


def _texts(error: BaseException | None) -> Iterator[str]:
    """What an error and its causes say; those of the TLS library have their words in fields."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield str(error)
        if isinstance(error, ssl.SSLCertVerificationError):
            yield error.verify_message or ""
        error = error.__cause__ or error.__context__


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200].rstrip(".")
