"""Stores users: histories, seen items and cached embeddings."""
