"""What a broken promise looks like to a caller."""

from __future__ import annotations
