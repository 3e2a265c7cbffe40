"""Who has which plan, and the credits of each period."""
