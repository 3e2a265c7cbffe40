"""Read the usage out of one response while its bytes pass by.

Owns the order decode, then scan, and the limit on how much is looked at; does no I/O, keeps no
bytes, and never raises on what an upstream sends.
"""

from __future__ import annotations

from meter.usage.body import Body, EventStream, JsonBody
from meter.usage.decoder import Decoder, open_decoder
from meter.usage.shape import Shape
from meter.usage.usage import Usage

INSPECT_BYTES_MAX = 16 * 1024 * 1024


class Reader:
    """Bytes of one response in, usage out."""

    __slots__ = ("_body", "_decoder", "_left", "unsupported_encoding")

    def __init__(
        self,
        body: Body,
        decoder: Decoder | None,
        *,
        unsupported_encoding: str | None = None,
        inspect_bytes_max: int = INSPECT_BYTES_MAX,
    ) -> None:
        self._body = body
        self._decoder = decoder
        self._left = inspect_bytes_max
        self.unsupported_encoding = unsupported_encoding
        """The `Content-Encoding` that kept this reader from looking; None if it could look."""

    @property
    def usage(self) -> Usage | None:
        """The usage the response has told so far, None if it told none; final after `finish`."""
        return self._body.usage

    @property
    def exhausted(self) -> bool:
        """Whether looking stopped at the limit, so that usage behind it was missed."""
        return self._left < 0 and not self._body.done

    def feed(self, chunk: bytes) -> None:
        """Look at the next bytes of the response, as sent."""
        decoder = self._decoder
        if decoder is None:
            return
        for piece in decoder.decode(chunk):
            self._body.feed(piece[: self._left] if len(piece) > self._left else piece)
            self._left -= len(piece)
            if self._left < 0 or self._body.done:
                self._decoder = None
                return
        if decoder.ended:
            self._decoder = None

    def finish(self) -> None:
        """The response ended, as it should or cut off. Bytes fed later are ignored."""
        self._decoder = None
        self._body.finish()


def open_reader(
    shape: Shape,
    *,
    content_type: str | None,
    content_encoding: str | None = None,
    inspect_bytes_max: int = INSPECT_BYTES_MAX,
    event_bytes_max: int | None = None,
) -> Reader:
    """A reader for a response with these two headers (None: not sent).

    Anything but `text/event-stream` is read as one JSON document. `inspect_bytes_max` counts
    decoded bytes; `event_bytes_max` replaces the shape's own limit. With an encoding that cannot be
    decoded the reader reports no usage and says so.
    """
    coding = _coding(content_encoding or "")
    decoder = open_decoder(coding)
    return Reader(
        _body(shape, content_type or "", event_bytes_max),
        decoder,
        unsupported_encoding=coding if decoder is None else None,
        inspect_bytes_max=inspect_bytes_max,
    )


def _body(shape: Shape, content_type: str, event_bytes_max: int | None) -> Body:
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type == "text/event-stream":
        return EventStream(shape, event_bytes_max=event_bytes_max)
    return JsonBody(shape)


def _coding(content_encoding: str) -> str:
    """The codings of the header but for `identity`; two or more make a name nobody supports."""
    codings = (coding.strip().lower() for coding in content_encoding.split(","))
    return ", ".join(coding for coding in codings if coding not in ("", "identity"))
