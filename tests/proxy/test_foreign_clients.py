"""Clients that are no package of this environment, through the proxy to an upstream that speaks their formats: the
official client of OpenAI for Node and LiteLLM are charged exactly, streamed and not, and can read a refusal.

They run as processes of their own. `npm install --prefix DIR openai` and `METER_NODE_MODULES=DIR/node_modules` bring
the one, a Python that has litellm in `METER_LITELLM_PYTHON` the other (this one, where it has it).
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from meter import Meter
from tests.proxy.proxied import proxied
from tests.proxy.test_sdks import provider

pytestmark = pytest.mark.slow

SECONDS = 300
_NODE = """
const OpenAI = require("openai");
const [url, user, way] = process.argv.slice(1);
const client = new OpenAI({apiKey: "key", baseURL: url + "/v1", defaultHeaders: {"X-User-Id": user}, maxRetries: 0});
const asked = {model: "m", messages: [{role: "user", content: "hi"}]};
async function run() {
  if (way === "chat") return (await client.chat.completions.create(asked)).choices[0].message.content;
  if (way === "chat stream") {
    let text = "";
    const stream = await client.chat.completions.create({...asked, stream: true});
    for await (const part of stream) text += part.choices[0].delta.content ?? "";
    return text;
  }
  if (way === "responses") return (await client.responses.create({model: "m", input: "hi"})).output_text;
  let text = "";
  for await (const event of await client.responses.create({model: "m", input: "hi", stream: true})) {
    if (event.type === "response.output_text.delta") text += event.delta;
  }
  return text;
}
run().then((text) => console.log(JSON.stringify({text})), (error) => {
  console.log(JSON.stringify({status: error.status, message: error.message}));
});
"""
_LITELLM = """
import json, sys
import litellm

def ask(url, way):
    model, base = ("anthropic/m", url) if "anthropic" in way else ("openai/m", url + "/v1")
    asked = {"model": model, "api_base": base, "api_key": "key", "messages": [{"role": "user", "content": "hi"}],
             "max_tokens": 50, "extra_headers": {"X-User-Id": way.replace(" ", "-")}, "max_retries": 0}
    try:
        if "stream" not in way:
            return {"text": litellm.completion(**asked).choices[0].message.content}
        parts = [part for part in litellm.completion(**asked, stream=True)]
        return {"text": "".join(part.choices[0].delta.content or "" for part in parts if part.choices)}
    except Exception as error:
        return {"status": getattr(error, "status_code", None), "message": str(error)}

url, *ways = sys.argv[1:]
print(json.dumps([ask(url, way) for way in ways]))
"""


def _node() -> tuple[list[str], dict[str, str]]:
    """How Node runs a script, and what its environment is; skips where it, or the client, is missing."""
    node, modules = shutil.which("node"), os.environ.get("METER_NODE_MODULES", "")
    if node is None:
        pytest.skip("there is no node")
    if not (Path(modules) / "openai").is_dir():
        pytest.skip("METER_NODE_MODULES names no folder with openai: npm install --prefix DIR openai")
    return [node, "-e", _NODE, "--"], {**os.environ, "NODE_PATH": modules}


def _litellm() -> tuple[list[str], dict[str, str]]:
    """The same of LiteLLM."""
    python = os.environ.get("METER_LITELLM_PYTHON", "")
    if not python and find_spec("litellm") is None:
        pytest.skip("METER_LITELLM_PYTHON names no Python with litellm, and this one has none")
    environment = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    return [python or sys.executable, "-c", _LITELLM], environment


async def asked(runs: tuple[list[str], dict[str, str]], *arguments: str) -> Any:
    """What the client says of its answers."""
    command, environment = runs
    process = await asyncio.create_subprocess_exec(
        *command, *arguments, env=environment, stdout=asyncio.subprocess.PIPE
    )
    told, _ = await asyncio.wait_for(process.communicate(), SECONDS)
    return json.loads(told.decode().splitlines()[-1])


@pytest.mark.parametrize(
    ("way", "charged"), [("chat", 29), ("chat stream", 29), ("responses", 123), ("responses stream", 123)]
)
async def test_the_client_of_node_is_charged_exactly(bank: Meter, way: str, charged: int) -> None:
    async with proxied(provider, bank, inject_include_usage=True) as proxy:
        assert await asked(_node(), f"http://127.0.0.1:{proxy.port}", "user-1", way) == {"text": "Hello!"}
        await proxy.settles_at(1000 - charged)


async def test_the_client_of_node_can_read_a_refusal(bank: Meter) -> None:
    async with proxied(provider, bank) as proxy:
        told = await asked(_node(), f"http://127.0.0.1:{proxy.port}", "stranger", "chat")
    assert told["status"] == 402 and "credits do not cover" in told["message"], told


async def test_litellm_is_charged_exactly_and_can_read_a_refusal(bank: Meter) -> None:
    """In one process, which takes long to begin; each way is a user of its own."""
    charged = {"openai": 29, "openai stream": 29, "anthropic": 47, "anthropic stream": 47}
    for way in charged:
        assert await bank.add(way.replace(" ", "-"), 1000)
    async with proxied(provider, bank, inject_include_usage=True) as proxy:
        *told, refused = await asked(_litellm(), f"http://127.0.0.1:{proxy.port}", *charged, "openai stranger")
        assert told == [{"text": "Hello!"}] * len(charged)
        for way, amount in charged.items():
            await proxy.settles_at(1000 - amount, way.replace(" ", "-"))
    assert refused["status"] == 402 and "credits do not cover" in refused["message"], refused
