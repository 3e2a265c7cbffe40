"""Gathers what `meter doctor` judges: one look at everything, and a few questions that nobody else asks."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import version

from meter.config import Settings, remarks
from meter.engine.redis import RedisGateway
from meter.errors import MeterError, Unavailable
from meter.health.doctor import TOO_MUCH, Evidence
from meter.health.status import Status
from meter.health.watch import PACKAGE, Watch

TRY_SECONDS_MAX = 5.0
"""A partition that is not open yet keeps operations waiting."""
_WITH_PASSWORD = re.compile(r"://[^/@\s]*:[^/@\s]+@")
_URLS = ("METER_REDIS_URL", "METER_QUEUE_URL", "METER_STORE_URL")


async def gathered(
    settings: Settings,
    redis: RedisGateway,
    watch: Watch,
    environment: Mapping[str, str],
    start_fault: MeterError | None = None,
) -> Evidence:
    """What there is to judge. `start_fault`: why the process that asks did not start."""
    facts = (await _look(watch, is_started=start_fault is None)).facts
    refusals = [one.refusal for one in facts.partitions if one.refusal]
    fault = str(start_fault) if start_fault is not None else (refusals or [""])[0]
    reason = _about(fault)
    evidence = Evidence(
        settings,
        facts,
        version=version(PACKAGE),
        start_fault=fault,
        start_reason=reason,
        schema_fault=fault if reason == "schema" else "",
        remarks=remarks(environment),
        in_environment=[name for name in _URLS if _WITH_PASSWORD.search(environment.get(name, ""))],
    )
    if facts.redis_fault:
        return evidence
    with suppress(Unavailable):
        infos = [info for server in await redis.servers() if (info := await server.info())]
        before = time.time()
        redis_ms = await redis.time_ms()
        apart = redis_ms / 1000 - (before + time.time()) / 2
        return replace(evidence, infos=infos, clock_apart_seconds=apart, may=await redis.allowed(TOO_MUCH))
    return evidence


async def _look(watch: Watch, *, is_started: bool) -> Status:
    """One look, with an operation on each partition where there is somebody to carry it out."""
    if is_started:
        with suppress(TimeoutError):
            async with asyncio.timeout(TRY_SECONDS_MAX):
                return await watch.look_and_try()
    return await watch.look()


def _about(fault: str) -> str:
    """What a fault is about, by its own words."""
    for word, about in _ABOUT:
        if word in fault:
            return about
    return ""


_ABOUT = (
    ("refuses its user", "rights"),
    ("ledger", "ledger"),
    ("schema", "schema"),
    ("METER_PARTITIONS", "settings"),
    ("partitions", "settings"),
    ("decimal", "settings"),
    ("METER_STORE_URL", "store"),
)
"""The first of these words that is in it."""
