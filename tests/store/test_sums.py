"""How the sums of drivers are read."""

from __future__ import annotations

from decimal import Decimal

from meter.store.sums import whole


def test_a_sum_is_read_whatever_form_a_driver_gives_it() -> None:
    forms = (Decimal("5E+8"), Decimal("1.5E+9"), Decimal("7.0000"), "12", 3, 0.0, None)
    assert [*map(whole, forms)] == [500_000_000, 1_500_000_000, 7, 12, 3, 0, 0]
