"""The `meter` command."""

from __future__ import annotations

from meter.cli.serve import app

__all__ = ["app"]
