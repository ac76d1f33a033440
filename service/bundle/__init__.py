"""Reads, checks and holds bundles."""
