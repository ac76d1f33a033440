"""Computes one recommendation list from a query and a stored user."""
