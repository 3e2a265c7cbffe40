"""Where `meter proxy` has the operator's key from."""

from __future__ import annotations

from pathlib import Path

import pytest

from meter.errors import ConfigError
from meter.proxy.options import ProxyOptions


def test_the_key_is_read_from_the_file_that_the_environment_names(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_text("mk_first\n")
    second.write_text("mk_second\n")
    monkeypatch.setenv("METER_KEY", "mk_named")
    assert ProxyOptions(upstream="http://u").meter_key() == "mk_named"
    monkeypatch.setenv("METER_KEY_FILE", str(first))
    assert ProxyOptions(upstream="http://u").meter_key() == "mk_first"
    assert ProxyOptions(upstream="http://u", meter_key_file=second).meter_key() == "mk_second"
    monkeypatch.setenv("METER_KEY_FILE", str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="meter_key_file="):
        ProxyOptions(upstream="http://u").meter_key()
