"""`python -m meter` is `meter`."""

from __future__ import annotations

from meter.cli.serve import app

app()
