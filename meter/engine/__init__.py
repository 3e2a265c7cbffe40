"""Decides: operations go to Redis in batches, and their answers come back. Knows no HTTP and no store."""
