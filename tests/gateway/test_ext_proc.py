"""Envoy's external processing: meter/gateway/ext_proc.py and the wire format in meter/gateway/protobuf.py."""

from __future__ import annotations

import gzip
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from meter.app import services_of
from meter.engine import operations
from meter.engine.engine import Engine
from meter.engine.rules import change_words
from meter.errors import ConfigError
from meter.gateway.ext_proc import ExternalProcessor
from meter.gateway.handlers import GatewayHandlers
from meter.gateway.protobuf import bytes_field, fields_of, number_field
from meter.http.exchange import awaitable
from meter.runtime import Runtime
from meter.testing import fake_redis, fake_settings

REQUEST, RESPONSE, BODY, TRAILERS = 2, 3, 5, 7
USAGE = b'{"usage":{"total_tokens":30}}'


def headers_message(number: int, *, end: bool = False, **headers: str) -> bytes:
    """A message with headers, as Envoy writes them; `_` in a name stands for `-`, `__` for `:`."""
    pairs = b"".join(
        bytes_field(
            1, bytes_field(1, name.replace("__", ":").replace("_", "-").encode()) + bytes_field(3, value.encode())
        )
        for name, value in headers.items()
    )
    return bytes_field(number, bytes_field(1, pairs) + (number_field(3, 1) if end else b""))


def body_message(data: bytes, *, end: bool) -> bytes:
    return bytes_field(BODY, bytes_field(1, data) + (number_field(2, 1) if end else b""))


def part(message: bytes, *path: int) -> bytes:
    """The bytes at a path of field numbers."""
    for number in path:
        message = next(value for found, value in fields_of(message) if found == number and isinstance(value, bytes))
    return message


@dataclass
class Scene:
    """A user `u` with 1000 credits and a processor."""

    engine: Engine
    processor: ExternalProcessor

    async def process(self, *messages: bytes) -> list[bytes]:
        async def sent() -> AsyncIterator[bytes]:
            for message in messages:
                yield message

        return [answer async for answer in self.processor.process(sent(), None)]

    async def balances(self) -> list[str]:
        return (await self.engine.run("u", operations.balance("u"))).split(" ")[-3:-1]


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    redis = fake_redis()
    async with Runtime(fake_settings(gateway_timeout_ms=10_000, decimal_places=0), redis) as runtime:
        handlers = GatewayHandlers(services_of(runtime))
        await runtime.engine.run("u", operations.grant("u", "g", 1000))
        yield Scene(
            runtime.engine,
            ExternalProcessor("", awaitable(handlers.authorize), handlers.rules, handlers.settlements),
        )
    await redis.close()


ASKED = headers_message(REQUEST, __path="/v1/chat?mode=check", x_user_id="u", accept_encoding="br, gzip")


async def test_a_request_is_held_read_and_charged(scene: Scene) -> None:
    answers = await scene.process(
        ASKED,
        headers_message(RESPONSE, __status="200", content_type="application/json"),
        body_message(USAGE[:12], end=False),
        body_message(USAGE[12:], end=True),
    )

    assert [next(fields_of(answer))[0] for answer in answers] == [1, 2, 4, 4]
    assert b"x-reservation-id" in answers[0] and b"gzip" in answers[0] and b"br" not in answers[0]
    assert b"x-credits-remaining" in answers[1] and b"900" in answers[1]
    assert await scene.balances() == ["970", "0"]


@pytest.mark.parametrize(
    ("messages", "charged"),
    [
        ((headers_message(RESPONSE, __status="200", x_credits_actual="7"), body_message(USAGE, end=True)), 7),
        ((headers_message(RESPONSE, __status="200", end=True, x_credits_actual="7"),), 7),
        ((headers_message(RESPONSE, __status="204", end=True),), 0),
        ((headers_message(RESPONSE, __status="500"), body_message(USAGE, end=True)), 0),
        ((headers_message(RESPONSE, __status="200"), body_message(b"hello", end=True)), 0),
        ((headers_message(RESPONSE, __status="200"), body_message(b"hel", end=False)), 100),
        ((headers_message(RESPONSE, __status="200"), body_message(b"a", end=False), bytes_field(TRAILERS, b"")), 0),
        ((), 100),
    ],
)
async def test_how_the_stream_ended_decides(scene: Scene, messages: tuple[bytes, ...], charged: int) -> None:
    await scene.process(ASKED, *messages)

    assert await scene.balances() == [str(1000 - charged), "0"]


async def test_compressed_bodies_are_read(scene: Scene) -> None:
    head = headers_message(RESPONSE, __status="200", content_type="application/json", content_encoding="gzip")

    await scene.process(ASKED, head, body_message(gzip.compress(USAGE), end=True))

    assert await scene.balances() == ["970", "0"]


async def test_a_client_that_takes_no_gzip_is_not_sent_any(scene: Scene) -> None:
    (answer,) = await scene.process(headers_message(REQUEST, x_user_id="u"))

    assert b"identity" in answer and b"gzip" not in answer


@pytest.mark.parametrize(
    ("headers", "status", "slug"),
    [
        ({}, 401, b"missing-identity"),
        ({"x_user_id": "u", "x_estimated_tokens": "1001"}, 402, b"insufficient-credits"),
    ],
)
async def test_a_refusal_is_answered_at_once(scene: Scene, headers: dict[str, str], status: int, slug: bytes) -> None:
    (answer,) = await scene.process(headers_message(REQUEST, end=False, **headers))

    assert list(fields_of(part(answer, 7, 1))) == [(1, status)]
    assert slug in part(answer, 7, 3)
    assert b"application/problem+json" in part(answer, 7, 2)
    assert await scene.balances() == ["1000", "0"]


async def test_messages_that_cannot_be_read_end_the_stream(scene: Scene) -> None:
    for message in (b"\x12\x05a", b"\x0b", b"\x12", b"\xff" * 11):
        with pytest.raises(ValueError, match=r"cut off|wire type"):
            await scene.process(message)
    assert await scene.process(number_field(99, 5) + b"\x99\x01" + bytes(8)) == []


@pytest.mark.parametrize("value", [0, 1, 127, 128, 300, 2**32, 2**63])
def test_numbers_are_written_as_they_are_read(value: int) -> None:
    assert list(fields_of(number_field(1, value) + bytes_field(2000, b"x" * 200))) == [(1, value), (2000, b"x" * 200)]


async def test_without_grpcio_the_setting_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "grpc", None)
    redis = fake_redis()
    settings = fake_settings(ext_proc="127.0.0.1:9515")
    async with Runtime(settings, redis) as runtime:
        with pytest.raises(ConfigError, match="METER_EXT_PROC"):
            async with GatewayHandlers(services_of(runtime)).listening(settings):
                pass
    await redis.close()


async def test_the_client_is_told_where_the_tightest_rate_limit_stands(scene: Scene) -> None:
    """With its response, and with a refusal."""
    limit = change_words({"rpm": ("requests", "1", "3600000", "*", "~", "~", "~")})
    await scene.engine.run("u", operations.configure("u", rate_limits=limit))
    answers = await scene.process(
        headers_message(REQUEST, __path="/", x_user_id="u"), headers_message(RESPONSE, __status="200", end=True)
    )
    assert b'"rpm";q=1;w=3600' in answers[1] and b'"rpm";r=0;t=3600' in answers[1]
    [refused] = await scene.process(headers_message(REQUEST, __path="/", x_user_id="u"))
    assert b"retry-after" in refused and b'"rpm";r=0;t=' in refused
