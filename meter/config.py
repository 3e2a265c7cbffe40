"""Settings: one class, read from `METER_*` environment variables, checked once at start.

Every field has its unit in its name; the table in README.md is checked against this class by a test.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from decimal import Decimal
from difflib import get_close_matches
from typing import Annotated, Literal

from pydantic import AfterValidator, AliasChoices, Field, ValidationError, ValidationInfo, field_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

from meter.errors import ConfigError
from meter.redis_urls import checked_queue_url, checked_redis_url
from meter.setting_files import IN_FILES, files_of, text_of_file

STORE_VARIABLE = "METER_STORE_URL"
SEED_DATABASE = "credit_management"
"""What `credit-management` calls its database when nobody names one."""

_PREFIX = "METER_"
_READ_ELSEWHERE = {
    *("METER_URL", "METER_KEY", "METER_KEY_FILE"),  # by commands that call a sidecar
    *("METER_TEST_EXAMPLES", "METER_TEST_STEPS", "METER_TEST_HISTORIES", "METER_TEST_SEED"),  # and by our tests
    *("METER_TEST_POSTGRES_URL", "METER_TEST_MYSQL_URL", "METER_TEST_MONGO_URL", "METER_TEST_REDIS_BINARY"),
    *("METER_FAULT_SECONDS", "METER_FAULT_TRACE", "METER_FLUSH_SEEDS"),
}
_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]*(?=@)|(?<=sentinel_password=)[^&\s']*")
_HEADER = r"^[A-Za-z0-9-]{1,64}$"
_LOCAL = r"^(|(127\.[0-9.]+|\[::1\]|localhost):[0-9]{1,5})$"
_SYSLOG = r"^(|unix:/.+|(127\.[0-9.]+|\[::1\]|localhost):[0-9]{1,5})$"

RedisUrl = Annotated[str, AfterValidator(checked_redis_url)]
QueueUrl = Annotated[str, AfterValidator(checked_queue_url)]


class Settings(BaseSettings):
    """All settings of the sidecar and the worker. Every process of a deployment gets the same ones."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, extra="ignore", frozen=True, populate_by_name=True)

    redis_url: Annotated[
        RedisUrl,
        Field(
            repr=False,
            description="Redis that holds the live balances: `redis://host:6379/0`, `redis+cluster://a:6379,b:6379` or "
            "`redis+sentinel://a:26379,b:26379/service/0`, each with `rediss` for TLS, or `unix:///path`.",
        ),
    ] = "redis://127.0.0.1:6379/0"
    queue_url: Annotated[
        QueueUrl | None,
        Field(
            repr=False,
            description="Redis for arq's jobs; the same as `METER_REDIS_URL` when not set. "
            "Beside a Redis Cluster it must be set.",
        ),
    ] = None
    store_url: Annotated[
        str,
        Field(
            repr=False,
            description="The durable ledger: `sqlite:///path`, `postgresql://…`, `mysql://…`, `mongodb://…`, "
            "a store of one's own, or `none`.",
        ),
    ] = "sqlite:///.meter/meter.db"
    redis_url_file: Annotated[
        str, Field(description="File that has `METER_REDIS_URL`; user and password are read again at each reconnect.")
    ] = ""
    queue_url_file: Annotated[str, Field(description="The same for `METER_QUEUE_URL`.")] = ""
    store_url_file: Annotated[str, Field(description="The same for `METER_STORE_URL`.")] = ""
    redis_ca_file: Annotated[
        str, Field(description="Who signs the certificates of `rediss://`, as PEM; the system's list when empty.")
    ] = ""
    redis_cert_file: Annotated[str, Field(description="Our own certificate for `rediss://`, as PEM.")] = ""
    redis_key_file: Annotated[str, Field(description="Its key, as PEM; in `METER_REDIS_CERT_FILE` when empty.")] = ""
    start_wait_seconds: Annotated[
        float,
        Field(
            ge=0,
            description="How long a start waits for a host of Redis, queue or store without an address, before exit 2.",
        ),
    ] = 30.0
    drain_seconds: Annotated[
        float,
        Field(
            ge=0,
            le=3600,
            description="How long `meter serve` and `meter proxy` serve on after SIGTERM while `/readyz` says 503 "
            "`draining`, so that a load balancer has time to send elsewhere. 0: they stop at once.",
        ),
    ] = 0.0
    redis_unsafe: Annotated[
        bool, Field(description="Take a Redis that may evict keys or keeps nothing on disk. Never with real balances.")
    ] = False
    wait_replicas: Annotated[
        int,
        Field(ge=0, le=10, description="Replicas that have a change before its caller is told that it is done."),
    ] = 0
    wait_replicas_for: Annotated[
        Literal["grants", "all"],
        Field(description="Which changes wait for them: credits that come in (adds, allocations, refunds), or all."),
    ] = "grants"
    key_prefix: Annotated[
        str, Field(pattern=r"^[A-Za-z0-9_.-]{1,32}$", description="First part of every Redis key.")
    ] = "meter"
    partitions: Annotated[
        int,
        Field(
            ge=1,
            le=1024,
            description="Partitions; one suits one Redis, four per master a Redis Cluster. "
            "`meter repartition` changes it.",
        ),
    ] = 1
    decimal_places: Annotated[
        int, Field(ge=0, le=9, description="Decimal places of an amount. Fixed at the first start.")
    ] = 6
    host: Annotated[str, Field(description="Address to listen on.")] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535, description="Port to listen on.")] = 8000
    auth: Annotated[
        Literal["none", "keys"],
        Field(description="Who may call: `none`: whoever reaches the address; `keys`: who has an API key that may."),
    ] = "none"
    unsafe_open_bind: Annotated[
        bool,
        Field(
            description="Listen beyond this machine without `METER_AUTH=keys`, for whoever comes: behind a firewall."
        ),
    ] = False
    uds: Annotated[str, Field(description="Unix socket to listen on instead of host and port.")] = ""
    processes: Annotated[
        int, Field(ge=1, le=64, description="Processes of `meter serve` that share its address; one per core at most.")
    ] = 1
    allowed_hosts: Annotated[
        str,
        Field(description="Further names, with commas between, by which a sidecar on loopback may be called."),
    ] = ""
    allowed_origins: Annotated[
        str,
        Field(description="Origins of web pages, with commas between, that may call the API: `https://app.example`."),
    ] = ""
    connections_max: Annotated[int, Field(ge=1, description="Open connections of one process.")] = 4096
    head_max_bytes: Annotated[int, Field(ge=1024, le=2**20, description="Longest request line with its headers.")] = (
        65536
    )
    headers_max: Annotated[int, Field(ge=8, le=10000, description="Headers of one request.")] = 100
    head_timeout_seconds: Annotated[float, Field(gt=0, le=600, description="Time for the headers of a request.")] = 10.0
    body_timeout_seconds: Annotated[float, Field(gt=0, le=600, description="Time for the body of a request.")] = 60.0
    hot_lane: Annotated[
        bool, Field(description="Serve hot requests from the HTTP parser; off: every request goes through ASGI.")
    ] = True
    body_max_bytes: Annotated[int, Field(ge=1024, le=16 * 2**20, description="Largest request body.")] = 262144
    batch_max: Annotated[
        int, Field(ge=1, le=500, description="Operations in one script call, and in one `/credits/batch`.")
    ] = 500
    queue_max: Annotated[
        int, Field(ge=1, description="Operations waiting per partition before new ones are answered 503.")
    ] = 10000
    lanes: Annotated[int, Field(ge=1, le=16, description="Script calls in flight per partition and process.")] = 2
    redis_timeout_ms: Annotated[
        int, Field(ge=10, le=60000, description="Budget of one batch, its retry included, before 503.")
    ] = 400
    reservation_ttl_seconds: Annotated[
        int, Field(ge=1, description="Life of a reservation when the caller names none.")
    ] = 300
    reservation_ttl_max_seconds: Annotated[
        int, Field(ge=1, le=30 * 86400, description="Longest life that a caller may ask for.")
    ] = 86400
    reservations_max: Annotated[
        int,
        Field(
            ge=1,
            le=100000,
            description="Open reservations per account. Also, per partition: accounts that never had credits.",
        ),
    ] = 10000
    grants_max: Annotated[int, Field(ge=1, le=10000, description="Grants per account in Redis.")] = 1000
    late_commit_grace_seconds: Annotated[
        int,
        Field(
            ge=0,
            validation_alias=AliasChoices("METER_LATE_COMMIT_GRACE_SECONDS", "METER_LATE_COMMIT_GRACE"),
            description="How long after its end a reservation can still be committed.",
        ),
    ] = 3600
    idempotency_window_seconds: Annotated[
        int, Field(ge=60, description="How long Redis remembers answers and finished reservations, at least.")
    ] = 86400
    gateway_user_header: Annotated[
        str, Field(pattern=_HEADER, description="Header by which a gateway names the user.")
    ] = "X-User-Id"
    gateway_estimate_header: Annotated[
        str, Field(pattern=_HEADER, description="Header by which a gateway names the credits to hold.")
    ] = "X-Estimated-Tokens"
    gateway_request_header: Annotated[
        str,
        Field(pattern=_HEADER, description="Header by which a gateway names a request; it must make the id itself."),
    ] = "X-Request-Id"
    gateway_estimate_default: Annotated[
        Decimal, Field(ge=0, le=2**31, description="Credits to hold when a request names none.")
    ] = Decimal(100)
    gateway_model_header: Annotated[
        str,
        Field(
            pattern=_HEADER,
            description="Header by which a gateway names the model, whose price is held for as many tokens.",
        ),
    ] = "X-Model"
    gateway_charge_by: Annotated[
        Literal["auto", "amount"],
        Field(
            description="What usage is charged by: the user's rate card where there is one (`auto`), or its tokens "
            "as credits (`amount`)."
        ),
    ] = "auto"
    gateway_estimate_minimum: Annotated[Decimal, Field(ge=0, le=2**31, description="Credits to hold at least.")] = (
        Decimal(1)
    )
    gateway_mode: Annotated[
        Literal["reserve", "deduct"],
        Field(description="What authorizing does where its path has no `?mode=` of its own."),
    ] = "reserve"
    gateway_timeout_ms: Annotated[
        int, Field(ge=1, le=10000, description="When a gateway is answered 503 at the latest.")
    ] = 150
    gateway_on_missing_usage: Annotated[
        Literal["release", "estimate"],
        Field(description="What a request costs that succeeds, or is never settled, without telling its usage."),
    ] = "release"
    fail_mode: Annotated[
        Literal["closed", "open"],
        Field(
            description="What `/gateway/authorize` does while nobody can decide: `closed` refuses with 503, `open` "
            "serves users up to what they last had, marked `X-Credits-Metered: 0`, and charges it when Redis is back."
        ),
    ] = "closed"
    fail_open_credits: Annotated[
        Decimal | None,
        Field(ge=0, le=2**31, description="With `open`, credits that a user is served unmetered at most, if not all."),
    ] = None
    fail_open_seconds: Annotated[
        int, Field(ge=1, description="With `open`, how long an outage is served through; then it is refused.")
    ] = 600
    fail_journal: Annotated[
        str, Field(description="With `open`, the folder where what was served unmetered waits to be charged.")
    ] = ".meter/unmetered"
    gateway_secret: Annotated[
        str, Field(repr=False, max_length=64, description="Makes reservation ids of guessable request ids unguessable.")
    ] = ""
    gateway_secret_file: Annotated[str, Field(description="File that has `METER_GATEWAY_SECRET`.")] = ""
    gateway_secret_other: Annotated[
        str, Field(repr=False, max_length=64, description="The one before, or the one to come, while it is changed.")
    ] = ""
    gateway_secret_other_file: Annotated[str, Field(description="File that has `METER_GATEWAY_SECRET_OTHER`.")] = ""
    gateway_logs_max_bytes: Annotated[
        int, Field(ge=1024, le=64 * 2**20, description="Largest body of `/gateway/logs`, unpacked too.")
    ] = 4 * 2**20
    ext_proc: Annotated[
        str,
        Field(pattern=_LOCAL, description="Where to listen for Envoy's ext_proc over gRPC: `127.0.0.1:9515`."),
    ] = ""
    rls: Annotated[
        str, Field(pattern=_LOCAL, description="Where to listen for Envoy's rate limit service: `127.0.0.1:9516`.")
    ] = ""
    rls_file: Annotated[str, Field(description="File that says which keys of its descriptors mean what.")] = ""
    syslog: Annotated[
        str,
        Field(
            pattern=_SYSLOG,
            description="Where to listen for access logs in syslog datagrams: `127.0.0.1:9514` or `unix:/path`.",
        ),
    ] = ""
    outbox_max: Annotated[
        int,
        Field(ge=0, description="Transactions not yet in the store before new spending is answered 503; 0: no limit."),
    ] = 1000000
    outbox_retention_seconds: Annotated[
        int, Field(ge=0, description="How long Redis keeps a transaction after the store has it.")
    ] = 600
    usage_bucket_minutes: Annotated[
        Literal[15, 30, 60],
        Field(description="Minutes that usage figures are kept by: 60; 30 or 15 for zones off the hour."),
    ] = 60
    flush_max: Annotated[int, Field(ge=1, le=20000, description="Transactions in one flush to the store.")] = 5000
    flush_interval_ms: Annotated[
        int, Field(ge=1, le=60000, description="Pause after a flush, in which what comes gathers for the next.")
    ] = 400
    ledger_file: Annotated[
        str, Field(description="Where worker and sidecar write the ledger as JSON lines; nowhere when empty.")
    ] = ""
    auto_repair: Annotated[
        bool, Field(description="Let the worker rebuild a partition whose history Redis has lost.")
    ] = False
    sweep_interval_seconds: Annotated[
        int, Field(ge=1, le=59, description="Pause between two sweeps of due holds and grants.")
    ] = 5
    worker_nice: Annotated[
        int,
        Field(ge=0, le=19, description="How far the worker gives way to the other processes of its machine: `nice`."),
    ] = 5
    worker_host: Annotated[str, Field(description="Address of the worker's own probes and metrics.")] = "127.0.0.1"
    worker_port: Annotated[
        int, Field(ge=0, le=65535, description="Port of the worker's `/livez`, `/readyz` and `/metrics`; 0: none.")
    ] = 0
    expiring_days: Annotated[
        str,
        Field(
            pattern=r"^([1-9][0-9]{0,3}(,[1-9][0-9]{0,3})*)?$",
            description="How many days before credits end their owner is told; never when empty.",
        ),
    ] = "7,1"
    runs_out_days: Annotated[
        str,
        Field(
            pattern=r"^([1-9][0-9]{0,2}(,[1-9][0-9]{0,2})*)?$",
            description="How many days before credits run out at their pace their owner is told; never when empty.",
        ),
    ] = "3"
    notify: Annotated[
        str,
        Field(
            repr=False,
            description="Where alerts go besides webhooks, with blanks between: `log`, `stream:KEY` (in Redis), "
            "`apprise:URL` (needs the extra `notify`), `module:attribute` or an entry point of `meter.channels`.",
        ),
    ] = ""
    refusals_keep_days: Annotated[
        int, Field(ge=0, le=3650, description="Days for which the store keeps what was refused; 0: it keeps none.")
    ] = 7
    plans_max: Annotated[int, Field(ge=1, le=100_000, description="Plans that there may be.")] = 1000
    keys_max: Annotated[
        int,
        Field(ge=1, le=100_000, description="API keys that one user, or all operators, may have, but revoked ones."),
    ] = 10_000
    key_failures_max: Annotated[
        int,
        Field(
            ge=0,
            le=60_000,
            description="API keys that there are not which may come from one address in a minute before all but known "
            "ones are 429 there; 0: any number.",
        ),
    ] = 60
    code_failures_max: Annotated[
        int,
        Field(ge=1, le=60_000, description="Promo codes that a user may get wrong in a minute before more are 429."),
    ] = 10
    code_secret: Annotated[
        str,
        Field(
            repr=False,
            max_length=500,
            description="Keys the HMACs that promo codes are kept as; `new,old` while codes of the old one are taken.",
        ),
    ] = ""
    code_secret_file: Annotated[str, Field(description="File that has `METER_CODE_SECRET`.")] = ""
    payments: Annotated[
        str,
        Field(repr=False, description="Auto top-up's provider: `webhook:URL`, `stripe`, `module:attribute`; or none."),
    ] = ""
    payments_secret: Annotated[
        str, Field(repr=False, max_length=500, description="Signs what is said with it: `whsec_…`, also Stripe's.")
    ] = ""
    payments_secret_file: Annotated[str, Field(description="File that has `METER_PAYMENTS_SECRET`.")] = ""
    payments_key: Annotated[str, Field(repr=False, max_length=500, description="Stripe's secret API key.")] = ""
    payments_key_file: Annotated[str, Field(description="File that has `METER_PAYMENTS_KEY`.")] = ""
    credit_price: Annotated[
        str, Field(description="Price of a credit, in the smallest unit of a currency, for `stripe`: `0.5 usd`.")
    ] = ""
    webhooks_max: Annotated[int, Field(ge=1, le=500, description="Webhooks that there may be, resting ones too.")] = 100
    webhook_allow_private: Annotated[
        bool, Field(description="Let webhooks use http:// and addresses of private networks. Only on trusted ones.")
    ] = False
    log_format: Annotated[
        Literal["text", "json"], Field(description="How each line on stderr is written: for people, or JSON.")
    ] = "text"
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Field(description="The least that is logged.")
    ] = "info"
    test_clock: Annotated[bool, Field(description="Allow `PUT /test-clock`. Never where real money is metered.")] = (
        False
    )

    @field_validator("reservation_ttl_max_seconds")
    @classmethod
    def _reaches_the_default(cls, value: int, info: ValidationInfo) -> int:
        default: int = info.data.get("reservation_ttl_seconds", 0)
        if value < default:
            raise ValueError(f"must not be less than METER_RESERVATION_TTL_SECONDS={default}")
        return value

    @property
    def arq_url(self) -> str:
        """Where arq keeps its jobs."""
        return self.queue_url or self.redis_url

    @property
    def arq_url_file(self) -> str:
        """The file that has `arq_url`, "" where there is none."""
        return self.queue_url_file if self.queue_url else self.redis_url_file

    @property
    def notify_streams(self) -> tuple[str, ...]:
        """The Redis streams that alerts are written to."""
        return tuple(word.removeprefix("stream:") for word in self.notify.split() if word.startswith("stream:"))

    @property
    def expiring_day_numbers(self) -> tuple[int, ...]:
        """The days of `expiring_days`, ascending."""
        return tuple(sorted({int(days) for days in self.expiring_days.split(",") if days}))

    @property
    def runs_out_day_numbers(self) -> tuple[int, ...]:
        """The days of `runs_out_days`, ascending."""
        return tuple(sorted({int(days) for days in self.runs_out_days.split(",") if days}))


