"""The arq worker process: cron jobs that catch up, are idempotent and bounded."""
