"""Whether everything works that has to: Redis, its partitions, the backlog, the store and the worker."""
