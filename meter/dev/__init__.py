"""`meter dev`: the whole sidecar from nothing, its Redis-compatible server and its worker among it."""
