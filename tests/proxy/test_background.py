"""Reading is free, and background work is charged once, when its usage is first seen (K4, C16)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import orjson
import pytest

from meter import Meter
from tests.proxy.proxied import proxied
from tests.proxy.serving import fetch, request
from tests.proxy.upstream import Asked, Reply

TOLD = {"input_tokens": 100, "output_tokens": 23, "total_tokens": 123}
DONE = {"id": "resp_1", "object": "response", "status": "completed", "usage": TOLD}
INTERACTED = {"total_input_tokens": 100, "total_output_tokens": 23, "total_tokens": 123}
MEASURED = {"input_token_count": 100, "output_token_count": 23, "predict_time": 1.5}
INLINED = {"response": {"usageMetadata": {"promptTokenCount": 30, "candidatesTokenCount": 11, "totalTokenCount": 41}}}
LINE = {
    "custom_id": "a",
    "result": {"type": "succeeded", "message": {"usage": {"input_tokens": 30, "output_tokens": 10}}},
}


class Provider:
    """Begins work by POST, and tells of it as done from the third GET on."""

    def __init__(self, begun: object, done: object, results: bytes = b"") -> None:
        self.begun, self.done, self.results = begun, done, results
        self.reads = 0

    async def __call__(self, asked: Asked, reply: Reply) -> None:
        if asked.method == "POST":
            await reply.json(orjson.dumps(self.begun))
        elif asked.target.endswith(("/results", "/content")):
            await reply.json(self.results)
        else:
            self.reads += 1
            await reply.json(orjson.dumps(self.done if self.reads > 2 else self.begun))


@pytest.mark.parametrize(
    "line", ["GET /v1/responses/resp_1", "DELETE /v1/responses/resp_1", "POST /v1/responses/resp_1/cancel"]
)
async def test_reading_what_is_stored_costs_nothing_and_needs_no_credits(bank: Meter, line: str) -> None:
    async def script(_: Asked, reply: Reply) -> None:
        await reply.json(orjson.dumps(DONE))

    async with proxied(script, bank) as proxy:
        for user in ("user-1", "poor"):
            answer = await fetch(proxy.port, request(*line.split(" "), user=user))
            assert (answer.status, answer.one("x-credits-reserved")) == (200, None)
        assert (await fetch(proxy.port, request(*line.split(" "), user=None))).status == 401
        await proxy.settles_at(1000)


async def test_a_method_that_is_overridden_is_not_believed(bank: Meter) -> None:
    async def script(_: Asked, reply: Reply) -> None:
        await reply.json(orjson.dumps(DONE))

    async with proxied(script, bank) as proxy:
        await fetch(proxy.port, request("GET", "/v1/responses/resp_1", "X-HTTP-Method-Override: POST"))
        await proxy.settles_at(877)


async def test_rules_come_from_options_and_a_file(bank: Meter, tmp_path: Path) -> None:
    async def script(_: Asked, reply: Reply) -> None:
        await reply.json(orjson.dumps(DONE))

    rules = tmp_path / "rules"
    rules.write_text("# ours\nfree POST /free/**\n")
    async with proxied(script, bank, routes=("charge GET /v1/models",), routes_file=rules) as proxy:
        await fetch(proxy.port, request("POST", "/free/a/b", body=b"{}"))
        await proxy.settles_at(1000)
        await fetch(proxy.port, request("GET", "/v1/models"))
        await proxy.settles_at(877)


QUEUED = {"id": "resp_1", "object": "response", "status": "queued", "background": True, "usage": None}
BATCH = {"id": "batch_1", "object": "batch", "status": "validating"}
MESSAGES = {"id": "msgbatch_1", "type": "message_batch", "processing_status": "in_progress"}
RUN = {"id": "run_1", "object": "thread.run", "status": "queued", "usage": None}


@pytest.mark.parametrize(
    ("start", "read", "provider", "charged"),
    [
        ("/v1/responses", "/v1/responses/resp_1", Provider(QUEUED, DONE), 123),
        ("/v1/batches", "/v1/batches/batch_1", Provider(BATCH, {**BATCH, "status": "completed", "usage": TOLD}), 123),
        ("/v1/threads/t/runs", "/v1/threads/t/runs/run_1",
         Provider(RUN, {**RUN, "status": "completed", "usage": TOLD}), 123),
        ("/v1/messages/batches", "/v1/messages/batches/msgbatch_1/results",
         Provider(MESSAGES, MESSAGES, orjson.dumps(LINE) + b"\n" + orjson.dumps(LINE)), 80),
        ("/v1/responses", "/v1/responses/resp_1", Provider(QUEUED, {**DONE, "status": "failed", "usage": None}), 0),
        ("/v1beta/interactions", "/v1beta/interactions/v1_1",
         Provider({"id": "v1_1", "status": "in_progress"}, {"id": "v1_1", "status": "completed", "usage": INTERACTED}),
         123),
        ("/async/chat/completions", "/async/chat/completions/a1",
         Provider({"id": "a1", "status": "CREATED"}, {"id": "a1", "status": "COMPLETED", "response": {"usage": TOLD}}),
         123),
        ("/v1/predictions", "/v1/predictions/p1",
         Provider({"id": "p1", "status": "starting"}, {"id": "p1", "status": "succeeded", "metrics": MEASURED}),
         123),
        ("/v1/predictions", "/v1/predictions/p1",
         Provider({"id": "p1", "status": "starting"}, {"id": "p1", "status": "canceled", "metrics": {}}), 0),
        ("/v1beta/models/g:batchGenerateContent", "/v1beta/batches/b1",
         Provider({"name": "batches/b1", "metadata": {"state": "BATCH_STATE_PENDING"}},
                  {"name": "batches/b1", "response": {"inlinedResponses": {"inlinedResponses": 3 * [INLINED]}}}),
         123),
    ],
)  # fmt: skip
async def test_background_work_is_charged_once_when_its_usage_is_first_seen(
    bank: Meter, start: str, read: str, provider: Provider, charged: int
) -> None:
    async with proxied(provider, bank) as proxy:
        await fetch(proxy.port, request("POST", start, body=b'{"background":true}'))
        await asyncio.gather(*(fetch(proxy.port, request("GET", read)) for _ in range(6)))
        await proxy.settles_at(1000 - charged)
        await fetch(proxy.port, request("GET", read, user="user-2"))
        await proxy.settles_at(1000 - charged)


async def test_results_in_a_file_are_charged_where_the_batch_tells_nothing(bank: Meter) -> None:
    line = {
        "custom_id": "a",
        "response": {"status_code": 200, "body": {"usage": {"prompt_tokens": 19, "completion_tokens": 10}}},
    }
    done = {**BATCH, "status": "completed", "output_file_id": "file-1"}
    async with proxied(Provider(BATCH, done, 3 * (orjson.dumps(line) + b"\n")), bank) as proxy:
        await fetch(proxy.port, request("POST", "/v1/batches", body=b"{}"))
        for _ in range(3):
            await fetch(proxy.port, request("GET", "/v1/batches/batch_1"))
        for _ in range(2):
            await fetch(proxy.port, request("GET", "/v1/files/file-1/content"))
        await proxy.settles_at(913)


async def test_results_in_a_file_are_charged_by_the_names_of_other_providers(bank: Meter) -> None:
    begun, line = {"id": "j1", "object": "batch", "status": "QUEUED"}, {"response": {"body": {"usage": TOLD}}}
    mistral = Provider(begun, {**begun, "status": "SUCCESS", "output_file": "f1"}, 2 * (orjson.dumps(line) + b"\n"))
    async with proxied(mistral, bank) as proxy:
        await fetch(proxy.port, request("POST", "/v1/batch/jobs", body=b"{}"))
        for _ in range(3):
            await fetch(proxy.port, request("GET", "/v1/batch/jobs/j1"))
        for _ in range(2):
            await fetch(proxy.port, request("GET", "/v1/files/f1/content"))
        await proxy.settles_at(1000 - 246)


async def test_the_estimate_stays_held_while_the_work_goes_on(bank: Meter) -> None:
    async with proxied(Provider(QUEUED, QUEUED), bank) as proxy:
        await fetch(proxy.port, request("POST", "/v1/responses", body=b'{"background":true}'))
        found = await bank.reservations("user-1")
        while not any(item.reservation_id.startswith("w_") and item.amount == 100 for item in found.items):  # type: ignore[union-attr]
            found = await bank.reservations("user-1")
        assert await proxy.balance() == (900, 100)


async def test_a_part_of_the_results_does_not_settle_them(bank: Meter) -> None:
    provider = Provider(MESSAGES, MESSAGES, orjson.dumps(LINE) + b"\n" + orjson.dumps(LINE))

    async def script(asked: Asked, reply: Reply) -> None:
        if asked.all("range"):
            await reply.json(orjson.dumps(LINE) + b"\n", status=206)
        else:
            await provider(asked, reply)

    async with proxied(script, bank) as proxy:
        await fetch(proxy.port, request("POST", "/v1/messages/batches", body=b"{}"))
        await fetch(proxy.port, request("GET", "/v1/messages/batches/msgbatch_1/results", "Range: bytes=0-99"))
        await fetch(proxy.port, request("GET", "/v1/messages/batches/msgbatch_1/results"))
        await proxy.settles_at(920)
