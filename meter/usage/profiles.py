"""Where providers tell their usage, as data. Adding a provider is adding a row here and its answers to the tests.

A row has the places (`bases`) where its object stands, and counters: the path of each inside the object, the dimension
that it counts and, where the provider's number is part of another one, of which. The first row that tells anything is
taken, so what is more exact comes first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Counter:
    """One number of a provider. `within`: the dimension whose number contains it; `total`: it is the sum of all."""

    dimension: str
    within: str = ""

    @property
    def is_total(self) -> bool:
        """Whether it is the provider's own sum."""
        return self.dimension == "total"


@dataclass(frozen=True, slots=True)
class Profile:
    """How one API tells usage. Paths are dotted keys; `[]` enters an array (the largest counts), `[+]` adds items."""

    name: str
    bases: tuple[str, ...]
    counters: Mapping[str, Counter]
    headers: Mapping[str, Counter] = field(default_factory=dict)
    """Response headers that count, in lower case; read where no body does."""


INPUT, OUTPUT, TOTAL = Counter("input"), Counter("output"), Counter("total")
CACHE_READ, CACHE_WRITE = Counter("cache_read"), Counter("cache_write")
CACHED, WRITTEN = Counter("cache_read", within="input"), Counter("cache_write", within="input")
THOUGHT = Counter("reasoning", within="output")
HEARD, SPOKEN = Counter("audio_input", within="input"), Counter("audio_output", within="output")

_AT_USAGE = (
    "usage",
    "response.usage",
    "message.usage",
    "x_groq.usage",
    "choices[].usage",
    "data.usage",
    "result.usage",
    "interaction.usage",
)
_COHERE = ("usage", "delta.usage", "meta", "response.meta", "response.usage", "message.usage")

_IN_LINES = ("result.message.usage", "response.body.usage", "response.usageMetadata")
_OF_GEMINI = {
    "promptTokenCount": INPUT,
    "cachedContentTokenCount": CACHED,
    "toolUsePromptTokenCount": Counter("tool_input"),
    "candidatesTokenCount": OUTPUT,
    "responseTokenCount": OUTPUT,
    "thoughtsTokenCount": Counter("reasoning"),
    "totalTokenCount": TOTAL,
}

