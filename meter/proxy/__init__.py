"""`meter proxy`: a reverse proxy that meters any upstream.

    client ──> meter proxy ──> upstream

Reserve, forward, read the usage off the response as it streams by, commit. Nothing is buffered and nothing is decoded
on the way. `server.run_proxy` runs it; `app.Proxy` is the ASGI application.
"""

from __future__ import annotations
