"""Metrics and timings."""
