"""The calls as Python methods."""
