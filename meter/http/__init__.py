"""Carries a request and its answer; knows no credit."""
