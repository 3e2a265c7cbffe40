"""What the gateway calls and the log intake share: ids of requests, settlement of what was used, and access logs.

Knows gateways and their logs; knows no HTTP framework. Rules about credits are the engine's.
"""
