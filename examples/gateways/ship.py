"""Hands JSON access logs from stdin to the sidecar: `gateway | python3 ship.py --source traefik`.

A delivery that the sidecar cannot decide is repeated: a settlement that was done already is done once.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import urllib.error
import urllib.request

ENTRIES_MAX = 500
PAUSE_SECONDS = 0.5

parser = argparse.ArgumentParser()
parser.add_argument("--source", default="meter")
parser.add_argument("--meter", default="http://127.0.0.1:8000")
options = parser.parse_args()
url = f"{options.meter}/gateway/logs?source={options.source}"


def deliver(lines: list[bytes]) -> None:
    """Posts lines until the sidecar has taken them."""
    while True:
        request = urllib.request.Request(url, b"\n".join(lines), {"Content-Type": "application/x-ndjson"})
        try:
            with urllib.request.urlopen(request, timeout=10):
                return
        except urllib.error.HTTPError as error:
            if error.code < 500:
                print(f"ship.py: {error.code} {error.read()!r}", file=sys.stderr)
                return
        except OSError as error:
            print(f"ship.py: {error}", file=sys.stderr)
        time.sleep(PAUSE_SECONDS)


rest = b""
while chunk := os.read(0, 1 << 16):
    *lines, rest = (rest + chunk).split(b"\n")
    lines = [line for line in lines if line.startswith(b"{")]
    for at in range(0, len(lines), ENTRIES_MAX):
        deliver(lines[at : at + ENTRIES_MAX])
