"""What a request asks of a provider, by its method and its path: only generating is charged.

Reading, listing, cancelling and deleting what is stored cost nothing and need no hold; the owner's own rules come
first. A path is free only when it is so by every reading of it (meter/charging/paths.py), so that no spelling of a
generating one is taken for another. What no rule knows is charged.

Work in the background (a response, run or batch) is started by one request and told as used by others: those that read
it are looked at.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from meter.charging.paths import readings_of

READING = frozenset(("GET", "HEAD", "DELETE"))
"""Methods by which no provider generates."""
OVERRIDES = (b"x-http-method-override", b"x-http-method", b"x-method-override")
"""A request with one of these may be another than its method says."""

_STORED = (
    r"responses|batches|threads|runs|files|models|assistants|vector_stores|fine_tuning|conversations|evals|uploads"
    r"|containers|organization|videos|skills|completions|messages|operations|cachedContents|tunedModels|interactions"
    r"|datasets|async-invoke|model-invocation-jobs?|deployments|moderations|embeddings|fine-tuning|connectors|predictions"
    r"|batch/jobs"
)
_READ = re.compile(
    rf"/(?:{_STORED})(?:/[^/]+)*|/api/(?:tags|ps|version|blobs/[^/]+|delete)"
    r"|/(?:health|ping|info|props|slots|metrics|version|v1)",
    re.IGNORECASE,
)
_FREE_POSTS = re.compile(
    r"/(?:responses|batches|runs|jobs|uploads|operations|videos|interactions|predictions)/[^/]+"
    r"/(?:cancel|pause|resume|complete)"
    r"|/responses/input_tokens|/messages/count_tokens|/(?:chat/)?tokenize|/detokenize|/apply-template"
    r"|/(?:files|uploads(?:/[^/]+/parts)?|assistants(?:/[^/]+)?|vector_stores(?:/[^/]+)?(?:/files|/file_batches)?"
    r"|conversations(?:/[^/]+)?(?:/items)?|containers(?:/[^/]+/files)?)"
    r"|/threads(?:/(?!runs$)[^/]+)?|/threads/[^/]+/messages(?:/[^/]+)?|/threads/[^/]+/runs/[^/]+"
    r"|/models/[^/]+:countTokens|/(?:models/[^/]+|batches/[^/]+|operations/[^/]+):cancel|/model/[^/]+/count-tokens"
    r"|/api/(?:show|pull|push|create|copy|blobs/[^/]+)",
    re.IGNORECASE,
)
_WORK = re.compile(
    r"/(?:responses|batches|runs|interactions|predictions|batch/jobs|async/chat/completions)/([^/]+)(/cancel|/results)?"
    r"|/files/([^/:]+)(/content|:download)",
    re.IGNORECASE,
)
_BEGINS = re.compile(r"/(?:responses|batches|runs|interactions)$", re.IGNORECASE)
_QUEUES = re.compile(
    r"/(?:predictions|batch/jobs|async/chat/completions)$|:(?:batchGenerateContent|asyncBatchEmbedContent)$",
    re.IGNORECASE,
)
"""Where nothing but work in the background is begun, whatever the answer says of itself: Replicate, Mistral, Perplexity
and Gemini.
"""
_LINES = ("/results", "/content", ":download")
_RULE = re.compile(r"(free|charge) ([A-Z]+|\*) (/\S*)")


_PROVIDERS = (
    ("bedrock", r"/model/[^/]+/(?:invoke|converse)(?:-with-response-stream|-stream)?|/model/[^/]+/converse-stream"),
    ("gemini", r"/(?:models|deployments)/[^/]+:[a-z]*(?:generatecontent|predict|embedcontents?)|/interactions"),
    ("anthropic", r"/messages(?:/batches)?|/complete"),
    ("replicate", r"/predictions"),
    ("watsonx", r"/ml/v1/text/(?:generation|chat|generation_stream|chat_stream|embeddings)"),
    ("ollama", r"/api/(?:chat|generate|embed|embeddings)"),
    ("cohere", r"/v[12]/(?:chat|embed|rerank|classify|summarize|generate)"),
    (
        "openai",
        r"/(?:completions|responses|batches|runs|embeddings|edits|infill|rerank|generate|generate_stream|completion"
        r"|batch/jobs|ocr"
        r"|images/(?:generations|edits|variations)|audio/(?:speech|transcriptions|translations)|moderations"
        r"|submit_tool_outputs)",
    ),
)
_GENERATING = tuple((name, re.compile(pattern, re.IGNORECASE)) for name, pattern in _PROVIDERS)
OTHER = "other"
"""The provider of a path that no rule knows."""


class Asked(NamedTuple):
    """`work`: the id of the background work that is read; `lines`: its results are one document a line. `begins`: it
    may begin such work; `queues`: it begins nothing else. `provider`: whose API generates there.
    """

    free: bool
    work: str = ""
    lines: bool = False
    begins: bool = False
    queues: bool = False
    provider: str = OTHER

    @property
    def clients(self) -> str:
        """Whose clients ask here: what is stored is read by those of OpenAI, and by some that read the same."""
        return "openai" if self.free else self.provider


CHARGED = Asked(free=False)
FREE = Asked(free=True)


class Rule(NamedTuple):
    """One of the owner's. `*` in a path is one segment, `**` any number of them."""

    free: bool
    method: str
    path: re.Pattern[str]


