"""Finds candidates: the index protocol, its implementations, and the search strategy."""