def load_settings(**overrides: object) -> Settings:
    """Settings from the environment, with the given ones (by field name) on top.

    Raises `ConfigError` with one line that names each wrong variable, its value and what is wrong.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    seeds = store_url_of_seed(os.environ)
    if seeds and "store_url" not in given and variable_of_store(os.environ) != STORE_VARIABLE:
        given["store_url"] = seeds
    given = {**{f"{name}_file": "" for name in IN_FILES if name in given}, **given}
    given |= {name: text_of_file(f"{_PREFIX}{name.upper()}", path) for name, path in files_of(given, _PREFIX)}
    try:
        return Settings(**given)  # type: ignore[arg-type]
    except ValidationError as error:
        raise ConfigError("; ".join(_complaints(error))) from None


def store_url_of_seed(environment: Mapping[str, str]) -> str | None:
    """The MongoDB that `CREDIT_MONGO_URI` and `CREDIT_MONGO_DB` name, as `credit-management` read them; None when the
    first is not set. A database in the URI counts unless the second names one.
    """
    uri = environment.get("CREDIT_MONGO_URI")
    if not uri:
        return None
    head, mark, query = uri.partition("?")
    scheme, _, rest = head.partition("://")
    hosts, _, database = rest.partition("/")
    return f"{scheme}://{hosts}/{environment.get('CREDIT_MONGO_DB') or database or SEED_DATABASE}{mark}{query}"


def is_set(variable: str, environment: Mapping[str, str]) -> bool:
    """Whether the environment has a setting, in any case of letters, or the file that has it."""
    return any(name.upper().removesuffix("_FILE") == variable for name in environment)


def variable_of_store(environment: Mapping[str, str]) -> str:
    """Which variable names the store: what a complaint about its URL begins with."""
    is_seeds = store_url_of_seed(environment) is not None and not is_set(STORE_VARIABLE, environment)
    return "CREDIT_MONGO_URI" if is_seeds else STORE_VARIABLE


def remarks(environment: Mapping[str, str]) -> list[str]:
    """What is odd about an environment without being wrong, a line each."""
    lines = []
    seeds = store_url_of_seed(environment)
    if seeds and is_set(STORE_VARIABLE, environment) and environment.get(STORE_VARIABLE) != seeds:
        lines.append(f"CREDIT_MONGO_URI is not used: {STORE_VARIABLE} is set")
    if not seeds and environment.get("CREDIT_MONGO_DB"):
        lines.append("CREDIT_MONGO_DB is not used: CREDIT_MONGO_URI is not set")
    for name in sorted(environment):
        variable = name.upper()
        if not variable.startswith(_PREFIX) or variable in _READ_ELSEWHERE or variable in _variables():
            continue
        near = get_close_matches(variable[len(_PREFIX) :], [known[len(_PREFIX) :] for known in _variables()], 1)
        lines.append(f"{name} is no setting" + (f". Did you mean {_PREFIX}{near[0]}?" if near else ""))
    return lines


def _variables() -> list[str]:
    """Every variable that is read, aliases among them."""
    aliases = [field.validation_alias for field in Settings.model_fields.values()]
    more = [str(name) for alias in aliases if isinstance(alias, AliasChoices) for name in alias.choices]
    return [_variable(name) for name in Settings.model_fields] + more


def _complaints(error: ValidationError) -> list[str]:
    return [_complaint(fault) for fault in error.errors(include_url=False)]


def _complaint(fault: ErrorDetails) -> str:
    name, value = _variable(str(fault["loc"][0])), fault["input"]
    shown = "…" if "_SECRET" in name else _CREDENTIALS.sub("…", repr(value))
    return f"{name}={shown}: {fault['msg'].removeprefix('Value error, ')}"


def _variable(name: str) -> str:
    return name if name.startswith(_PREFIX) else f"{_PREFIX}{name.upper()}"