PROFILES: tuple[Profile, ...] = (
    Profile(
        "cohere",
        tuple(f"{place}.billed_units" for place in _COHERE),
        {
            "input_tokens": INPUT,
            "output_tokens": OUTPUT,
            "search_units": Counter("search_units"),
            "classifications": Counter("classifications"),
            "images": Counter("images"),
        },
    ),
    Profile(
        "openai-chat",
        _AT_USAGE,
        {
            "prompt_tokens": INPUT,
            "completion_tokens": OUTPUT,
            "total_tokens": TOTAL,
            "prompt_tokens_details.cached_tokens": CACHED,
            "prompt_tokens_details.cache_write_tokens": WRITTEN,
            "prompt_tokens_details.audio_tokens": HEARD,
            "prompt_cache_hit_tokens": CACHED,
            "completion_tokens_details.reasoning_tokens": THOUGHT,
            "completion_tokens_details.audio_tokens": SPOKEN,
        },
    ),
    Profile(
        "anthropic-iterations",
        ("usage", "message.usage"),
        {
            "iterations[+].input_tokens": INPUT,
            "iterations[+].output_tokens": OUTPUT,
            "iterations[+].cache_read_input_tokens": CACHE_READ,
            "iterations[+].cache_creation_input_tokens": CACHE_WRITE,
        },
    ),
    Profile(
        "input-output",  # OpenAI's responses, images and audio, and Anthropic's messages
        _AT_USAGE,
        {
            "input_tokens": INPUT,
            "output_tokens": OUTPUT,
            "total_tokens": TOTAL,
            "input_tokens_details.cached_tokens": CACHED,
            "input_tokens_details.cache_write_tokens": WRITTEN,
            "input_tokens_details.audio_tokens": HEARD,
            "input_token_details.cached_tokens": CACHED,
            "input_token_details.audio_tokens": HEARD,
            "output_tokens_details.reasoning_tokens": THOUGHT,
            "output_tokens_details.audio_tokens": SPOKEN,
            "output_token_details.audio_tokens": SPOKEN,
            # Anthropic's, whose input is told without them
            "cache_read_input_tokens": CACHE_READ,
            "cache_creation_input_tokens": CACHE_WRITE,
            "seconds": Counter("seconds"),
        },
    ),
    Profile(
        "gemini",
        ("usageMetadata", "usage_metadata", "response.usageMetadata"),
        _OF_GEMINI,
    ),
    Profile(
        "gemini-batch",
        ("response.inlinedResponses",),
        {f"inlinedResponses[+].response.usageMetadata.{name}": counter for name, counter in _OF_GEMINI.items()},
    ),
    Profile(
        "bedrock",
        ("usage", "metadata.usage"),
        {
            "inputTokens": INPUT,
            "outputTokens": OUTPUT,
            "totalTokens": TOTAL,
            "cacheReadInputTokens": CACHE_READ,
            "cacheWriteInputTokens": CACHE_WRITE,
            "cacheReadInputTokenCount": CACHE_READ,  # Nova, invoked
            "cacheWriteInputTokenCount": CACHE_WRITE,
        },
    ),
    Profile(
        "gemini-interactions",
        ("usage", "interaction.usage"),
        {
            "total_input_tokens": INPUT,
            "total_output_tokens": OUTPUT,
            "total_tokens": TOTAL,
            "total_cached_tokens": CACHED,
            "total_tool_use_tokens": Counter("tool_input"),
            "total_thought_tokens": Counter("reasoning"),
        },
    ),
    Profile(
        "ai-sdk",
        _AT_USAGE,
        {"promptTokens": INPUT, "completionTokens": OUTPUT, "totalTokens": TOTAL},
    ),
    Profile(
        "vertex-predict",
        ("",),
        {
            "predictions[+].embeddings.statistics.token_count": INPUT,
            "metadata.tokenMetadata.inputTokenCount.totalTokens": INPUT,
            "metadata.tokenMetadata.outputTokenCount.totalTokens": OUTPUT,
        },
    ),
    Profile(
        "watsonx",
        ("",),
        {
            "results[+].input_token_count": INPUT,
            "results[+].generated_token_count": OUTPUT,
            "input_token_count": INPUT,
        },
    ),
    Profile("replicate", ("metrics",), {"input_token_count": INPUT, "output_token_count": OUTPUT}),
    Profile("aleph-alpha", ("",), {"num_tokens_prompt_total": INPUT, "num_tokens_generated": OUTPUT}),
    Profile("pages", ("usage_info",), {"pages_processed": Counter("pages")}),
    Profile(
        "bedrock-invoke",
        ("amazon-bedrock-invocationMetrics",),
        {
            "inputTokenCount": INPUT,
            "outputTokenCount": OUTPUT,
            "cacheReadInputTokenCount": CACHE_READ,
            "cacheWriteInputTokenCount": CACHE_WRITE,
        },
        {
            "x-amzn-bedrock-input-token-count": INPUT,
            "x-amzn-bedrock-output-token-count": OUTPUT,
            "x-amzn-bedrock-cache-read-input-token-count": CACHE_READ,
            "x-amzn-bedrock-cache-write-input-token-count": CACHE_WRITE,
        },
    ),
    Profile(
        "titan",
        ("",),
        {"inputTextTokenCount": INPUT, "results[+].tokenCount": OUTPUT, "totalOutputTextTokenCount": OUTPUT},
    ),
    Profile("llama", ("",), {"prompt_token_count": INPUT, "generation_token_count": OUTPUT}),
    Profile("ollama", ("",), {"prompt_eval_count": INPUT, "eval_count": OUTPUT}),
    Profile("llama-cpp", ("",), {"tokens_evaluated": INPUT, "tokens_predicted": OUTPUT}),
    Profile("llama-cpp-timings", ("timings",), {"prompt_n": INPUT, "cache_n": CACHE_READ, "predicted_n": OUTPUT}),
    Profile(
        "tgi",
        ("details",),
        {"input_length": INPUT, "generated_tokens": OUTPUT},
        {"x-prompt-tokens": INPUT, "x-generated-tokens": OUTPUT},
    ),
    Profile(
        "cohere-tokens",
        tuple(f"{place}.tokens" for place in _COHERE),
        {"input_tokens": INPUT, "output_tokens": OUTPUT},
    ),
)

MODEL_PATHS = (
    *("model", "response.model", "message.model", "modelVersion", "response.modelVersion", "model_id"),
    *("result.message.model", "response.body.model", "interaction.model"),
)
FAILURE_PATHS = ("error", "response.error")
"""What says, when there is anything, that an answer of status 200 is none."""
TYPE_PATH = "type"
ID_PATHS = ("id", "interaction.id", "name", "response.id")
"""Where work has its id, the likeliest first."""
FILE_PATHS = ("output_file_id", "output_file", "responsesFile")
"""By what its results stand in a file."""
WORK_PATHS = (
    *(*ID_PATHS, "object", "status", "processing_status", "response.status", "interaction.status"),
    *("output_file_id", "output_file", "response.responsesFile"),
)
"""Texts that tell of work in the background, and how far it is."""
BACKGROUND_PATHS = ("background", "response.background")
FAILURE_TYPES = frozenset({"error", "response.failed"})

RESULTS: tuple[Profile, ...] = tuple(
    Profile(profile.name, _IN_LINES, profile.counters)
    for profile in PROFILES
    if profile.name in ("openai-chat", "anthropic-iterations", "input-output", "gemini")
)
"""Lines of the results of a batch, each the answer to one request of it."""
