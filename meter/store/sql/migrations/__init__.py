"""Alembic's folder: the versions of the SQL schema, run by `meter.store.schema`."""
