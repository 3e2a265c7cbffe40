"""Hands JSON access logs from stdin to the sidecar: `gateway | python3 ship.py --source traefik`.

What cannot be delivered is repeated: a settlement that was done already is done once. Reading never waits for that,
since a gateway whose log is not read stops serving: while the sidecar is away, lines wait in memory, up to `LINES_MAX`;
then the oldest are dropped and counted on stderr, and their holds end by themselves. It ends when the gateway does.
"""

from __future__ import annotations

import argparse
import http.client
import os
import signal
import sys
import threading
import time
import urllib.parse
from collections import deque

ENTRIES_MAX = 500
BYTES_MAX = 2**20
LINES_MAX = 200_000
LINE_BYTES_MAX = 64 * 1024
TIMEOUT_SECONDS = 10
PAUSE_SECONDS, PAUSE_SECONDS_MAX = 0.2, 5.0
LAST_SECONDS = 30
"""How long it goes on trying when the gateway has ended."""
TELL_SECONDS = 10
"""Between two lines on stderr about the same."""


class Backlog:
    """Lines that wait. `put` never waits."""

    def __init__(self) -> None:
        self._lines: deque[bytes] = deque()
        self._changed = threading.Condition()
        self._dropped = 0
        self._told = 0.0
        self.ended = False

    def put(self, lines: list[bytes]) -> None:
        """Adds lines; the oldest make room."""
        with self._changed:
            self._lines.extend(lines)
            while len(self._lines) > LINES_MAX:
                self._lines.popleft()
                self._dropped += 1
            self._changed.notify()
            if self._dropped and time.monotonic() > self._told + TELL_SECONDS:
                self._told = time.monotonic()
                tell(f"{self._dropped} lines were dropped; their holds end by themselves")

    def end(self) -> None:
        """Nothing more comes."""
        with self._changed:
            self.ended = True
            self._changed.notify()

    def take(self) -> list[bytes]:
        """The next lines for one delivery; none when everything is delivered."""
        with self._changed:
            self._changed.wait_for(lambda: self._lines or self.ended)
            taken, size = [], 0
            while self._lines and len(taken) < ENTRIES_MAX and size + len(self._lines[0]) <= BYTES_MAX:
                size += len(self._lines[0])
                taken.append(self._lines.popleft())
            return taken

    def report(self, undelivered: int) -> None:
        """Says what is lost in the end."""
        lost = self._dropped + len(self._lines) + undelivered
        if lost:
            tell(f"{lost} lines were not delivered; their holds end by themselves")


class Sidecar:
    """One kept connection to it."""

    def __init__(self, url: str, source: str) -> None:
        place = urllib.parse.urlsplit(url if "://" in url else f"http://{url}")
        connection = http.client.HTTPSConnection if place.scheme == "https" else http.client.HTTPConnection
        self._connection = connection(place.hostname or "", place.port, timeout=TIMEOUT_SECONDS)
        self._path = f"/gateway/logs?source={urllib.parse.quote(source)}"
        self._told = 0.0

    def deliver(self, lines: list[bytes], backlog: Backlog) -> bool:
        """Posts lines until the sidecar has taken or refused them; false when there was no more time for that."""
        pause, gives_up = PAUSE_SECONDS, None
        while True:
            why = self._post(lines)
            if why is None:
                return True
            if time.monotonic() > self._told + TELL_SECONDS:
                self._told = time.monotonic()
                tell(f"the sidecar does not take logs, they wait: {why}")
            if backlog.ended:
                gives_up = gives_up or time.monotonic() + LAST_SECONDS
                if time.monotonic() > gives_up:
                    return False
            time.sleep(pause)
            pause = min(2 * pause, PAUSE_SECONDS_MAX)

    def _post(self, lines: list[bytes]) -> str | None:
        """Why it has to be tried again; None when not."""
        try:
            self._connection.request("POST", self._path, b"\n".join(lines), {"Content-Type": "application/x-ndjson"})
            answer = self._connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            return f"{type(error).__name__}: {error}"
        if answer.status >= 500:
            return f"{answer.status} {text!r}"
        if answer.status >= 400:
            tell(f"{len(lines)} lines were refused: {answer.status} {text!r}")
        return None


def tell(text: str) -> None:
    """A line for the operator."""
    print(f"ship.py: {text}", file=sys.stderr, flush=True)


def read(backlog: Backlog) -> None:
    """Takes what the gateway writes, as fast as it comes; other lines than entries are not for us."""
    rest = b""
    while chunk := os.read(0, 1 << 18):
        *lines, rest = (rest + chunk).split(b"\n")
        rest = rest[: LINE_BYTES_MAX + 1]  # a line without end is no entry
        backlog.put([line for line in lines if line.startswith(b"{") and len(line) <= LINE_BYTES_MAX])
    backlog.put([rest] if rest.startswith(b"{") else [])


def main() -> None:
    """Reads in this thread, delivers in another."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", default="meter", help="whose log it is: traefik, envoy, meter")
    address = os.environ.get("METER", "127.0.0.1:8000")
    parser.add_argument(
        "--meter", default=address, help="where the sidecar is [the environment's METER, or %(default)s]"
    )
    options = parser.parse_args()
    sidecar, backlog = Sidecar(options.meter, options.source), Backlog()
    for number in (signal.SIGINT, signal.SIGTERM):  # meant for the gateway, whose last lines are still to come
        signal.signal(number, signal.SIG_IGN)
    undelivered: list[bytes] = []

    def deliver() -> None:
        while lines := backlog.take():
            if not sidecar.deliver(lines, backlog):
                undelivered.extend(lines)
                return

    delivering = threading.Thread(target=deliver, daemon=True)
    delivering.start()
    read(backlog)
    backlog.end()
    delivering.join()
    backlog.report(len(undelivered))


main()
