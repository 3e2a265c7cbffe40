"""Rows as tuples of columns, as a database takes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Generic

from meter.store.records import R, Records, is_json, to_json
from meter.store.sql.tables import plain_type


class Columns(Generic[R]):
    """How one database takes the columns of one model: JSON as its text, or what `json` makes of that; U+0000 in a text
    as it is, or marked.
    """

    def __init__(self, model: type[R], *, json: Callable[[str], str] | None = None, nul: bool = True) -> None:
        fields = list(model.model_fields.items())
        self.names = tuple(name for name, _ in fields)
        self._get: Callable[[dict[str, object]], tuple[object, ...]] = itemgetter(*self.names)
        self._json = json
        self._json_at = [at for at, (_, field) in enumerate(fields) if is_json(field)]
        self._without_nul_at = [at for at, (_, field) in enumerate(fields) if not nul and plain_type(field)[0] is str]

    def tuples(self, rows: Sequence[R]) -> Sequence[tuple[object, ...]]:
        """The columns of each row, in the order of `names`. A column at a time, which is a third of the work by row."""
        is_text = isinstance(rows, Records)
        plain = rows.columns if isinstance(rows, Records) else [self._get(row.__dict__) for row in rows]
        json_at = () if is_text and self._json is None else self._json_at
        if not plain or not (json_at or self._without_nul_at):
            return plain
        columns = list(zip(*plain, strict=True))
        for at in json_at:
            columns[at] = self._as_json(columns[at], is_text)
        for at in self._without_nul_at:
            columns[at] = _without_nul(columns[at])
        return list(zip(*columns, strict=True))

    def _as_json(self, column: tuple[object, ...], is_text: bool) -> tuple[object, ...]:
        if column.count(None) == len(column):
            return column
        texts = column if is_text else [None if value is None else to_json(value) for value in column]
        encode = self._json
        return tuple(texts if encode is None else [None if text is None else encode(str(text)) for text in texts])


def _without_nul(column: tuple[object, ...]) -> tuple[object, ...]:
    texts: tuple[str | None, ...] = column  # type: ignore[assignment]
    if "\0" not in "".join(filter(None, texts)):
        return column
    return tuple([None if text is None else text.replace("\0", "\ufffd") for text in texts])
