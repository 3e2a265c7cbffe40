"""Requests as bytes, and the answers in the bytes that came back."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

_NEXT = re.compile(rb"(?=HTTP/1\.1 [0-9]{3} )")
_DRAWN = re.compile(rb"[0-9a-f]{12}-[0-9a-f]+|[rq]0_[A-Za-z0-9_-]{22}|0-[0-9]+-[0-9a-f]{10}-[0-9]+")


@dataclass(frozen=True)
class Answer:
    """One answer; header names in lower case, in alphabetical order."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    @property
    def json(self) -> Any:
        """The body read as JSON."""
        return json.loads(self.body)

    def header(self, name: str) -> str | None:
        """A header's value."""
        return dict(self.headers).get(name)

    @property
    def lasting(self) -> Answer:
        """What does not differ between two servers: no date, no id drawn by lot or counted, and no length of those."""
        body = _DRAWN.sub(b"*", self.body)
        dropped = ("date",) if body == self.body else ("date", "content-length")
        headers = [(name, _DRAWN.sub(b"*", value.encode()).decode()) for name, value in self.headers]
        return Answer(self.status, tuple(header for header in headers if header[0] not in dropped), body)


def answers_in(text: bytes) -> list[Answer]:
    """The answers, interim ones too. No body of ours contains a status line, so none is mistaken."""
    return [_answer(part) for part in _NEXT.split(text) if part]


def _answer(text: bytes) -> Answer:
    head, _, body = text.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    pairs = (line.split(": ", 1) for line in lines)
    return Answer(int(first.split(" ")[1]), tuple(sorted((name.lower(), value) for name, value in pairs)), body)


def request(method: str, target: str, *headers: str, body: object = None, version: str = "1.1") -> bytes:
    """A request with Host, and with a JSON body and its length where one is given; bytes are sent as they are."""
    content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    lines = [f"{method} {target} HTTP/{version}", "Host: meter", *headers]
    if body is not None and not any(line.lower().startswith(("content-length", "transfer-enc")) for line in headers):
        lines += ["Content-Type: application/json", f"Content-Length: {len(content)}"]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + content


def deduct(user_id: str, amount: object = 1, *headers: str) -> bytes:
    """A deduct: hot."""
    return request("POST", "/credits/deduct", *headers, body={"user_id": user_id, "amount": amount})


def balance(user_id: str, *headers: str) -> bytes:
    """A balance: hot."""
    return request("GET", f"/credits/balance/{user_id}", *headers)


def livez(*headers: str) -> bytes:
    """A probe: never hot."""
    return request("GET", "/livez", *headers)


def chunked(*parts: bytes, trailers: bytes = b"") -> bytes:
    """A body in chunks."""
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n" + trailers + b"\r\n"
