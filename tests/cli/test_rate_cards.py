"""`meter rate-cards` on a deployment: the public price map becomes a card, and what cannot be mapped is told."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import pytest
from redis import Redis

from meter.migration.price_map import PriceMap
from tests.cli.test_keys import meter

MAP = {
    "sample_spec": {"input_cost_per_token": 0.0, "mode": "one of: chat, embedding"},
    "gpt-4o": {
        "input_cost_per_token": 2.5e-06,
        "output_cost_per_token": 1e-05,
        "cache_read_input_token_cost": 1.25e-06,
        "input_cost_per_token_batches": 1.25e-06,
        "max_output_tokens": 16384,
        "mode": "chat",
    },
    "gemini/gemini-2.5-pro": {
        "input_cost_per_token": 1.25e-06,
        "output_cost_per_token": 1e-05,
        "output_cost_per_reasoning_token": 1.1e-05,
        "input_cost_per_token_above_200k_tokens": 2.5e-06,
        "output_cost_per_token_above_200k_tokens": 1.5e-05,
        "max_output_tokens": 65535,
    },
    "claude": {
        "input_cost_per_token": "3e-06", "cache_creation_input_token_cost": 3.75e-06, "output_cost_per_token": 15e-6
    },
    "embed": {"input_cost_per_token": 2e-08, "output_cost_per_token": 0.0, "mode": "embedding"},
    "dall-e-3": {"output_cost_per_image": 0.04, "mode": "image_generation"},
    "rerank": {"input_cost_per_query": 0.002, "input_cost_per_token": 0.0, "mode": "rerank"},
    "whisper-1": {"input_cost_per_second": 0.0001, "output_cost_per_second": 0.0001, "mode": "audio_transcription"},
    "free": {"input_cost_per_token": 0.0, "output_cost_per_token": 0.0},
    "by-pixel": {"input_cost_per_pixel": 1.9e-08},
    'na"me': {"input_cost_per_token": 1e-06},
    "negative": {"input_cost_per_token": -1},
    "text": "nothing",
    "tiny": {"input_cost_per_token": 1e-14},
}  # fmt: skip


def test_what_a_card_can_say_is_mapped_and_the_rest_is_told() -> None:
    found = PriceMap(Decimal("1.2"), 6).read(json.loads(json.dumps(MAP), parse_float=Decimal))
    assert found.models == {
        "gpt-4o": {"input": "3", "output": "12", "cache_read": "1.5", "max_output": 16384},
        "gemini/gemini-2.5-pro": {
            "input": "1.5",
            "output": "12",
            "reasoning": "13.2",
            "max_output": 65535,
            "above_input": {"over": 200000, "rates": {"input": "3", "output": "18"}},
        },
        "claude": {"input": "3.6", "output": "18", "cache_write": "4.5"},
        "embed": {"input": "0.024"},
        "dall-e-3": {"images": "48000"},
        "rerank": {"search_units": "2400"},
        "whisper-1": {"seconds": "120"},
        "tiny": {"input": "0.000001"},
    }
    assert found.not_mapped == {
        "free": "costs nothing: say free: true of it",
        "by-pixel": "has no price that a card can have",
        'na"me': "its name cannot be one of a rate card: visible ASCII without quotes and commas",
        "negative": "input_cost_per_token is no price: -1",
        "text": "is no object",
    }
    assert (found.ignored, found.rounded) == ({"input_cost_per_token_batches": 1, "output_cost_per_second": 1}, 1)


@pytest.fixture
def variables(redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A deployment of its own, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    Redis.from_url(redis_url).flushall()
    return {"METER_REDIS_URL": redis_url, "METER_STORE_URL": f"sqlite:///{tmp_path}/m.db", "METER_REDIS_UNSAFE": "1"}


def test_the_map_becomes_a_card_that_prices(variables: dict[str, str]) -> None:
    Path("map.json").write_text(json.dumps(MAP))
    code, out, _ = meter(variables, "rate-cards", "import", "map.json", "--markup", "2", "--json")
    told = json.loads(out)
    assert (code, told["version"], told["models"], len(told["not_mapped"])) == (0, 1, 8, 5)
    code, out, _ = meter(variables, "rate-cards", "show", "--json")
    assert (code, json.loads(out)["models"]["gpt-4o"]["output"]) == (0, 20)
    code, out, _ = meter(variables, "rate-cards", "import", "map.json", "--dry-run")
    assert (code, out.splitlines()[0]) == (0, "default: 8 models, nothing was changed; 1 rates were rounded up")
    assert "not mapped: free: costs nothing: say free: true of it" in out


def test_cards_are_made_shown_and_activated_by_hand(variables: dict[str, str]) -> None:
    Path("card.json").write_text('{"models": {"m": {"input": 2.5}}, "minimum": 0.001}')
    assert meter(variables, "rate-cards", "put", "gold", "card.json")[0] == 0
    assert meter(variables, "rate-cards", "put", "gold", "card.json")[1].startswith("gold version 2, prices")
    assert meter(variables, "rate-cards", "activate", "gold", "1")[0] == 0
    assert meter(variables, "rate-cards", "list")[1] == "gold version 2, version 1 prices\n"
    assert len(json.loads(meter(variables, "rate-cards", "show", "gold", "--versions", "--json")[1])["items"]) == 2
    code, _, err = meter(variables, "rate-cards", "activate", "gold", "9")
    assert (code, "versions 1 to 2" in err) == (6, True)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": NaN'])
def test_a_file_that_is_no_map_is_told_in_one_line(variables: dict[str, str], text: str) -> None:
    Path("map.json").write_text(text)
    code, _, err = meter(variables, "rate-cards", "import", "map.json")
    assert (code, err.count("\n"), "map.json: is no" in err) == (2, 1, True)
