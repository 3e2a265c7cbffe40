"""The schema of a durable store, for people who create it by hand: `python -m meter.schema_generator`.

Made from the row models each time, so a new field is in it at once. No database driver is needed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from typing import Literal, cast, get_args

import orjson
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.engine import Dialect
from sqlalchemy.schema import CreateIndex, CreateTable

from meter.store.mongo.documents import collections
from meter.store.row import Row
from meter.store.rows import ROWS
from meter.store.sql.tables import tables_of

SqlDialect = Literal["postgres", "mysql", "sqlite"]


def sql_schema(dialect: SqlDialect, models: Iterable[type[Row]] = ROWS) -> str:
    """The statements that create every table and index, for PostgreSQL, MySQL and MariaDB, or SQLite."""
    found: Dialect = {"postgres": postgresql, "mysql": mysql, "sqlite": sqlite}[dialect].dialect()
    statements = []
    for table in tables_of(models).sorted_tables:
        statements.append(str(CreateTable(table).compile(dialect=found)).strip())
        statements += [
            str(CreateIndex(index).compile(dialect=found)) for index in sorted(table.indexes, key=lambda i: str(i.name))
        ]
    return "".join(f"{statement};\n\n" for statement in statements)


def nosql_schema(models: Iterable[type[Row]] = ROWS) -> str:
    """JSON: for each MongoDB collection its `validator` and its `indexes`."""
    return orjson.dumps(collections(models), option=orjson.OPT_INDENT_2).decode() + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints a schema."""
    parser = argparse.ArgumentParser(prog="python -m meter.schema_generator", description=__doc__)
    parser.add_argument("--backend", choices=("sql", "nosql"), default="sql")
    parser.add_argument("--dialect", choices=get_args(SqlDialect), default="postgres", help="for --backend sql")
    chosen = parser.parse_args(arguments)
    text = nosql_schema() if chosen.backend == "nosql" else sql_schema(cast("SqlDialect", chosen.dialect))
    sys.stdout.write(text)
