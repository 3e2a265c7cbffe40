"""The request body on its way to the upstream."""

from __future__ import annotations

from typing import Self

from meter.proxy.client import Client


class RequestBody:
    """Streams a client's request, an async iterator: the pieces that were read already, then the others as they come.

    No abstract class is above it: `isinstance` would ask that, which costs more than all else that is asked of a body.
    """

    def __init__(self, client: Client, pieces: list[bytes]) -> None:
        self._client = client
        self._pieces = pieces

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        """Raises `ClientGone` in the middle of a body, which makes the upstream's connection break, too."""
        if self._pieces:
            return self._pieces.pop(0)
        while not self._client.requested:
            piece = await self._client.read()
            if piece:
                return piece
        raise StopAsyncIteration
