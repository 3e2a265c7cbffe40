"""Whether Redis speaks TLS where the URL says that it does not, or the other way round.

Asked at the start, when nobody answers: a Redis without TLS takes the greeting of TLS for a line that is not at its end
yet, and one with TLS hangs up on a command, so either looks as if it were away.
"""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress
from typing import Any

from meter.errors import RedisDenied

PROBE_SECONDS = 1.0


async def check_scheme(host: str, port: int, *, tls: bool) -> None:
    """Raises `RedisDenied` when the other scheme is the right one; returns when nobody can tell."""
    if not tls and await _answers(host, port, _unverified()):
        raise RedisDenied("redis", "METER_REDIS_URL: Redis speaks TLS there: rediss://, not redis://")
    if tls and await _answers(host, port, None):
        raise RedisDenied("redis", "METER_REDIS_URL: Redis speaks no TLS there: redis://, not rediss://")


async def check_certificate(host: str, port: int) -> None:
    """Raises `RedisDenied` when whoever is there wants a client's certificate, which we have none of.

    That comes after the greeting, and a command that was written meanwhile is answered by a reset: so nothing is.
    """
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            reader, writer = await asyncio.open_connection(host, port, ssl=_unverified())
            try:
                await reader.read(1)
            finally:
                writer.close()
    except ssl.SSLError as error:
        if "certificate" in str(error).lower():
            wanted = "METER_REDIS_CERT_FILE and METER_REDIS_KEY_FILE"
            raise RedisDenied("redis", f"METER_REDIS_URL: it wants a client certificate: {wanted}") from error
    except (OSError, TimeoutError):
        return


async def _answers(host: str, port: int, context: ssl.SSLContext | None) -> bool:
    """Whether what is there answers a PING as Redis does, be it that it wants a password first."""
    options: dict[str, Any] = {} if context is None else {"ssl": context}
    with suppress(OSError, TimeoutError, ssl.SSLError):
        async with asyncio.timeout(PROBE_SECONDS):
            reader, writer = await asyncio.open_connection(host, port, **options)
            try:
                writer.write(b"PING\r\n")
                found = await reader.read(64)
                return found.startswith((b"+PONG", b"-"))
            finally:
                writer.close()
    return False


def _unverified() -> ssl.SSLContext:
    """Nothing is told to whoever is there, so it need not prove who it is."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
