"""One metered request, whoever carries it: the ASGI middleware or the reverse proxy.

Credits are held before the request is served, usage is read while the response passes by, and the hold is settled
once. Knows headers, statuses and bytes; knows no ASGI, no socket and no upstream.
"""

from __future__ import annotations
