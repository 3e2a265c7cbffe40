"""From a URL to a gateway: to one server, to a Redis Cluster, or to the master that Sentinels know."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from redis import exceptions
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from meter.engine.cluster import ClusterGateway
from meter.engine.connections import led_to_master, made_for_scripts
from meter.engine.redis import RedisGateway
from meter.engine.redis_faults import REDIS
from meter.engine.redis_url import NO_TLS_FILES, ReadAgain, TlsFiles, without_credentials
from meter.engine.sentinel import Sentinels
from meter.errors import ConfigError
from meter.redis_urls import Address, RedisPlace, place_of

CONNECT_TIMEOUT_SECONDS = 0.3
POOL_WAIT_SECONDS = 0.05


def connect(
    url: str,
    *,
    timeout_seconds: float,
    connections_max: int,
    tls: TlsFiles = NO_TLS_FILES,
    read_again: Callable[[], str] | None = None,
) -> RedisGateway:
    """A gateway to the Redis at `url`. Connects on first use; each command has `timeout_seconds`, each server of a
    cluster `connections_max`. `read_again` tells the URL whose user and password a new connection has. Raises
    `ConfigError` for an option that has a wrong value.
    """
    place = _place(url)

    def gateway(address: Address | None) -> RedisGateway:
        server_url = place.server(address)
        options = connection_options(server_url, tls, read_again)
        try:
            pool = BlockingConnectionPool.from_url(
                server_url if read_again is None else without_credentials(server_url),
                max_connections=connections_max,
                timeout=POOL_WAIT_SECONDS,
                socket_timeout=timeout_seconds,
                socket_connect_timeout=min(CONNECT_TIMEOUT_SECONDS, timeout_seconds),
                retry=Retry(NoBackoff(), 0),
                protocol=2,
                **options,
            )
            pool.connection_class = made_for_scripts(kind_of_connection(place, pool.connection_class, tls))
            pool.connection_class(**pool.connection_kwargs)
        except (TypeError, ValueError, exceptions.RedisError) as error:
            raise ConfigError(f"{REDIS}: {error}") from None
        name = "" if address is None else "{}:{}".format(*address)
        return RedisGateway(Redis(connection_pool=pool), timeout_seconds, name)

    if place.kind != "cluster":
        return gateway(None)
    gateway(place.hosts[0])  # a wrong option is told at once
    return ClusterGateway(place.hosts, gateway)


def connection_options(url: str, tls: TlsFiles, read_again: Callable[[], str] | None) -> dict[str, Any]:
    """What every connection to a Redis of ours is told, arq's too; `url` is that of one server."""
    again = {} if read_again is None else {"credential_provider": ReadAgain(read_again)}
    kept_alive = {} if url.startswith("unix:") else {"socket_keepalive": True}
    return {**kept_alive, **tls.options(url), **again}


def kind_of_connection(place: RedisPlace, connection: type[Any], tls: TlsFiles) -> type[Any]:
    """The kind of connection that a URL asks for: one that finds its master where Sentinels have to be asked."""
    return led_to_master(connection, Sentinels(place, tls).master) if place.kind == "sentinel" else connection


def _place(url: str) -> RedisPlace:
    try:
        return place_of(url)
    except ValueError as error:
        raise ConfigError(f"{REDIS}: {error}") from None
