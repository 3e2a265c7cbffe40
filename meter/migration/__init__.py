"""From another package to this one: what it kept is read, planned and brought in (docs/migration.md)."""
