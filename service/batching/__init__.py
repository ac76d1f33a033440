"""Runs computations that arrive together as one batch."""
