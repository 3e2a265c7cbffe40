"""Rows without validation, and many of them as plain columns: what a flush and a scan spend per row is spent here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Generic, TypeVar, overload

import orjson
from pydantic import JsonValue
from pydantic.fields import FieldInfo

from meter.store.row import Row

R = TypeVar("R", bound=Row)


class Records(Sequence[R], Generic[R]):
    """Rows of one model that are kept as their columns, in the order of its fields, JSON as its text. A row is made
    when it is looked at; a store that wants columns never looks.
    """

    __slots__ = ("columns", "model")

    def __init__(self, model: type[R], columns: Sequence[tuple[object, ...]]) -> None:
        self.model = model
        self.columns = columns

    def __len__(self) -> int:
        return len(self.columns)

    def __iter__(self) -> Iterator[R]:
        return iter(self._rows(self.columns))

    @overload
    def __getitem__(self, at: int) -> R: ...

    @overload
    def __getitem__(self, at: slice) -> Records[R]: ...

    def __getitem__(self, at: int | slice) -> R | Records[R]:
        if isinstance(at, slice):
            return Records(self.model, self.columns[at])
        return self._rows([self.columns[at]])[0]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def _rows(self, records: Iterable[Sequence[object]]) -> list[R]:
        names, json_names = tuple(self.model.model_fields), _json_names(self.model)
        rows = []
        for record in records:
            values = dict(zip(names, record, strict=True))
            for name in json_names:
                if (text := values[name]) is not None:
                    values[name] = orjson.loads(str(text))
            rows.append(row_of(self.model, values))
        return rows


def to_json(value: object) -> str:
    """The JSON text of a value."""
    return orjson.dumps(value).decode()


def is_json(field: FieldInfo) -> bool:
    """Whether a field holds any JSON value."""
    return field.annotation == JsonValue


def rows_of(model: type[R], records: Iterable[Sequence[object]]) -> list[R]:
    """Rows from columns in the order of the model's fields, as the store holds them."""
    names = tuple(model.model_fields)
    return [row_of(model, dict(zip(names, values, strict=True))) for values in records]


def row_of(model: type[R], values: dict[str, object]) -> R:
    """What `model_construct` does with every field given, in a quarter of its time. The row keeps the dictionary."""
    row = model.__new__(model)
    put = object.__setattr__
    put(row, "__dict__", values)
    put(row, "__pydantic_fields_set__", _fields(model))
    put(row, "__pydantic_extra__", None)
    put(row, "__pydantic_private__", None)
    return row


@cache
def _json_names(model: type[Row]) -> tuple[str, ...]:
    return tuple(name for name, field in model.model_fields.items() if is_json(field))


@cache
def _fields(model: type[Row]) -> set[str]:
    return set(model.model_fields)
