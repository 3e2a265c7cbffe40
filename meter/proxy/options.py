"""Everything that can be set about the proxy."""

from __future__ import annotations

import re
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from yarl import URL

from meter.charging import Admission, ChargePolicy, MeteredPaths, Missing
from meter.charging.policy import SUCCESS
from meter.errors import ConfigError
from meter.usage import INSPECT_BYTES_MAX, Format, Number, Shape, shape_of

ACTUAL_HEADER = "X-Credits-Actual"

_STATUSES = re.compile(r"[1-5](?:[0-9]{2}|xx)")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyOptions:
    """Options of `meter proxy`. Raises `ConfigError` for one that cannot be."""

    upstream: str
    """Where requests go: http or https, without credentials and query. A path is put in front of each request's."""
    meter_url: str | None = None
    """A sidecar that decides over HTTP; None: decide in this process, on the Redis of METER_REDIS_URL."""
    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = 8080
    """Port to listen on."""
    uds: Path | None = None
    """Listen on a unix socket instead."""

    path_prefix: str = "/"
    """What is metered: everything at and below this path, but for `skip_paths`. The rest is forwarded for free."""
    skip_paths: tuple[str, ...] = ()
    """Not metered: everything at and below these paths. OPTIONS is never metered."""
    user_id_header: str = "X-User-Id"
    """Who pays. Whatever is in front of the proxy must set it, or strip it from strangers."""
    estimated_tokens_header: str = "X-Estimated-Tokens"
    """How many credits to hold."""
    default_estimated_tokens: Number = 100
    """Credits to hold when the client sends no estimate."""
    minimum_estimated_tokens: Number = 1
    """Credits to hold at least when it does."""
    forward_identity: bool = True
    """Pass the identity header on to the upstream."""
    preserve_host: bool = False
    """Pass the client's Host on, instead of the upstream's."""

    usage_format: Format = Format.AUTO
    """Where a response tells its usage."""
    usage_key: str | None = None
    """The dotted key of the usage, for the formats `key` and `auto`."""
    usage_header: str | None = None
    """A response header that tells the credits to charge; `X-Credits-Actual` always does, and beats it."""
    inject_include_usage: bool = False
    """Ask OpenAI chat completions that stream for the usage they would not send; the client does not see it."""
    inspect_bytes_max: int = INSPECT_BYTES_MAX
    """How much of a decoded response is searched for its usage."""

    charge_statuses: Container[int] = SUCCESS
    """Responses of any other status cost nothing."""
    on_missing_usage: Missing = Missing.RELEASE
    """What a response costs that ended, or broke off, without telling its usage."""
    on_disconnect: Missing = Missing.ESTIMATE
    """What a response costs whose client left, and whose usage did not come while it was drained."""
    over: Literal["cap", "overdraft"] = "cap"
    """When usage exceeds the hold: charge what is free, or go on to the overdraft limit."""
    ttl_seconds: float | None = None
    """Life of a hold, renewed while the exchange lasts; None: the meter's default."""
    fail: Literal["closed", "open"] = "closed"
    """When nobody can say whether a user may spend: answer 503, or forward unmetered with `X-Credits-Metered: 0`."""

    disconnect: Literal["drain", "cancel"] = "drain"
    """When the client leaves: read the response on for its usage, or drop the connection to the upstream."""
    drain_seconds: float = 60.0
    """How long a response is drained."""
    drain_bytes_max: int = 16 * 2**20
    """How much of a response is drained."""

    connect_timeout_seconds: float = 10.0
    """How long connecting to the upstream may take, 504."""
    upstream_silence_seconds: float = 600.0
    """How long the upstream may say nothing, before its headers (504) and within its body (the client is cut off)."""
    client_stall_seconds: float = 60.0
    """How long a client may take nothing of what is sent, before it counts as gone."""
    upstream_connections_max: int = 4096
    """Connections to the upstream; more requests wait for one, within the time for connecting."""

    def __post_init__(self) -> None:
        try:
            url = URL(self.upstream)
            is_base = (
                url.scheme in ("http", "https") and url.host and not (url.user or url.query_string or url.fragment)
            )
            self.paths()
            self.shape()
        except ValueError as error:
            raise ConfigError(f"meter proxy: {error}") from None
        if not is_base:
            raise ConfigError(
                f"meter proxy: upstream={self.upstream!r}: must be http://host or https://host, and a path"
            )
        for name in (
            "drain_seconds",
            "drain_bytes_max",
            "connect_timeout_seconds",
            "upstream_silence_seconds",
            "client_stall_seconds",
            "upstream_connections_max",
        ):
            if getattr(self, name) <= 0:
                raise ConfigError(f"meter proxy: {name}={getattr(self, name)!r}: must be positive")

    def paths(self) -> MeteredPaths:
        """Which paths are metered. Raises ValueError."""
        return MeteredPaths(self.path_prefix, self.skip_paths)

    def shape(self) -> Shape:
        """Where a response tells its usage. Raises ValueError."""
        return shape_of(self.usage_format, self.usage_key)

    def admission(self) -> Admission:
        """What a request must bring."""
        return Admission(
            user_id_header=self.user_id_header,
            estimate_header=self.estimated_tokens_header,
            default_estimate=self.default_estimated_tokens,
            minimum_estimate=self.minimum_estimated_tokens,
        )

    def policy(self) -> ChargePolicy:
        """What a response costs."""
        headers = [name.lower().encode() for name in (ACTUAL_HEADER, self.usage_header) if name]
        return ChargePolicy(
            shape=self.shape(),
            usage_headers=tuple(headers),
            charge_statuses=self.charge_statuses,
            on_missing_usage=self.on_missing_usage,
            on_disconnect=self.on_disconnect,
            over=self.over,
            ttl_seconds=self.ttl_seconds,
            inspect_bytes_max=self.inspect_bytes_max,
        )


def parse_statuses(text: str) -> frozenset[int]:
    """Statuses out of `2xx`, `200,404`, `2xx,404`. Raises `ConfigError`."""
    statuses: set[int] = set()
    for word in text.lower().split(","):
        found = _STATUSES.fullmatch(word.strip())
        if found is None:
            raise ConfigError(f"meter proxy: charge_statuses={text!r}: must be such as 2xx,404")
        first = int(found[0].replace("x", "0"))
        statuses.update(range(first, first + 100) if "x" in found[0] else (first,))
    return frozenset(statuses)
