"""Only generating is charged (K4): rules by method and path."""

from __future__ import annotations

import pytest

from meter.charging.routes import CHARGED, FREE, Asked, Routes, rule_of


@pytest.mark.parametrize(
    "line",
    [
        "GET /v1/responses/resp_1/input_items",
        "HEAD /v1/models",
        "DELETE /v1/responses/resp_1",
        "GET /openai/deployments/d/chat/completions/c1",
        "GET /v1beta/models",
        "GET /api/tags",
        "POST /v1/files",
        "POST /v1/threads",
        "POST /v1/messages/count_tokens",
        "POST /v1beta/models/gemini-2.5-flash:countTokens",
        "GET /any/mount/v1/batches",
        "GET //v1/models/",
    ],
)
def test_what_generates_nothing_is_free(line: str) -> None:
    method, path = line.split(" ")
    assert Routes().asked(method, path) == FREE


@pytest.mark.parametrize(
    ("line", "asked"),
    [
        ("GET /v1/responses/resp_1", Asked(free=True, work="resp_1")),
        ("POST /v1/responses/resp_1/cancel", Asked(free=True, work="resp_1")),
        ("GET /v1/threads/t/runs/run_1", Asked(free=True, work="run_1")),
        ("GET /v1/batches/batch_1", Asked(free=True, work="batch_1")),
        ("GET /v1/messages/batches/m1/results", Asked(free=True, work="m1", lines=True)),
        ("GET /v1/files/f1/content", Asked(free=True, work="f1", lines=True)),
        ("DELETE /v1/messages/batches/m1", FREE),
    ],
)
def test_what_reads_background_work_names_it(line: str, asked: Asked) -> None:
    method, path = line.split(" ")
    assert Routes().asked(method, path) == asked


OPENAI = Asked(free=False, provider="openai")
BEGINS = Asked(free=False, begins=True, provider="openai")
ANTHROPIC = Asked(free=False, provider="anthropic")


@pytest.mark.parametrize(
    ("line", "asked"),
    [
        ("POST /v1beta/models/gemini-2.5-flash:streamGenerateContent", Asked(free=False, provider="gemini")),
        ("POST /model/anthropic.claude%3A0/converse-stream", Asked(free=False, provider="bedrock")),
        ("POST /api/chat", Asked(free=False, provider="ollama")),
        ("POST /v2/chat", Asked(free=False, provider="cohere")),
        ("POST /mine", CHARGED),
        ("POST /v1/chat/completions", OPENAI),
        ("POST /v1/chat/completions/", OPENAI),
        ("POST /v1/messages", ANTHROPIC),
        ("POST /v1/embeddings", OPENAI),
        ("POST /v1/responses", BEGINS),
        ("POST /v1/messages/batches", ANTHROPIC._replace(begins=True)),
        ("POST /v1/threads/runs", BEGINS),
        ("POST /v1/threads/t/runs/r/submit_tool_outputs", OPENAI),
        ("POST /v1/responses/x/cancel/../../../responses", BEGINS),
        ("POST /v1/files/%2e%2e/responses", BEGINS),
        ("POST /v1/chat/completions;/cancel", CHARGED),
        ("POST /v1/responses?/x/cancel", BEGINS),
        ("PATCH /v1/files/f", CHARGED),
        ("GET /search", CHARGED),
        ("GET /jobs/7", CHARGED),
    ],
)
def test_the_rest_is_charged_however_it_is_spelt(line: str, asked: Asked) -> None:
    method, path = line.split(" ")
    assert Routes().asked(method, path) == asked


def test_rules_of_ones_own_come_first() -> None:
    rules = Routes(map(rule_of, ("free GET /v1/things/*", "charge * /v1/files/**", "free POST /quiet")))

    assert rules.asked("GET", "/v1/things/7") == FREE
    assert rules.asked("GET", "/v1/things/7/more") == CHARGED
    assert rules.asked("GET", "/v1/files/f1/content") == CHARGED
    assert rules.asked("POST", "/v1/files") == CHARGED
    assert rules.asked("POST", "/loud/../quiet") == CHARGED  # as it stands it is another path
    assert Routes(known=False).asked("GET", "/v1/models") == CHARGED


@pytest.mark.parametrize("text", ["", "free /x", "gratis GET /x", "free GET x", "free get /x"])
def test_a_rule_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a rule is"):
        rule_of(text)
