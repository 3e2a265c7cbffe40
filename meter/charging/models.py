"""Under which names a rate card may have a model: that of a request, and that of its answer.

A card has a model under the name that its owner knows; requests and answers name it with a provider in front, a date or
a version behind, by a deployment, or by an address. So a model is looked for by each of its names, the most exact
first, and only then by the line for every other model.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any

from meter.contract.usage import ALIASES_MAX, MODEL

_MODEL = re.compile(MODEL)
_IN_PATH = re.compile(
    r"/models/(?P<gemini>[^/:]+):[A-Za-z]+/?$|/(?:deployments|engines)/(?P<azure>[^/]+)/"
    r"|/model/(?P<bedrock>.+)/(?:invoke|converse)(?:-with-response-stream|-stream)?/?$"
)
_IN_FORM = re.compile(rb'name="model"[^\r\n]*\r\n(?:[^\r\n]+\r\n)*\r\n([^\r\n]{1,256})\r\n')
_VENDOR = re.compile(r"(?:[a-z][a-z-]*)\.(?=[A-Za-z])")
"""`us.anthropic.` of Bedrock, one part at a time; no number of a version begins behind it."""
_VERSION = re.compile(
    r"(?:[-@]20\d{2}-?\d{2}-?\d{2}"  # gpt-4o-2024-08-06, claude-sonnet-4-20250514, and that with @ on Vertex
    r"|-\d{3,4}|[-:@]latest|@default|@\d{3}"  # gpt-4-0613, gemini-1.5-pro-002, llama3:latest
    r"|-v\d+(?::\d+)?(?::\d+k)?|:\d+)$"  # Bedrock's -v1:0
)


def model_asked(path: str, document: object, body: bytes | None) -> tuple[str, ...]:
    """The names of the model that a request is for, none where it names none: what the path says, else the body."""
    found = _IN_PATH.search(path)
    told = [] if found is None else [found["gemini"] or found["azure"] or found["bedrock"]]
    if isinstance(document, dict):
        told += [model for model in _named_in(document) if isinstance(model, str)]
    elif body is not None and (field := _IN_FORM.search(body)) is not None:
        told.append(field[1].decode("utf-8", "replace").strip())
    return all_names(told)


def all_names(models: Iterable[str]) -> tuple[str, ...]:
    """The names of each of the models, without those that no card can have."""
    names = dict.fromkeys(name for model in models for name in names_of(model) if _MODEL.fullmatch(name))
    return tuple(names)[: ALIASES_MAX + 1]


@lru_cache(maxsize=1024)
def names_of(model: str) -> tuple[str, ...]:
    """The model's own name, then what is left of it without provider, address, date and version."""
    names = dict.fromkeys([model])
    for whole in _without_provider(model):
        name = whole
        while name:
            names.setdefault(name)
            name, shorter = _VERSION.sub("", name, count=1), name
            if name == shorter:
                break
    return tuple(names)


def _without_provider(model: str) -> Iterator[str]:
    """`openai/gpt-4o`, `models/gemini-2.5-pro`, `us.anthropic.claude-…`, `arn:aws:bedrock:…/anthropic.claude-…`."""
    yield model
    name = model.rpartition("/")[2]
    yield name
    while (vendor := _VENDOR.match(name)) is not None:
        name = name[vendor.end() :]
        yield name


def _named_in(document: dict[str, Any]) -> Iterator[object]:
    yield document.get("model")
    batched = document.get("requests")  # Anthropic's batches
    if isinstance(batched, list) and batched and isinstance(batched[0], dict):
        params = batched[0].get("params")
        yield params.get("model") if isinstance(params, dict) else None
