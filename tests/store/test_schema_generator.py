"""The schemas that people can print. That they load into real databases is in test_schema.py."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import Field

from meter.store import generated_schema
from meter.store.connect import open_store
from meter.store.generated_schema import nosql_schema, sql_schema
from meter.store.mongo.documents import documents_of
from meter.store.mongo.store import MongoStore
from meter.store.rows import ROWS, AccountRow
from tests.store import samples

ROOT = Path(__file__).parents[2]

# None in sys.modules makes an import fail.
_WITHOUT_DRIVERS = """
import sys
for name in ("asyncpg", "asyncmy", "pymongo", "bson", "aiosqlite"):
    sys.modules[name] = None
from meter.schema_generator import main
main(sys.argv[1:])
"""


class Wider(AccountRow):
    """Accounts as a later version may have them."""

    TABLE = "wider_accounts"

    nickname: Annotated[str, Field(max_length=40)] | None = None
    score: int = 0


@pytest.mark.parametrize(
    "arguments", [["--dialect", name] for name in ("postgres", "mysql", "sqlite")] + [["--backend", "nosql"]]
)
def test_it_needs_no_driver(arguments: list[str]) -> None:
    command = [sys.executable, "-c", _WITHOUT_DRIVERS, *arguments]

    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)

    assert made.stderr == ""
    assert all(row.TABLE in made.stdout for row in ROWS)


def test_the_program_prints_what_the_functions_return(capsys: pytest.CaptureFixture[str]) -> None:
    generated_schema.main(["--backend", "sql", "--dialect", "mysql"])
    assert capsys.readouterr().out == sql_schema("mysql")

    generated_schema.main(["--backend", "nosql"])
    assert capsys.readouterr().out == nosql_schema()


def test_types_are_those_of_each_database() -> None:
    postgres, mysql, sqlite = sql_schema("postgres"), sql_schema("mysql"), sql_schema("sqlite")

    assert 'user_id VARCHAR(128) COLLATE "C" NOT NULL' in postgres
    assert "metadata JSON" in postgres
    assert "available BIGINT NOT NULL" in postgres
    assert "suspended BOOLEAN NOT NULL" in postgres
    assert "WHERE refund_of IS NOT NULL" in postgres
    assert "SERIAL" not in postgres
    assert "ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE utf8mb4_bin" in mysql
    assert "text LONGTEXT NOT NULL" in mysql
    assert "AUTO_INCREMENT" not in mysql
    assert "available BIGINT NOT NULL" in sqlite
    for schema in (postgres, mysql, sqlite):
        assert "PRIMARY KEY (user_id, grant_id)" in schema
        assert "CREATE INDEX ix_transactions_user_id_seq ON transactions (user_id, seq)" in schema
        assert schema.count("CREATE TABLE") == len(ROWS)
        assert schema.count("CREATE INDEX") == sum(len(row.INDEXES) for row in ROWS)


@pytest.mark.parametrize("dialect", ["postgres", "mysql", "sqlite"])
def test_a_new_field_is_in_the_next_sql_schema(dialect: Any) -> None:
    before, after = sql_schema(dialect, [AccountRow]), sql_schema(dialect, [Wider])

    assert "nickname" not in before
    assert "nickname VARCHAR(40)" in after
    assert "score BIGINT NOT NULL" in after


def test_a_new_field_is_in_the_next_validators() -> None:
    (made,) = json.loads(nosql_schema([Wider])).values()

    schema = made["validator"]["$jsonSchema"]
    assert schema["properties"]["nickname"] == {"bsonType": ["string", "null"], "maxLength": 40}
    assert schema["properties"]["score"] == {"bsonType": ["int", "long"]}


def test_validators_describe_the_documents_that_are_written() -> None:
    made = json.loads(nosql_schema())
    rows = [
        samples.transaction(1, metadata={"a": 1}),
        samples.account(profile={"b": []}),
        samples.grant(operation_id="key"),
        samples.reservation(),
        samples.watermark(1),
        samples.operation("key", "0-1-lane-1"),
        samples.event("event-1"),
        samples.alert("alert-1"),
        samples.poison(1),
    ]

    for row in rows:
        (document,) = documents_of([row])
        schema = made[row.TABLE]["validator"]["$jsonSchema"]
        assert set(schema["required"]) <= set(document)
        for name, wanted in schema["properties"].items():
            assert _bson_type(document[name]) in wanted["bsonType"], name
            assert len(str(document[name])) <= wanted.get("maxLength", 10**9)


def test_unique_indexes_of_optional_fields_leave_out_who_has_none() -> None:
    (unique,) = [index for index in json.loads(nosql_schema())["grants"]["indexes"] if index.get("unique")]

    assert unique["key"] == {"partition": 1, "operation_id": 1}
    assert unique["partialFilterExpression"] == {"operation_id": {"$type": "string"}}


@pytest.mark.parametrize("kind", ["mongo"])
async def test_a_mongodb_server_accepts_the_validators_and_has_the_indexes(empty_url: str) -> None:
    store = open_store(empty_url)
    assert isinstance(store, MongoStore)
    await store.open({})

    for name, made in json.loads(nosql_schema()).items():
        present = await store._database[name].index_information()
        # The stand-in names indexes after their fields, so these are what is compared.
        keys = [list(map(tuple, index["key"])) for index in present.values()]
        for index in made["indexes"]:
            assert list(index["key"].items()) in keys
    await store.close()


def _bson_type(value: object) -> str:
    if isinstance(value, bool):
        return "bool"
    return {int: "long", str: "string", type(None): "null"}.get(type(value), "object")
