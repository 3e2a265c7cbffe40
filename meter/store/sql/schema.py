"""Brings a SQL database to this code's schema, and checks that the deployment is the one that made it.

The caller holds the schema lock. Each migration can run again after it was cut off anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Column, MetaData, String, Table, select
from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import AsyncConnection

from meter.store.base import StoreMismatch
from meter.store.rows import DeploymentRow
from meter.store.settings import check_settings
from meter.store.sql.dialect import SqlDialect
from meter.store.sql.tables import table_of

VERSION_TABLE = "meter_schema"

_versions = Table(VERSION_TABLE, MetaData(), Column("version_num", String(32), primary_key=True))

_MIGRATIONS = Path(__file__).parent / "migrations"


async def prepare(connection: AsyncConnection, dialect: SqlDialect, settings: Mapping[str, str]) -> None:
    """Migrates, and keeps or checks the settings. Raises `StoreMismatch`."""
    await connection.run_sync(migrate)
    table = table_of(DeploymentRow)
    kept: dict[str, str] = dict((await connection.execute(select(table.c.name, table.c.value))).all())
    check_settings(kept, settings)
    new = [DeploymentRow(name=name, value=value) for name, value in settings.items() if name not in kept]
    await dialect.insert(connection, DeploymentRow, new)


def migrate(connection: Connection) -> None:
    """Runs the migrations that the database has not had. Raises `StoreMismatch` when it had others."""
    scripts = ScriptDirectory(str(_MIGRATIONS))
    _versions.create(connection, checkfirst=True)  # alembic's own has a named key, of which MySQL complains
    context = MigrationContext.configure(
        connection,
        opts={
            "version_table": VERSION_TABLE,
            "fn": lambda current, _: scripts._upgrade_revs("head", current),  # what alembic's own upgrade does
        },
    )
    newer = set(context.get_current_heads()) - {script.revision for script in scripts.walk_revisions()}
    if newer:
        raise StoreMismatch(f"the store's schema is {', '.join(sorted(newer))}, made by a newer version of meter")
    with Operations.context(context):
        context.run_migrations()
