"""Real gateways, each with the very file that `examples/gateways/` offers, between a client and a fake upstream."""
