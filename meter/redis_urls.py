"""What a URL of Redis may say: one server, a Redis Cluster, or a master that Sentinels know."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import SplitResult, parse_qs, urlencode, urlsplit, urlunsplit

Address = tuple[str, int]
"""Host and port."""
Kind = Literal["server", "cluster", "sentinel"]

REDIS_PORT, SENTINEL_PORT = 6379, 26379

_SCHEMES: dict[str, tuple[str, Kind]] = {
    "redis": ("redis", "server"),
    "rediss": ("rediss", "server"),
    "unix": ("unix", "server"),
    "redis+cluster": ("redis", "cluster"),
    "redis-cluster": ("redis", "cluster"),
    "rediss+cluster": ("rediss", "cluster"),
    "rediss-cluster": ("rediss", "cluster"),
    "redis+sentinel": ("redis", "sentinel"),
    "redis-sentinel": ("redis", "sentinel"),
    "rediss+sentinel": ("rediss", "sentinel"),
    "rediss-sentinel": ("rediss", "sentinel"),
}
_OTHER_SCHEMES = {
    "valkey": "redis://host:6379/0",
    "valkeys": "rediss://host:6379/0",
    "redis+tls": "rediss://host:6379/0",
    "redis+unix": "unix:///path?db=0",
    "unix+redis": "unix:///path?db=0",
    "redis+socket": "unix:///path?db=0",
    "valkey+cluster": "redis+cluster://host:6379",
    "valkey-cluster": "redis+cluster://host:6379",
    "sentinel": "redis+sentinel://host:26379/service/0",
    "valkey+sentinel": "redis+sentinel://host:26379/service/0",
}
_SEVERAL = "redis+cluster://a:6379,b:6379 or redis+sentinel://a:26379,b:26379/service/0"
_OPTIONS = (
    *("db", "socket_timeout", "socket_connect_timeout", "socket_keepalive", "health_check_interval", "client_name"),
    *("ssl_ca_certs", "ssl_ca_data", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname"),
    "ssl_ciphers",
)
"""Options of a Redis URL that are handed on; others would change what is read, or end in a fault of the client's."""
_HOSTS = re.compile(r"(?P<scheme>[^:/?#]+)://(?P<hosts>[^/?#]*)(?P<rest>.*)", re.DOTALL)
_OF_SENTINELS = ("sentinel_username", "sentinel_password")


@dataclass(frozen=True, slots=True)
class RedisPlace:
    """A URL of Redis, read. `hosts` are those of a cluster's nodes or of Sentinels; `service` is what Sentinels call
    the master; `options` are in the URL for what asks them alone.
    """

    kind: Kind
    hosts: tuple[Address, ...]
    service: str
    url: str
    options: dict[str, str]

    def server(self, address: Address | None = None) -> str:
        """The URL of one server as redis-py takes it: of the one at `address`, else of the first host."""
        if self.kind == "server":
            return self.url
        parts = split_hosts(self.url)
        host, port = address or self.hosts[0]
        user, at, _ = parts.netloc.rpartition("@")
        place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        path = parts.path.rpartition("/")[2] if self.kind == "sentinel" and parts.path.count("/") > 1 else ""
        rest = {name: told for name, told in _options_of(self.url).items() if name not in _OF_SENTINELS}
        scheme = _SCHEMES[parts.scheme][0]
        return urlunsplit((scheme, f"{user}{at}{place}", f"/{path}", urlencode(rest), ""))


def split_hosts(url: str) -> SplitResult:
    """As `urlsplit`, also of several hosts, one of them in brackets: Pythons with the mended check of
    brackets (Debian's 3.11.2 has it) refuse those.
    """
    found = _HOSTS.fullmatch(url)
    if found is None or "," not in found["hosts"]:
        return urlsplit(url)
    return urlsplit(f"{found['scheme']}://{found['rest']}")._replace(netloc=found["hosts"])


def place_of(url: str) -> RedisPlace:
    """Reads a URL. Raises `ValueError` with what is wrong, without its password."""
    parts = split_hosts(url)
    if parts.scheme not in _SCHEMES:
        told = "a Redis URL begins with redis://, rediss://, unix://, redis+cluster:// or redis+sentinel://"
        if parts.scheme in _OTHER_SCHEMES:
            told += f"; this one is {_OTHER_SCHEMES[parts.scheme]}"
        raise ValueError(told)
    kind = _SCHEMES[parts.scheme][1]
    _check_options(url, kind)
    if kind == "server":
        _check_server(url)
        return RedisPlace(kind, (), "", url, {})
    netloc = parts.netloc.rpartition("@")[2]
    hosts = tuple(_address(text, SENTINEL_PORT if kind == "sentinel" else REDIS_PORT) for text in netloc.split(","))
    service, _, database = parts.path.strip("/").partition("/")
    if kind == "cluster":
        database = _options_of(url).get("db", service)
        if database not in ("", "0"):
            raise ValueError(f"a Redis Cluster has the database 0 only, and not {database[:20]!r}")
        service = ""
    elif not service:
        raise ValueError("Sentinels must be told which master: redis+sentinel://host:26379/service/0")
    elif not re.fullmatch("[0-9]*", database):
        raise ValueError(f"{database[:20]!r} is no number of a database")
    options = {name: told for name, told in _options_of(url).items() if name in _OF_SENTINELS}
    return RedisPlace(kind, hosts, service, url, options)


def checked_redis_url(url: str) -> str:
    """The URL, when it can be read. Raises `ValueError`."""
    place_of(url)
    return url


def checked_queue_url(url: str) -> str:
    """The same for arq's Redis. Raises `ValueError` for a cluster, too."""
    if place_of(url).kind == "cluster":
        raise ValueError("arq's jobs need one Redis, and this is a Redis Cluster: redis://host:6379/0")
    return url


def _check_server(url: str) -> None:
    parts = split_hosts(url)
    if "," in parts.netloc.rpartition("@")[2]:
        raise ValueError(f"there are several hosts, which are {_SEVERAL}")
    _ = parts.port  # raises ValueError for one that is none
    if parts.scheme != "unix" and not re.fullmatch("/?[0-9]*", parts.path):
        raise ValueError(f"{parts.path[:20]!r} is no number of a database")


def _check_options(url: str, kind: Kind) -> None:
    taken = (*_OPTIONS, *_OF_SENTINELS) if kind == "sentinel" else _OPTIONS
    for name in _options_of(url):
        if name not in taken:
            raise ValueError(f"the option {name[:40]!r} is not taken; there are {', '.join(taken)}")


def _options_of(url: str) -> dict[str, str]:
    return {name: told[-1] for name, told in parse_qs(split_hosts(url).query, keep_blank_values=True).items()}


def _address(text: str, port: int) -> Address:
    parts = urlsplit(f"//{text}")
    if not parts.hostname or parts.path or "@" in text:
        raise ValueError(f"{text[:60]!r} is no host and port")
    return parts.hostname, parts.port or port
