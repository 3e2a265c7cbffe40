"""The fixtures of the proxy's tests."""

from __future__ import annotations

from tests.proxy.conftest import bank

__all__ = ["bank"]
