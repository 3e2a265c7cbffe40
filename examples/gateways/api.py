"""An API to try a gateway with: `python3 api.py`. Each request costs 30 credits, and the answer says so both ways."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BODY = b'{"text": "hello", "usage": {"total_tokens": 30}}\n'


class Api(BaseHTTPRequestHandler):
    """Answers any GET."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Usage in a header and in the body."""
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("X-Credits-Actual", "30")
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY)


ThreadingHTTPServer(("127.0.0.1", 9000), Api).serve_forever()
