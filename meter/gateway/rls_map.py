"""Which entries of a descriptor tell user, model and request: by the file METER_RLS_FILE, else by their usual keys."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from meter.contract.usage import DIMENSION
from meter.errors import ConfigError

if TYPE_CHECKING:
    from meter.gateway.rls import Descriptor

Keys = Annotated[tuple[Annotated[str, Field(min_length=1, max_length=128)], ...], Field(max_length=32)]


_DIMENSION = re.compile(DIMENSION)


class Described(NamedTuple):
    """What a descriptor asks. `name` is what it is charged for: once for each in one call."""

    user_id: str
    model: str
    request_id: str
    dimension: str
    hits: int
    was_used: bool

    @property
    def name(self) -> str:
        return f"{self.user_id} {self.dimension} {self.model}"


class RlsMap(BaseModel):
    """Keys of entries, with `*` in them: the first that a descriptor has counts.

    `hits`: whether what it adds was used already, or is asked for; an entry `hits` says it for its descriptor.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    user: Keys = ("user_id", "x-user-id", "user")
    model: Keys = ("model", "x-model", "x-ai-eg-model")
    request: Keys = ("request_id", "x-request-id")
    dimension: Keys = ("dimension",)
    hits: Literal["used", "asked"] = "used"

    def read(self, descriptor: Descriptor) -> Described | None:
        """What a descriptor asks; None of one that names no user."""
        entries = descriptor.entries
        user_id = _first(entries, self.user)
        if not user_id:
            return None
        dimension = _first(entries, self.dimension)
        return Described(
            user_id,
            _first(entries, self.model),
            _first(entries, self.request),
            dimension if _DIMENSION.fullmatch(dimension) else "input",
            descriptor.hits,
            entries.get("hits", self.hits) != "asked",
        )


def load_map(name: str) -> RlsMap:
    """Reads a map, JSON; "": the usual keys. Raises `ConfigError`."""
    if not name:
        return RlsMap()
    path = Path(name)
    try:
        return RlsMap.model_validate(json.loads(path.read_text("utf-8")))
    except OSError as error:
        raise ConfigError(f"METER_RLS_FILE={path}: {error.strerror}") from None
    except (ValidationError, ValueError, RecursionError) as error:
        fault = error.errors()[0]["msg"] if isinstance(error, ValidationError) else "it is no JSON"
        raise ConfigError(f"METER_RLS_FILE={path}: {fault}") from None


def _first(entries: Mapping[str, str], keys: Keys) -> str:
    return next((value for key in keys for name, value in entries.items() if value and fnmatchcase(name, key)), "")
