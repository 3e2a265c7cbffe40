"""From Redis into the store, exactly once, and back."""
