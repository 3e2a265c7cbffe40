"""Rows as MongoDB documents, and the collections that hold them; made from the row models, without a driver."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson
from annotated_types import Ge, Le, MaxLen
from pydantic.fields import FieldInfo

from meter.store.json_text import is_deep, is_wrapped, unwrapped, wrapped
from meter.store.records import R, is_json, rows_of
from meter.store.row import Row
from meter.store.rows import ROWS
from meter.store.sql.tables import is_nullable, plain_type

Document = dict[str, Any]

# A name that begins with $, a NUL, or digits that may not fit 64 bits: BSON or the server would refuse them.
_UNFIT = re.compile(rb'"\$|\\u0000|[0-9]{19}')


def id_of(*key: object) -> object:
    """The `_id` of a key. No user_id or number has a `|`, so two keys never share one; in the names of models it is
    written otherwise, as nothing else is.
    """
    return key[0] if len(key) == 1 else "|".join([*(str(part).replace("|", "\x1f") for part in key[:-1]), str(key[-1])])


def beyond(order: Sequence[str], after: Sequence[object], *, descending: bool = False) -> Document:
    """What comes after those values in the order of some fields."""
    further = "$lt" if descending else "$gt"
    steps = [
        {**dict(zip(order[:at], after, strict=False)), order[at]: {further: after[at]}} for at in range(len(order))
    ]
    return {"$or": steps}


def documents_of(rows: Sequence[R]) -> list[Document]:
    """The documents of rows of one model."""
    if not rows:
        return []
    model = type(rows[0])
    json_names = [name for name, field in model.model_fields.items() if is_json(field)]
    made = []
    for row in rows:
        document: Document = {"_id": id_of(*(getattr(row, name) for name in model.KEY)), **row.__dict__}
        for name in json_names:
            if document[name] is not None:
                document[name] = _fit(document[name])
        made.append(document)
    return made


def rows_from(model: type[R], documents: Iterable[Mapping[str, Any]]) -> list[R]:
    """Rows from documents. A field that was added after a document was written has its default."""
    fields = model.model_fields
    defaults = {name: None if field.is_required() else field.get_default() for name, field in fields.items()}
    json_names = [name for name, field in fields.items() if is_json(field)]
    flags = [name for name, field in fields.items() if field.annotation is bool]
    records = []
    for document in documents:
        found = {name: document.get(name, default) for name, default in defaults.items()}
        for name in json_names:
            found[name] = unwrapped(found[name])
        for name in flags:
            found[name] = bool(found[name])
        records.append(tuple(found.values()))
    return rows_of(model, records)


def collections(models: Iterable[type[Row]] = ROWS) -> dict[str, Document]:
    """For each collection its `validator` and its `indexes`, as createCollection and createIndexes take them."""
    return {
        model.TABLE: {
            "validator": {"$jsonSchema": _json_schema(model)},
            "indexes": [
                *({**_index(model, names), **_unique(model, names)} for names in model.UNIQUE),
                *(_index(model, names) for names in model.INDEXES),
            ],
        }
        for model in models
    }


def _fit(value: object) -> object:
    text = orjson.dumps(value)
    return wrapped(text) if is_wrapped(text) or _UNFIT.search(text) or is_deep(text) else value


def _json_schema(model: type[Row]) -> Document:
    return {
        "bsonType": "object",
        "title": str(model.__doc__).splitlines()[0],
        "required": ["_id", *(name for name, field in model.model_fields.items() if field.is_required())],
        "properties": {name: _property(field) for name, field in model.model_fields.items() if not is_json(field)},
    }


def _property(field: FieldInfo) -> Document:
    found, constraints = plain_type(field)
    types = {str: ["string"], int: ["int", "long"], bool: ["bool"]}[found]
    made: Document = {"bsonType": [*types, "null"] if is_nullable(field) else types}
    for one in constraints:
        if isinstance(one, MaxLen):
            made["maxLength"] = one.max_length
        elif isinstance(one, Ge):
            made["minimum"] = one.ge
        elif isinstance(one, Le):
            made["maximum"] = one.le
    return made


def _index(model: type[Row], names: Sequence[str]) -> Document:
    return {"name": f"ix_{model.TABLE}_{'_'.join(names)}", "key": dict.fromkeys(names, 1)}


def _unique(model: type[Row], names: Sequence[str]) -> Document:
    """A unique index; as in SQL, documents without one of the fields are not compared."""
    optional = [name for name in names if is_nullable(model.model_fields[name])]
    partial = {"partialFilterExpression": {name: {"$type": "string"} for name in optional}} if optional else {}
    return {"name": f"uq_{model.TABLE}_{'_'.join(names)}", "unique": True, **partial}
