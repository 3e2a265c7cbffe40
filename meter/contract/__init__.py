"""What a caller may rely on, as data: calls, their bodies, answers and problems."""
