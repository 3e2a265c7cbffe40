"""What budgets and rate limits do, from outside."""
