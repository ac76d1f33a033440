"""Connects to Redis, and runs an embedded server."""
