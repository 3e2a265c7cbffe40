"""The gateway contract and the intake of access logs, on fakeredis."""
