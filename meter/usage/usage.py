"""What one response of a metered upstream says was used.

Holds what the upstream reported, in the upstream's own counting; prices are not known here.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from meter.usage.number import Number


class Format(StrEnum):
    """Where in a response the usage is looked for."""

    KEY = "key"
    """One number at a configured dotted key: `total_token`, `usage.total_tokens`."""
    OPENAI_CHAT = "openai-chat"
    """Chat completions, completions and embeddings: `usage.prompt_tokens` and so on."""
    OPENAI_RESPONSES = "openai-responses"
    """Responses, images and audio: `usage.input_tokens` with `usage.total_tokens`."""
    ANTHROPIC = "anthropic"
    """Messages: `usage.input_tokens` without a total."""
    AUTO = "auto"
    """Any of the above, decided by what the response holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Numbers of tokens, or of whatever the upstream counts; None where it did not say.

    `input_tokens` is as on the wire: OpenAI's INCLUDES the tokens read from and written to the
    cache, Anthropic's EXCLUDES them. `fresh_input_tokens` means the same for both.
    """

    format: Format
    """The format that was found; never `AUTO`."""
    total: Number
    """What is charged by default: the number at the key; OpenAI's `total_tokens`, else input plus
    output; for Anthropic input, cache read, cache write and output together."""
    input_tokens: Number | None = None
    output_tokens: Number | None = None
    cache_read_tokens: Number | None = None
    cache_write_tokens: Number | None = None

    @property
    def fresh_input_tokens(self) -> Number | None:
        """Input tokens that were neither read from nor written to the cache."""
        if self.input_tokens is None or self.format is Format.ANTHROPIC:
            return self.input_tokens
        cached = (self.cache_read_tokens or 0) + (self.cache_write_tokens or 0)
        return max(self.input_tokens - cached, 0)