def rule_of(text: str) -> Rule:
    """`free GET /v1/things/*`, `charge POST /v1/files/**`. Raises ValueError."""
    found = _RULE.fullmatch(" ".join(text.split()))
    if found is None:
        raise ValueError(f"a rule is `free` or `charge`, a method or *, and a path with a slash in front: {text!r}")
    verb, method, path = found.groups()
    pattern = re.escape(path).replace(r"/\*\*", "(?:/.*)?").replace(r"\*", "[^/]*")
    return Rule(verb == "free", method, re.compile(pattern))


class Routes:
    """The rules of one deployment. `known`: those of the providers hold, behind the owner's."""

    def __init__(self, own: Iterable[Rule] = (), *, known: bool = True) -> None:
        self._own = tuple(own)
        self._known = known
        self.asked = lru_cache(maxsize=1024)(self._asked)
        """What a method asks of a decoded path."""

    def _asked(self, method: str, path: str) -> Asked:
        readings = readings_of(path)
        if not readings:
            return CHARGED
        asked = [self._one(method, reading) for reading in readings]
        if all(one.free for one in asked):
            return asked[0]
        charged = [one for one in asked if not one.free]
        return max(charged, key=lambda one: (one.begins, one.provider != OTHER))

    def _one(self, method: str, path: str) -> Asked:
        path = path.rstrip("/") or "/"
        for rule in self._own:
            if rule.method in ("*", method) and rule.path.fullmatch(path):
                return Asked(free=rule.free)
        if not self._known:
            return CHARGED
        free = _ends_with(_READ if method in READING else _FREE_POSTS, path)
        if not free or method not in (*READING, "POST"):
            provider = next((name for name, pattern in _GENERATING if _ends_with(pattern, path)), OTHER)
            queues = _QUEUES.search(path) is not None
            begins = queues or _BEGINS.search(path) is not None
            return Asked(free=False, begins=begins, queues=queues, provider=provider)
        found = _ends_with(_WORK, path) if method != "DELETE" else None
        if found is None:
            return FREE
        return Asked(free=True, work=found[1] or found[3], lines=(found[2] or found[4] or "").lower() in _LINES)


def _ends_with(pattern: re.Pattern[str], path: str) -> re.Match[str] | None:
    """The pattern at the end of the path, whatever the API is mounted under."""
    at = 0
    while at >= 0:
        found = pattern.fullmatch(path, at)
        if found is not None:
            return found
        at = path.find("/", at + 1)
    return None
