"""Priced traffic: rows cost what a rate card says, worked out apart from the sidecar, and every credit is conserved."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path

import pytest
from rich.console import Console

from meter.engine.redis import RedisGateway
from meter.replay import OptionError, TraceError, read_trace, replay, verify
from meter.replay import card as cards
from meter.replay.card import read_card
from tests.replay.sidecar import Sidecar
from tests.replay.test_replay import counts, options_for

pytestmark = pytest.mark.anyio

MODELS = {
    "gpt": {"input": 2.5, "output": 10, "aliases": ["gpt-2024"]},
    "deep": {"input": 1.1, "output": "0.7", "above_input": {"over": 300, "rates": {"input": 3}}},
    "gift": {"free": True},
    "*": {"input": 1, "output": 1},
}
CARD = {"models": MODELS, "per_request": "0.000001", "minimum": 0.0001}
NAMES = ("gpt", "deep", "gpt-2024", "gift", "never heard of")


@pytest.fixture
async def keeping(gateway: RedisGateway) -> AsyncIterator[Sidecar]:
    """A sidecar with a store: rate cards are durable."""
    found = Sidecar(gateway, "memory://")
    await found.start()
    yield found
    await found.stop()


@pytest.fixture
def card(tmp_path: Path) -> Path:
    path = tmp_path / "card.json"
    path.write_text(json.dumps(CARD))
    return path


@pytest.fixture
def models(tmp_path: Path, trace: Path) -> Path:
    """The trace with a column of models."""
    head, *lines = trace.read_text().splitlines()
    path = tmp_path / "models.csv"
    named = [f"{line},{NAMES[n % 5].replace(' ', '-')}" for n, line in enumerate(lines)]
    path.write_text("\n".join([f"{head},Model", *named]))
    return path


def costs(path: Path) -> Decimal:
    """What the rows of a trace cost, by hand."""
    total = Decimal(0)
    for row in read_trace(path):
        inputs, outputs = row.context_tokens, row.generated_tokens
        if row.model == "gift":
            continue
        rates = {"gpt": ("2.5", "10"), "gpt-2024": ("2.5", "10"), "deep": ("3" if inputs > 300 else "1.1", "0.7")}
        of_input, of_output = rates.get(row.model, ("1", "1"))
        exact = Decimal("0.000001") + (inputs * Decimal(of_input) + outputs * Decimal(of_output)) / 10**6
        total += max(Decimal("0.0001"), exact).quantize(Decimal("0.000001"), "ROUND_CEILING")
    return total


@pytest.mark.parametrize("estimate", [0, 256, None])
async def test_priced_traffic_is_conserved_in_credits(
    keeping: Sidecar, models: Path, card: Path, console: Console, estimate: int | None
) -> None:
    report = await replay(options_for(keeping, models, card=card, estimate=estimate, release_share=0.2), console)

    assert report.conserved, report.differences
    assert report.record.failed == 0 and report.record.committed + report.record.released == 60
    whole = await replay(options_for(keeping, models, card=card, estimate=estimate), console)
    assert counts(whole) == (60, 60, 0, 60, 0, 0)
    assert whole.record.charged_credits == costs(models)


async def test_too_little_credit_a_lost_answer_and_a_journal(
    keeping: Sidecar, models: Path, card: Path, console: Console, tmp_path: Path
) -> None:
    keeping.lose_answers_of = "/commit"
    journal = tmp_path / "journal"
    options = options_for(keeping, models, card=card, credit=Decimal("0.005"), journal=journal, users=3)

    report = await replay(options, console)

    assert report.conserved and keeping.answers_lost == 1
    assert report.record.refused > 0 and report.record.charged_credits <= Decimal("0.015")
    assert (await verify(journal, console)).conserved


async def test_a_sidecar_that_prices_otherwise_is_found(
    keeping: Sidecar, models: Path, card: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cards, "MILLION", 999_999)
    report = await replay(options_for(keeping, models, card=card), console)
    assert not report.conserved
    assert any(one.what.startswith("held by ") for one in report.differences)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "is not JSON"),
        ('{"models": {}}', "/models"),
        ('{"models": {"m": {"input": -1}}}', "/models/m/input"),
        ('{"models": {"m": {"input": 1}}, "effective_at": "2030-01-01T00:00:00Z"}', "/effective_at"),
        ('{"models": {"m": {"input": 1}}}', "has no rate of output"),
        ('{"models": {"m": {"input": 1, "output": 1}, "n": {"input": 1, "output": 1}}}', "names no model"),
        (None, "No such file"),
    ],
)
async def test_a_card_that_cannot_be_used_is_told_before_anything_is_charged(
    keeping: Sidecar, trace: Path, console: Console, tmp_path: Path, text: str | None, complaint: str
) -> None:
    path = tmp_path / "bad.json"
    if text is not None:
        path.write_text(text)

    with pytest.raises(OptionError, match=complaint):
        await replay(options_for(keeping, trace, card=path), console)

    assert not any(path.startswith("/credits/add") for _, path in keeping.calls)


async def test_a_model_that_the_card_does_not_have_is_told_by_its_row(
    keeping: Sidecar, models: Path, console: Console, tmp_path: Path
) -> None:
    path = tmp_path / "small.json"
    path.write_text(json.dumps({"models": {"gpt": {"input": 1, "output": 1}}}))

    with pytest.raises(OptionError, match="row 2 is of the model 'deep'"):
        await replay(options_for(keeping, models, card=path), console)


def test_the_column_is_named_or_called_model(models: Path, trace: Path) -> None:
    assert [row.model for row in read_trace(models, 2)] == ["gpt", "deep"]
    assert {row.model for row in read_trace(trace)} == {""}
    assert [row.model for row in read_trace(models, 1, "Model")] == ["gpt"]
    with pytest.raises(TraceError, match="needs one column Name"):
        read_trace(models, 1, "Name")


def test_one_model_is_that_of_rows_that_name_none(tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    path.write_text('{"models": {"m": {"input": 3, "output": 7}}}')
    card = read_card(path, 2)
    assert card.model_of("", 1) == "m"
    assert card.credits("m", 1, 1) == Decimal("0.01"), "rounded up once, to what the sidecar counts by"
