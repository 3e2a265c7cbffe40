"""Alerts on their way to whoever wants them: webhooks, a log, a Redis stream, e-mail and the rest by Apprise.

Decided by the scripts, kept by the store, sent by the worker: no credit call ever waits for a receiver. Delivery is at
least once, under an id that stays the same.
"""
