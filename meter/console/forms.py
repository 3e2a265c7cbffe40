"""Forms as data: the fields of one, what was filled in, and what is wrong with it."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from meter.contract.answers import Refusal

Kind = Literal["amount", "text", "select", "number", "hidden"]


@dataclass(frozen=True, slots=True)
class Field:
    """A field. `value` is what stands there at first; `pointer` is what the call says of it where it is wrong."""

    name: str
    label: str
    kind: Kind = "text"
    value: str = ""
    required: bool = True
    unit: str = ""
    hint: str = ""
    options: Sequence[tuple[str, str]] = ()
    pointer: str = ""


@dataclass(frozen=True, slots=True)
class Filled:
    """A form with what was filled in, and what is wrong: by field, and of the whole."""

    fields: Sequence[Field]
    values: Mapping[str, str]
    key: str
    faults: Mapping[str, str]
    fault: str = ""

    def value(self, field: Field) -> str:
        """What stands in a field."""
        return self.values.get(field.name, field.value)


def new_key() -> str:
    """The Idempotency-Key of a form: what is sent twice is booked once."""
    return secrets.token_urlsafe(16)


def blank(fields: Sequence[Field]) -> Filled:
    """A form that nobody filled in yet."""
    return Filled(fields, {}, new_key(), {})


def missing(fields: Sequence[Field], values: Mapping[str, str]) -> dict[str, str]:
    """What has to be filled in and is not."""
    return {
        field.name: f"{field.label.partition(',')[0]} is needed."
        for field in fields
        if field.required and not values.get(field.name, "").strip()
    }


def refused(fields: Sequence[Field], refusal: Refusal) -> tuple[dict[str, str], str]:
    """What a call says is wrong, beside the fields that it is wrong with."""
    by_pointer = {f"/{field.pointer or field.name}": field.name for field in fields}
    errors = (refusal.model_extra or {}).get("errors")
    found, rest = {}, []
    for error in errors if isinstance(errors, list) else []:
        name = by_pointer.get(str(error.get("pointer", "")))
        if name:
            found[name] = str(error.get("detail", ""))
        else:
            rest.append(f"{error.get('pointer', '')} {error.get('detail', '')}".strip())
    return found, "" if found and not rest else "; ".join(rest) or refusal.detail
