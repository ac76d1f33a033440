"""Decodes requests into the engine's types, and makes every check of a request."""
