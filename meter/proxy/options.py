"""Everything that can be set about the proxy."""

from __future__ import annotations

import os
import re
from collections.abc import Container
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from typing_extensions import Doc
from yarl import URL

from meter.charging.admission import Admission
from meter.charging.asking import REQUEST_BYTES_MAX, EstimateRules
from meter.charging.paths import MeteredPaths
from meter.charging.policy import SUCCESS, ChargePolicy, Missing, Over
from meter.charging.priced import ChargeBy
from meter.charging.routes import Routes, rule_of
from meter.errors import ConfigError
from meter.usage import INSPECT_BYTES_MAX, Format, Number, Shape, shape_of, shape_of_work

ACTUAL_HEADER = "X-Credits-Actual"
REQUEST_MEMORY_BYTES = 8 * REQUEST_BYTES_MAX

_STATUSES = re.compile(r"[1-5](?:[0-9]{2}|xx)")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyOptions:
    """Options of `meter proxy`. Raises `ConfigError` for one that cannot be."""

    upstream: Annotated[
        str,
        Doc(
            "Where requests go: http or https, without credentials and query. A path is put in front of each request's."
        ),
    ]
    meter_url: Annotated[
        str | None,
        Doc("A sidecar that decides over HTTP; None: decide in this process, on the Redis of METER_REDIS_URL."),
    ] = None
    host: Annotated[str, Doc("Address to listen on.")] = "127.0.0.1"
    port: Annotated[int, Doc("Port to listen on.")] = 8080
    uds: Annotated[Path | None, Doc("Listen on a unix socket instead.")] = None
    probes_host: Annotated[str, Doc("Address of the proxy's own probes and metrics.")] = "127.0.0.1"
    probes_port: Annotated[
        int | None,
        Doc("Port of /livez, /readyz and /metrics; by default the one after --port, if it is free; 0: none."),
    ] = None

    path_prefix: Annotated[
        str,
        Doc("What is metered: everything at and below this path, but for --skip-path. The rest is forwarded for free."),
    ] = "/"
    skip_paths: Annotated[
        tuple[str, ...], Doc("Not metered: everything at and below these paths. OPTIONS is never metered.")
    ] = ()
    routes: Annotated[
        tuple[str, ...],
        Doc(
            "A rule of your own, before those of the providers: `free GET /v1/things/*` or `charge POST /v1/files`; "
            "`*` is one segment, `**` any number, and the method may be `*`."
        ),
    ] = ()
    routes_file: Annotated[Path | None, Doc("A file with such rules, one a line, behind those of --route.")] = None
    user_id_header: Annotated[
        str, Doc("Who pays. Whatever is in front of the proxy must set it, or strip it from strangers.")
    ] = "X-User-Id"
    estimated_tokens_header: Annotated[str, Doc("How many credits to hold.")] = "X-Estimated-Tokens"
    default_estimated_tokens: Annotated[
        Number, Doc("Credits to hold at least for a request that does not say how much it may generate.")
    ] = 100
    minimum_estimated_tokens: Annotated[Number, Doc("Credits to hold at least, however little a request asks for.")] = 1
    maximum_estimated_tokens: Annotated[
        Number | None, Doc("Credits to hold at most, however much a request asks for; None: no ceiling.")
    ] = None
    bytes_per_token: Annotated[
        Number, Doc("Bytes of a prompt that count as a token; what may be generated (max_tokens, n) is added.")
    ] = 4
    believe_estimate: Annotated[
        bool, Doc("Take the client's estimate as it is; else it only ever raises what is held.")
    ] = False
    request_bytes_max: Annotated[
        int, Doc("How much of a request that generates is read before it goes on; a larger one is refused (413).")
    ] = REQUEST_BYTES_MAX
    request_memory_bytes: Annotated[
        int,
        Doc(
            "How much of requests larger than 1 MiB is kept at once, of one user a quarter of it; beyond that they are "
            "refused (503)."
        ),
    ] = REQUEST_MEMORY_BYTES
    forward_identity: Annotated[bool, Doc("Pass the identity header on to the upstream.")] = True
    upstream_authorization: Annotated[
        str, Doc("What the upstream is sent in the place of a client's API key: `Bearer` and its own key.")
    ] = field(default="", repr=False)
    upstream_authorization_file: Annotated[
        Path | None, Doc("A file that has it, so that it stands in no list of processes.")
    ] = None
    meter_key_file: Annotated[
        Path | None,
        Doc("A file with the operator's API key by which the sidecar is called; else METER_KEY_FILE, METER_KEY."),
    ] = None
    preserve_host: Annotated[bool, Doc("Pass the client's Host on, instead of the upstream's.")] = False

    charge_by: Annotated[
        ChargeBy,
        Doc(
            "What is charged for usage: `card`, what it costs by the user's rate card; `amount`, its tokens as "
            "credits; `auto`, by the card where the user has one (its own, a level's, or `default`), else its tokens."
        ),
    ] = ChargeBy.AUTO
    usage_format: Annotated[Format, Doc("Where a response tells its usage.")] = Format.AUTO
    usage_key: Annotated[str | None, Doc("The dotted key of the usage, for the formats `key` and `auto`.")] = None
    usage_header: Annotated[
        str | None,
        Doc("A response header that tells the credits to charge; `X-Credits-Actual` always does, and beats it."),
    ] = None
    inject_include_usage: Annotated[
        bool,
        Doc("Ask OpenAI chat completions that stream for the usage they would not send; the client does not see it."),
    ] = True
    inspect_bytes_max: Annotated[
        int, Doc("How much of a decoded response is searched for its usage; 0: all of it.")
    ] = INSPECT_BYTES_MAX

    charge_statuses: Annotated[Container[int], Doc("Responses of any other status cost nothing.")] = SUCCESS
    on_missing_usage: Annotated[
        Missing, Doc("What a response costs that ended, or broke off, without telling its usage.")
    ] = Missing.RELEASE
    missing_usage_minimum: Annotated[
        Number, Doc("What a response that tells no usage costs at least, under any policy.")
    ] = 0
    on_disconnect: Annotated[
        Missing, Doc("What a response costs whose client left, and whose usage did not come while it was drained.")
    ] = Missing.ESTIMATE
    over: Annotated[
        Over,
        Doc("When usage exceeds the hold: charge what is free, go on to the overdraft limit, or charge the hold only."),
    ] = "cap"
    ttl_seconds: Annotated[
        float | None, Doc("Life of a hold, renewed while the exchange lasts; None: the meter's default.")
    ] = None
    background_ttl_seconds: Annotated[
        float, Doc("How long credits are held for a response, run or batch that is done in the background.")
    ] = 86400.0
    fail: Annotated[
        Literal["closed", "open"],
        Doc("When nobody can say whether a user may spend: answer 503, or forward unmetered, `X-Credits-Metered: 0`."),
    ] = "closed"

    disconnect: Annotated[
        Literal["drain", "cancel"],
        Doc("When the client leaves: read the response on for its usage, or drop the connection to the upstream."),
    ] = "drain"
    drain_seconds: Annotated[float, Doc("How long a response is drained.")] = 60.0
    drain_bytes_max: Annotated[int, Doc("How much of a response is drained.")] = 16 * 2**20

    connect_timeout_seconds: Annotated[float, Doc("How long connecting to the upstream may take, 504.")] = 10.0
    upstream_silence_seconds: Annotated[
        float,
        Doc("How long the upstream may say nothing, before its headers (504) and in its body (the client is cut off)."),
    ] = 600.0
    client_stall_seconds: Annotated[
        float,
        Doc(
            "How long a client may take nothing of what is sent, or send nothing of a large request, before it is gone."
        ),
    ] = 60.0
    grace_seconds: Annotated[
        float,
        Doc("How long exchanges may go on after the signal to stop; then they are cut off, and charged for what came."),
    ] = 30.0
    upstream_connections_max: Annotated[
        int, Doc("Connections to the upstream; more requests wait for one, within the time for connecting.")
    ] = 4096

    def __post_init__(self) -> None:
        try:
            url = URL(self.upstream)
            is_base = (
                url.scheme in ("http", "https") and url.host and not (url.user or url.query_string or url.fragment)
            )
            self.paths()
            self.shape()
            self.rules()
        except ValueError as error:
            raise ConfigError(f"meter proxy: {error}") from None
        if not is_base:
            raise ConfigError(
                f"meter proxy: upstream={self.upstream!r}: must be http://host or https://host, and a path"
            )
        if self.probes_port is not None and not 0 <= self.probes_port < 2**16:
            raise ConfigError(f"meter proxy: probes_port={self.probes_port}: must be a port, or 0 for none")
        for name in (
            "drain_seconds",
            "drain_bytes_max",
            "background_ttl_seconds",
            "bytes_per_token",
            "request_bytes_max",
            "request_memory_bytes",
            "connect_timeout_seconds",
            "upstream_silence_seconds",
            "client_stall_seconds",
            "grace_seconds",
            "upstream_connections_max",
        ):
            if getattr(self, name) <= 0:
                raise ConfigError(f"meter proxy: {name}={getattr(self, name)!r}: must be positive")

    def authorization(self) -> str:
        """What the upstream is sent in the place of an API key of ours. Raises `ConfigError`."""
        return _secret(self.upstream_authorization, "upstream_authorization_file", self.upstream_authorization_file)

    def meter_key(self) -> str | None:
        """The key by which the sidecar is called, where there is one. Raises `ConfigError`."""
        named = os.environ.get("METER_KEY_FILE", "")
        path = self.meter_key_file or (Path(named) if named else None)
        return _secret(os.environ.get("METER_KEY", ""), "meter_key_file", path) or None

    def described(self) -> dict[str, object]:
        """What an operator wants to see of them when the proxy starts."""
        place = f"unix:{self.uds}" if self.uds else f"http://{self.host}:{self.port}"
        decided_by = {"meter": self.meter_url} if self.meter_url else {}
        told = "taken as it comes: what is in front must set it, or strip it from strangers"
        return {
            "address": place,
            "upstream": self.upstream,
            "identity_header": self.user_id_header,
            "identity": told,
            **decided_by,
        }

    def paths(self) -> MeteredPaths:
        """Which paths are metered. Raises ValueError."""
        return MeteredPaths(self.path_prefix, self.skip_paths)

    def rules(self) -> Routes:
        """What is charged, by method and path. Raises ValueError; `ConfigError` for a file that cannot be read."""
        lines = list(self.routes)
        if self.routes_file is not None:
            try:
                lines += self.routes_file.read_text("utf-8").splitlines()
            except OSError as error:
                raise ConfigError(f"meter proxy: routes_file={self.routes_file}: {error.strerror}") from None
        texts = [text for line in lines if (text := line.partition("#")[0].strip())]
        return Routes(map(rule_of, texts), known=self.usage_format is not Format.KEY)

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

    def estimates(self) -> EstimateRules:
        """How many credits a request is held for."""
        return EstimateRules(
            default=self.default_estimated_tokens,
            minimum=self.minimum_estimated_tokens,
            maximum=self.maximum_estimated_tokens,
            bytes_per_token=self.bytes_per_token,
            believes_caller=self.believe_estimate,
        )

    def policy(self) -> ChargePolicy:
        """What a response costs."""
        headers = [name.lower().encode() for name in (ACTUAL_HEADER, self.usage_header) if name]
        return ChargePolicy(
            charge_by=ChargeBy.AMOUNT if self.usage_format is Format.KEY else self.charge_by,
            shape=self.shape(),
            work_shape=shape_of_work(self.usage_format, self.usage_key),
            background_ttl_seconds=self.background_ttl_seconds,
            usage_headers=tuple(headers),
            charge_statuses=self.charge_statuses,
            on_missing_usage=self.on_missing_usage,
            missing_usage_minimum=self.missing_usage_minimum,
            on_disconnect=self.on_disconnect,
            over=self.over,
            ttl_seconds=self.ttl_seconds,
            inspect_bytes_max=self.inspect_bytes_max,
        )


def _secret(given: str, name: str, path: Path | None) -> str:
    """A secret, or what the file has of it. Raises `ConfigError`."""
    if path is None:
        return given
    try:
        found = path.read_text("utf-8").strip()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ConfigError(f"meter proxy: {name}={path}: {why}") from None
    if not found or any(ord(letter) < 32 for letter in found):
        raise ConfigError(f"meter proxy: {name}={path}: it has not one line")
    return found


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
