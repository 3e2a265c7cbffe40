"""The worker process: what arq starts, when, and with what."""
