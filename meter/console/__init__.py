"""The console at `/console`: pages for support, operators and owners, made of the public calls (docs/console.md)."""
