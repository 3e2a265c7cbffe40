"""The tables of the SQL stores, made from the row models; no database driver is needed to make them.

One invariant: texts compare by their bytes everywhere, so that ids keep their case and every store pages alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import NoneType
from typing import Annotated, Any, get_args, get_origin

from annotated_types import MaxLen
from pydantic.fields import FieldInfo
from sqlalchemy import JSON, BigInteger, Boolean, Column, Index, MetaData, String, Table, Text, UniqueConstraint
from sqlalchemy.dialects import mysql, postgresql
from sqlalchemy.sql import text
from sqlalchemy.types import TypeEngine

from meter.store.records import is_json
from meter.store.row import Row
from meter.store.rows import ROWS

_MYSQL: dict[str, Any] = {"mysql_engine": "InnoDB", "mysql_default_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}
_MARIADB: dict[str, Any] = {name.replace("mysql", "mariadb"): value for name, value in _MYSQL.items()}


def is_nullable(field: FieldInfo) -> bool:
    """Whether a field may be None. A JSON field that is None is SQL's NULL, not the text `null`."""
    return is_json(field) or NoneType in get_args(field.annotation)


def plain_type(field: FieldInfo) -> tuple[Any, Sequence[object]]:
    """The type of a field without `None`, and its constraints."""
    found, constraints = field.annotation, list(field.metadata)
    if NoneType in get_args(found):
        (found,) = (part for part in get_args(found) if part is not NoneType)
    if get_origin(found) is Annotated:
        found, *more = get_args(found)
        for one in more:
            constraints += one.metadata if isinstance(one, FieldInfo) else [one]
    return found, constraints


def _text_type(constraints: Sequence[object]) -> TypeEngine[Any]:
    longest = [one.max_length for one in constraints if isinstance(one, MaxLen)]
    if not longest:
        by_bytes = postgresql.TEXT(collation="C")
        return Text().with_variant(by_bytes, "postgresql").with_variant(mysql.LONGTEXT(), "mysql", "mariadb")
    return String(longest[0]).with_variant(postgresql.VARCHAR(longest[0], collation="C"), "postgresql")


def _column_type(name: str, field: FieldInfo) -> TypeEngine[Any]:
    if is_json(field):
        return JSON(none_as_null=True)  # not jsonb, which refuses U+0000 in a text
    found, constraints = plain_type(field)
    if found is str:
        return _text_type(constraints)
    types: dict[Any, TypeEngine[Any]] = {int: BigInteger(), bool: Boolean()}
    if found not in types:
        raise TypeError(f"no column type for {name}: {field.annotation}")
    return types[found]


def _index(model: type[Row], names: tuple[str, ...]) -> Index:
    """An index; one that begins with a nullable column leaves the rows without it out, where the database can."""
    first = names[0]
    present = text(f"{first} IS NOT NULL") if is_nullable(model.model_fields[first]) else None
    partial: dict[str, Any] = {} if present is None else {"postgresql_where": present, "sqlite_where": present}
    return Index(f"ix_{model.TABLE}_{'_'.join(names)}", *names, **partial)


def _make_table(model: type[Row], metadata: MetaData) -> None:
    columns = [
        Column(
            name,
            _column_type(name, field),
            primary_key=name in model.KEY,
            nullable=is_nullable(field),
            autoincrement=False,
        )
        for name, field in model.model_fields.items()
    ]
    uniques = [UniqueConstraint(*names, name=f"uq_{model.TABLE}_{'_'.join(names)}") for names in model.UNIQUE]
    indexes = [_index(model, names) for names in model.INDEXES]
    # Rows that are added to are found by their key at each flush: one tree to look in instead of two.
    by_key: dict[str, Any] = {"sqlite_with_rowid": not model.SUMS}
    Table(model.TABLE, metadata, *columns, *uniques, *indexes, **_MYSQL, **_MARIADB, **by_key)


def tables_of(models: Iterable[type[Row]]) -> MetaData:
    """The tables of some models."""
    metadata = MetaData()
    for model in models:
        _make_table(model, metadata)
    return metadata


METADATA = tables_of(ROWS)


def table_of(model: type[Row]) -> Table:
    """The table of a row model."""
    return METADATA.tables[model.TABLE]
