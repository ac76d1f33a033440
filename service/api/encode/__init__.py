"""Encodes the engine's types as messages of the API."""
